"""The learner: how a constituent is reached, whatever it is made of.

Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from shards.lineage import Lineage
from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256

State = TypeVar("State")

Learning = Generator[int, None, State]
"""Yields the number of epochs done after each one, and returns the state at the end."""


@runtime_checkable
class TellsLoss(Protocol):
    """A learner that knows how well it learned. No bit of a constituent, and nothing stored, depends on it."""

    def loss(self) -> float | None:
        """Return the mean loss of the last epoch learned; None where there was none."""
        ...


class Learner(Protocol[State]):
    """Learns one constituent, slice after slice, reproducibly.

    Law: ``from_bytes(to_bytes(state))`` is a state that learns on to the same bytes, in any process of the same
    numerics profile. Callers rely on it: after every slice they continue from the checkpoint's bytes.
    """

    def initial(self, shard: ShardId) -> State:
        """Return the state before slice 1; a function of the settings and ``shard`` alone."""
        ...

    def learn(self, state: State, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> Learning[State]:
        """Learn slices 1..``slice_`` for that slice's epochs and return the new state; may reuse ``state``."""
        ...

    def epochs(self, slice_: SliceIndex) -> int:
        """Return how many epochs ``learn`` takes for ``slice_``."""
        ...

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return how many steps ``learn`` takes for ``slice_``."""
        ...

    def probabilities(self, state: State, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the class probabilities, shape (N, C), of scaled features."""
        ...

    def digest(self, state: State) -> Sha256:
        """Return the digest of parameters and buffers: what "equal bytes" is about."""
        ...

    def to_bytes(self, state: State, lineage: Lineage) -> bytes:
        """Return the full checkpoint (E4), with the lineage in it."""
        ...

    def from_bytes(self, payload: bytes, shard: ShardId) -> State:
        """Return the state of a checkpoint. Raises ``Corrupt`` when ``payload`` is none of this learner's."""
        ...
