"""The common base of the summation learners: a constituent is the sums over its data points, and nothing else.

The sums are whole numbers, so that the same data points give the same bytes on every machine. Coefficients and
probabilities are computed from them on demand, and are not stored. Shape legend: N points, F features, C outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from shards.learners.fixed_point import Integers, added
from shards.learners.protocol import Learning
from shards.learners.tensors import decode_arrays, digest_arrays, encode_arrays
from shards.lineage import Lineage
from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256

_LEARNED_POINTS = 1 << 16

Fitted = TypeVar("Fitted")


@dataclass(slots=True, eq=False)
class Sums(Generic[Fitted]):
    """A constituent."""

    values: Mapping[str, Integers]
    """Sums by name; of products, with two int64 for each (``fixed_point.product_sums``)."""
    fitted: Fitted | None = field(default=None, repr=False)
    """The values computed from the sums for answers; None: not computed yet."""


class SummationLearner(ABC, Generic[Fitted]):
    """Learns by adding up. Implements ``Learner[Sums]`` and ``Unlearner[Sums]``."""

    pairs: frozenset[str] = frozenset()
    """Names of sums of products."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self._inputs = inputs
        self._outputs = outputs

    @abstractmethod
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the sums by name."""

    @abstractmethod
    def sums(self, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[Any]) -> Mapping[str, Integers]:
        """Return the sums over these data points."""

    @abstractmethod
    def fit(self, values: Mapping[str, Integers]) -> Fitted:
        """Compute the values that answers need from the sums."""

    @abstractmethod
    def outputs(self, fitted: Fitted, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the outputs, shape (N, C)."""

    def initial(self, shard: ShardId) -> Sums[Fitted]:
        """Return sums over nothing."""
        del shard
        return Sums(self.nothing())

    def nothing(self) -> dict[str, Integers]:
        """Return the sums over no data point."""
        return {name: np.zeros(shape, dtype=np.int64) for name, shape in self.shapes().items()}

    def learn(
        self, state: Sums[Fitted], points: ShardPoints, shard: ShardId, slice_: SliceIndex
    ) -> Learning[Sums[Fitted]]:
        """Return the sums over all data points of the shard, which are one slice to it."""
        del shard, state
        total = self._total(points, points.ends[slice_ - 1])
        yield 1
        return Sums(total)

    def unlearn(
        self, state: Sums[Fitted], gone: ShardPoints, new: ShardPoints, left: Callable[[], ShardPoints]
    ) -> Sums[Fitted]:
        """Return the sums without ``gone`` and with ``new``."""
        del left
        less = self.plus(state.values, self._total(gone, len(gone.keys_N)), sign=-1)
        return Sums(self.plus(less, self._total(new, len(new.keys_N))))

    def epochs(self, slice_: SliceIndex) -> int:
        """Return 1: every point is looked at once."""
        del slice_
        return 1

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return the number of data points."""
        return points.ends[slice_ - 1]

    def probabilities(self, state: Sums[Fitted], features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the outputs, shape (N, C)."""
        return self.outputs(self.fitted(state), features_NF)

    def fitted(self, state: Sums[Fitted]) -> Fitted:
        """Return the values that answers need, computed once."""
        if state.fitted is None:
            state.fitted = self.fit(state.values)
        return state.fitted

    def digest(self, state: Sums[Fitted]) -> Sha256:
        """Return the digest of the sums."""
        return digest_arrays(state.values)

    def arrays(self, state: Sums[Fitted]) -> Mapping[str, Integers]:
        """Return the content of a checkpoint."""
        return state.values

    def to_bytes(self, state: Sums[Fitted], lineage: Lineage) -> bytes:
        """Return the checkpoint."""
        return encode_arrays(state.values, lineage)

    def from_bytes(self, payload: bytes, shard: ShardId) -> Sums[Fitted]:
        """Return the constituent that a checkpoint holds."""
        del shard
        return Sums(decode_arrays(payload, self.nothing()))

    def _total(self, points: ShardPoints, end: int) -> dict[str, Integers]:
        total = self.nothing()
        for start in range(0, end, _LEARNED_POINTS):
            stop = min(start + _LEARNED_POINTS, end)
            total = self.plus(total, self.sums(points.features_NF[start:stop], points.labels_N[start:stop]))
        return total

    def plus(
        self, values: Mapping[str, Integers], others: Mapping[str, Integers], sign: int = 1
    ) -> dict[str, Integers]:
        """Return the sums with others added, or subtracted where ``sign`` is -1."""
        return {
            name: added(each, sign * others[name]) if name in self.pairs else each + sign * others[name]
            for name, each in values.items()
        }
