"""How one tree grows, and how it changes when its data points do.

A node's split depends only on which data points it has: every draw is a keyed hash of what it is for (tree, path,
attribute, point), never the next number of a generator. So ``grow`` is a function of the tree's points, and ``change``
arrives at the same tree by looking at the nodes whose points changed: their statistics are corrected, and what is below
is grown again only where another split is now the best one.
Shape legend: N points, n points of a node, F features, P attributes, K thresholds, S statistics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.forest import ForestArguments
from shards.learners.fixed_point import Integers
from shards.learners.forest.trees import ROOT, Candidates, Node, Tree
from shards.ordering import mixed

Positions = npt.NDArray[np.int64]
"""Positions of points in the arrays that they are in."""

_FEW: Final = 32
"""Up to so many rows are compared with all candidates at once."""

_EXACT: Final = 1 << 22
"""The sum of this many numbers on the grid is at most 2**53, which is exact in float64."""

_ATTRIBUTES: Final = b"attributes"
_PIVOTS: Final = b"pivots"
_THRESHOLDS: Final = b"thresholds"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Data points as a tree sees them."""

    features_NF: npt.NDArray[np.float32]
    labels_N: npt.NDArray[Any]
    """Positions of classes, or numbers on a grid, shape (N, W)."""
    keys_N: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys_N)

    def take(self, chosen: npt.NDArray[np.bool_]) -> Rows:
        """Return the chosen rows."""
        return Rows(self.features_NF[chosen], self.labels_N[chosen], self.keys_N[chosen])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grower:
    """Grows and changes the trees of one shard's forest."""

    arguments: ForestArguments
    material: bytes
    """What all draws are keyed by: seed and shard."""
    inputs: int
    """F."""
    classes: int
    """Number of classes; 0: numbers are predicted."""
    outputs: int
    """S, or for numbers S - 1."""
    looked_at: list[int] = field(default_factory=lambda: [0])
    """How many rows were looked at, counted once for each node."""

    @property
    def width(self) -> int:
        """S: the counts of the classes; or the count, and the sum of each number."""
        return self.classes or 1 + self.outputs

    @property
    def attributes(self) -> int:
        """P: how many attributes a node chooses among."""
        return min(self.inputs, self.arguments.attributes or max(1, round(self.inputs**0.5)))

    def grow(self, tree: int, rows: Rows) -> Tree:
        """Return the tree that these data points give."""
        nodes = dict(self._grown(tree, ROOT, rows, self._whole_box()))
        return Tree.of(nodes.items(), self.attributes, self.arguments.candidates, self.width)

    def nothing(self) -> Tree:
        """Return the tree of no data points."""
        leaf = Node(np.zeros(self.width, dtype=np.int64))
        return Tree.of([(ROOT, leaf)], self.attributes, self.arguments.candidates, self.width)

    def change(self, number: int, tree: Tree, gone: Rows, new: Rows, left: Callable[[], Rows]) -> Tree:
        """Return the tree without the rows ``gone`` and with ``new``, which is the one that ``left`` gives."""
        change = _Change(self, number, tree, left)
        change.node(ROOT, gone, new, self._whole_box())
        return tree.changed(change.nodes, change.cut)

    def stats(self, rows: Rows) -> Integers:
        """Return the statistics of the rows."""
        if self.classes:
            return np.bincount(rows.labels_N, minlength=self.classes).astype(np.int64)
        return np.array([len(rows), *rows.labels_N.sum(axis=0)], dtype=np.int64)

    def count(self, stats: Integers) -> Integers:
        """Return the number of points from statistics, whose last axis goes."""
        counts: Integers = stats.sum(axis=-1) if self.classes else stats[..., 0]
        return counts

    def may_split(self, path: int, stats_S: Integers) -> bool:
        """Return whether a node with these statistics may be split."""
        if path.bit_length() > self.arguments.depth or self.count(stats_S) < 2 * self.arguments.min_leaf:
            return False
        return not self.classes or int((stats_S > 0).sum()) > 1

    def node(self, tree: int, path: int, rows: Rows, box: Box) -> Node:
        """Return the node that these rows give."""
        self.looked_at[0] += len(rows)
        stats_S = self.stats(rows)
        if not self.may_split(path, stats_S):
            return Node(stats_S)
        return self.chosen(stats_S, self._candidates(tree, path, rows, box))

    def chosen(self, stats_S: Integers, candidates: Candidates | None) -> Node:
        """Return the node of these statistics with the best of its candidates; ties go to the first one."""
        if candidates is None:
            return Node(stats_S)
        scores_PK = self._scores(stats_S, candidates.left_PKS)
        best = int(np.argmax(scores_PK))
        attribute, threshold = divmod(best, scores_PK.shape[1])
        return Node(
            stats_S,
            candidates,
            int(candidates.attributes_P[attribute]),
            float(candidates.thresholds_PK[attribute, threshold]),
        )

    def separates(self, stats_S: Integers, left_PKS: Integers) -> npt.NDArray[np.bool_]:
        """Return which candidates leave enough points on both sides."""
        left, least = self.count(left_PKS), self.arguments.min_leaf
        enough: npt.NDArray[np.bool_] = (left >= least) & (self.count(stats_S) - left >= least)
        return enough

    def left_stats(self, rows: Rows, attribute: int, thresholds_K: npt.NDArray[np.float32]) -> Integers:
        """Return the statistics of the rows that would go left, for each threshold; shape (K, S)."""
        K = len(thresholds_K)
        place_N = np.searchsorted(thresholds_K, rows.features_NF[:, attribute])  # NaN comes last
        if self.classes:
            flat = np.bincount(place_N * self.classes + rows.labels_N, minlength=(K + 1) * self.classes)
            counts = flat.reshape(K + 1, self.classes)
        else:
            counts = np.zeros((K + 1, self.width), dtype=np.int64)
            for start in range(0, len(rows), _EXACT):
                places, labels = place_N[start : start + _EXACT], rows.labels_N[start : start + _EXACT]
                columns = [np.bincount(places, minlength=K + 1)]
                columns += [np.bincount(places, weights=column, minlength=K + 1) for column in labels.T]
                counts += np.rint(np.stack(columns, axis=1)).astype(np.int64)
        left: Integers = counts.cumsum(axis=0)[:K].astype(np.int64)
        return left

    def left_of(self, rows: Rows, candidates: Candidates) -> Integers:
        """Return the statistics of the rows that would go left, for each candidate; shape (P, K, S)."""
        attributes_P, thresholds_PK = candidates.attributes_P, candidates.thresholds_PK
        left_PKS = np.zeros_like(candidates.left_PKS)
        if len(rows) > _FEW:
            for place in np.flatnonzero(attributes_P >= 0):
                left_PKS[place] = self.left_stats(rows, int(attributes_P[place]), thresholds_PK[place])
            return left_PKS
        # As ``left_stats`` counts, all rows go left of a threshold that there is not.
        goes_NPK = ~(rows.features_NF[:, attributes_P, None] > thresholds_PK)
        if self.classes:
            stats_NS = (rows.labels_N[:, None] == np.arange(self.classes)).astype(np.int64)
        else:
            stats_NS = np.column_stack([np.ones(len(rows), dtype=np.int64), rows.labels_N])
        used = attributes_P >= 0
        left_PKS[used] = np.einsum("npk,ns->pks", goes_NPK[:, used].astype(np.int64), stats_NS)
        return left_PKS

    def pivot_draws(self, tree: int, path: int, rows: Rows) -> npt.NDArray[np.uint64]:
        """Return the rows' draws, of which the smallest give the thresholds."""
        return mixed(rows.keys_N, self._stream(tree, path, _PIVOTS))

    def halves(self, node: Node, box: Box) -> tuple[Box, Box]:
        """Return the boxes of a node's children."""
        if self.arguments.thresholds == "pivot":
            return box, box
        low_F, high_F = box
        left_high, right_low = high_F.copy(), low_F.copy()
        left_high[node.attribute] = right_low[node.attribute] = node.threshold
        return (low_F, left_high), (right_low, high_F)

    def grown_below(self, tree: int, path: int, node: Node, rows: Rows, box: Box) -> Iterator[tuple[int, Node]]:
        """Yield the nodes below ``node``."""
        if node.candidates is None:
            return
        goes_left = node.goes_left(rows.features_NF)
        left_box, right_box = self.halves(node, box)
        yield from self._grown(tree, 2 * path, rows.take(goes_left), left_box)
        yield from self._grown(tree, 2 * path + 1, rows.take(~goes_left), right_box)

    def _grown(self, tree: int, path: int, rows: Rows, box: Box) -> Iterator[tuple[int, Node]]:
        node = self.node(tree, path, rows, box)
        yield path, node
        yield from self.grown_below(tree, path, node, rows, box)

    def _candidates(self, tree: int, path: int, rows: Rows, box: Box) -> Candidates | None:
        """Return the splits to choose among: of the first P attributes, in drawn order, that separate the rows."""
        P, K = self.attributes, self.arguments.candidates
        last, pivots = np.uint64(0), rows
        if self.arguments.thresholds == "pivot":
            draws = self.pivot_draws(tree, path, rows)
            most = min(K, len(rows))
            last = np.partition(draws, most - 1)[most - 1]
            pivots = rows.take(draws <= last)
            if len(rows) < K:
                last = np.uint64(2**64 - 1)  # any further row would be one of them
        stats_S, found, skipped = self.stats(rows), dict[int, tuple[npt.NDArray[np.float32], Integers]](), False
        order = np.argsort(mixed(np.arange(self.inputs, dtype=np.uint64), self._stream(tree, path, _ATTRIBUTES)))
        for attribute in map(int, order):
            thresholds_K = self._thresholds(tree, path, attribute, pivots, box)
            left_KS = self.left_stats(rows, attribute, thresholds_K)
            if not self.separates(stats_S, left_KS).any():
                skipped = True
                continue
            found[attribute] = thresholds_K, left_KS
            if len(found) == P:
                break
        if not found:
            return None
        chosen = sorted(found)
        attributes_P = np.full(P, -1, dtype=np.int32)
        attributes_P[: len(chosen)] = chosen
        thresholds_PK, left_PKS = (
            np.full((P, K), np.nan, dtype=np.float32),
            np.zeros((P, K, self.width), dtype=np.int64),
        )
        for place, attribute in enumerate(chosen):
            thresholds_PK[place], left_PKS[place] = found[attribute]
        return Candidates(attributes_P, thresholds_PK, left_PKS, last, skipped)

    def _thresholds(self, tree: int, path: int, attribute: int, pivots: Rows, box: Box) -> npt.NDArray[np.float32]:
        K = self.arguments.candidates
        if self.arguments.thresholds == "pivot":
            # Minus 0 becomes 0: which of the two is kept would depend on how a library sorts.
            values = np.unique(pivots.features_NF[:, attribute] + np.float32(0))
        else:
            numbers = np.arange(K, dtype=np.uint64) + np.uint64(attribute * K)
            shares_K = mixed(numbers, self._stream(tree, path, _THRESHOLDS)) / 2.0**64
            low, high = float(box[0][attribute]), float(box[1][attribute])
            values = np.unique((low + (high - low) * shares_K).astype(np.float32))
        thresholds_K = np.full(K, np.nan, dtype=np.float32)
        thresholds_K[: min(K, len(values))] = values[:K]
        return thresholds_K

    def _scores(self, stats_S: Integers, left_PKS: Integers) -> npt.NDArray[np.float64]:
        """Return how good each candidate is: for classes by Gini impurity, for numbers by variance."""
        right_PKS = stats_S - left_PKS
        enough_PK = self.separates(stats_S, left_PKS)
        left, right = left_PKS[enough_PK], right_PKS[enough_PK]
        scores_PK = np.full(enough_PK.shape, -np.inf)
        scores_PK[enough_PK] = self._purity(left) / self.count(left) + self._purity(right) / self.count(right)
        return scores_PK

    def _purity(self, stats_NS: Integers) -> npt.NDArray[np.float64]:
        if self.classes:
            squared: npt.NDArray[np.float64] = (stats_NS**2).sum(axis=-1).astype(np.float64)
            return squared
        sums = stats_NS[..., 1:].astype(np.float64)
        squares: npt.NDArray[np.float64] = (sums**2).sum(axis=-1)
        return squares

    def _whole_box(self) -> Box:
        low, high = self.arguments.low, self.arguments.high
        return np.full(self.inputs, low, dtype=np.float32), np.full(self.inputs, high, dtype=np.float32)

    def _stream(self, tree: int, path: int, purpose: bytes) -> int:
        key = self.material + tree.to_bytes(4, "big") + path.to_bytes(8, "big")
        return int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"sisa/" + purpose).digest(), "big")


