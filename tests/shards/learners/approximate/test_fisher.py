"""Fisher scrubbing: its information, its noise, and what it leaves in nats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from shards.learners.approximate.fisher import FisherScrubbing, most_often_right, residual_nats
from shards.learners.approximate.models import keyed_bytes, probabilities
from shards.learners.approximate.protocol import Diverged
from storage.errors import Invalid
from tests.shards.learners.approximate.small import CLASSES, INPUTS, MODELS, blobs, recipe, without
from tests.shards.learners.approximate.test_sekhari import expected, refused
from tests.shards.learners.direct import chosen, points_of


def learner_of(model: str = "softmax", strength: float = 1e-4, **changes: Any) -> FisherScrubbing:
    """Return a learner whose noise is the same in every run."""
    return FisherScrubbing(MODELS[model], recipe(), **{"strength": strength, "draw": keyed_bytes("noise"), **changes})


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_information_is_the_expected_square_of_differences(name: str) -> None:
    """Log-probabilities are compared on both sides of each parameter, weighted by the model's class probabilities."""
    model = MODELS[name]
    features_NF = blobs(9).features_NF.astype(np.float64)
    parameters_P = model.initial(3) + 0.3 * np.sin(np.arange(model.size))
    apart = 1e-6
    expected_P = np.zeros(model.size)
    for each in range(model.size):
        step_P = apart * (np.arange(model.size) == each)
        above_NC, below_NC = (
            np.log(probabilities(model.logits(parameters_P + sign * step_P, features_NF))) for sign in (1, -1)
        )
        likely_NC = probabilities(model.logits(parameters_P, features_NF))
        expected_P[each] = np.mean(np.sum(likely_NC * ((above_NC - below_NC) / (2 * apart)) ** 2, axis=1))
    assert model.fisher(parameters_P, features_NF) == pytest.approx(expected_P, rel=1e-5, abs=1e-12)
    assert (expected_P > 0).any()
    assert not model.fisher(parameters_P, features_NF[:0]).any()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_information_is_that_of_drawn_classes(name: str) -> None:
    """The mean square of gradients, each for one data point with a class drawn by the model's own probabilities."""
    model, generator = MODELS[name], np.random.default_rng(0)
    features_NF = blobs(6).features_NF.astype(np.float64)
    parameters_P = model.initial(3) + 0.3 * np.sin(np.arange(model.size))
    likely_NC = probabilities(model.logits(parameters_P, features_NF))
    squares = [
        model.gradient(parameters_P, row_F[None], np.array([generator.choice(CLASSES, p=likely_C)])) ** 2
        for row_F, likely_C in zip(features_NF, likely_NC, strict=True)
        for _ in range(500)
    ]
    errors_P = np.std(squares, axis=0) / math.sqrt(len(squares))
    differences_P = np.abs(np.mean(squares, axis=0) - model.fisher(parameters_P, features_NF))
    assert (differences_P <= 5 * errors_P + 1e-12).all()


def test_noise_has_the_variance_of_the_rule() -> None:
    """In the notebook in proportion to the strength; in the paper its square root; none at strength 0."""
    points = blobs(60)
    state = learner_of().learn(points)
    information_P = MODELS["softmax"].fisher(state.parameters_P, chosen(points, np.arange(5, 60)).features_NF)
    draw_P = expected(keyed_bytes("noise"), MODELS["softmax"].size)
    for rule, deviation_P in (
        ("notebook", np.sqrt(1e-4 / information_P)),
        ("paper", 1e-4**0.25 * information_P**-0.25),
    ):
        after, _ = without(learner_of(rule=rule), state, points, np.arange(5))
        assert after.parameters_P - state.parameters_P == pytest.approx(deviation_P * draw_P, rel=1e-9)
    for rule in ("notebook", "paper"):
        after, _ = without(learner_of(strength=0.0, rule=rule), state, points, np.arange(5))
        assert (after.parameters_P == state.parameters_P).all()
    of_system = FisherScrubbing(MODELS["softmax"], recipe(), strength=1e-4)
    one, other = (without(of_system, state, points, np.arange(5))[0] for _ in range(2))
    assert not np.isclose(one.parameters_P, other.parameters_P, rtol=0, atol=1e-9).any()


def test_a_parameter_without_information_has_the_largest_noise_and_no_more() -> None:
    """A feature that is always 0 says nothing about its weights: 1 / F is limited."""
    points = blobs(60)
    points.features_NF[:, 2] = 0
    points.features_NF[:, 3] *= 1e-25  # its squares are below what 1 / F can be computed of
    for rule, most in (("notebook", 1e-4 * 50), ("paper", math.sqrt(1e-4 * 50))):
        learner = learner_of(rule=rule, most=50.0)
        state = learner.learn(points)
        variances_CF = learner.variances(state, points)[: CLASSES * INPUTS].reshape(CLASSES, INPUTS)
        assert variances_CF[:, 2:4] == pytest.approx(most)
        assert variances_CF[:, 4].max() < most
        after, _ = without(learner, state, points, [0])
        assert np.isfinite(learner.parameters(after)).all()


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("rule", ["notebook", "paper"])
def test_nats_fall_with_the_strength(name: str, rule: Any) -> None:
    """Ten times the strength leaves a tenth of them, or by the paper's rule 1 / sqrt(10); without noise all is left."""
    points = blobs(60)
    learner = learner_of(name, rule=rule)
    state = learner.learn(points)
    left = chosen(points, np.arange(6, 60))
    retrained_P = learner.learn(left).parameters_P
    found = [
        residual_nats(
            learner.parameters(state), retrained_P, learner_of(name, strength, rule=rule).variances(state, left)
        )
        for strength in (0.0, 1e-6, 1e-5, 1e-4)
    ]
    assert found[0] == math.inf
    assert found[1] / found[2] == pytest.approx(10 if rule == "notebook" else math.sqrt(10))
    assert found[2] / found[3] == pytest.approx(10 if rule == "notebook" else math.sqrt(10))
    for strength in (0.0, 1e-6):
        variances_P = learner_of(name, strength).variances(state, left)
        assert residual_nats(retrained_P, retrained_P, variances_P) == 0


