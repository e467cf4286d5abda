"""Variational unlearning of logistic regression, beside learning again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.experiments.datasets import load
from shards.learner_kinds.approximate import LABORATORY
from shards.learners.approximate.models import normal_numbers, uniform_numbers
from shards.learners.approximate.protocol import Diverged
from shards.learners.approximate.variational import FULL_AT_MOST, Variational, kl_to
from shards.points import ShardPoints
from storage.errors import Invalid
from tests.shards.learners.approximate.small import INPUTS, blobs, without
from tests.shards.learners.direct import chosen, points_of


def moons(count: int, seed: int = 0) -> ShardPoints:
    """Return points of two interleaved half circles, with noise."""
    labels_N = np.arange(count) % 2
    angles_N = np.pi * uniform_numbers(f"moons/{seed}", count)
    ones_N2 = np.stack([np.cos(angles_N), np.sin(angles_N)], axis=1)
    features_N2 = np.where(labels_N[:, None] == 0, ones_N2, np.array([1.0, 0.5]) - ones_N2)
    return points_of(features_N2 + 0.2 * normal_numbers(f"moons/{seed}", 2 * count).reshape(-1, 2), labels_N)


def variational(inputs: int = 2, **more: Any) -> Variational:
    """Return a learner."""
    return Variational(inputs, **{"objective": "eubo", "trust": 0.0, "seed": 0, **more})


def compared(points: ShardPoints, gone: Any, **more: Any) -> tuple[float, float]:
    """Return how far the state without some points is from the retrain, and how far the state with them is."""
    learner = variational(points.features_NF.shape[1], **more)
    before = learner.learn(points)
    after, rest = without(learner, before, points, gone)
    retrained = learner.learn(rest)
    return kl_to(after, retrained), kl_to(before, retrained)


@pytest.mark.parametrize("objective", ["eubo", "rkl"])
def test_an_erasure_comes_near_to_learning_again(objective: str) -> None:
    """A tenth of the data points leave: what is left of the divergence is a small part of it."""
    with_trust, nothing_done = compared(moons(200), np.arange(20), objective=objective)
    assert nothing_done > 0.01
    assert with_trust < nothing_done / 10


@pytest.mark.parametrize("objective", ["eubo", "rkl"])
def test_trust_of_one_changes_nothing(objective: str) -> None:
    """No value of the posterior is above its largest."""
    points = moons(60)
    learner = variational(objective=objective, trust=1.0)
    before = learner.learn(points)
    after, _ = without(learner, before, points, np.arange(20))
    assert kl_to(after, before) == pytest.approx(0, abs=1e-12)
    assert (after.points, after.erasures) == (40, 1)


def test_the_reverse_divergence_is_closer_where_tails_are_trusted() -> None:
    """Half of the data points leave: where much of the tails counts, the upper bound is further from learning again."""
    pairs = [
        [compared(moons(200, seed), np.arange(100), objective=each, trust=1e-5)[0] for each in ("rkl", "eubo")]
        for seed in range(5)
    ]
    reverse, upper = np.mean(pairs, axis=0)
    assert reverse < upper


def test_an_upper_bound_that_follows_the_tails_is_reported() -> None:
    """Digits 3 and 8, with full trust: with a third gone the optimum is where no posterior could be; with fewer gone
    most of the divergence is.
    """
    digits = load("digits")
    of_two_N = np.isin(digits.train_labels_N, (3, 8))
    points = points_of(digits.train_NF[of_two_N], (digits.train_labels_N[of_two_N] == 8).astype(np.int64))
    with pytest.raises(Diverged, match="further from the prior than any posterior"):
        compared(points, np.arange(100))
    few, nothing_done = compared(points, np.arange(20))
    assert few < nothing_done / 4


def test_erasures_that_follow_each_other_add_their_errors() -> None:
    """The state counts them; samples of each are its own, and one erasure of all is closer to learning again."""
    points = moons(200)
    for objective in ("eubo", "rkl"):
        learner = variational(objective=objective)
        at = before = learner.learn(points)
        rest = points
        for _ in range(5):
            at, rest = without(learner, at, rest, np.arange(8))
        retrained = learner.learn(rest)
        assert (at.erasures, at.points) == (5, 160)
        assert kl_to(at, retrained) < kl_to(before, retrained)


@pytest.mark.parametrize("objective", ["eubo", "rkl"])
@pytest.mark.parametrize("classes", [2, 3])
def test_nobody_and_everybody_may_leave(objective: str, classes: int) -> None:
    """Nothing changes, or the prior comes back."""
    points = moons(30) if classes == 2 else blobs(30)
    learner = variational(points.features_NF.shape[1], classes=classes, objective=objective)
    before = learner.learn(points)
    same, _ = without(learner, before, points, np.arange(0))
    assert kl_to(same, before) == pytest.approx(0, abs=1e-9)
    after, nobody = without(learner, before, points, np.arange(30))
    assert kl_to(after, learner.learn(nobody)) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(1 / classes, learner.probabilities(after, points.features_NF), atol=1e-9)


def test_a_class_may_leave_wholly() -> None:
    """Its probability becomes small; the others' predictions are those of learning again."""
    points = blobs(90)
    learner = variational(INPUTS, classes=3)
    before = learner.learn(points)
    after, rest = without(learner, before, points, np.flatnonzero(points.labels_N == 2))
    retrained = learner.learn(rest)
    assert kl_to(after, retrained) < kl_to(before, retrained)
    assert learner.probabilities(after, rest.features_NF)[:, 2].mean() < 0.15


