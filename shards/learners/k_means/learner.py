"""Quantised k-means as a constituent (Ginart et al. 2019), exact to the byte.

Every iteration's centroids are rounded to a grid whose place is drawn. If all of them are rounded to the same places
without some data points, the others were assigned as before, and sums are corrected by subtraction.
Shape legend: N points, T iterations, K clusters, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.k_means import KMeansArguments
from shards.learners.fixed_point import UNIT, Integers, fixed
from shards.learners.k_means.nearest import nearest
from shards.learners.k_means.pivots import clusters_of, means_of, sums_of
from shards.learners.protocol import Learning
from shards.learners.tensors import decode_arrays, digest_arrays, encode_arrays
from shards.lineage import Lineage
from shards.ordering import mixed, stream
from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256
from storage.errors import Corrupt, Invalid

_PIVOTS: Final = b"pivots"
_START: Final = b"start"
_PHASES: Final = b"phases"
_TOGETHER: Final = b"together"
_ALL: Final = 2**64 - 1


@dataclass(slots=True, eq=False)
class Clusters:
    """The result of one shard's iterations, or the clusters of several shards together."""

    start_KF: Integers = field(repr=False)
    """The centroids before the first iteration: they depend on the pivots alone."""
    sums_TKF: Integers = field(repr=False)
    """In each iteration the sum of the data points assigned to each cluster."""
    counts_TK: Integers = field(repr=False)
    """Their number."""
    last_pivot: int
    """The highest draw of a pivot; every data point with one as low is a pivot."""
    shard: ShardId
    """Its draws are keyed by it."""

    @property
    def centroids(self) -> npt.NDArray[np.float64]:
        """The centroids that answer: of clusters with a data point in the last iteration."""
        filled_K = self.counts_TK[-1] > 0
        centroids_KF: npt.NDArray[np.float64] = self.sums_TKF[-1, filled_K] / self.counts_TK[-1, filled_K, None] / UNIT
        return centroids_KF


