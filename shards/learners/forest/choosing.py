"""Which split each node chooses, for many nodes at once.

A node's split depends only on which data points it has: every draw is a keyed hash of what it is for (tree, path,
attribute, point), never the next number of a generator.
Shape legend: N points, F features, J nodes, R their rows together, P attributes, W of them looked at, V pivots, K
thresholds, S statistics.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.forest import ForestArguments
from shards.learners.fixed_point import Integers
from shards.learners.forest.nodes import Nodes, join_nodes
from shards.learners.forest.rows import Boxes, Places, Rows
from shards.ordering import mixed

_TOGETHER: Final = 1 << 12
"""Nodes with up to this many rows in total are processed together; a larger node is processed alone."""

_EXACT: Final = 1 << 22
"""The sum of this many numbers on the grid is at most 2**53, which is exact in float64."""

_ATTRIBUTES: Final = b"attributes"
_PIVOTS: Final = b"pivots"
_THRESHOLDS: Final = b"thresholds"

KEEPS_FROM: Final = 128
"""Nodes with so many points keep their candidates: fewer points are looked at again in less time than their
candidates' counts take to be read and written. Another number gives other bytes: another version of the learner."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The splits among which nodes choose, as in ``Nodes``."""

    attributes_JP: npt.NDArray[np.int32]
    thresholds_JPK: npt.NDArray[np.float32]
    left_JPKS: Integers
    last_J: npt.NDArray[np.uint64]
    skipped_J: npt.NDArray[np.bool_]

    def take(self, chosen_J: npt.NDArray[np.bool_]) -> Candidates:
        """Return those of the chosen nodes."""
        return Candidates(*(getattr(self, name)[chosen_J] for name in Candidates.__slots__))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chooser:
    """Chooses the splits of one shard's forest."""

    arguments: ForestArguments
    material: bytes
    """The key of all draws: seed and shard."""
    inputs: int
    """F."""
    classes: int
    """Number of classes; 0: numbers are predicted."""
    outputs: int
    """S, or for numbers S - 1."""
    keeps_from: int = KEEPS_FROM
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

    @property
    def whole(self) -> type[np.signedinteger[Any]]:
        """The type of statistics in ``Nodes``: counts are below 2**31."""
        return np.int32 if self.classes else np.int64

    @property
    def has_pivots(self) -> bool:
        """Whether thresholds are values of points."""
        return self.arguments.thresholds == "pivot"

    def whole_boxes(self, count: int) -> Boxes | None:
        """Return the boxes of this many roots."""
        if self.has_pivots:
            return None
        shape, low, high = (count, self.inputs), self.arguments.low, self.arguments.high
        return Boxes(np.full(shape, low, dtype=np.float32), np.full(shape, high, dtype=np.float32))

    def stats(self, rows: Rows, places: Places) -> Integers:
        """Return the statistics of the rows of each node, shape (J, S)."""
        labels, J = rows.labels_N[places.at_R], len(places)
        if self.classes:
            flat = np.bincount(places.owners * self.classes + labels, minlength=J * self.classes)
            return flat.reshape(J, self.classes).astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(places.sizes_J)])
        sums = np.concatenate([np.zeros((1, self.outputs), dtype=np.int64), labels.cumsum(axis=0)])
        return np.column_stack([places.sizes_J, sums[ends[1:]] - sums[ends[:-1]]])

    def count(self, stats: npt.NDArray[Any]) -> Integers:
        """Return the number of points from statistics, whose last axis goes."""
        return _sum(stats) if self.classes else stats[..., 0]

    def may_split(self, paths_J: Integers, stats_JS: Integers) -> npt.NDArray[np.bool_]:
        """Return which nodes with these statistics may be split."""
        may: npt.NDArray[np.bool_] = (paths_J < 1 << self.arguments.depth) & (
            self.count(stats_JS) >= 2 * self.arguments.min_leaf
        )
        return may & ((stats_JS > 0).sum(axis=1) > 1) if self.classes else may

    def choose(self, rows: Rows, places: Places) -> Nodes:
        """Return the nodes that these rows give."""
        none = self.leaves(places.between(0, 0), np.empty((0, self.width), dtype=np.int64))
        return join_nodes([none, *(self._choose(rows, places.between(*span)) for span in _spans(places.sizes_J))])

    def _choose(self, rows: Rows, places: Places) -> Nodes:
        self.looked_at[0] += len(places.at_R)
        stats_JS = self.stats(rows, places)
        may_J = self.may_split(places.paths_J, stats_JS)
        leaves = self.leaves(places.take(~may_J), stats_JS[~may_J])
        if not may_J.any():
            return leaves
        places, stats_JS = places.take(may_J), stats_JS[may_J]
        candidates = self._candidates(rows, places, stats_JS)
        has_J = candidates.attributes_JP[:, 0] >= 0
        others = self.leaves(places.take(~has_J), stats_JS[~has_J])
        return join_nodes([leaves, others, self.chosen(places.take(has_J), stats_JS[has_J], candidates.take(has_J))])

    def leaves(self, places: Places, stats_JS: Integers) -> Nodes:
        """Return these nodes as leaves."""
        J, P, K = len(places), self.attributes, self.arguments.candidates
        return Nodes(
            places.trees_J,
            places.paths_J,
            stats_JS.astype(self.whole),
            np.full(J, -1, dtype=np.int32),
            np.full(J, np.nan, dtype=np.float32),
            np.zeros(J, dtype=np.bool_),
            np.empty((0, P), dtype=np.int32),
            np.empty((0, P, K), dtype=np.float32),
            np.empty((0, P, K, self.width), dtype=self.whole),
            np.empty(0, dtype=np.uint64),
            np.empty(0, dtype=np.bool_),
        )

    def chosen(self, places: Places, stats_JS: Integers, candidates: Candidates) -> Nodes:
        """Return the nodes, each with the best of its candidates; ties go to the first one."""
        J, K = len(places), self.arguments.candidates
        best_J = np.argmax(self._scores(stats_JS, candidates.left_JPKS).reshape(J, self.attributes * K), axis=1)
        number_J, attribute_J, threshold_J = np.arange(J), best_J // K, best_J % K
        kept_J = self.count(stats_JS) >= self.keeps_from
        kept = candidates.take(kept_J)
        return Nodes(
            places.trees_J,
            places.paths_J,
            stats_JS.astype(self.whole),
            candidates.attributes_JP[number_J, attribute_J],
            candidates.thresholds_JPK[number_J, attribute_J, threshold_J],
            kept_J,
            kept.attributes_JP,
            kept.thresholds_JPK,
            kept.left_JPKS.astype(self.whole),
            kept.last_J,
            kept.skipped_J,
        )

    def separates(self, stats_JS: Integers, left_JWKS: Integers) -> npt.NDArray[np.bool_]:
        """Return which candidates leave enough points on both sides, shape (J, W, K)."""
        left, least = self.count(left_JWKS), self.arguments.min_leaf
        enough: npt.NDArray[np.bool_] = (left >= least) & (self.count(stats_JS)[:, None, None] - left >= least)
        return enough

    def pivot_draws(self, rows: Rows, places: Places) -> npt.NDArray[np.uint64]:
        """Return the rows' draws, of which the smallest of each node give the thresholds."""
        return mixed(rows.keys_N[places.at_R], self._streams(places, _PIVOTS)[places.owners])

    def left(
        self, rows: Rows, places: Places, attributes_JW: npt.NDArray[Any], thresholds_JWK: npt.NDArray[np.float32]
    ) -> Integers:
        """Return the statistics of the rows that would go left, for each threshold; shape (J, W, K, S)."""
        J, W, K = thresholds_JWK.shape
        left_JWKS = np.empty((J, W, K, self.width), dtype=np.int64)
        ends = np.concatenate([[0], np.cumsum(places.sizes_J)])
        for start, end in _spans(places.sizes_J):
            at_R, node_R = (
                places.at_R[ends[start] : ends[end]],
                np.repeat(np.arange(end - start), places.sizes_J[start:end]),
            )
            labels_R, attributes, thresholds = rows.labels_N[at_R], attributes_JW[start:end], thresholds_JWK[start:end]
            if len(at_R) > _TOGETHER:  # it is one node
                columns = zip(attributes[0].tolist(), thresholds[0], strict=True)
                places_W = (np.searchsorted(each, rows.features_NF[at_R, attribute]) for attribute, each in columns)
                counts = np.stack([self._counts(place_R[:, None], labels_R, K + 1) for place_R in places_W])
            else:
                values_RW = rows.features_NF[at_R[:, None], attributes[node_R]]
                below = values_RW <= np.moveaxis(thresholds, 2, 0)[:, node_R]
                known_JW = K - np.isnan(thresholds).sum(axis=2)  # NaN comes last
                place_RW = known_JW[node_R] - below.view(np.uint8).sum(axis=0, dtype=np.int64)
                flat_RW = (node_R[:, None] * W + np.arange(W)) * (K + 1) + place_RW
                counts = self._counts(flat_RW, labels_R, (end - start) * W * (K + 1))
            own_JWKS = counts.reshape(end - start, W, K + 1, self.width)
            total = np.zeros_like(own_JWKS[:, :, 0])
            for number in range(K):  # numpy's own running sum takes longer over an axis that is not the last
                total += own_JWKS[:, :, number]
                left_JWKS[start:end, :, number] = total
        return left_JWKS

    def _counts(self, flat_RW: npt.NDArray[np.int64], labels_R: npt.NDArray[Any], size: int) -> Integers:
        """Return the statistics of the rows by the number in ``flat_RW``, which is below ``size``; shape (size, S)."""
        if self.classes:
            flat = np.bincount((flat_RW * self.classes + labels_R[:, None]).ravel(), minlength=size * self.classes)
            return flat.reshape(size, self.classes).astype(np.int64)
        counts = np.zeros((size, self.width), dtype=np.int64)
        for start in range(0, len(flat_RW), _EXACT):
            places, labels = flat_RW[start : start + _EXACT], labels_R[start : start + _EXACT]
            columns = [np.bincount(places.ravel(), minlength=size)]
            for label in labels.T:
                weights = np.broadcast_to(label[:, None], places.shape).ravel()
                columns.append(np.bincount(places.ravel(), weights=weights, minlength=size))
            counts += np.rint(np.stack(columns, axis=1)).astype(np.int64)
        return counts

    def _candidates(self, rows: Rows, places: Places, stats_JS: Integers) -> Candidates:
        """Return the splits to choose among: of the first P attributes, in drawn order, that separate the rows."""
        J, P, K = len(places), self.attributes, self.arguments.candidates
        last_J, pivots_JV = self._pivots(rows, places)
        draws_JF = mixed(np.arange(self.inputs, dtype=np.uint64)[None], self._streams(places, _ATTRIBUTES)[:, None])
        order_JF = np.argsort(draws_JF, axis=1)
        attributes_JP = np.full((J, P), -1, dtype=np.int32)
        thresholds_JPK = np.full((J, P, K), np.nan, dtype=np.float32)
        left_JPKS = np.zeros((J, P, K, self.width), dtype=np.int64)
        found_J, skipped_J, asking = np.zeros(J, dtype=np.int64), np.zeros(J, dtype=np.bool_), np.arange(J)
        own = places
        for start in range(0, self.inputs, P):
            attributes = order_JF[asking, start : start + P]
            thresholds = self._thresholds(rows, own, attributes, pivots_JV[asking])
            left = self.left(rows, own, attributes, thresholds)
            separates: npt.NDArray[np.bool_] = np.any(self.separates(stats_JS[asking], left), axis=2)
            for column in range(attributes.shape[1]):
                wanted = found_J[asking] < P
                skipped_J[asking[wanted & ~separates[:, column]]] = True
                taken = wanted & separates[:, column]
                to = asking[taken]
                attributes_JP[to, found_J[to]] = attributes[taken, column]
                thresholds_JPK[to, found_J[to]] = thresholds[taken, column]
                left_JPKS[to, found_J[to]] = left[taken, column]
                found_J[to] += 1
            more = found_J[asking] < P
            if not more.any():
                break
            asking, own = asking[more], own.take(more)
        rising = np.argsort(np.where(attributes_JP < 0, self.inputs, attributes_JP), axis=1, kind="stable")
        each = np.arange(J)[:, None]
        return Candidates(
            attributes_JP[each, rising], thresholds_JPK[each, rising], left_JPKS[each, rising], last_J, skipped_J
        )

    def _pivots(self, rows: Rows, places: Places) -> tuple[npt.NDArray[np.uint64], Integers]:
        """Return the largest draw of each node's pivots, and their positions, -1 where there are fewer."""
        J, K = len(places), self.arguments.candidates
        if not self.has_pivots:
            return np.zeros(J, dtype=np.uint64), np.empty((J, 0), dtype=np.int64)
        draws_R, node_R, ends = self.pivot_draws(rows, places), places.owners, np.cumsum(places.sizes_J)
        last_J = np.empty(J, dtype=np.uint64)
        for number, (end, size) in enumerate(zip(ends.tolist(), places.sizes_J.tolist(), strict=True)):
            most = min(K, size) - 1
            last_J[number] = np.partition(draws_R[end - size : end], most)[most]
        is_pivot_R = draws_R <= last_J[node_R]
        node_V = node_R[is_pivot_R]
        counts_J = np.bincount(node_V, minlength=J)
        pivots_JV = np.full((J, int(counts_J.max())), -1, dtype=np.int64)
        pivots_JV[node_V, np.arange(len(node_V)) - np.repeat(np.cumsum(counts_J) - counts_J, counts_J)] = places.at_R[
            is_pivot_R
        ]
        last_J[places.sizes_J < K] = np.uint64(2**64 - 1)  # any further row would be one of them
        return last_J, pivots_JV

    def _thresholds(
        self, rows: Rows, places: Places, attributes_JW: npt.NDArray[Any], pivots_JV: Integers
    ) -> npt.NDArray[np.float32]:
        K = self.arguments.candidates
        if places.boxes is None:
            # Minus 0 becomes 0: which of the two is kept would depend on how a library sorts.
            values = rows.features_NF[pivots_JV[:, None, :], attributes_JW[:, :, None]] + np.float32(0)
            values[np.broadcast_to((pivots_JV < 0)[:, None, :], values.shape)] = np.nan
        else:
            numbers = np.arange(K, dtype=np.uint64) + attributes_JW.astype(np.uint64)[:, :, None] * np.uint64(K)
            shares = mixed(numbers, self._streams(places, _THRESHOLDS)[:, None, None]) / 2.0**64
            each = np.arange(len(places))[:, None], attributes_JW
            low, high = (
                ends[each].astype(np.float64)[:, :, None] for ends in (places.boxes.low_JF, places.boxes.high_JF)
            )
            values = (low + (high - low) * shares).astype(np.float32)
        values = np.sort(values, axis=2)
        values[:, :, 1:][values[:, :, 1:] == values[:, :, :-1]] = np.nan
        values = np.sort(values, axis=2)[:, :, :K]
        return np.pad(values, ((0, 0), (0, 0), (0, K - values.shape[2])), constant_values=np.nan)

    def _scores(self, stats_JS: Integers, left_JPKS: Integers) -> npt.NDArray[np.float64]:
        """Return how good each candidate is: for classes by Gini impurity, for numbers by variance."""
        enough_JPK = self.separates(stats_JS, left_JPKS)
        left = left_JPKS[enough_JPK]
        right = np.broadcast_to(stats_JS[:, None, None], left_JPKS.shape)[enough_JPK] - left
        scores_JPK = np.full(enough_JPK.shape, -np.inf)
        scores_JPK[enough_JPK] = self._purity(left) / self.count(left) + self._purity(right) / self.count(right)
        return scores_JPK

    def _purity(self, stats_NS: Integers) -> npt.NDArray[np.float64]:
        if self.classes:
            return _sum(stats_NS**2).astype(np.float64)
        sums = stats_NS[..., 1:].astype(np.float64)
        squares: npt.NDArray[np.float64] = (sums**2).sum(axis=-1)
        return squares

    def _streams(self, places: Places, purpose: bytes) -> npt.NDArray[np.uint64]:
        """Return the number of each node's stream of draws for this purpose."""
        person, material, blake2b = b"sisa/" + purpose, self.material, hashlib.blake2b
        digests = [
            blake2b(material + tree.to_bytes(4, "big") + path.to_bytes(8, "big"), digest_size=8, person=person).digest()
            for tree, path in zip(places.trees_J.tolist(), places.paths_J.tolist(), strict=True)
        ]
        return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def _spans(sizes_J: Integers) -> list[tuple[int, int]]:
    """Return ranges of nodes, each with few rows or of one node."""
    spans, start, ends = [], 0, np.cumsum(sizes_J)
    while start < len(sizes_J):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + _TOGETHER, side="right")))
        spans.append((start, end))
        start = end
    return spans


def _sum(stats: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the sums over the last axis, which is short: numpy's own sum takes ten times as long."""
    total = stats[..., 0]
    for number in range(1, stats.shape[-1]):
        total = total + stats[..., number]
    return total
