"""Bayesian linear regression has the posterior of its prior, its intervals hold what they say, and it forgets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from shards.learner_kinds.bayesian import BayesianLinearArguments
from shards.learner_kinds.summation import RidgeArguments
from shards.learners.summation.bayesian_linear import BayesianLinear
from shards.learners.summation.ridge import Ridge
from shards.targets import Number
from tests.shards.learners.direct import chosen, learned, moved, points_of

GENERATOR = np.random.default_rng(11)
FEATURES_NF = (np.round(GENERATOR.normal(size=(600, 3)) * 256) / 256).astype(np.float32)
NOISE_NW = GENERATOR.normal(size=(600, 2)) * [0.5, 3.0]
NUMBERS_NW = (FEATURES_NF[:, :2] * 3 - FEATURES_NF[:, 2:] + 40 + NOISE_NW).astype(np.float32)


def _learner(**arguments: float) -> BayesianLinear:
    return BayesianLinear(BayesianLinearArguments(**arguments), inputs=3, outputs=2, target="number", seed=0)


def test_means_are_those_of_ridge() -> None:
    """The prior of the coefficients is a penalty on them, and the intercept has none."""
    points = points_of(FEATURES_NF[:150], NUMBERS_NW[:150])
    found = _learner(penalty=2.5)
    ridge = Ridge(RidgeArguments(penalty=2.5), inputs=3, outputs=2, target="number", seed=0)
    expected = ridge.probabilities(learned(ridge, points), FEATURES_NF[150:])
    assert found.probabilities(learned(found, points), FEATURES_NF[150:])[:, :2] == pytest.approx(expected)


@pytest.mark.parametrize("is_bayesian", [False, True])
def test_features_that_repeat_each_other_have_an_answer(is_bayesian: bool) -> None:
    """The same holds if the penalty is lost in rounding beside their sums, so that the equations are singular."""
    values_N = (np.arange(50) % 5).astype(np.float32)
    points = points_of(np.stack([values_N, values_N, 0 * values_N], axis=1), 3 * values_N[:, None] + 1)
    learner = (
        BayesianLinear(BayesianLinearArguments(penalty=1e-20), inputs=3, outputs=1, target="number", seed=0)
        if is_bayesian
        else Ridge(RidgeArguments(penalty=1e-20), inputs=3, outputs=1, target="number", seed=0)
    )
    found = learner.probabilities(learned(learner, points), points.features_NF)
    assert np.isfinite(found).all()
    assert found[:, 0] == pytest.approx(3 * values_N + 1, abs=1e-3)


def test_intervals_are_those_of_the_posterior_by_integration() -> None:
    """One feature and five points: the predictive distribution by numerical integration over the noise's variance.

    Given the variance, the label of a point is normal: with the mean of the posterior and the variances of
    noise, coefficient and intercept.
    """
    x, y, at = np.array([0.0, 1.0, 2.0, 4.0, 5.0]), np.array([1.0, 2.5, 2.0, 4.5, 5.0]), 7.0
    learner = BayesianLinear(BayesianLinearArguments(interval=0.8), inputs=1, outputs=1, target="number", seed=0)
    state = learned(learner, points_of(x[:, None], y[:, None].astype(np.float32)))
    mean, spread, low, high = learner.probabilities(state, np.array([[at]], dtype=np.float32))[0]
    moved_x = x - x.mean()
    precision = moved_x @ moved_x + 1.0
    slope = moved_x @ (y - y.mean()) / precision
    assert mean == pytest.approx(y.mean() + slope * (at - x.mean()))
    left = ((y - y.mean()) ** 2).sum() - slope**2 * precision
    # The prior of the variance times the likelihood of what the mean of the labels leaves open.
    weight = stats.invgamma(2.0 + 2.0, scale=0.01 + left / 2)
    width = 1 + 1 / 5 + (at - x.mean()) ** 2 / precision

    def below(end: float) -> float:
        return float(
            integrate.quad(lambda v: stats.norm.cdf(end, mean, np.sqrt(v * width)) * weight.pdf(v), 0, np.inf)[0]
        )

    assert (below(low), below(high)) == pytest.approx((0.1, 0.9), abs=1e-5)
    assert spread == pytest.approx(np.sqrt(width * weight.mean()))


def test_as_many_labels_are_in_their_intervals_as_declared() -> None:
    """Over 300 data sets of 8 points whose coefficients and noise are drawn from the prior, 20 further labels each."""
    learner = BayesianLinear(
        BayesianLinearArguments(penalty=0.5, alpha=3.0, beta=2.0, interval=0.7),
        inputs=3,
        outputs=1,
        target="number",
        seed=0,
    )
    target = Number(("a",), interval="predictive")
    inside = []
    for _ in range(300):
        variance = 2.0 / GENERATOR.gamma(3.0)
        slopes_F1 = GENERATOR.normal(size=(3, 1)) * np.sqrt(variance / 0.5)
        features_NF = GENERATOR.normal(size=(28, 3)).astype(np.float32)
        noise_N1 = GENERATOR.normal(size=(28, 1)) * np.sqrt(variance)
        labels_N1 = (features_NF @ slopes_F1 + 7 + noise_N1).astype(np.float32)
        state = learned(learner, points_of(features_NF[:8], labels_N1[:8]))
        outputs_KNW = learner.probabilities(state, features_NF[8:])[None]
        found = target.measures(labels_N1[8:], target.aggregate(outputs_KNW, "mean_probability"))
        inside.append(found.metrics["coverage"])
    assert np.mean(inside) == pytest.approx(0.7, abs=0.03)


def test_nothing_is_lost_by_cancellation() -> None:
    """Labels that are far from zero and differ little leave the noise's variance as it is."""
    learner = BayesianLinear(BayesianLinearArguments(beta=1e-9), inputs=1, outputs=1, target="number", seed=0)
    near_N1 = (np.arange(400) % 2 / 256)[:, None].astype(np.float32)
    everywhere = np.zeros((400, 1), dtype=np.float32)
    spread, far_spread = (
        learner.probabilities(learned(learner, points_of(everywhere, near_N1 + shift)), everywhere[:1])[0, 1]
        for shift in (np.float32(0), np.float32(30_000))
    )
    assert far_spread == pytest.approx(spread, rel=1e-9)


def test_points_are_subtracted_exactly() -> None:
    """The sums after any change are those of a run on the points that are left; without any they are zeros."""
    learner = _learner()
    every = points_of(FEATURES_NF, NUMBERS_NW)
    was, now = np.arange(600) % 3 > 0, np.arange(600) % 5 > 1
    state = moved(learner, learned(learner, chosen(every, was)), every, was, now)
    assert learner.digest(state) == learner.digest(learned(learner, chosen(every, now)))
    nobody = moved(learner, state, every, now, np.zeros(600, dtype=bool))
    assert not any(values.any() for values in nobody.values.values())
    assert np.isfinite(learner.probabilities(nobody, FEATURES_NF)).all()
