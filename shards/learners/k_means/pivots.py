"""K-means of few weighted points: the start of a shard's clusters, and one set of clusters for all shards.

The result depends on the points, their weights, their order and the draws; every machine finds the same.
Shape legend: N points, K clusters, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from shards.learners.fixed_point import Integers
from shards.learners.k_means.nearest import nearest, squared_distances

Draw = Callable[[int, int], int]
"""Returns a number below 2**64 for a run and a step."""

RUNS: Final = 8
"""The number of runs, each with draws of its own, of which the best is the result."""
_MOST_STEPS: Final = 100

_Floats = npt.NDArray[np.float64]


def clusters_of(points_NF: Integers, weights_N: Integers, clusters: int, draw: Draw) -> Integers:
    """Return at most this many centroids (K, F): fewer if there are fewer different points."""
    best: tuple[float, Integers] | None = None
    for run in range(RUNS if len(points_NF) else 0):
        found_KF = _moved(points_NF, weights_N, _spread(points_NF, weights_N, clusters, partial(draw, run)))
        own_KF = found_KF[nearest(points_NF, found_KF)]
        total = _total(weights_N * _floats(*squared_distances(points_NF, own_KF)))
        if best is None or total < best[0]:
            best = total, found_KF
    return np.empty((0, points_NF.shape[1]), dtype=np.int64) if best is None else best[1]


def sums_of(
    points_NF: Integers, weights_N: Integers | None, places_N: npt.NDArray[np.intp], clusters: int
) -> tuple[Integers, Integers]:
    """Return for each cluster the sum of its points, shape (K, F), and their number, shape (K,)."""
    sums_KF = np.zeros((clusters, points_NF.shape[1]), dtype=np.int64)
    counts_K = np.zeros(clusters, dtype=np.int64)
    for place in range(clusters):
        members_N = np.flatnonzero(places_N == place)
        own_NF = points_NF[members_N]
        counts_K[place] = len(members_N) if weights_N is None else weights_N[members_N].sum()
        sums_KF[place] = (own_NF if weights_N is None else own_NF * weights_N[members_N, None]).sum(axis=0)
    return sums_KF, counts_K


def means_of(sums_KF: Integers, counts_K: Integers) -> Integers:
    """Return the means, rounded to whole numbers; the counts are not 0."""
    counts_K1 = counts_K[:, None]
    means_KF: Integers = (2 * sums_KF + counts_K1) // (2 * counts_K1)
    return means_KF


def _spread(points_NF: Integers, weights_N: Integers, clusters: int, draw: Callable[[int], int]) -> Integers:
    """Return points drawn one after another, by their squared distance from those drawn before (k-means++)."""
    weights, chosen, distances_N = weights_N.astype(np.float64), list[int](), np.ones(len(points_NF))
    while len(chosen) < clusters:
        reached_N = np.cumsum(weights * distances_N)  # in order, so that its last bit is the same everywhere
        if not reached_N[-1]:
            break  # all points are among those drawn
        drawn = draw(len(chosen)) / 2**64 * reached_N[-1]
        place = min(int(np.searchsorted(reached_N, drawn, side="right")), int(np.flatnonzero(distances_N)[-1]))
        chosen.append(place)
        apart_N = _floats(*squared_distances(points_NF, points_NF[place]))
        distances_N = apart_N if len(chosen) == 1 else np.minimum(distances_N, apart_N)
    return points_NF[chosen]


def _moved(points_NF: Integers, weights_N: Integers, centroids_KF: Integers) -> Integers:
    """Return the centroids after Lloyd's steps, until no point changes its cluster."""
    before_N: npt.NDArray[np.intp] | None = None
    for _ in range(_MOST_STEPS):
        places_N = nearest(points_NF, centroids_KF)
        if before_N is not None and (places_N == before_N).all():
            break
        before_N = places_N
        sums_KF, counts_K = sums_of(points_NF, weights_N, places_N, len(centroids_KF))
        filled_K = counts_K > 0
        centroids_KF = centroids_KF.copy()
        centroids_KF[filled_K] = means_of(sums_KF[filled_K], counts_K[filled_K])
    return centroids_KF


def _floats(upper_N: Integers, lower_N: Integers) -> _Floats:
    joined_N: _Floats = upper_N.astype(np.float64) * 2.0**32 + lower_N
    return joined_N


def _total(values_N: _Floats) -> float:
    return float(np.cumsum(values_N)[-1])
