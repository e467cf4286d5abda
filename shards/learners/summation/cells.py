"""Counts by cell. A cell is a row of whole numbers, such as the codes of a group; cells of zeros are not kept.

So no cell shows that an erased person was once there. Cells are in ascending order, without repetition.
Shape legend: N points, G cells, J columns of a cell, K counts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.admissible import MOST_CODE
from shards.learners.fixed_point import Integers
from shards.learners.summation.learner import Fitted, SummationLearner, Sums
from shards.learners.tensors import decode_arrays
from shards.specification import ShardId
from storage.errors import Corrupt, Invalid

_FEW: Final = 16
"""Cells are looked up one by one where there are at least as many times more."""


def sums_by_cell(cells_NJ: Integers, counts_NK: Integers) -> dict[str, Integers]:
    """Return the sums of the counts of equal cells, without those that are all zero.

    >>> sums_by_cell(np.array([[2], [1], [2], [7]]), np.array([[1], [1], [1], [0]]))["cells"].tolist()
    [[1], [2]]
    """
    order = np.lexsort(cells_NJ.T[::-1]) if cells_NJ.shape[1] else np.arange(len(cells_NJ))
    cells_NJ, counts_NK = cells_NJ[order], counts_NK[order]
    is_new = np.ones(len(cells_NJ), dtype=np.bool_)
    is_new[1:] = (cells_NJ[1:] != cells_NJ[:-1]).any(axis=1)
    starts = np.flatnonzero(is_new)
    sums_GK = np.add.reduceat(counts_NK, starts, axis=0) if len(starts) else counts_NK
    kept = sums_GK.any(axis=1)
    return {"cells": cells_NJ[starts][kept], "counts": sums_GK[kept]}


def with_few(values: Mapping[str, Integers], cells_GJ: Integers, counts_GK: Integers) -> dict[str, Integers]:
    """Return ``sums_by_cell`` of both together, if ``cells_GJ`` are in ascending order and few.

    They are looked up among the existing cells, which are not sorted again.
    """
    known_GJ, sums_GK = values["cells"], values["counts"].copy()
    rows = np.dtype([(f"column{place}", np.int64) for place in range(cells_GJ.shape[1])])
    known_G, cells_G = (np.ascontiguousarray(each).view(rows)[:, 0] for each in (known_GJ, cells_GJ))
    places_G = np.searchsorted(known_G, cells_G)
    is_known = (known_GJ[np.minimum(places_G, len(known_GJ) - 1)] == cells_GJ).all(axis=1)
    sums_GK[places_G[is_known]] += counts_GK[is_known]
    known_GJ = np.insert(known_GJ, places_G[~is_known], cells_GJ[~is_known], axis=0)
    sums_GK = np.insert(sums_GK, places_G[~is_known], counts_GK[~is_known], axis=0)
    kept = sums_GK.any(axis=1)
    return {"cells": known_GJ[kept], "counts": sums_GK[kept]}


def codes_of(values_NF: npt.NDArray[np.float32], what: str) -> Integers:
    """Return whole numbers as integers. Raises ``Invalid``, without a value, where one is not a whole number."""
    codes_NF = np.rint(values_NF)
    outside = (codes_NF != values_NF) | ~(np.abs(values_NF) <= MOST_CODE)
    if outside.any():
        raise Invalid(
            f"{what} {int(np.argwhere(outside)[0][-1]) + 1} of a data point is not a whole number within ±2**24",
            'Encode categories with as = "index", and do not scale columns that are counted.',
        )
    return codes_NF.astype(np.int64)


class CellCounts(SummationLearner[Fitted]):
    """A learner whose constituent is counts by cell."""

    columns: int
    """J."""
    counts: int
    """K."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of no cell."""
        return {"cells": (0, self.columns), "counts": (0, self.counts)}

    @abstractmethod
    def cells(self, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[Any]) -> tuple[Integers, Integers]:
        """Return the cells of these data points, and what they add to each one's counts."""

    def sums(self, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[Any]) -> Mapping[str, Integers]:
        """See ``SummationLearner.sums``."""
        return sums_by_cell(*self.cells(features_NF, labels_N))

    def plus(
        self, values: Mapping[str, Integers], others: Mapping[str, Integers], sign: int = 1
    ) -> dict[str, Integers]:
        """See ``SummationLearner.plus``."""
        if self.columns and len(others["cells"]) * _FEW < len(values["cells"]):
            return with_few(values, others["cells"], sign * others["counts"])
        cells = np.concatenate([values["cells"], others["cells"]])
        return sums_by_cell(cells, np.concatenate([values["counts"], sign * others["counts"]]))

    def from_bytes(self, payload: bytes, shard: ShardId) -> Sums[Fitted]:
        """Return the constituent that a checkpoint holds."""
        del shard
        found = decode_arrays(payload)
        expected = [(name, shape[1:]) for name, shape in sorted(self.shapes().items())]
        if (
            [(name, array.shape[1:]) for name, array in sorted(found.items())] != expected
            or any(array.dtype != np.int64 for array in found.values())
            or len(found["cells"]) != len(found["counts"])
        ):
            raise Corrupt("a checkpoint's arrays are not this learner's", "Run 'sisa train' to rebuild it.")
        return Sums(found)
