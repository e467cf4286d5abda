"""Sekhari et al.'s step stays within its bound of a retrain, and what it keeps is described as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from shards.learners.approximate.models import keyed_bytes
from shards.learners.approximate.protocol import Diverged
from shards.learners.approximate.sekhari import CHANGE, Sekhari, SekhariState
from shards.points import ShardPoints
from storage.errors import Invalid
from tests.shards.learners.direct import chosen, points_of


def learner_of(classes: int = 2, inputs: int = 4, penalty: float = 0.1, **changes: Any) -> Sekhari:
    """Return a learner whose noise is the same in every run."""
    return Sekhari(
        inputs, classes, **{"penalty": penalty, "epsilon": 1.0, "delta": 1e-4, "draw": keyed_bytes("noise"), **changes}
    )


def made(points: int, classes: int = 2, seed: int = 0, inputs: int = 4) -> ShardPoints:
    """Return data points of which some are longer than 1."""
    generator = np.random.default_rng(seed)
    features_NF = generator.normal(size=(points, inputs)) * generator.uniform(0.1, 1, size=(points, 1))
    scores_NC = features_NF @ generator.normal(size=(inputs, classes)) + generator.normal(size=(points, classes)) / 4
    return points_of(features_NF, scores_NC.argmax(axis=1))


def refused() -> ShardPoints:
    """Stand for data points that may not be read."""
    raise AssertionError("the data points that are left were read")


def without(
    learner: Sekhari, state: SekhariState, every: ShardPoints, *batches: slice
) -> tuple[SekhariState, ShardPoints]:
    """Return the state after the batches have left one after another, and the data points that are left."""
    left_N = np.ones(len(every.labels_N), dtype=bool)
    for batch in batches:
        state = learner.unlearn(state, chosen(every, np.arange(len(left_N))[batch]), refused)
        left_N[batch] = False
    return state, chosen(every, left_N)


def error(learner: Sekhari, state: SekhariState, left: ShardPoints) -> float:
    """Return the distance, before noise, to the minimum for the data points that are left."""
    return float(np.linalg.norm(learner.estimate(state) - learner.learn(left).coefficients_DW))


def gradient_of(coefficients_D: Any, row_D: Any, label: float, penalty: float) -> Any:
    """Return the gradient of one data point's loss with its penalty, by the definition."""
    return (1 / (1 + math.exp(-row_D @ coefficients_D)) - label) * row_D + penalty * coefficients_D


def rows_of(points: ShardPoints) -> Any:
    """Return the declared rows: features of norm 1 at most, a constant, both divided by the root of 2."""
    features_NF = points.features_NF.astype(np.float64)
    norms_N1 = np.linalg.norm(features_NF, axis=1, keepdims=True)
    return np.hstack([np.where(norms_N1 > 1, features_NF / norms_N1, features_NF), np.ones_like(norms_N1)]) / 2**0.5


def test_the_minimum_is_that_of_scikit_learn() -> None:
    """On the declared rows; scikit-learn's C is the weight of the loss against the penalty."""
    every, learner = made(300), learner_of()
    reference = LogisticRegression(C=1 / (0.1 * 300), fit_intercept=False, tol=1e-12, max_iter=1000)
    reference.fit(rows_of(every), every.labels_N)
    assert learner.parameters(learner.learn(every)) == pytest.approx(reference.coef_[0], abs=1e-6)


