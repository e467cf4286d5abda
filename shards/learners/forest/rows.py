"""Data points as trees see them, and which of them each node has.

Shape legend: N points, F features, J nodes, R their rows together, W labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.learners.fixed_point import Integers
from shards.learners.forest.nodes import ROOT, Nodes


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Data points as a tree sees them."""

    features_NF: npt.NDArray[np.float32]
    labels_N: npt.NDArray[Any]
    """Positions of classes, or numbers on a grid, shape (N, W)."""
    keys_N: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys_N)


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Lowest and highest value of each feature in nodes, by the declared range and the splits above them."""

    low_JF: npt.NDArray[np.float32]
    high_JF: npt.NDArray[np.float32]

    def take(self, chosen: npt.NDArray[Any]) -> Boxes:
        """Return the boxes of the chosen nodes."""
        return Boxes(self.low_JF[chosen], self.high_JF[chosen])

    def halves(self, nodes: Nodes) -> Boxes:
        """Return the boxes of the children of these nodes, all of which are split."""
        low, high = np.repeat(self.low_JF, 2, axis=0), np.repeat(self.high_JF, 2, axis=0)
        number = np.arange(len(nodes))
        high[2 * number, nodes.attribute_M] = low[2 * number + 1, nodes.attribute_M] = nodes.threshold_M
        return Boxes(low, high)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Nodes in the order of tree and path, and their rows."""

    trees_J: npt.NDArray[np.int32]
    paths_J: Integers
    sizes_J: Integers
    """Number of rows of each node."""
    at_R: Integers
    """Positions of the rows, node after node."""
    boxes: Boxes | None = None
    """Boxes of the nodes; None if thresholds do not depend on boxes."""

    @classmethod
    def roots(cls, trees: npt.NDArray[Any], at: list[Integers], boxes: Boxes | None) -> Places:
        """Return the roots of these trees, whose rows are ``at`` these positions."""
        return cls.of(trees, np.full(len(trees), ROOT, dtype=np.int64), at, boxes)

    @classmethod
    def of(cls, trees: npt.NDArray[Any], paths: Integers, at: list[Integers], boxes: Boxes | None) -> Places:
        """Return these nodes, whose rows are ``at`` these positions."""
        return cls(
            trees.astype(np.int32),
            paths,
            np.array([len(each) for each in at], dtype=np.int64),
            np.concatenate([np.empty(0, dtype=np.int64), *at]),
            boxes,
        )

    def __len__(self) -> int:
        return len(self.paths_J)

    @property
    def owners(self) -> Integers:
        """The node of each row."""
        return np.repeat(np.arange(len(self)), self.sizes_J)

    def take(self, chosen_J: npt.NDArray[np.bool_]) -> Places:
        """Return the chosen nodes."""
        if chosen_J.all():
            return self
        return Places(
            self.trees_J[chosen_J],
            self.paths_J[chosen_J],
            self.sizes_J[chosen_J],
            self.at_R[np.repeat(chosen_J, self.sizes_J)],
            None if self.boxes is None else self.boxes.take(chosen_J),
        )

    def between(self, start: int, end: int) -> Places:
        """Return the nodes from ``start`` up to ``end``."""
        if start == 0 and end == len(self):
            return self
        ends = np.concatenate([[0], np.cumsum(self.sizes_J)])
        return Places(
            self.trees_J[start:end],
            self.paths_J[start:end],
            self.sizes_J[start:end],
            self.at_R[ends[start] : ends[end]],
            None if self.boxes is None else Boxes(self.boxes.low_JF[start:end], self.boxes.high_JF[start:end]),
        )

    def children(self, rows: Rows, nodes: Nodes) -> Places:
        """Return the children of these nodes, all of which are split, each with its rows."""
        node_R = self.owners
        values_R = rows.features_NF[self.at_R, nodes.attribute_M[node_R]]
        child_R = 2 * node_R + ~(values_R <= nodes.threshold_M[node_R])
        return Places(
            np.repeat(self.trees_J, 2),
            (2 * self.paths_J[:, None] + np.arange(2)).ravel(),
            np.bincount(child_R, minlength=2 * len(self)).astype(np.int64),
            self.at_R[np.argsort(child_R, kind="stable")],
            None if self.boxes is None else self.boxes.halves(nodes),
        )