Box = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Lowest and highest value of each feature in a node, by the declared range and the splits above it."""


class _Change:
    """The change of one tree: which nodes are others now, and which subtrees were cut off."""

    def __init__(self, grower: Grower, number: int, tree: Tree, left: Callable[[], Rows]) -> None:
        self._grower = grower
        self._number = number
        self._tree = tree
        self._left = left
        self._rows: dict[int, Rows] = {}
        self.nodes: dict[int, Node] = {}
        self.cut: list[int] = []

    def node(self, path: int, gone: Rows, new: Rows, box: Box) -> None:
        """Change the node and those below it whose points change."""
        if not len(gone) and not len(new):
            return
        grower, was = self._grower, self._tree.node(path)
        stats_S = was.stats_S - grower.stats(gone) + grower.stats(new)
        grower.looked_at[0] += len(gone) + len(new)
        now = self._corrected(path, was, stats_S, gone, new)
        if now is None:
            now = grower.node(self._number, path, self._rows_of(path), box)
        self.nodes[path] = now
        if now.candidates is None:
            self._cut(path, was)
        elif (now.attribute, np.float32(now.threshold)) != (was.attribute, np.float32(was.threshold)):
            self._cut(path, was)
            self.nodes |= grower.grown_below(self._number, path, now, self._rows_of(path), box)
        else:
            left_box, right_box = grower.halves(now, box)
            gone_left, new_left = now.goes_left(gone.features_NF), now.goes_left(new.features_NF)
            self.node(2 * path, gone.take(gone_left), new.take(new_left), left_box)
            self.node(2 * path + 1, gone.take(~gone_left), new.take(~new_left), right_box)

    def _corrected(self, path: int, was: Node, stats_S: Integers, gone: Rows, new: Rows) -> Node | None:
        """Return the node with corrected statistics; None where its rows have to be looked at."""
        grower = self._grower
        if not grower.may_split(path, stats_S):
            return Node(stats_S)
        if was.candidates is None:
            # It may be split now, and was not: it had no candidate, or has new points.
            return None
        candidates = was.candidates
        if grower.arguments.thresholds == "pivot":
            draws = [grower.pivot_draws(self._number, path, rows) for rows in (gone, new)]
            if any((each <= candidates.last).any() for each in draws):
                return None
        if len(new) and candidates.skipped:
            return None  # the new points may let an attribute separate that was passed over
        left_PKS = candidates.left_PKS + grower.left_of(new, candidates) - grower.left_of(gone, candidates)
        used = candidates.attributes_P >= 0
        if not grower.separates(stats_S, left_PKS)[used].any(axis=1).all():
            return None  # another attribute moves up
        return grower.chosen(stats_S, replace(candidates, left_PKS=left_PKS))

    def _cut(self, path: int, was: Node) -> None:
        if was.candidates is not None:
            self.cut.append(path)

    def _rows_of(self, path: int) -> Rows:
        """Return the node's rows, which the nodes above it, changed by now, pass down to it."""
        if path not in self._rows:
            if path == ROOT:
                self._rows[path] = self._left()
            else:
                above = self._rows_of(path >> 1)
                goes_left = self.nodes[path >> 1].goes_left(above.features_NF)
                self._rows[path] = above.take(goes_left if path % 2 == 0 else ~goes_left)
        return self._rows[path]
