"""The learner: how a constituent is trained and evaluated, regardless of what it is made of.

Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from shards.lineage import Accounted, Lineage
from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256

State = TypeVar("State")
State_contra = TypeVar("State_contra", contravariant=True)
State_co = TypeVar("State_co", covariant=True)

Learning = Generator[int, None, State]
"""Yields the number of epochs done after each one, and returns the state at the end."""


@runtime_checkable
class ReportsLoss(Protocol):
    """A learner that reports its training loss. Nothing stored depends on the loss, and no bit of a constituent."""

    def loss(self) -> float | None:
        """Return the mean loss of the last epoch learned; None before the first one."""
        ...


@runtime_checkable
class Unlearner(Protocol[State]):
    """A learner that can also take data points out of a constituent, and put others in, directly.

    Law: the result has the bytes of ``learn`` from nothing on the remaining points; it is only faster.
    """

    def unlearn(
        self, state: State, gone: ShardPoints, new: ShardPoints, left: Callable[[], ShardPoints]
    ) -> State | None:
        """Return ``state`` without the points ``gone``, which it contains, and with ``new`` ones; may modify ``state``.

        ``left`` reads all points of the result, as one slice. Returns None where it has to learn from nothing.
        """
        ...


@runtime_checkable
class AnswersTogether(Protocol[State]):
    """A learner whose constituents do not answer one by one."""

    def together(self, states: Sequence[State]) -> State:
        """Return the state that answers for all constituents: a function of them only, which is not stored."""
        ...


Outputs = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
"""Returns the outputs of K constituents for N data points, shape (K, N, W)."""


@dataclass(frozen=True, slots=True)
class OutputsAtOnce:
    """Asks several constituents in few steps. Any threads may use it at the same time; none of its code is a user's."""

    outputs: Outputs
    quick_points: int
    """Evaluating up to this many data points takes about as long as waking a thread."""

    def __call__(self, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """See ``Outputs``."""
        return self.outputs(features_NF)


@runtime_checkable
class AnswersAtOnce(Protocol[State_contra]):
    """A learner that can evaluate several constituents in fewer steps than one after the other."""

    def at_once(self, states: Sequence[State_contra]) -> OutputsAtOnce | None:
        """Return an evaluator of all of them; None if that saves nothing. The states must not change afterwards."""
        ...


@runtime_checkable
class AnswersWithLess(Protocol[State]):
    """A learner that needs only a part of a constituent to answer."""

    def for_answers(self, state: State) -> State:
        """Return a state that answers as ``state`` does, in less memory. It cannot be stored or changed."""
        ...


@runtime_checkable
class OpensForAnswers(Protocol[State_co]):
    """A learner that can read the part of a checkpoint that answers, without the rest, on several threads at once."""

    def prepare_to_open(self) -> None:
        """Do the preparations that opening needs once, such as importing the model's code.

        Raises as ``Learner.initial`` does.
        """
        ...

    def open_for_answers(self, payload: bytes, shard: ShardId) -> State_co:
        """Return a state that answers as ``from_bytes`` of the payload does; it cannot be stored or changed.

        Raises the same.
        """
        ...

    def open_pieces(self, pieces: Iterable[memoryview]) -> State_co | None:
        """Return the same from pieces of the payload, each of which is valid until the next one is taken.

        Returns None if the whole payload is needed. Discard the result if the pieces turn out to be wrong.
        """
        ...


@runtime_checkable
class Serves(Protocol[State]):
    """A learner that can give away the part of a constituent that serves, without its data about single data points.

    Law: the result of ``from_serving`` answers, to the bit, as the constituent does.
    """

    def to_serving(self, state: State) -> Mapping[str, npt.NDArray[Any]]:
        """Return that part by name. Raises ``Invalid`` when it is of so few data points that it would show them."""
        ...

    def from_serving(self, arrays: Mapping[str, npt.NDArray[Any]]) -> State:
        """Return a state that answers; it cannot be stored or changed. Raises ``Corrupt`` if the arrays do not fit."""
        ...


@runtime_checkable
class Certifies(Protocol[State_contra]):
    """A learner whose guarantee is certified, so whose constituents are compared with the optimum, not byte by byte.

    Law: ``residual`` of a constituent and the points that it was learned from, and not made to forget, is at most
    ``accounted`` as spent.
    """

    def accounted(self, state: State_contra) -> Accounted:
        """Return the account of the budget."""
        ...

    def residual(self, state: State_contra, points: ShardPoints) -> float:
        """Return how far the constituent is from the optimum of these points."""
        ...


class Learner(Protocol[State]):
    """Learns one constituent, slice after slice, reproducibly.

    Law: from ``from_bytes(to_bytes(state))``, training arrives at the same bytes as from ``state``, in any process of
    the same numerics profile. Callers rely on it: after every slice they continue from the checkpoint's bytes.
    """

    def initial(self, shard: ShardId) -> State:
        """Return the state before slice 1; it depends only on the settings and ``shard``."""
        ...

    def learn(self, state: State, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> Learning[State]:
        """Train on slices 1..``slice_`` for the epochs of ``slice_`` and return the new state; may modify ``state``."""
        ...

    def epochs(self, slice_: SliceIndex) -> int:
        """Return how many epochs ``learn`` takes for ``slice_``."""
        ...

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return how many steps ``learn`` takes for ``slice_``."""
        ...

    def probabilities(self, state: State, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the target's outputs, such as class probabilities, shape (N, C), of scaled features."""
        ...

    def digest(self, state: State) -> Sha256:
        """Return the digest of parameters and buffers: equal constituents are those with equal digests."""
        ...

    def to_bytes(self, state: State, lineage: Lineage) -> bytes:
        """Return the full checkpoint (E4), including the lineage."""
        ...

    def from_bytes(self, payload: bytes, shard: ShardId) -> State:
        """Return the state in a checkpoint. Raises ``Corrupt`` when ``payload`` is not a checkpoint of this learner."""
        ...


def answering(learner: Learner[State], states: Sequence[State]) -> tuple[State, ...]:
    """Return the states whose outputs are aggregated: those of the constituents, or one for all of them."""
    return (learner.together(states),) if isinstance(learner, AnswersTogether) else tuple(states)


def answering_from(learner: Learner[State], payload: bytes, shard: ShardId) -> State:
    """Return the constituent in a checkpoint, for answers alone. Raises as ``Learner.from_bytes`` does."""
    if isinstance(learner, OpensForAnswers):
        opened: State = learner.open_for_answers(payload, shard)
        return opened
    state = learner.from_bytes(payload, shard)
    return learner.for_answers(state) if isinstance(learner, AnswersWithLess) else state


def outputs_of_all(learner: Learner[State], states: Sequence[State]) -> Outputs:
    """Return an evaluator of these constituents, which asks all at once if the learner can."""
    found = learner.at_once(states) if isinstance(learner, AnswersAtOnce) else None
    return found or (lambda features_NF: np.stack([learner.probabilities(state, features_NF) for state in states]))
