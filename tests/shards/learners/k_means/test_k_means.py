"""K-means: as good as scikit-learn's, and exact to the byte after any change of its points."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.cluster import KMeans as Reference
from sklearn.datasets import load_digits

from shards.learner_kinds.k_means import KMeansArguments
from shards.learner_kinds.kinds import LEARNERS
from shards.learners.fixed_point import MOST, UNIT, fixed
from shards.learners.k_means.learner import Clusters, KMeans
from shards.learners.k_means.nearest import nearest, squared_distances
from shards.learners.k_means.pivots import clusters_of
from shards.points import ShardPoints
from storage.errors import Corrupt, Invalid
from tests.doubles.lineages import lineage_of
from tests.shards.learners.direct import SHARD, chosen, learned, moved, points_of
from tests.volume import spread

GENERATOR = np.random.default_rng(8)
BLOBS_NF = (GENERATOR.normal(size=(3000, 3)) * 0.2 + GENERATOR.integers(4, size=(3000, 1)) * 2).astype(np.float32)


def _k_means(inputs: int = 3, seed: int = 0, **arguments: Any) -> KMeans:
    return KMeans(KMeansArguments(**arguments), inputs, 2, "cluster", seed)


def _points(features_NF: Any, seed: int = 0) -> ShardPoints:
    """Return points with keys like those of digests."""
    keys_N = np.random.default_rng(seed).integers(2**63, size=len(features_NF)).astype(np.uint64)
    return points_of(features_NF, np.zeros(len(features_NF), dtype=np.int64), keys_N)


def _without(every: ShardPoints, *gone: int) -> npt.NDArray[np.bool_]:
    return ~np.isin(np.arange(len(every.keys_N)), gone)


def _inertia(learner: KMeans, state: Clusters, features_NF: npt.NDArray[np.float32]) -> float:
    return float((learner.probabilities(state, features_NF)[:, 1] ** 2).mean())


@pytest.mark.volume
@pytest.mark.parametrize("number", spread(range(10_000), 150))
def test_any_change_ends_in_the_bytes_of_new_clusters(number: int) -> None:
    """This includes all points leaving or coming back, equal points, and fewer points than clusters."""
    generator = np.random.default_rng(number)
    count, inputs = int(generator.integers(1, 60)), int(generator.integers(1, 5))
    features_NF = generator.normal(size=(count, inputs)) * 3
    every = _points(np.round(features_NF) if generator.random() < 0.5 else features_NF, number)
    learner = _k_means(
        inputs,
        seed=number % 5,
        clusters=int(generator.integers(2, 6)),
        iterations=int(generator.integers(1, 5)),
        pivots=int(generator.integers(1, 4)),
        step=float(generator.choice([0.01, 1.0, 8.0])),
        balance=float(generator.choice([0.0, 0.2, 1.0])),
    )
    present = [generator.random(count) < 0.8]
    for _ in range(4):
        present.append(present[-1] ^ (generator.random(count) < generator.choice([0.03, 0.3])))
    present.append(np.zeros(count, dtype=bool))
    state = learned(learner, chosen(every, present[0]))
    for was, now in itertools.pairwise(present):
        fresh = learned(learner, chosen(every, now))
        state = moved(learner, state, every, was, now) or fresh
        assert learner.digest(state) == learner.digest(fresh)
    assert learner.digest(state) == learner.digest(learner.initial(SHARD))


def test_erasures_that_move_no_centroid_are_taken_out_directly() -> None:
    """Sums of every iteration are corrected, the first one's too: Ginart's code writes them to the one before.

    It also takes a point out of the mean of n points, and not of those that are left, and looks for its cluster among
    the means of the same iteration: then some of these bytes would differ.
    """
    learner, every = _k_means(clusters=4, pivots=8, step=0.5), _points(BLOBS_NF)
    state, everybody = learned(learner, every), np.ones(len(BLOBS_NF), dtype=bool)
    direct = 0
    for who in range(40):
        now = _without(every, who, who + 1000)
        if (after := moved(learner, state, every, everybody, now)) is None:
            continue
        direct += 1
        assert learner.digest(after) == learner.digest(learned(learner, chosen(every, now)))
        assert (after.counts_TK.sum(axis=1) == len(BLOBS_NF) - 2).all()
        assert (after.sums_TKF.sum(axis=1) == fixed(every.features_NF[now], "feature").sum(axis=0)).all()
    assert direct > 20


def test_every_pivot_is_known() -> None:
    """Without one of them the start may change. Ginart's code forgets the first, whose erasure it then certifies."""
    learner, every = _k_means(clusters=4, pivots=8), _points(BLOBS_NF[:500])
    state, everybody = learned(learner, every), np.ones(500, dtype=bool)
    draws_N = learner._draws(every.keys_N, SHARD)
    pivots = np.argsort(draws_N)[:32]
    assert int(draws_N[pivots[-1]]) == state.last_pivot
    assert all(moved(learner, state, every, everybody, _without(every, int(each))) is None for each in pivots)
    fewer = _without(every, int(pivots[0]))
    assert moved(learner, learned(learner, chosen(every, fewer)), every, fewer, everybody) is None


