"""Bounds and their optima, in conjugate models that have a closed form, and where there is no optimum.

Shape legend: N points, D coefficients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from shards.learner_kinds.bayesian import BayesianLinearArguments
from shards.learners.approximate.gaussian import LOGISTIC, Bound, Gaussian, Likelihood, closest, mean_sigmoids, tilted
from shards.learners.approximate.models import normal_numbers
from shards.learners.approximate.protocol import Diverged
from shards.learners.summation.bayesian_linear import BayesianLinear
from tests.shards.learners.direct import chosen, learned, points_of

PRIOR = 0.5


def normal_noise(variance: float) -> Likelihood:
    """Return the likelihood of numbers whose noise has this variance."""
    return Likelihood(
        lambda z, y: -((y - z) ** 2) / (2 * variance) - np.log(2 * np.pi * variance) / 2,
        lambda z, y: (y - z) / variance,
    )


def linear_problem(count: int = 40, wide: int = 4) -> tuple[Any, Any]:
    """Return rows with a constant, and numbers."""
    rows_ND = normal_numbers("rows", count * wide).reshape(count, wide)
    rows_ND[:, -1] = 1
    return rows_ND, rows_ND @ np.arange(1.0, wide + 1) + normal_numbers("noise", count)


def prior(wide: int, *, diagonal: bool) -> Gaussian:
    """Return the prior of one output."""
    precision = np.full(wide, PRIOR)
    return Gaussian(np.zeros((1, wide)), precision[None] if diagonal else np.diag(precision)[None])


def bound(anchor: Gaussian, rows_ND: Any, labels_N: Any, sign: Any, noise: float = 0.3, trust: float = 0.0) -> Bound:
    """Return the bound of a linear regression."""
    return Bound(anchor, rows_ND, labels_N[:, None], normal_noise(noise), sign, PRIOR, trust)


def conjugate(rows_ND: Any, labels_N: Any, noise: float = 0.3) -> tuple[Any, Any]:
    """Return the mean and precision of the exact posterior."""
    precision_DD = PRIOR * np.eye(rows_ND.shape[1]) + rows_ND.T @ rows_ND / noise
    return np.linalg.solve(precision_DD, rows_ND.T @ labels_N / noise), precision_DD


def log_evidence(rows_ND: Any, labels_N: Any, noise: float = 0.3) -> float:
    """Return the exact logarithm of the labels' density, the coefficients integrated out."""
    covariance_NN = rows_ND @ rows_ND.T / PRIOR + noise * np.eye(len(rows_ND))
    distance = labels_N @ np.linalg.solve(covariance_NN, labels_N)
    return -float(distance + np.linalg.slogdet(2 * np.pi * covariance_NN)[1]) / 2


@pytest.mark.parametrize("gone", [0, 1, 7, 39, 40])
def test_the_upper_bounds_optimum_is_the_closed_form_in_a_conjugate_model(gone: int) -> None:
    """Linear regression with known noise: nobody, some or everybody leaves; then the prior comes back."""
    rows_ND, labels_N = linear_problem()
    every, _ = closest(bound(prior(4, diagonal=False), rows_ND, labels_N, -1))
    after, is_raised = closest(bound(every, rows_ND[:gone], labels_N[:gone], 1))
    mean_D, precision_DD = conjugate(rows_ND[gone:], labels_N[gone:])
    np.testing.assert_allclose(mean_D, after.means_KD[0], atol=1e-8)
    np.testing.assert_allclose(np.linalg.inv(precision_DD), after.covariances[0], atol=1e-8)
    assert not is_raised


def test_several_erasures_equal_one_in_a_conjugate_model() -> None:
    """Errors do not add up where the posterior is exact."""
    rows_ND, labels_N = linear_problem()
    at, _ = closest(bound(prior(4, diagonal=False), rows_ND, labels_N, -1))
    for place in range(12):
        at, _ = closest(bound(at, rows_ND[place : place + 1], labels_N[place : place + 1], 1))
    mean_D, precision_DD = conjugate(rows_ND[12:], labels_N[12:])
    np.testing.assert_allclose(mean_D, at.means_KD[0], atol=1e-8)
    np.testing.assert_allclose(precision_DD, at.precisions[0], rtol=1e-8)


def test_independent_coefficients_have_the_means_of_dependent_ones() -> None:
    """The best approximation of a Gaussian without correlations has its means and the diagonal of its precisions."""
    rows_ND, labels_N = linear_problem()
    found, _ = closest(bound(prior(4, diagonal=True), rows_ND, labels_N, -1))
    mean_D, precision_DD = conjugate(rows_ND, labels_N)
    np.testing.assert_allclose(mean_D, found.means_KD[0], atol=1e-3)
    np.testing.assert_allclose(np.diag(precision_DD), found.precisions[0], rtol=1e-6)