def test_steps_are_shortened_where_the_bound_would_rise() -> None:
    """Features that repeat each other, and independent coefficients: whole steps would go back and forth."""
    shared_N = normal_numbers("shared", 200)
    noise_NF = normal_numbers("own", 200 * 80).reshape(200, 80)
    points = points_of(3 * shared_N[:, None] + 0.1 * noise_NF, (shared_N > 0).astype(np.int64))
    learner = variational(80)
    state = learner.learn(points)
    assert np.mean(learner.probabilities(state, points.features_NF).argmax(axis=1) == points.labels_N) > 0.95


def test_wide_data_has_independent_coefficients() -> None:
    """Beyond so many features a posterior is variances alone; a sum of the lower bound still rises by learning."""
    count, wide = 120, FULL_AT_MOST + 1
    features_NF = 0.3 * normal_numbers("wide", count * wide).reshape(count, wide)
    points = points_of(features_NF, (features_NF[:, 0] > 0).astype(np.int64))
    for objective in ("eubo", "rkl"):
        learner = variational(wide, objective=objective, trust=0.0)
        assert learner.is_diagonal
        state = learner.learn(points)
        assert state.posterior.precisions.shape == (1, wide + 1)
        assert np.mean(learner.probabilities(state, points.features_NF).argmax(axis=1) == points.labels_N) > 0.9
        after, rest = without(learner, state, points, np.arange(2))
        assert np.isfinite(kl_to(after, learner.learn(rest)))
        assert set(learner.arrays(after)) == {"means", "precisions", "counts", "evidence"}
        assert learner.parameters(after).shape == (wide + 1,)


def test_results_depend_on_the_seed_and_the_number_of_the_erasure() -> None:
    """The same erasure twice has the same bytes; another seed or number has other samples; the upper bound has none."""
    points = moons(40)

    def bytes_of(**more: Any) -> bytes:
        learner = variational(**more)
        after, _ = without(learner, learner.learn(points), points, [3, 4])
        return bytes(learner.arrays(after)["precisions"].tobytes())

    assert bytes_of(objective="rkl") == bytes_of(objective="rkl")
    assert bytes_of(objective="rkl") != bytes_of(objective="rkl", seed=1)
    assert bytes_of() == bytes_of(seed=1)
    learner = variational(objective="rkl")
    before = learner.learn(points)
    second = learner.unlearn(replace(before, erasures=1), chosen(points, np.array([3, 4])), lambda: points)
    assert bytes_of(objective="rkl") != second.posterior.precisions.tobytes()


def test_the_state_before_stays_as_it_is() -> None:
    """The guarantee is that of the laboratory's table."""
    points = moons(40)
    learner = variational()
    before = learner.learn(points)
    kept = {name: array.copy() for name, array in learner.arrays(before).items()}
    without(learner, before, points, [1, 2])
    for name, array in learner.arrays(before).items():
        np.testing.assert_array_equal(kept[name], array)
    assert learner.guarantee is LABORATORY["variational"]


@pytest.mark.parametrize(
    ("wrong", "fact"),
    [
        ({"objective": "elbo"}, "the objective 'elbo' is unknown"),
        ({"trust": -0.1}, "trust is -0.1"),
        ({"trust": float("nan")}, "trust is nan"),
        ({"classes": 1}, "are not a problem of logistic regression"),
        ({"variance": 0.0}, "are not a problem of logistic regression"),
        ({"inputs": 0}, "are not a problem of logistic regression"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any], fact: str) -> None:
    """The error says what is wrong and which values to take."""
    with pytest.raises(Invalid, match=fact):
        variational(**wrong)


def test_data_points_that_do_not_fit_are_refused() -> None:
    """Another number of features, a label of no class, values that are not numbers, more points than there are."""
    points = moons(10)
    with pytest.raises(Invalid, match="data points have 2 features, not 3"):
        variational(3).learn(points)
    with pytest.raises(Invalid, match="a label is not one of the 2 classes: 0 to 2"):
        variational(INPUTS).learn(blobs(9))
    with pytest.raises(Diverged, match="features of data points are not numbers"):
        variational().learn(points_of(np.full((4, 2), np.inf), np.zeros(4, dtype=np.int64)))
    learner = variational()
    state = learner.learn(chosen(points, np.arange(4)))
    with pytest.raises(Invalid, match="10 data points cannot leave: the posterior has 4"):
        learner.unlearn(state, points, lambda: points)
