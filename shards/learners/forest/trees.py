"""A tree's nodes as arrays, in the order of their paths.

A node is named by its path, which does not depend on data: 1 is the root, and node p has the children 2p and 2p + 1.
Shape legend: M nodes, I of them split, P attributes and K thresholds for each split, S statistics, N points, F
features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learners.fixed_point import Integers

ROOT: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The splits among which a node chose."""

    attributes_P: npt.NDArray[np.int32]
    """Rising; -1 where there are fewer."""
    thresholds_PK: npt.NDArray[np.float32]
    """Rising; NaN where there are fewer. A point goes left if its feature is not above."""
    left_PKS: Integers
    """Statistics of the points that would go left."""
    last: np.uint64
    """The largest draw among those whose points gave the thresholds; 0: no point did."""
    skipped: bool
    """Whether an attribute was passed over because it separates nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One node."""

    stats_S: Integers
    """Statistics of its points: the count of each class; or the count and the sum of each number, on a grid."""
    candidates: Candidates | None = None
    """None: it is a leaf."""
    attribute: int = -1
    threshold: float = np.nan

    def goes_left(self, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Return which points go left."""
        chosen: npt.NDArray[np.bool_] = features_NF[:, self.attribute] <= np.float32(self.threshold)
        return chosen


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """All nodes of a tree."""

    paths_M: Integers
    stats_MS: Integers
    attribute_M: npt.NDArray[np.int32]
    """-1: a leaf."""
    threshold_M: npt.NDArray[np.float32]
    attributes_IP: npt.NDArray[np.int32]
    thresholds_IPK: npt.NDArray[np.float32]
    left_IPKS: Integers
    last_I: npt.NDArray[np.uint64]
    skipped_I: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, nodes: Iterable[tuple[int, Node]], attributes: int, thresholds: int, width: int) -> Tree:
        """Return the tree of these nodes, each with its path; ``width`` is the number of statistics."""
        ordered = sorted(nodes, key=lambda each: each[0])
        splits = [node.candidates for _, node in ordered if node.candidates is not None]
        pad = attributes, thresholds
        # Attributes and thresholds that there are not are padded when the candidates are made.
        return cls(
            paths_M=np.array([path for path, _ in ordered], dtype=np.int64),
            stats_MS=_stack([node.stats_S for _, node in ordered], (width,), np.int64),
            attribute_M=np.array([node.attribute for _, node in ordered], dtype=np.int32),
            threshold_M=np.array([node.threshold for _, node in ordered], dtype=np.float32),
            attributes_IP=_stack([each.attributes_P for each in splits], pad[:1], np.int32),
            thresholds_IPK=_stack([each.thresholds_PK for each in splits], pad, np.float32),
            left_IPKS=_stack([each.left_PKS for each in splits], (*pad, width), np.int64),
            last_I=np.array([each.last for each in splits], dtype=np.uint64),
            skipped_I=np.array([each.skipped for each in splits], dtype=np.bool_),
        )

    def node(self, path: int) -> Node:
        """Return the node of this path, which is there; its arrays are copies."""
        place = int(np.searchsorted(self.paths_M, path))
        if self.attribute_M[place] < 0:
            return Node(self.stats_MS[place].copy())
        split = int((self.attribute_M[:place] >= 0).sum())
        candidates = Candidates(
            attributes_P=self.attributes_IP[split].copy(),
            thresholds_PK=self.thresholds_IPK[split].copy(),
            left_PKS=self.left_IPKS[split].copy(),
            last=self.last_I[split],
            skipped=bool(self.skipped_I[split]),
        )
        return Node(
            self.stats_MS[place].copy(), candidates, int(self.attribute_M[place]), float(self.threshold_M[place])
        )

    def changed(self, nodes: Mapping[int, Node], cut: Sequence[int]) -> Tree:
        """Return the tree with these nodes, by their paths, and of those below the paths ``cut`` with no others.

        May write into the tree's own arrays.
        """
        if not cut and self._write(nodes):
            return self
        stays_M = ~np.isin(self.paths_M, np.fromiter(nodes, dtype=np.int64, count=len(nodes)))
        bits_M = np.frexp(self.paths_M.astype(np.float64))[1].astype(np.int64)  # exact, as a logarithm is not
        for path in cut:
            # Shifted to the level of ``path``, the paths below it are equal to it.
            levels_M = bits_M - path.bit_length()
            stays_M &= (levels_M <= 0) | (self.paths_M >> np.maximum(levels_M, 0) != path)
        stays_I = stays_M[self.attribute_M >= 0]
        attributes, thresholds = self.thresholds_IPK.shape[1:]
        new = Tree.of(nodes.items(), attributes, thresholds, self.stats_MS.shape[1])
        paths_M = np.concatenate([self.paths_M[stays_M], new.paths_M])
        is_split_M = np.concatenate([self.attribute_M[stays_M], new.attribute_M]) >= 0
        order_M = np.argsort(paths_M)
        number_M = np.cumsum(is_split_M) - 1
        order_I = number_M[order_M][is_split_M[order_M]]
        joined = {}
        for name in (each.name for each in fields(Tree)):
            stays, order = (stays_I, order_I) if "_I" in name else (stays_M, order_M)
            joined[name] = np.concatenate([getattr(self, name)[stays], getattr(new, name)])[order]
        return Tree(**joined)

    def _write(self, nodes: Mapping[int, Node]) -> bool:
        """Write the nodes over those of the same paths; return False where a leaf became a split or the reverse."""
        places = np.searchsorted(self.paths_M, np.fromiter(nodes, dtype=np.int64, count=len(nodes))).tolist()
        is_split = self.attribute_M >= 0
        if any((node.candidates is None) == is_split[at] for at, node in zip(places, nodes.values(), strict=True)):
            return False
        number_M = np.cumsum(is_split) - 1
        for at, node in zip(places, nodes.values(), strict=True):
            self.stats_MS[at] = node.stats_S
            if node.candidates is not None:
                split = number_M[at]
                self.attribute_M[at], self.threshold_M[at] = node.attribute, node.threshold
                self.attributes_IP[split] = node.candidates.attributes_P
                self.thresholds_IPK[split] = node.candidates.thresholds_PK
                self.left_IPKS[split] = node.candidates.left_PKS
                self.last_I[split], self.skipped_I[split] = node.candidates.last, node.candidates.skipped
        return True

    def votes(self, features_NF: npt.NDArray[np.float32]) -> Integers:
        """Return the statistics of each point's leaf, shape (N, S)."""
        place_N = np.zeros(len(features_NF), dtype=np.int64)
        left_M = np.searchsorted(self.paths_M, 2 * self.paths_M)
        going = np.arange(len(features_NF))
        while len(going):
            at = place_N[going]
            going = going[self.attribute_M[at] >= 0]
            at = place_N[going]
            values = features_NF[going, self.attribute_M[at]]
            # A node's children are beside each other in the order of paths.
            place_N[going] = left_M[at] + (values > self.threshold_M[at])
        found: Integers = self.stats_MS[place_N]
        return found


def _stack(arrays: Sequence[npt.NDArray[Any]], shape: tuple[int, ...], dtype: type) -> npt.NDArray[Any]:
    return np.stack(arrays).astype(dtype, copy=False) if arrays else np.empty((0, *shape), dtype=dtype)
