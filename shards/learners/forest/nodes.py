"""The nodes of all trees of a forest as arrays, in the order of tree and path.

A node is named by its tree and its path, which does not depend on data: 1 is the root, and node p has the children 2p
and 2p + 1.
Shape legend: M nodes, I of them with candidates, P attributes and K thresholds for each of these, S statistics, N
points, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learners.fixed_point import Integers

ROOT: Final = 1

_PATH_BITS: Final = 49
"""A path has at most one bit more than ``MOST_DEPTH``."""

MOST_DEPTH: Final = _PATH_BITS - 1

MOST_TREES: Final = 1 << (63 - _PATH_BITS)


def node_names(trees_M: npt.NDArray[Any], paths_M: Integers) -> Integers:
    """Return one number for tree and path, in whose order nodes are."""
    names: Integers = (trees_M.astype(np.int64) << _PATH_BITS) | paths_M
    return names


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Nodes, with the candidates of those that keep them."""

    trees_M: npt.NDArray[np.int32]
    paths_M: Integers
    stats_MS: npt.NDArray[Any]
    """Statistics of the points: the count of each class; or the count and the sum of each number, on a grid."""
    attribute_M: npt.NDArray[np.int32]
    """-1: a leaf. A point goes left if this feature is not above the threshold."""
    threshold_M: npt.NDArray[np.float32]
    kept_M: npt.NDArray[np.bool_]
    """Whether the splits among which the node chose are kept; others are found again from its points."""
    attributes_IP: npt.NDArray[np.int32]
    """Rising; -1 where there are fewer."""
    thresholds_IPK: npt.NDArray[np.float32]
    """Rising; NaN where there are fewer, of which all points are left."""
    left_IPKS: npt.NDArray[Any]
    """Statistics of the points that would go left."""
    last_I: npt.NDArray[np.uint64]
    """The largest draw among those whose points gave the thresholds; 0: no point did."""
    skipped_I: npt.NDArray[np.bool_]
    """Whether an attribute was passed over because it separates nothing."""

    def __len__(self) -> int:
        return len(self.paths_M)

    @property
    def names(self) -> Integers:
        """See ``node_names``."""
        return node_names(self.trees_M, self.paths_M)

    def candidates(self, places: Integers) -> Integers:
        """Return the positions of these nodes' candidates, for nodes that keep them."""
        found: Integers = (np.cumsum(self.kept_M) - 1)[places]
        return found

    def take(self, places: Integers) -> Nodes:
        """Return the nodes in these places, in this order."""
        candidates = self.candidates(places[self.kept_M[places]])
        return Nodes(*(getattr(self, name)[candidates if "_I" in name else places] for name in NAMES))

    def without_candidates(self) -> Nodes:
        """Return the nodes as answers need them."""
        none = {name: getattr(self, name)[:0].copy() for name in NAMES if "_I" in name}
        return replace(self, kept_M=np.zeros_like(self.kept_M), **none)

    def replaced(self, places: Integers, by: Nodes) -> Nodes:
        """Return the nodes without those in ``places``, which rise, and with those in ``by``; may write into arrays."""
        names_M, new = self.names, by.names
        if np.array_equal(names_M[places], new) and np.array_equal(self.kept_M[places], by.kept_M):
            candidates = self.candidates(places[by.kept_M])
            for name in NAMES:
                getattr(self, name)[candidates if "_I" in name else places] = getattr(by, name)
            return self
        stays_M = np.ones(len(self), dtype=np.bool_)
        stays_M[places] = False
        size = int(stays_M.sum()) + len(by)
        is_new_M = np.zeros(size, dtype=np.bool_)
        is_new_M[np.searchsorted(names_M[stays_M], new) + np.arange(len(by))] = True
        kept_M = np.empty(size, dtype=np.bool_)
        kept_M[is_new_M], kept_M[~is_new_M] = by.kept_M, self.kept_M[stays_M]
        stays_I, is_new_I = stays_M[self.kept_M], is_new_M[kept_M]
        arrays = []
        for name in NAMES:
            stays, is_new = (stays_I, is_new_I) if "_I" in name else (stays_M, is_new_M)
            old, others = getattr(self, name), getattr(by, name)
            array = np.empty((len(is_new), *old.shape[1:]), dtype=old.dtype)
            array[is_new], array[~is_new] = others, old[stays]
            arrays.append(array)
        return Nodes(*arrays)

    def below(self, places: Integers) -> Integers:
        """Return the places of all nodes below those in ``places``."""
        names_M, found = self.names, [np.empty(0, dtype=np.int64)]
        while len(places):
            splits = places[self.attribute_M[places] >= 0]
            left = np.searchsorted(names_M, node_names(self.trees_M[splits], 2 * self.paths_M[splits]))
            places = np.concatenate([left, left + 1])  # siblings are adjacent
            found.append(places)
        return np.concatenate(found)

    def are_trees(self) -> bool:
        """Whether each tree has a root, each split two children, and each other node a split above it."""
        names_M, splits = self.names, self.attribute_M >= 0
        if (self.paths_M < ROOT).any() or (self.paths_M >> _PATH_BITS).any() or (names_M[1:] <= names_M[:-1]).any():
            return False
        left = node_names(self.trees_M[splits], 2 * self.paths_M[splits])
        trees = np.unique(self.trees_M)
        roots = node_names(trees, np.full(len(trees), ROOT, dtype=np.int64))
        return np.array_equal(np.sort(np.concatenate([roots, left, left + 1])), names_M)

    def votes(self, tree: int, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return the statistics of each point's leaf in a tree, shape (N, S)."""
        own = slice(*np.searchsorted(self.trees_M, [tree, tree + 1]))
        paths_M, attribute_M, threshold_M = self.paths_M[own], self.attribute_M[own], self.threshold_M[own]
        place_N = np.zeros(len(features_NF), dtype=np.int64)
        left_M = np.searchsorted(paths_M, 2 * paths_M)
        going = np.arange(len(features_NF))
        while len(going):
            at = place_N[going]
            going = going[attribute_M[at] >= 0]
            at = place_N[going]
            values = features_NF[going, attribute_M[at]]
            # A node's children are adjacent in the order of paths.
            place_N[going] = left_M[at] + ~(values <= threshold_M[at])
        found: npt.NDArray[Any] = self.stats_MS[own][place_N]
        return found


NAMES: Final = tuple(each.name for each in fields(Nodes))
"""Names of the arrays."""


def join_nodes(parts: Sequence[Nodes]) -> Nodes:
    """Return the nodes of all parts, each of which has others, in the order of tree and path."""
    every = Nodes(*(np.concatenate([getattr(part, name) for part in parts]) for name in NAMES))
    names_M = every.names
    if (names_M[1:] > names_M[:-1]).all():
        return every
    return every.take(np.argsort(names_M, kind="stable"))
