"""Gradient ascent on the loss of those who leave."""

from __future__ import annotations

import numpy as np
import pytest

from shards.learner_kinds.guarantees import Approximate
from shards.learners.approximate.ascent import GradientAscent
from shards.learners.approximate.descent import FullRetrain
from shards.learners.approximate.models import mean_loss
from shards.learners.approximate.protocol import Diverged
from storage.errors import Invalid
from tests.shards.learners.approximate.small import MODELS, blobs, recipe
from tests.shards.learners.direct import chosen


def never() -> None:
    """Nobody may ask for what is left."""
    raise AssertionError


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_the_loss_of_those_who_leave_rises_and_nobody_else_is_looked_at(kind: str) -> None:
    """By the gradient of their mean loss, step after step; the state from before is unchanged."""
    points, model = blobs(60), MODELS[kind]
    learner = GradientAscent(model, recipe(), steps=3, rate=0.2)
    state, gone = learner.learn(points), chosen(points, np.arange(6))
    expected = before = FullRetrain(model, recipe()).learn(points).parameters_P
    np.testing.assert_array_equal(learner.parameters(state), before)
    after = learner.unlearn(state, gone, never)  # type: ignore[arg-type]
    for _ in range(3):
        expected = expected + 0.2 * model.gradient(expected, gone.features_NF.astype(float), gone.labels_N)
    np.testing.assert_allclose(learner.parameters(after), expected, atol=1e-12)
    np.testing.assert_array_equal(learner.parameters(state), before)
    losses = [mean_loss(model.logits(each.parameters_P, gone.features_NF), gone.labels_N) for each in (state, after)]
    assert losses[1] > losses[0]


def test_it_keeps_its_parameters_alone_and_only_those_who_are_there_can_leave() -> None:
    """A second request starts from the result of the first."""
    points = blobs(60)
    learner = GradientAscent(MODELS["softmax"], recipe(batch_size=8), steps=1, rate=0.1)
    assert isinstance(learner.guarantee, Approximate)
    state = learner.learn(points)
    assert list(learner.arrays(state)) == ["parameters"]
    after = learner.unlearn(state, chosen(points, np.array([0])), never)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="a data point is not one of those that were learned"):
        learner.unlearn(after, chosen(points, np.array([0])), never)  # type: ignore[arg-type]
    last = learner.unlearn(after, chosen(points, np.array([1])), never)  # type: ignore[arg-type]
    assert len(last.kept.keys_N) == 58
    np.testing.assert_allclose(learner.probabilities(last, points.features_NF).sum(axis=1), 1.0)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_an_ascent_without_bounds_is_refused(kind: str) -> None:
    """Nothing holds it back: the loss has no upper bound."""
    points = blobs(60)
    learner = GradientAscent(MODELS[kind], recipe(), steps=100, rate=1e30)
    with pytest.raises(Diverged, match="the parameters are beyond all bounds, or not numbers"):
        learner.unlearn(learner.learn(points), chosen(points, np.arange(6)), never)  # type: ignore[arg-type]


@pytest.mark.parametrize(("steps", "rate"), [(0, 0.1), (1, 0.0), (1, float("nan")), (1, float("inf"))])
def test_an_ascent_without_a_step_is_refused(steps: int, rate: float) -> None:
    """The error says what was asked for."""
    with pytest.raises(Invalid, match=f"gradient ascent has steps={steps}, rate={rate}"):
        GradientAscent(MODELS["softmax"], recipe(), steps=steps, rate=rate)
