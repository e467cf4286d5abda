"""The optimum, the step that removes data points, and the bound of what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression

from shards.learners.certified.optimum import LOGISTIC, SQUARED, LinearLoss, Objective, Reals, normal, spectral_norm


def problem_of(
    points: int, columns: int, loss: LinearLoss = LOGISTIC, *, seed: int = 0, noise: float = 1.0
) -> Objective:
    """Return a problem with rows of norm 1 at most."""
    generator = np.random.default_rng(seed)
    rows_ND = generator.normal(size=(points, columns))
    rows_ND /= np.linalg.norm(rows_ND, axis=1, keepdims=True) * generator.uniform(1, 3, size=(points, 1))
    labels_N = (rows_ND @ generator.normal(size=columns) + generator.normal(size=points) / 4 > 0).astype(float)
    return Objective(rows_ND, labels_N, noise * generator.normal(size=columns), 1e-2, loss, spectral_norm(rows_ND))


def without(problem: Objective, gone: int) -> tuple[Objective, Reals, Reals]:
    """Return the problem without its first points, and these."""
    rows_ND, labels_N = problem.rows_ND, problem.labels_N
    left = Objective(
        rows_ND[gone:], labels_N[gone:], problem.noise_D, problem.penalty, problem.loss, spectral_norm(rows_ND[gone:])
    )
    return left, rows_ND[:gone], labels_N[:gone]


def test_the_optimum_is_that_of_scikit_learn() -> None:
    """This holds without noise; scikit-learn's C is the weight of the loss relative to the penalty."""
    problem = problem_of(200, 5, noise=0.0)
    reference = LogisticRegression(C=1 / (problem.penalty * 200), fit_intercept=False, tol=1e-12, max_iter=1000)
    reference.fit(problem.rows_ND, problem.labels_N)
    assert problem.optimum() == pytest.approx(reference.coef_[0], abs=1e-6)


@settings(max_examples=60)
@given(
    points=st.integers(1, 60),
    columns=st.integers(1, 6),
    loss=st.sampled_from([LOGISTIC, SQUARED]),
    gone=st.integers(1, 20),
    noise=st.sampled_from([0.0, 0.1, 30.0]),
    seed=st.integers(0, 999),
)
def test_the_residual_is_within_the_bound(
    points: int, columns: int, loss: LinearLoss, gone: int, noise: float, seed: int
) -> None:
    """For any points, any number of removed ones, any noise: starting from the residual of the optimum."""
    problem = problem_of(points + gone, columns, loss, seed=seed, noise=noise)
    found_D = problem.optimum()
    first = problem.residual(found_D)
    assert first <= problem.rounding(found_D) < 1e-9
    left, rows_MD, labels_M = without(problem, gone)
    after_D, bound = left.without(rows_MD, labels_M, found_D)
    assert left.residual(after_D) <= problem.rounding(found_D) + bound
    assert bound >= left.rounding(after_D)
    assert bound > 0 or not (after_D.any() or left.noise_D.any())
    if loss is SQUARED:
        assert left.residual(after_D) < 1e-9
        assert bound < 1e-9


def test_the_bound_falls_with_the_number_of_points() -> None:
    """Removing one of ten times as many points costs about a tenth, and always less than the published bound."""
    means, every = [], problem_of(4020, 4, noise=0.0)
    for points in (420, 4020):
        problem, _, _ = without(every, 4020 - points)
        found_D = problem.optimum()
        left, rows_MD, labels_M = without(problem, 20)
        bounds = []
        for each in range(20):
            after_D, bound = left.without(rows_MD[each : each + 1], labels_M[each : each + 1], found_D)
            step_D = after_D - found_D
            moved = float(np.linalg.norm(left.rows_ND @ step_D))
            assert bound < left.spectral * float(np.linalg.norm(step_D)) * moved / 4
            bounds.append(bound)
        means.append(float(np.mean(bounds)))
    assert 5 < means[0] / means[1] < 20


def test_power_iterations_come_from_below() -> None:
    """The published script takes 20 of them for the spectral norm: too little where singular values are close."""
    generator = np.random.default_rng(1)
    left, _ = np.linalg.qr(generator.normal(size=(60, 30)))
    right, _ = np.linalg.qr(generator.normal(size=(30, 30)))
    rows_ND = left @ np.diag(np.linspace(0.97, 1.0, 30)) @ right
    exact = float(np.linalg.svd(rows_ND, compute_uv=False)[0])
    vector = np.full(30, 30**-0.5)
    for _ in range(20):
        vector = rows_ND.T @ (rows_ND @ vector)
        vector /= np.linalg.norm(vector)
    assert float(np.linalg.norm(rows_ND @ vector)) < exact * 0.999
    assert exact <= spectral_norm(rows_ND) <= exact * (1 + 1e-9)


def test_random_bytes_become_normal_numbers() -> None:
    """The distribution is the standard normal one, also in its tails."""
    found = normal(np.random.default_rng(3).bytes(16 * 20000))
    assert len(found) == 20000
    assert stats.kstest(found, "norm").pvalue > 0.01
    assert 3.5 < np.abs(found).max() < 5.5
