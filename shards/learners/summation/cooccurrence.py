"""Item to item: how often two items are in one basket, and which items to recommend for a basket (Cao & Yang 2015).

A data point is a basket, and a feature above 0.5 means that its item is in it. A cell of two items counts the baskets
that have both; a cell of an item with itself those that have the item.
Shape legend: N points, F items, G cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.summation import CooccurrenceArguments
from shards.learners.fixed_point import Integers
from shards.learners.summation.cells import CellCounts
from shards.learners.summation.learner import Sums
from shards.targets import PRESENT
from storage.errors import Invalid

_Matrix = Any
"""A sparse matrix of SciPy, of which mypy knows no types."""


class Cooccurrence(CellCounts[_Matrix]):
    """Counts items, and pairs of items."""

    columns = 2
    counts = 1

    def __init__(self, arguments: CooccurrenceArguments, inputs: int, outputs: int, target: str, seed: int) -> None:
        del arguments, target, seed  # the arguments concern answers, it serves one target, and it draws nothing
        super().__init__(inputs, outputs)

    def cells(self, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[Any]) -> tuple[Integers, Integers]:
        """See ``CellCounts.cells``: each pair of items of a basket once, the first one of the two first."""
        from scipy import sparse  # noqa: PLC0415  it takes a tenth of a second

        del labels_N
        if not (features_NF >= 0).all():
            raise Invalid(
                "[model] cooccurrence takes features that say how much of an item is in a basket, and one is below 0",
                "Name columns of 0 and 1, or of amounts.",
            )
        present_NF = sparse.csr_array((features_NF > PRESENT).astype(np.int64))
        pairs = sparse.triu(present_NF.T @ present_NF).tocoo()
        return np.stack([pairs.row, pairs.col], axis=1).astype(np.int64), pairs.data[:, None]

    def fit(self, values: Mapping[str, Integers]) -> _Matrix:
        """Return the Jaccard similarities of items, shape (F, F): baskets with both, divided by those with either."""
        from scipy import sparse  # noqa: PLC0415  as above

        first_G, second_G = values["cells"].T
        both_G = values["counts"][:, 0]
        is_item_G = first_G == second_G
        baskets_F = np.zeros(self._inputs, dtype=np.int64)
        baskets_F[first_G[is_item_G]] = both_G[is_item_G]
        first_G, second_G, both_G = first_G[~is_item_G], second_G[~is_item_G], both_G[~is_item_G]
        similar_G = both_G / (baskets_F[first_G] + baskets_F[second_G] - both_G)
        places = (np.concatenate([first_G, second_G]), np.concatenate([second_G, first_G]))
        return sparse.csr_array(
            (np.concatenate([similar_G, similar_G]), places), shape=(self._inputs, self._inputs), dtype=np.float64
        )

    def outputs(self, fitted: _Matrix, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the sum of each item's similarities with those of the basket, shape (N, F); 0 for what is in it."""
        from scipy import sparse  # noqa: PLC0415  as above

        present_NF = features_NF > PRESENT
        scores_NF = (sparse.csr_array(present_NF.astype(np.float64)) @ fitted).toarray()
        scores_NF[present_NF] = 0.0
        found: npt.NDArray[np.float64] = scores_NF
        return found

    def together(self, states: Sequence[Sums[_Matrix]]) -> Sums[_Matrix]:
        """Return the counts over all baskets: those of a single constituent that has learned them all."""
        total = self.nothing()
        for state in states:
            total = self.plus(total, state.values)
        return Sums(total)
