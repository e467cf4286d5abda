"""A constituent with certified removal keeps to its budget, and to the truth about it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.learner_kinds.certified import CertifiedLinearArguments
from shards.learners.certified.learner import CertifiedLinear, CertifiedState
from shards.lineage import Accounted
from shards.points import ShardPoints
from storage.errors import Invalid
from tests.shards.learners.direct import SHARD, chosen, learned, moved, points_of

NORM = 4.0


def drawing(seed: int = 0) -> Callable[[int], bytes]:
    """Return a source of random bytes."""
    calls = iter(range(10**6))
    return lambda count: hashlib.shake_256(f"{seed} {next(calls)}".encode()).digest(count)


def learner_of(
    outputs: int = 2, target: str = "class", *, inputs: int = 4, salt: bytes = b"", **arguments: Any
) -> CertifiedLinear:
    """Return a learner of this target; ``salt`` decides the salts that it draws."""
    given = CertifiedLinearArguments(**{"norm": NORM, "penalty": 1e-2, "noise": 0.5, **arguments})
    draw = drawing()
    salted = (lambda count: salt * 32 if count == 32 else draw(count)) if salt else draw
    return CertifiedLinear(given, inputs, outputs, target, 0, draw=salted)


def made(points: int, outputs: int = 2, target: str = "class", *, seed: int = 0, inputs: int = 4) -> ShardPoints:
    """Return data points within the norm, whose labels follow from the features."""
    generator = np.random.default_rng(seed)
    features_NF = generator.normal(size=(points, inputs)).astype(np.float32)
    features_NF *= NORM / np.maximum(NORM, np.linalg.norm(features_NF, axis=1, keepdims=True)) * np.float32(0.999)
    numbers_NW = features_NF @ generator.normal(size=(inputs, outputs)).astype(np.float32)
    return points_of(features_NF, numbers_NW if target == "number" else numbers_NW.argmax(axis=1))


def left_of(points: int, gone: int) -> tuple[Any, Any]:
    """Return masks of all points, and of those that are left without the first ones."""
    return np.ones(points, dtype=bool), np.arange(points) >= gone


@settings(max_examples=40)
@given(
    shape=st.sampled_from([("class", 2), ("class", 3), ("number", 1), ("number", 2)]),
    points=st.integers(1, 50),
    batches=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    seed=st.integers(0, 999),
)
def test_the_true_residual_is_never_above_the_accounted_one(
    shape: tuple[str, int], points: int, batches: list[int], seed: int
) -> None:
    """After any sequence of removals, through checkpoints, with and without new noise; the budget is kept."""
    target, outputs = shape
    learner = learner_of(outputs, target)
    every = made(points, outputs, target, seed=seed)
    state = learned(learner, every)
    was = np.ones(points, dtype=bool)
    for batch in batches:
        now = was & (np.cumsum(was) > batch)
        after = moved(learner, state, every, was, now)
        state = learned(learner, chosen(every, now)) if after is None else after
        assert learner.residual(state, chosen(every, now)) <= state.spent <= learner.accounted(state).budget
        if target == "number":
            assert after is not None
            assert learner.residual(state, chosen(every, now)) < 1e-9
        was = now


def test_each_class_has_the_bound_of_the_rows_that_are_left() -> None:
    """The published script down-dates its Gram matrix once per class: of ten classes, ten times too much."""
    learner, every = learner_of(10), made(400, 10)
    state = learned(learner, every)
    was = np.ones(400, dtype=bool)
    for _ in range(5):
        now = was & (np.cumsum(was) > 1)
        after = moved(learner, state, every, was, now)
        rows_ND = np.column_stack([every.features_NF[now] / NORM, np.ones(now.sum())]) / math.sqrt(2)
        spectral = np.linalg.svd(rows_ND, compute_uv=False)[0]
        squares = (rows_ND @ (after.coefficients_DW - state.coefficients_DW)) ** 2
        bound = spectral / (12 * math.sqrt(3)) * np.linalg.norm(squares, axis=0).sum()
        assert bound <= after.spent - state.spent <= bound * 1.01 + 1e-6
        state, was = after, now


def test_a_used_up_budget_means_new_noise() -> None:
    """The published script goes on beyond the budget."""
    learner, every = learner_of(noise=0.05), made(60)
    state = first = learned(learner, every)
    was, removals = np.ones(60, dtype=bool), 0
    while True:
        now = was & (np.cumsum(was) > 1)
        after = moved(learner, state, every, was, now)
        if after is None:
            break
        assert state.spent < after.spent <= learner.accounted(after).budget
        assert (after.noise_DW == first.noise_DW).all()
        state, was, removals = after, now, removals + 1
    fresh = learned(learner, chosen(every, now))
    assert removals > 0
    assert fresh.spent < state.spent / 100
    assert not np.isclose(fresh.noise_DW, first.noise_DW).any()


def test_answers_are_those_of_the_new_coefficients() -> None:
    """The published script's binary mode answers with the old ones."""
    learner, every = learner_of(), made(80)
    state = learned(learner, every)
    after = moved(learner, state, every, *left_of(80, 20))
    found_NC = learner.probabilities(after, every.features_NF)
    rows_ND = np.column_stack([every.features_NF / NORM, np.ones(80)]) / math.sqrt(2)
    assert found_NC[:, 1] == pytest.approx(1 / (1 + np.exp(-(rows_ND @ after.coefficients_DW)[:, 0])))
    assert (np.abs(found_NC - learner.probabilities(state, every.features_NF)) > 1e-6).any()