def test_no_value_of_an_erased_point_is_left() -> None:
    """The same holds for a point that was its own cluster, or a pivot: Ginart's code keeps erased rows, as zeros."""
    marked = np.array([[77.123, 88.456, 99.789]], dtype=np.float32)
    learner, every = _k_means(clusters=5, pivots=40), _points(np.concatenate([BLOBS_NF[:100], marked]))
    state, now = learned(learner, every), _without(every, 100)
    assert np.isin(fixed(marked, "feature"), state.sums_TKF).all()
    after = moved(learner, state, every, np.ones(101, dtype=bool), now) or learned(learner, chosen(every, now))
    held = np.concatenate([values.ravel() for values in learner.arrays(after).values()])
    assert not np.isin(fixed(marked, "feature"), held).any()
    assert after.counts_TK[-1].sum() == 100


def test_the_order_of_erasures_leaves_no_trace() -> None:
    """One after another in either direction, and all at once."""
    learner, every = _k_means(clusters=4, pivots=8, step=0.5), _points(BLOBS_NF[:400])
    ends = set()
    for order in ([7, 31, 55, 60], [60, 55, 31, 7], [[7, 60], [31, 55]], [[7, 31, 55, 60]]):
        present = np.ones(400, dtype=bool)
        state = learned(learner, every)
        for each in order:
            after = present.copy()
            after[each] = False
            state = moved(learner, state, every, present, after) or learned(learner, chosen(every, after))
            present = after
        ends.add(learner.digest(state))
    assert len(ends) == 1


def test_digits_are_clustered_as_well_as_by_scikit_learn() -> None:
    """The mean squared distance is at most 1.05 times that of k-means++, for one shard and for five."""
    digits_NF = (load_digits().data / 16).astype(np.float32)
    expected = np.mean([Reference(10, n_init=1, random_state=seed).fit(digits_NF).inertia_ for seed in range(3)])
    learner, every = _k_means(64, clusters=10), _points(digits_NF)
    assert _inertia(learner, learned(learner, every), digits_NF) * len(digits_NF) <= 1.05 * expected
    parts = [learned(learner, chosen(every, np.arange(len(digits_NF)) % 5 == shard)) for shard in range(5)]
    together = learner.together(parts)
    assert _inertia(learner, together, digits_NF) * len(digits_NF) <= 1.05 * expected
    assert together.counts_TK.sum() == len(digits_NF)