def test_the_step_is_within_the_bound_in_a_hundred_problems_of_a_hundred() -> None:
    """Problems vary in size, penalty and share of erased data points, with 1 or 2 requests and 2 or 3 classes."""
    within, untouched = 0, 0
    for problem in range(100):
        generator = np.random.default_rng(problem)
        points, classes = int(generator.integers(20, 200)), int(generator.integers(2, 4))
        gone, first = int(generator.integers(2, points // 2 if problem % 10 == 0 else 4)), int(generator.integers(1, 3))
        learner = learner_of(classes, penalty=float(10 ** generator.uniform(-1, 0)))
        every = made(points, classes, seed=problem)
        batches = [slice(0, gone)] if problem % 2 else [slice(0, first), slice(first, gone + 1)]
        before = learner.learn(every)
        state, left = without(learner, before, every, *batches)
        assert state.gone == len(every.labels_N) - len(left.labels_N)
        bound = learner.bound(state.learned, state.gone)
        within += error(learner, state, left) <= bound
        untouched += error(learner, before, left) <= bound
    assert within == 100
    assert untouched < 60, "the bound tells a step from no step in some of them"


def test_the_error_falls_with_the_square_of_the_number_of_points() -> None:
    """Twice as many data points, the same number of them gone: a fourth of the error, as of the bound."""
    learner, some, gone = learner_of(penalty=0.05), made(100, seed=1), made(10, seed=2)
    errors = []
    for times in (4, 8, 16):
        every = chosen(some, np.tile(np.arange(100), times))
        both = points_of(
            np.vstack([gone.features_NF, every.features_NF]), np.concatenate([gone.labels_N, every.labels_N])
        )
        state, left = without(learner, learner.learn(both), both, slice(0, 10))
        errors.append(error(learner, state, left))
    assert 3.5 < errors[0] / errors[1] < 4.5
    assert 3.5 < errors[1] / errors[2] < 4.5
    assert learner.bound(400, 10) / learner.bound(800, 10) == pytest.approx(4)
    assert learner.bound(400, 20) / learner.bound(400, 10) == pytest.approx(4)


def test_the_error_grows_with_the_third_power_of_the_penalty() -> None:
    """Where the penalty is all that holds a coefficient: half of it is eight times the error, and not four times.

    The constant is held by 8,000 data points where curvature changes most. One in 400 has a feature.
    """
    features_N1 = (np.arange(8000) % 400 == 0)[:, None]
    labels_N = np.arange(8000) // 400 % 5 != 0  # four of five, also of those with the feature
    every = points_of(features_N1, labels_N)
    two_N, eight_N = (
        features_N1[:, 0] & ~labels_N,
        ~features_N1[:, 0] & labels_N,
    )  # their gradients, but for the feature's
    gone_N = two_N & (np.cumsum(two_N) <= 2) | eight_N & (np.cumsum(eight_N) <= 8)  # coefficient, sum up to about 0
    errors = []
    for penalty in (0.008, 0.004, 0.002):
        learner = learner_of(inputs=1, penalty=penalty)
        state = learner.unlearn(learner.learn(every), chosen(every, gone_N), refused)
        errors.append(error(learner, state, chosen(every, ~gone_N)))
    assert 6 < errors[1] / errors[0] < 9
    assert 6 < errors[2] / errors[1] < 9


def test_the_constants_hold() -> None:
    """No data point's gradient at a minimum is longer than L, and no second derivative changes faster than M."""
    for penalty in (1e-3, 1e-2, 0.1, 1.0, 10.0):
        learner = learner_of(penalty=penalty)
        for seed in range(4):
            every = made(30, seed=seed)
            found_D = learner.parameters(learner.learn(every))
            longest = max(
                np.linalg.norm(gradient_of(found_D, row_D, label, penalty))
                for row_D in rows_of(every)
                for label in (0.0, 1.0)
            )
            assert longest <= learner.steepest <= 2
    assert np.linalg.norm(rows_of(made(30)), axis=1).max() <= 1 + 1e-12
    z = np.linspace(-6, 6, 4001)
    curvature = np.exp(-z) / (1 + np.exp(-z)) ** 2
    assert np.abs(np.diff(curvature) / np.diff(z)).max() == pytest.approx(CHANGE, rel=1e-4)


def test_the_bound_is_that_of_the_paper() -> None:
    """2 M L^2 m^2 / (penalty^3 n^2), for one vector of coefficients; for several, of all of them together."""
    bound = 2 / (6 * math.sqrt(3)) * (1 + math.sqrt(0.02 * math.log(2))) ** 2 * 9 / (1e-6 * 900**2)
    assert learner_of(penalty=1e-2).bound(900, 3) == pytest.approx(bound)
    assert learner_of(9, penalty=1e-2).bound(900, 3) == pytest.approx(3 * bound)


def test_several_requests_are_as_one_with_all_that_left() -> None:
    """The same coefficients before noise and the same size of it: no noise is an input of a later request."""
    every = made(200, 3)
    learner = learner_of(3)
    state = learner.learn(every)
    once, left = without(learner, state, every, slice(0, 9))
    apart, _ = without(learner, state, every, slice(0, 2), slice(2, 9))
    assert learner.estimate(apart) == pytest.approx(learner.estimate(once), abs=1e-10)
    assert apart.hessians_WDD == pytest.approx(once.hessians_WDD, abs=1e-12)
    assert (apart.learned, apart.gone) == (once.learned, once.gone) == (200, 9)
    rows_ND, found_D = rows_of(left), state.coefficients_DW[:, 0]
    likely_N = 1 / (1 + np.exp(-rows_ND @ found_D))
    of_those_left_DD = (rows_ND.T * (likely_N * (1 - likely_N))) @ rows_ND / 191 + 0.1 * np.eye(5)
    assert apart.hessians_WDD[0] == pytest.approx(of_those_left_DD, abs=1e-12)


def test_noise_is_of_the_declared_size_and_new_for_each_request() -> None:
    """Standard normal numbers, times the deviation for all that has left."""
    every, learner = made(200), learner_of()
    first, _ = without(learner, learner.learn(every), every, slice(0, 3))
    second, _ = without(learner, first, every, slice(3, 5))
    noises = [
        (each.released_DW - learner.estimate(each)) / learner.deviation(200, each.gone) for each in (first, second)
    ]
    draw = keyed_bytes("noise")
    for noise_DW in noises:
        assert noise_DW.ravel() == pytest.approx(expected(draw), abs=1e-9)
    assert not np.isclose(noises[0], noises[1]).any()
    assert learner.deviation(200, 3) == pytest.approx(learner.bound(200, 3) * math.sqrt(2 * math.log(1.25e4)))
    assert learner_of(epsilon=0.5).deviation(200, 3) == pytest.approx(2 * learner.deviation(200, 3))
    of_system = Sekhari(4, penalty=0.1, epsilon=1.0, delta=1e-4)
    one, other = (without(of_system, of_system.learn(every), every, slice(0, 3))[0] for _ in range(2))
    assert not np.isclose(one.released_DW, other.released_DW).any()


def expected(draw: Callable[[int], bytes], count: int = 5) -> Any:
    """Return normal numbers by Box and Muller."""
    words = np.frombuffer(draw(16 * count), dtype="<u8").reshape(count, 2)
    uniform = ((words >> 11) + 0.5) / 2.0**53
    return np.sqrt(-2 * np.log(uniform[:, 0])) * np.cos(2 * np.pi * uniform[:, 1])


def test_no_data_points_are_kept_but_one_that_left_can_be_read_off() -> None:
    """The honest word on what is kept: after a single data point has left, the sum of gradients is its row."""
    every, learner = made(500), learner_of()
    state = learner.learn(every)
    sizes = {name: array.size for name, array in learner.arrays(state).items()}
    assert sizes == {"coefficients": 5, "hessians": 25, "leaving": 5, "counts": 2, "released": 5}
    assert len(sizes) == len(fields(SekhariState)) - 1
    assert not state.leaving_DW.any()
    after, _ = without(learner, state, every, slice(7, 8))
    row_D = after.leaving_DW[:, 0] - 0.1 * after.coefficients_DW[:, 0]
    assert row_D[:-1] / row_D[-1] == pytest.approx(rows_of(every)[7, :-1] * math.sqrt(2), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_learned_and_one_may_leave_as_a_whole(classes: int) -> None:
    """Shares add up to 1; a class without a data point is what answers never name."""
    every, learner = made(600, classes), learner_of(classes, penalty=0.01)
    state = learner.learn(every)
    found_NC = learner.probabilities(state, every.features_NF)
    assert found_NC.sum(axis=1) == pytest.approx(1)
    assert (found_NC.argmax(axis=1) == every.labels_N).mean() > 0.8
    gone_N = every.labels_N == classes - 1
    state = learner.unlearn(state, chosen(every, gone_N), refused)
    retrained = learner.learn(chosen(every, ~gone_N))
    assert learner.parameters(state).shape == learner.parameters(retrained).shape == ((classes == 2 or 3) * 5,)
    assert np.isfinite(learner.probabilities(state, every.features_NF)).all()
    assert (learner.probabilities(retrained, every.features_NF).argmax(axis=1) != classes - 1).all()


def test_nobody_leaves_and_everybody_leaves() -> None:
    """Nothing changes, and nothing is left: not even noise."""
    every, learner = made(30, 3), learner_of(3)
    state = learner.learn(every)
    assert learner.unlearn(state, chosen(every, np.zeros(30, dtype=bool)), refused) is state
    for batches in ([slice(0, 30)], [slice(0, 4), slice(4, 30)]):
        nobody, left = without(learner, state, every, *batches)
        assert not any(array.any() for array in learner.arrays(nobody).values())
        assert learner.probabilities(nobody, every.features_NF) == pytest.approx(1 / 3)
        assert learner.parameters(learner.learn(left)) == pytest.approx(learner.parameters(nobody))
    one, left = without(learner, state, every, slice(0, 29))
    assert error(learner, one, left) <= learner.bound(30, 29)


def test_data_points_that_were_never_learned_are_noticed_where_that_is_possible() -> None:
    """There are no rows to compare with: only what cannot be is refused."""
    every, learner = made(30), learner_of()
    state, _ = without(learner, learner.learn(every), every, slice(0, 10))
    with pytest.raises(Invalid, match="21 data points are to leave, and 20 are there"):
        learner.unlearn(state, made(21, seed=5), refused)
    same = points_of(np.tile([[1.0, 0, 0, 0]], (19, 1)), np.zeros(19, dtype=int))
    with pytest.raises(Diverged, match="no data points could have the second derivatives that are left"):
        learner.unlearn(state, same, refused)


def test_what_cannot_be_computed_is_named() -> None:
    """Features that are not numbers, a minimum that is not found, noise beyond all numbers."""
    every, learner = made(30), learner_of()
    state = learner.learn(every)
    for value in (math.nan, math.inf):
        broken = made(3)
        broken.features_NF[1, 2] = value
        with pytest.raises(Diverged, match="features of data points are not numbers"):
            learner.learn(broken)
        with pytest.raises(Diverged, match="features of data points are not numbers"):
            learner.unlearn(state, broken, refused)
    same = points_of(np.ones((30, 4)), np.arange(30) % 2)
    with pytest.raises(Diverged, match="the minimum of the loss was not found"):
        learner_of(penalty=1e-300).learn(same)
    weak = learner_of(penalty=1e-120)
    with pytest.raises(Diverged, match="the noise is beyond all numbers"):
        without(weak, state, every, slice(0, 1))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"penalty": 0.0}, "penalty = 0.0 or norm = 1.0 is not a positive number"),
        ({"penalty": math.nan}, "penalty = nan or norm = 1.0 is not a positive number"),
        ({"norm": -1.0}, "penalty = 0.1 or norm = -1.0 is not a positive number"),
        ({"epsilon": 1.5}, "epsilon = 1.5 or delta = 0.0001 is out of range"),
        ({"epsilon": 0.0}, "epsilon = 0.0 or delta = 0.0001 is out of range"),
        ({"delta": 1.0}, "epsilon = 1.0 or delta = 1.0 is out of range"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], problem: str) -> None:
    """The error says which values are valid."""
    with pytest.raises(Invalid, match=problem):
        learner_of(**changes)