def test_added_and_corrected_points_mean_new_noise() -> None:
    """A budget is for removals."""
    learner, every = learner_of(), made(50)
    seen = np.arange(50) < 40
    state = learned(learner, chosen(every, seen))
    assert moved(learner, state, every, seen, np.ones(50, dtype=bool)) is None
    assert learner.digest(moved(learner, state, every, seen, seen)) == learner.digest(state)


def test_a_step_for_many_points_is_one_removal() -> None:
    """A crash before a checkpoint is kept repeats the step, and arrives at the same constituent and account."""
    learner, every = learner_of(), made(300)
    state = learned(learner, every)
    once, twice = (moved(learner, state, every, *left_of(300, 5)) for _ in range(2))
    assert learner.digest(once) == learner.digest(twice)
    assert once.spent == twice.spent


def test_without_points_there_is_nothing_to_tell() -> None:
    """Coefficients, noise and account are zero, as before any training."""
    learner, every = learner_of(), made(30)
    nobody = moved(learner, learned(learner, every), every, *left_of(30, 30))
    assert learner.digest(nobody) == learner.digest(learner.initial(SHARD))
    assert learner.digest(learned(learner, chosen(every, np.zeros(30, dtype=bool)))) == learner.digest(nobody)
    assert learner.residual(nobody, chosen(every, np.zeros(30, dtype=bool))) == 0
    assert np.isfinite(learner.probabilities(nobody, every.features_NF)).all()


@pytest.mark.parametrize("outputs", [2, 3])
def test_classes_are_learned(outputs: int) -> None:
    """The shares of each point add up to 1, and most points get their class."""
    learner, every = learner_of(outputs, noise=0.1, penalty=1e-3), made(600, outputs)
    found = learner.probabilities(learned(learner, every), every.features_NF)
    assert found.shape == (600, outputs)
    assert found.sum(axis=1) == pytest.approx(1)
    assert (found.argmax(axis=1) == every.labels_N).mean() > 0.9


def test_numbers_are_learned() -> None:
    """Several of them, each with coefficients of its own."""
    learner, every = learner_of(2, "number", noise=0.01, penalty=1e-6), made(200, 2, "number")
    found = learner.probabilities(learned(learner, every), every.features_NF)
    assert found == pytest.approx(every.labels_N, abs=0.05)


@pytest.mark.parametrize("value", [NORM * 1.001, math.nan, math.inf])
def test_longer_features_are_refused(value: float) -> None:
    """The error says how many there are, and quotes no value."""
    every = made(20)
    every.features_NF[3] = (value, 0, 0, 0)
    with pytest.raises(Invalid, match=r"arguments\.norm = 4 is below the norm of the features of 1 of 20 data points"):
        learned(learner_of(), every)
    assert np.isfinite(learner_of().probabilities(learned(learner_of(), made(20)), made(20).features_NF * 9)).all()