def test_nats_are_the_divergence_of_normal_distributions() -> None:
    """The variances of the retrain may differ; the result is compared with the integral of the definition."""
    means, others = np.array([0.3, -1.0, 2.0]), np.array([0.0, -1.0, 1.5])
    variances, of_others = np.array([0.5, 2.0, 0.1]), np.array([1.5, 0.7, 0.1])
    for theirs in (variances, of_others):
        integrals = []
        for mean, other, variance, their in zip(means, others, variances, theirs, strict=True):
            x = np.linspace(mean - 12 * math.sqrt(variance), mean + 12 * math.sqrt(variance), 20001)
            one, two = (stats.norm.logpdf(x, at, math.sqrt(size)) for at, size in ((mean, variance), (other, their)))
            integrals.append(np.sum(np.exp(one) * (one - two)) * (x[1] - x[0]))
        assert residual_nats(means, others, variances, theirs) == pytest.approx(sum(integrals), rel=1e-9)
    assert residual_nats(means, means, variances, of_others) > 0


@pytest.mark.parametrize(
    ("scrubbed", "retrained", "nats"),
    [
        ((0.0, 0.0), (0.0, 1.0), math.inf),
        ((0.0, 1.0), (0.0, 0.0), math.inf),
        ((1.0, 0.0), (0.0, 0.0), math.inf),
        ((0.0, 0.0), (0.0, 0.0), 0.0),
    ],
)
def test_a_fixed_value_is_infinitely_far_from_others(
    scrubbed: tuple[float, float], retrained: tuple[float, float], nats: float
) -> None:
    """Each is a mean and a variance: noise on one side only is as visible as another fixed value."""
    (mean, variance), (other, their) = scrubbed, retrained
    assert residual_nats(*(np.array([value]) for value in (mean, other, variance, their))) == nats


def test_no_observer_is_right_more_often_than_the_nats_allow() -> None:
    """The best observer of two normal distributions with equal variances looks which mean is nearer."""
    for apart in (1e-3, 0.1, 0.5, 1.0, 2.0, 4.0):
        nats = residual_nats(np.array([apart]), np.zeros(1), np.ones(1))
        assert stats.norm.cdf(apart / 2) <= most_often_right(nats) <= 1
    assert most_often_right(0.0) == 0.5
    assert most_often_right(math.inf) == 1.0


def test_requests_add_up_and_nobody_everybody_or_a_class_may_leave() -> None:
    """Nothing changes; noise comes to noise; the class is not forgotten by noise that small; the start remains."""
    points, learner = blobs(60), learner_of()
    state = learner.learn(points)
    assert learner.unlearn(state, chosen(points, np.zeros(60, dtype=bool)), refused) is state
    first, left = without(learner, state, points, np.arange(3))
    second = learner.unlearn(first, chosen(points, np.arange(3, 6)), lambda: chosen(points, np.arange(6, 60)))
    assert (second.parameters_P != first.parameters_P).all()
    assert len(second.kept.keys_N) == len(left.labels_N) - 3
    for model in sorted(MODELS):
        nobody, _ = without(learner_of(model), learner_of(model).learn(points), points, np.arange(60))
        assert (nobody.parameters_P == MODELS[model].initial(0)).all()
    after, _ = without(learner, state, points, np.flatnonzero(points.labels_N == 1))
    found_NC = learner.probabilities(after, points.features_NF)
    assert found_NC.shape == (60, CLASSES)
    assert np.isfinite(found_NC).all()
    assert (found_NC.argmax(axis=1) == 1).any()
    assert set(learner.arrays(after)) == {"parameters"}


def test_bad_input_is_named() -> None:
    """Features that are not numbers, noise beyond all bounds, data points never learned, arguments out of range."""
    points, learner = blobs(30), learner_of()
    state = learner.learn(points)
    broken = blobs(30)
    broken.features_NF[3, 0] = math.inf
    with pytest.raises(Diverged, match="features of data points are not numbers"):
        learner.learn(broken)
    with pytest.raises(Diverged, match="features of data points are not numbers"):
        learner.unlearn(state, broken, refused)
    with pytest.raises(Diverged, match="the parameters are beyond all bounds"):
        without(learner_of(strength=1e70), state, points, [0])
    with pytest.raises(Invalid, match="not one of those that were learned"):
        learner.unlearn(state, points_of(np.ones((1, INPUTS)), np.zeros(1, dtype=int)), lambda: points)
    for strength, most in ((-1.0, 1.0), (math.nan, 1.0), (1.0, 0.0)):
        with pytest.raises(Invalid, match="is negative, most = .* is not positive"):
            learner_of(strength=strength, most=most)