class KMeans:
    """Learns quantised k-means. Implements ``Learner``, ``Unlearner`` and ``AnswersTogether`` of ``Clusters``."""

    def __init__(self, arguments: KMeansArguments, inputs: int, outputs: int, target: str, seed: int) -> None:
        del outputs, target  # it serves one target, whose outputs are always the same
        self._arguments = arguments
        self._inputs = inputs
        self._seed = seed
        self._step = max(1, round(arguments.step * UNIT))

    def initial(self, shard: ShardId) -> Clusters:
        """Return no clusters."""
        turns = self._arguments.iterations
        return Clusters(
            start_KF=np.zeros((0, self._inputs), dtype=np.int64),
            sums_TKF=np.zeros((turns, 0, self._inputs), dtype=np.int64),
            counts_TK=np.zeros((turns, 0), dtype=np.int64),
            last_pivot=_ALL,
            shard=shard,
        )

    def learn(self, state: Clusters, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> Learning[Clusters]:
        """Return the clusters of all data points of the shard, which are one slice to it."""
        del state
        grid_NF = fixed(points.features_NF[: points.ends[slice_ - 1]], "feature")
        start_KF, last_pivot = self._start(grid_NF, points.keys_N[: len(grid_NF)], shard)
        sums, counts, centroids_KF = list[Integers](), list[Integers](), start_KF
        for turn in range(self._arguments.iterations):
            sums_KF, counts_K = sums_of(grid_NF, None, nearest(grid_NF, centroids_KF), len(start_KF))
            sums.append(sums_KF)
            counts.append(counts_K)
            centroids_KF = self._rounded(sums_KF, counts_K, centroids_KF, shard, turn)
            yield turn + 1
        return Clusters(start_KF, np.stack(sums), np.stack(counts), last_pivot, shard)

    def unlearn(
        self, state: Clusters, gone: ShardPoints, new: ShardPoints, left: Callable[[], ShardPoints]
    ) -> Clusters | None:
        """Return the clusters without ``gone`` and with ``new``.

        None when one of them is a pivot, or changes a centroid in one of the iterations.
        """
        del left
        if (self._draws(np.concatenate([gone.keys_N, new.keys_N]), state.shard) <= np.uint64(state.last_pivot)).any():
            return None
        grids, most = [fixed(each.features_NF, "feature") for each in (gone, new)], len(state.start_KF)
        sums_TKF, counts_TK, centroids_KF = state.sums_TKF.copy(), state.counts_TK.copy(), state.start_KF
        for turn in range(self._arguments.iterations):
            for sign, grid_NF in zip((-1, 1), grids, strict=True):
                sums_KF, counts_K = sums_of(grid_NF, None, nearest(grid_NF, centroids_KF), most)
                sums_TKF[turn] += sign * sums_KF
                counts_TK[turn] += sign * counts_K
            before, after = (
                self._rounded(sums[turn], counts[turn], centroids_KF, state.shard, turn)
                for sums, counts in ((state.sums_TKF, state.counts_TK), (sums_TKF, counts_TK))
            )
            if turn + 1 < self._arguments.iterations and (before != after).any():
                return None
            centroids_KF = before
        return Clusters(state.start_KF, sums_TKF, counts_TK, state.last_pivot, state.shard)

    def together(self, states: Sequence[Clusters]) -> Clusters:
        """Return the clusters of the shards' centroids, each weighted by the number of its data points.

        Of a single shard they are the shard's own.
        """
        if len(states) == 1:
            return states[0]
        filled = [each.counts_TK[-1] > 0 for each in states]
        counts_N = np.concatenate([each.counts_TK[-1, own] for each, own in zip(states, filled, strict=True)])
        sums_NF = np.concatenate([each.sums_TKF[-1, own] for each, own in zip(states, filled, strict=True)])
        means_NF = means_of(sums_NF, counts_N)
        draw = partial(self._draw, ShardId(0), _TOGETHER)
        start_KF = clusters_of(means_NF, counts_N, self._arguments.clusters, draw)
        places_N = nearest(means_NF, start_KF)
        sums_KF, counts_K = np.zeros_like(start_KF), np.zeros(len(start_KF), dtype=np.int64)
        np.add.at(sums_KF, places_N, sums_NF)
        np.add.at(counts_K, places_N, counts_N)
        return Clusters(start_KF, sums_KF[None], counts_K[None], _ALL, ShardId(0))

    def epochs(self, slice_: SliceIndex) -> int:
        """Return the number of iterations: progress is reported after each of them."""
        del slice_
        return self._arguments.iterations

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return the number of data points."""
        return points.ends[slice_ - 1]

    def probabilities(self, state: Clusters, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the nearest cluster of each point and the distance from its centroid, shape (N, 2)."""
        centroids_KF, wide_NF = state.centroids, features_NF.astype(np.float64)
        if not len(centroids_KF):
            raise Invalid("no data point is left in the clusters", "Train on other data.")
        nearest_N = ((centroids_KF**2).sum(axis=1) - 2 * (wide_NF @ centroids_KF.T)).argmin(axis=1)
        apart_N = np.sqrt(((wide_NF - centroids_KF[nearest_N]) ** 2).sum(axis=1))
        return np.stack([nearest_N.astype(np.float64), apart_N], axis=1)

    def digest(self, state: Clusters) -> Sha256:
        """Return the digest of all iterations."""
        return digest_arrays(self.arrays(state))

    def to_bytes(self, state: Clusters, lineage: Lineage) -> bytes:
        """Return the checkpoint."""
        return encode_arrays(self.arrays(state), lineage)

    def from_bytes(self, payload: bytes, shard: ShardId) -> Clusters:
        """Return the clusters that a checkpoint holds."""
        found = decode_arrays(payload)
        turns, clusters = self._arguments.iterations, len(found.get("start", ()))
        expected = {
            "start": (clusters, self._inputs),
            "sums": (turns, clusters, self._inputs),
            "counts": (turns, clusters),
            "last_pivot": (1,),
        }
        if {name: each.shape for name, each in found.items()} != expected:
            raise Corrupt("a checkpoint's arrays are not this learner's", "Run 'sisa train' to rebuild it.")
        last_pivot = int(found["last_pivot"][0])
        return Clusters(found["start"], found["sums"], found["counts"], last_pivot, shard)

    def arrays(self, state: Clusters) -> dict[str, npt.NDArray[np.integer]]:
        """Return the content of a checkpoint."""
        return {
            "start": state.start_KF,
            "sums": state.sums_TKF,
            "counts": state.counts_TK,
            "last_pivot": np.array([state.last_pivot], dtype=np.uint64),
        }

    def _start(self, grid_NF: Integers, keys_N: npt.NDArray[np.uint64], shard: ShardId) -> tuple[Integers, int]:
        """Return the first centroids, and the highest draw of a pivot: the points with the lowest draws are pivots."""
        draws_N, most = self._draws(keys_N, shard), self._arguments.clusters * self._arguments.pivots
        order_N = np.lexsort((keys_N, draws_N))[:most]
        weights_N = np.ones(len(order_N), dtype=np.int64)
        draw = partial(self._draw, shard, _START)
        start_KF = clusters_of(grid_NF[order_N], weights_N, self._arguments.clusters, draw)
        return start_KF, int(draws_N[order_N[-1]]) if len(order_N) == most else _ALL

    def _rounded(
        self, sums_KF: Integers, counts_K: Integers, before_KF: Integers, shard: ShardId, turn: int
    ) -> Integers:
        """Return the centroids after an iteration, on its grid; those of small clusters move less far."""
        least = int(self._arguments.balance * int(counts_K.sum())) // self._arguments.clusters
        missing_K = np.maximum(max(least, 1) - counts_K, 0)
        counts_K1 = (counts_K + missing_K)[:, None]
        sums_KF = sums_KF + before_KF * missing_K[:, None]
        phases_F = self._phases(shard, turn)
        places_KF = (sums_KF + phases_F * counts_K1) // (self._step * counts_K1)
        rounded_KF: Integers = places_KF * self._step - phases_F + self._step // 2
        return rounded_KF

    def _draws(self, keys_N: npt.NDArray[np.uint64], shard: ShardId) -> npt.NDArray[np.uint64]:
        return mixed(keys_N, stream(self._seed, shard, SliceIndex(0), 0, _PIVOTS))

    def _draw(self, shard: ShardId, purpose: bytes, run: int, step: int) -> int:
        return stream(self._seed, shard, SliceIndex(run), step, purpose)

    def _phases(self, shard: ShardId, turn: int) -> Integers:
        """Return where the grid of an iteration begins, for each feature."""
        number = stream(self._seed, shard, SliceIndex(0), turn, _PHASES).to_bytes(8, "big")
        drawn = b"".join(
            blake2b(number + feature.to_bytes(4, "big"), digest_size=8).digest() for feature in range(self._inputs)
        )
        return (np.frombuffer(drawn, dtype=">u8") % np.uint64(self._step)).astype(np.int64)