def test_longer_features_are_clipped_where_that_is_declared() -> None:
    """Each by itself: another point's length does not matter."""
    every = made(20)
    every.features_NF[3] = (40.0, 30.0, 0, 0)
    clipped = made(20)
    clipped.features_NF[3] = (3.2, 2.4, 0, 0)
    states = [learned(learner_of(clip=True), each) for each in (every, clipped)]
    assert states[0].coefficients_DW == pytest.approx(states[1].coefficients_DW)
    every.features_NF[3, 0] = math.inf
    with pytest.raises(Invalid, match="or these are not numbers"):
        learned(learner_of(clip=True), every)


def test_noise_is_drawn_from_the_system() -> None:
    """Two trainings of the same points under the same settings are different: no setting decides the noise."""
    arguments = CertifiedLinearArguments(norm=NORM)
    one, other = (learned(CertifiedLinear(arguments, 4, 2, "class", 7), made(30)) for _ in range(2))
    assert not np.isclose(one.noise_DW, other.noise_DW).any()


def test_no_digest_confirms_a_guess_of_the_noise() -> None:
    """An observer of coefficients and data points can compute the noise, but none of the digests that are shown."""
    every, found = made(30), list[list[CertifiedState]]()
    for salt in (b"a", b"b"):
        learner = learner_of(salt=salt)
        before = learned(learner, every)
        found.append([before, moved(learner, before, every, *left_of(30, 2))])
        assert (found[-1][0].salt_B == found[-1][1].salt_B).all()
    for one, other in zip(*found, strict=True):
        assert (one.coefficients_DW == other.coefficients_DW).all()
        assert (one.noise_DW == other.noise_DW).all()
        assert one.spent == other.spent
        assert learner_of().digest(one) != learner_of().digest(other)


def test_no_account_of_a_single_removal_is_kept() -> None:
    """A constituent is its coefficients, its noise, its salt and one number."""
    state = learned(learner_of(), made(30))
    assert CertifiedState.__slots__ == ("coefficients_DW", "noise_DW", "spent", "salt_B")
    assert (state.coefficients_DW.shape, state.noise_DW.shape) == ((5, 1), (5, 1))


def test_the_shown_share_is_rounded_up() -> None:
    """The exact share after each erasure would show what the erased person contributed."""
    assert [Accounted(spent=each, budget=2.0).share for each in (0.0, 1e-9, 0.02, 0.0201, 2.0)] == [
        0,
        0.01,
        0.01,
        0.02,
        1,
    ]
    for hundredths in range(101):
        account = Accounted(spent=hundredths / 100 * 0.228, budget=0.228)
        assert account.rounded.share == account.share == hundredths / 100


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"norm": 0.0}, "norm must be above 0, got 0.0: declare the largest Euclidean norm"),
        ({"norm": math.inf}, "norm must be above 0, got inf"),
        ({"penalty": 0.0}, "penalty must be above 0, got 0.0"),
        ({"noise": -1.0}, "noise must be above 0, got -1.0"),
        ({"epsilon": 1.5}, "epsilon must be above 0 and at most 1, got 1.5"),
        ({"epsilon": math.nan}, "epsilon must be above 0 and at most 1, got nan"),
        ({"delta": 1.0}, "delta must be above 0 and below 1, got 1.0"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], problem: str) -> None:
    """The error says which values are valid."""
    (found,) = CertifiedLinearArguments(**{"norm": 1.0, **changes}).problems()
    assert found.startswith(problem)


def test_an_optimum_that_cannot_be_computed_is_named() -> None:
    """Equal data points and a penalty that vanishes beside them: no linear algebra's error, but what to change."""
    every = made(30)
    every.features_NF[:] = every.features_NF[0]
    with pytest.raises(Invalid, match="the optimum of certified_linear was not found: a residual of inf is left"):
        learned(learner_of(penalty=1e-300), every)


def test_a_step_that_cannot_be_computed_means_new_noise() -> None:
    """Where only equal data points are left, and the penalty vanishes beside them."""
    every = made(30)
    every.features_NF[:20] = every.features_NF[0]
    learner = learner_of(penalty=1e-300)
    state = replace(learner.initial(SHARD), noise_DW=np.ones((5, 1)))
    assert moved(learner, state, every, np.ones(30, dtype=bool), np.arange(30) < 20) is None