def test_the_bounds_enclose_the_evidence() -> None:
    """Minus the first bound is at most the evidence, the second at least it: at their optima both are equal to it."""
    rows_ND, labels_N = linear_problem()
    lower = bound(prior(4, diagonal=False), rows_ND, labels_N, -1)
    every, _ = closest(lower)
    upper = bound(every, rows_ND[:10], labels_N[:10], 1)
    after, _ = closest(upper)
    of_all = log_evidence(rows_ND, labels_N)
    of_gone = of_all - log_evidence(rows_ND[10:], labels_N[10:])
    assert -lower.values(every)[0] == pytest.approx(of_all, abs=1e-9)
    assert upper.values(after)[0] == pytest.approx(of_gone, abs=1e-9)
    for at in (prior(4, diagonal=False), every, after, Gaussian(after.means_KD + 0.1, after.precisions * 1.3)):
        assert -lower.values(at)[0] <= of_all + 1e-9
        assert upper.values(at)[0] >= of_gone - 1e-9
        # How far each is from its optimum is the divergence from the exact posterior.
        assert lower.values(at)[0] + of_all == pytest.approx(at.divergences_from(every)[0], abs=1e-8)
        assert upper.values(at)[0] - of_gone == pytest.approx(at.divergences_from(after)[0], abs=1e-8)


@pytest.mark.parametrize("noise", [0.05, 4.0])
def test_bayesian_linear_is_the_exact_end_of_the_method(noise: float) -> None:
    """With any given variance of the noise, unlearning arrives at the posterior that ``bayesian_linear`` has without
    the erased: its means, and its covariance times that variance. Its own removal is a subtraction of sums.
    """
    features_NF = (np.round(normal_numbers("features", 90).reshape(30, 3) * 256) / 256).astype(np.float32)
    exact_N = features_NF @ np.array([1.0, -2.0, 0.5]) + 3 + normal_numbers("labels", 30)
    labels_N1 = (np.round(exact_N * 256) / 256).astype(np.float32)[:, None]
    arguments = BayesianLinearArguments()
    every = points_of(features_NF, labels_N1)
    learner = BayesianLinear(arguments, 3, 1, "number", 0)
    state = learned(learner, every)
    gone, left = chosen(every, np.arange(30) < 11), chosen(every, np.arange(30) >= 11)
    nobody = chosen(every, np.zeros(30, dtype=bool))
    exact = learner.fit(learner.unlearn(state, gone, nobody, lambda: left).values)

    rows_ND = np.concatenate([features_NF.astype(np.float64), np.ones((30, 1))], axis=1)
    # The prior of the constant is flat there.
    anchor = Gaussian(np.zeros((1, 4)), np.diag([arguments.penalty / noise] * 3 + [1e-10])[None])
    likelihood, numbers_N1 = normal_noise(noise), labels_N1.astype(np.float64)
    learned_from_all, _ = closest(Bound(anchor, rows_ND, numbers_N1, likelihood, -1, 1e-10))
    after, _ = closest(Bound(learned_from_all, rows_ND[:11], numbers_N1[:11], likelihood, 1, 1e-10))
    np.testing.assert_allclose(exact.coefficients_FW[:, 0], after.means_KD[0, :3], atol=1e-8)
    np.testing.assert_allclose(exact.covariance_FF * noise, after.covariances[0, :3, :3], atol=1e-8)
    constant = exact.labels_W[0] - exact.features_F @ exact.coefficients_FW[:, 0]
    assert after.means_KD[0, 3] == pytest.approx(constant, abs=1e-7)


def test_a_bound_without_an_optimum_is_reported() -> None:
    """Data points that the posterior never had, more than it has: the upper bound falls without end."""
    rows_ND, labels_N = linear_problem()
    few, _ = closest(bound(prior(4, diagonal=False), rows_ND[:3], labels_N[:3], -1))
    with pytest.raises(Diverged, match="no optimum: means grow without end"):
        closest(bound(few, rows_ND[3:], labels_N[3:], 1))


def test_precisions_below_the_priors_are_raised_to_it() -> None:
    """A posterior that is too wide in one direction: subtracting what was never added would leave less than nothing."""
    rows_ND = np.array([[1.0, 0.0], [0.0, 1.0]])
    anchor = Gaussian(np.zeros((1, 2)), np.diag([2.0, 50.0])[None])
    found, is_raised = closest(bound(anchor, rows_ND, np.zeros(2), 1))
    assert is_raised
    np.testing.assert_allclose(np.diag([PRIOR, 50 - 1 / 0.3]), found.precisions[0], rtol=1e-9)


