"""Gradient descent with holes, and the full retrain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shards.learner_kinds.guarantees import EXACT
from shards.learners.approximate.descent import DescentRecipe, FullRetrain, steps
from shards.learners.approximate.models import keyed_order
from shards.learners.approximate.protocol import Diverged
from storage.errors import Invalid
from tests.shards.learners.approximate.small import CLASSES, INPUTS, MODELS, blobs, recipe, without
from tests.shards.learners.direct import chosen, points_of


def by_hand(model: Any, settings: DescentRecipe, points: Any, gone: list[int]) -> Any:
    """Return the parameters of a descent written without any of the code under test, batch by batch."""
    count = len(points.labels_N)
    size = settings.batch_size or count
    parameters = model.initial(settings.seed)
    for epoch in range(settings.epochs):
        order = keyed_order(f"descent/{settings.seed}/{epoch}", count)
        rate = settings.rate if epoch < settings.epochs / 2 else settings.later_rate
        for start in range(0, count, size):
            batch = [place for place in order[start : start + size] if place not in gone]
            if batch:
                gradient = model.gradient(parameters, points.features_NF[batch].astype(float), points.labels_N[batch])
                parameters = parameters - rate * (gradient + settings.penalty * parameters)
    return parameters


@pytest.mark.parametrize("batch_size", [None, 7, 20])
@pytest.mark.parametrize("kind", sorted(MODELS))
def test_holes_are_left_in_the_batches_of_the_original_run(kind: str, batch_size: int | None) -> None:
    """Deletions in several requests leave the other data points in their batches; the last batch is short."""
    points, settings = blobs(30), recipe(batch_size=batch_size)
    learner = FullRetrain(MODELS[kind], settings)
    state = learner.learn(points)
    np.testing.assert_allclose(by_hand(MODELS[kind], settings, points, []), learner.parameters(state), atol=1e-12)
    after, rest = without(learner, state, points, [0, 5, 29])
    np.testing.assert_allclose(by_hand(MODELS[kind], settings, points, [0, 5, 29]), after.parameters_P, atol=1e-12)
    position = int(np.flatnonzero(rest.keys_N == points.keys_N[3])[0])
    last, _ = without(learner, after, rest, [position])
    np.testing.assert_allclose(by_hand(MODELS[kind], settings, points, [0, 3, 5, 29]), last.parameters_P, atol=1e-12)


def test_a_batch_without_a_data_point_left_is_skipped() -> None:
    """Its step does not even shrink the parameters."""
    points, settings = blobs(9), recipe(batch_size=3, epochs=1)
    gone = keyed_order("descent/0/0", 9)[3:6]
    learner = FullRetrain(MODELS["softmax"], settings)
    after, _ = without(learner, learner.learn(points), points, gone)
    np.testing.assert_allclose(by_hand(MODELS["softmax"], settings, points, gone.tolist()), after.parameters_P)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_without_any_data_point_the_parameters_are_those_of_the_start(batch_size: int | None) -> None:
    """All batches are skipped."""
    points, model = blobs(9), MODELS["net"]
    learner = FullRetrain(model, recipe(batch_size=batch_size, seed=3))
    after, _ = without(learner, learner.learn(points), points, np.arange(9))
    np.testing.assert_array_equal(model.initial(3), learner.parameters(after))


def test_the_learning_rate_changes_at_half_time_or_where_the_recipe_says() -> None:
    """The middle one of an odd number of epochs belongs to the first half."""
    odd, declared = recipe(epochs=5), recipe(epochs=5, first_epochs=1)
    assert [step.rate for step in steps(odd, 8)] == [0.5, 0.5, 0.5, 0.25, 0.25]
    assert [step.rate for step in steps(declared, 8)] == [0.5, 0.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(("batch_size", "expected"), [(None, 12), (7, 24), (8, 12), (9, 12)])
def test_the_number_of_steps_is_known_before_the_descent(batch_size: int | None, expected: int) -> None:
    """Caches of all steps are allocated once."""
    settings = recipe(batch_size=batch_size)
    assert expected == settings.count_steps(8) == len(list(steps(settings, 8)))


def test_the_retrain_is_exact_and_keeps_places_only_where_there_are_batches() -> None:
    """With full batches, its storage is therefore only that of the parameters."""
    points = blobs(9)
    full, batches = (FullRetrain(MODELS["softmax"], recipe(batch_size=size)) for size in (None, 4))
    assert full.guarantee == EXACT
    assert sorted(full.arrays(full.learn(points))) == ["parameters"]
    assert sorted(batches.arrays(batches.learn(points))) == ["keys", "parameters", "places"]
    probabilities_NC = full.probabilities(full.learn(points), points.features_NF)
    assert probabilities_NC.shape == (9, CLASSES)
    np.testing.assert_allclose(1.0, probabilities_NC.sum(axis=1))


def test_only_learned_data_points_can_be_taken_out() -> None:
    """A data point leaves once."""
    points = blobs(9)
    learner = FullRetrain(MODELS["softmax"], recipe())
    state = learner.learn(points)
    after, rest = without(learner, state, points, [4])
    with pytest.raises(Invalid, match="a data point is not one of those that were learned"):
        learner.unlearn(after, chosen(points, np.array([4])), lambda: rest)
    with pytest.raises(Invalid, match="a data point is named twice"):
        learner.unlearn(state, chosen(points, np.array([4, 4])), lambda: rest)
    with pytest.raises(Invalid, match=r"these are 7 data points, expected the 8 that are left"):
        learner.unlearn(state, chosen(points, np.array([4])), lambda: chosen(rest, np.arange(7)))
    with pytest.raises(Invalid, match="two data points have the same key"):
        learner.learn(chosen(points, np.array([4, 4])))


def test_a_descent_that_leaves_all_bounds_is_refused() -> None:
    """A descent whose parameters become infinite or NaN is refused as well."""
    learner = FullRetrain(MODELS["net"], recipe(rate=1e4, later_rate=1e4, epochs=40))
    with pytest.raises(Diverged, match="the parameters are beyond all bounds, or not numbers"):
        learner.learn(blobs(30))
    with pytest.raises(Diverged, match="the parameters are beyond all bounds, or not numbers"):
        learner.learn(points_of(np.full((3, INPUTS), np.nan), [0, 1, 2]))


@pytest.mark.parametrize(
    ("settings", "fact"),
    [
        ({"epochs": 0}, "has no epoch"),
        ({"batch_size": 0}, "has no epoch, or batches of no data point"),
        ({"rate": 0.0}, "a learning rate is not positive"),
        ({"later_rate": float("nan")}, "a learning rate is not positive"),
        ({"penalty": -0.1}, "the penalty is negative"),
        ({"rate": float("inf")}, "is not finite"),
    ],
    ids=str,
)
def test_a_recipe_that_no_descent_follows_is_refused(settings: dict[str, Any], fact: str) -> None:
    """The error says which setting is wrong."""
    with pytest.raises(Invalid, match=fact):
        recipe(**settings)