def test_shards_count_by_their_data_points_and_only_those_that_are_there() -> None:
    """A shard of a thousand points outweighs one of ten; without a shard nothing of it is left in the answer."""
    learner = _k_means(1, clusters=2, pivots=4)
    far, near = (
        learned(learner, _points(np.full((count, 1), value) + np.arange(count)[:, None] % 2 * 0.25))
        for count, value in ((10, 100.0), (1000, 0.0))
    )
    alone, both = learner.together([near]), learner.together([near, far])
    assert alone is near
    assert sorted(both.counts_TK[-1]) == [10, 1000]
    assert both.centroids.max() == 100.125
    assert near.centroids.max() == 0.25
    apart = learner.together([near, near, far])
    assert sorted(apart.counts_TK[-1]) == [10, 2000]


def test_fewer_different_points_than_clusters_are_fewer_clusters() -> None:
    """Each is a centroid then; equal points are one."""
    learner = _k_means(1, clusters=4)
    state = learner.initial(SHARD)
    for rows, different in (([[2.0]], [2.0]), ([[2.0], [2.0], [3.0]], [2.0, 3.0])):
        state = learned(learner, _points(rows))
        assert sorted(state.centroids.ravel()) == different
        assert _inertia(learner, state, np.array(rows, dtype=np.float32)) == 0
    with pytest.raises(Invalid, match="no data point is left"):
        learner.probabilities(learner.initial(SHARD), np.zeros((1, 1), dtype=np.float32))
    assert len(learner.together([learner.initial(SHARD), state]).centroids) == 2


def test_a_checkpoint_of_other_arguments_is_not_read() -> None:
    """Arrays of other shapes are not this learner's."""
    state = learned(_k_means(clusters=3), _points(BLOBS_NF[:50]))
    payload = _k_means(clusters=3).to_bytes(state, lineage_of())
    assert _k_means(clusters=3).digest(_k_means().from_bytes(payload, SHARD)) == _k_means().digest(state)
    for other in (_k_means(iterations=3), _k_means(2)):
        with pytest.raises(Corrupt, match="not this learner's"):
            other.from_bytes(payload, SHARD)


def test_the_nearest_centroid_is_found_exactly() -> None:
    """Where floating point cannot tell two distances apart, whole numbers do; the first of equal ones counts."""
    most = MOST * UNIT
    points_NF = np.array([[most, most, 1], [-most, 0, 0], [0, 0, 0]])
    centroids_KF = np.array([[most, -most, 2], [most, -most, 1], [-most, most, 0], [most, -most, 1]])
    for order in itertools.permutations(range(4)):
        kept_KF = centroids_KF[list(order)]
        exact = [[sum((int(x) - int(c)) ** 2 for x, c in zip(x_F, c_F)) for c_F in kept_KF] for x_F in points_NF]  # noqa: B905
        assert nearest(points_NF, kept_KF).tolist() == [each.index(min(each)) for each in exact]
        upper_N, lower_N = squared_distances(points_NF, kept_KF[0])
        assert [int(u) * 2**32 + int(v) for u, v in zip(upper_N, lower_N, strict=True)] == [each[0] for each in exact]


def test_other_bytes_are_another_version() -> None:
    """A change of the draws, of the grid or of the start raises the version of the learner: nothing stale is used."""
    grid_NF = np.arange(600).reshape(200, 3) ** 2 % 257 / 64
    state = learned(_k_means(clusters=3, pivots=4, seed=7), _points(grid_NF))
    assert (LEARNERS["k_means"].version, _k_means().digest(state)) == (
        1,
        "595bf331e91c99f16101ea25e3cf9728ad0b562d906d62368e5686cd41c0a9e6",
    )


def test_weights_are_as_good_as_repetitions() -> None:
    """A point of weight three is three points."""
    points_NF = np.array([[0], [10], [11], [50], [52]]) * UNIT
    weights_N = np.array([3, 1, 1, 2, 5])
    repeated = np.repeat(points_NF, weights_N, axis=0)
    found = [
        clusters_of(each, weights, 2, lambda run, step: (run * 7 + step) * 2**58)
        for each, weights in ((points_NF, weights_N), (repeated, np.ones(12, dtype=np.int64)))
    ]
    assert sorted(found[0].ravel()) == sorted(found[1].ravel())