@pytest.mark.parametrize("trust", [1e-9, 1e-3, 0.2])
def test_what_is_trusted_of_a_predictor_is_what_samples_find(trust: float) -> None:
    """The slopes of the upper bound at its anchor are those of samples that count where the density is high."""
    rows_ND, labels_N = linear_problem(6)
    anchor, _ = closest(bound(prior(4, diagonal=False), rows_ND, labels_N, -1))
    found = bound(anchor, rows_ND, labels_N, 1, trust=trust).slopes(anchor)
    nodes_SD = normal_numbers("samples", 4 << 17).reshape(-1, 4)
    samples_SD = anchor.means_KD + nodes_SD @ np.linalg.cholesky(anchor.covariances[0]).T
    is_trusted_S = (nodes_SD**2).sum(axis=1) < -2 * np.log(trust)
    slopes_SN = normal_noise(0.3).slope(samples_SD @ rows_ND.T, labels_N) * is_trusted_S[:, None]
    by_samples_D = (slopes_SN @ rows_ND).mean(axis=0)
    errors_D = (slopes_SN @ rows_ND).std(axis=0) / np.sqrt(len(nodes_SD))
    assert (np.abs(by_samples_D - found.gradient_KD[0]) < 5 * errors_D + 1e-9).all()


def test_quadrature_has_the_probability_over_the_posterior() -> None:
    """The mean of the logistic function is that of adaptive integration; to three digits for very wide posteriors."""
    for mean, spread, within in ((0.3, 0.1, 1e-12), (-2.0, 1.5, 1e-7), (1.0, 4.0, 2e-4)):
        at = Gaussian(np.array([[mean]]), np.array([[[spread**-2]]]))
        exact, _ = integrate.quad(
            lambda z, mean=mean, spread=spread: stats.norm.pdf(z, mean, spread) / (1 + np.exp(-z)), -30, 30, limit=200
        )
        assert mean_sigmoids(at, np.ones((1, 1)))[0, 0] == pytest.approx(exact, abs=within)


def test_samples_give_the_moments_of_the_quotient() -> None:
    """In a conjugate model the reverse divergence has the same optimum; of samples it is an estimate."""
    rows_ND, labels_N = linear_problem()
    every, _ = closest(bound(prior(4, diagonal=False), rows_ND, labels_N, -1))
    nodes_SD = normal_numbers("samples", 4 << 15).reshape(-1, 4)
    after, _, effective = tilted(bound(every, rows_ND[:3], labels_N[:3], 1), nodes_SD)
    mean_D, precision_DD = conjugate(rows_ND[3:], labels_N[3:])
    exact = Gaussian(mean_D[None], precision_DD[None])
    assert after.divergences_from(exact)[0] < every.divergences_from(exact)[0] / 20
    assert 1000 < effective < len(nodes_SD)


def test_one_sample_with_all_the_weight_is_reported() -> None:
    """Then the moments say nothing."""
    rows_ND, labels_N = linear_problem()
    every, _ = closest(bound(prior(4, diagonal=False), rows_ND[:8], labels_N[:8], -1))
    with pytest.raises(Diverged, match="one has all the weight"):
        tilted(bound(every, rows_ND, labels_N + 30, 1), normal_numbers("samples", 800).reshape(-1, 4))


def test_values_that_are_not_numbers_are_reported() -> None:
    """A likelihood without a value ends in an error of its own."""
    rows_ND, labels_N = linear_problem()
    labels_N[3] = np.nan
    with pytest.raises(Diverged, match="values that are not numbers"):
        closest(Bound(prior(4, diagonal=True), rows_ND, labels_N[:, None], LOGISTIC, -1, PRIOR))


@pytest.mark.parametrize("diagonal", [False, True])
def test_few_samples_make_no_posterior_surer(diagonal: bool) -> None:
    """Moments of few samples vary; an erasure is an increase of the variance in every direction."""
    rows_ND, labels_N = linear_problem()
    every, _ = closest(bound(prior(4, diagonal=diagonal), rows_ND, labels_N, -1))
    nodes_SD = normal_numbers("samples", 400).reshape(-1, 4)
    after, is_moved, _ = tilted(bound(every, rows_ND[:1], labels_N[:1], 1), nodes_SD)
    assert is_moved
    less = (every.precisions - after.precisions)[0]
    assert (np.linalg.eigvalsh(np.diag(less) if diagonal else less) >= -1e-9 * every.precisions.max()).all()
    assert np.abs(less).max() > 1e-3
