"""DeltaGrad against the full retrain, which leaves the same holes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shards.learner_kinds.guarantees import Approximate
from shards.learners.approximate.deltagrad import CompactHessian, DeltaGrad
from shards.learners.approximate.descent import FullRetrain
from shards.learners.approximate.models import Softmax, keyed_order, normal_numbers
from shards.learners.approximate.protocol import Diverged
from storage.errors import Invalid
from tests.shards.learners.approximate.small import CLASSES, INPUTS, MODELS, blobs, recipe, without
from tests.shards.learners.direct import chosen, points_of


class Bowl:
    """A quadratic loss whose Hessian is ``curvature`` times the identity, around the data points' features."""

    size = INPUTS

    def __init__(self, curvature: float) -> None:
        self._curvature = curvature

    def initial(self, seed: int) -> Any:
        """See ``Model``."""
        return np.full(self.size, 1.0 + seed)

    def logits(self, parameters_P: Any, features_NF: Any) -> Any:
        """Nobody asks."""
        raise NotImplementedError

    def gradient(self, parameters_P: Any, features_NF: Any, labels_N: Any) -> Any:
        """See ``Model``."""
        del labels_N
        return self._curvature * parameters_P - features_NF.mean(axis=0)


def distances(model: Any, settings: Any, points: Any, gone: Any, **arguments: Any) -> tuple[float, float, int]:
    """Return the distances of DeltaGrad, and of doing nothing, from the full retrain; and the explicit steps."""
    learner, yardstick = DeltaGrad(model, settings, **arguments), FullRetrain(model, settings)
    before = learner.learn(points)
    after, _ = without(learner, before, points, gone)
    expected, _ = without(yardstick, yardstick.learn(points), points, gone)
    found = [np.linalg.norm(learner.parameters(state) - expected.parameters_P) for state in (after, before)]
    return float(found[0]), float(found[1]), after.explicit_steps


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("kind", sorted(MODELS))
def test_with_period_1_it_is_the_full_retrain(kind: str, batch_size: int | None) -> None:
    """Request after request, each of which starts from the cache that the last one left."""
    points, settings = blobs(60), recipe(batch_size=batch_size)
    learner, yardstick = (
        DeltaGrad(MODELS[kind], settings, period=1, burn_in=0),
        FullRetrain(MODELS[kind], settings),
    )
    state, expected, left = learner.learn(points), yardstick.learn(points), points
    np.testing.assert_allclose(learner.parameters(state), learner_parameters := expected.parameters_P, atol=1e-12)
    for gone in ([3], [0, 7, 20, 21], list(range(30, 50))):
        state, rest = without(learner, state, left, gone)
        expected, left = without(yardstick, expected, left, gone)
        np.testing.assert_allclose(learner.parameters(state), expected.parameters_P, rtol=0, atol=1e-10)
        assert np.linalg.norm(expected.parameters_P - learner_parameters) > 1e-4
        np.testing.assert_array_equal(rest.keys_N, left.keys_N)


@pytest.mark.parametrize("batch_size", [None, 7])
def test_where_the_hessian_is_a_multiple_of_the_identity_estimates_are_exact(batch_size: int | None) -> None:
    """This checks every formula of an estimated step: with removed points, the penalty, and a second request."""
    points, settings = blobs(60), recipe(batch_size=batch_size, epochs=40)
    learner, yardstick = DeltaGrad(Bowl(0.7), settings, burn_in=2), FullRetrain(Bowl(0.7), settings)
    state, expected, left = learner.learn(points), yardstick.learn(points), points
    for gone in ([3, 4, 5], list(range(20))):
        state, _ = without(learner, state, left, gone)
        expected, left = without(yardstick, expected, left, gone)
        assert state.explicit_steps < len(state.gradients_TP) / 3
        np.testing.assert_allclose(learner.parameters(state), expected.parameters_P, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("batch_size", "worst"), [(None, 0.03), (64, 0.1)])
def test_the_error_is_a_small_share_of_what_doing_nothing_leaves(batch_size: int | None, worst: float) -> None:
    """On scikit-learn's digits. It grows in proportion to the ratio while that is small, faster where it is not."""
    from sklearn.datasets import load_digits  # takes a second

    digits = load_digits()
    points = points_of(digits.data[:900] / 16, digits.target[:900])
    settings = recipe(epochs=40, batch_size=batch_size, rate=0.2, later_rate=0.1, penalty=0.005)
    model = Softmax(inputs=64, classes=10)
    learner, yardstick = DeltaGrad(model, settings), FullRetrain(model, settings)
    before, trained = learner.learn(points), yardstick.learn(points)
    errors, shares = [], []
    for count in (9, 90, 450):
        gone = keyed_order("leave", 900)[:count]
        after, _ = without(learner, before, points, gone)
        expected, _ = without(yardstick, trained, points, gone)
        errors.append(np.linalg.norm(learner.parameters(after) - expected.parameters_P))
        shares.append(errors[-1] / np.linalg.norm(learner.parameters(before) - expected.parameters_P))
    assert shares[0] < worst
    assert max(shares[:2]) < shares[2]
    assert errors[0] < errors[1] / 2 < errors[2] / 4


def test_explicit_steps_are_the_first_and_then_one_of_each_period() -> None:
    """In the first training all steps are explicit; later, the first ones and then one in each period."""
    points = blobs(60)
    learner = DeltaGrad(MODELS["softmax"], recipe(epochs=30), period=5, burn_in=10)
    state = learner.learn(points)
    assert state.explicit_steps == 30
    after, _ = without(learner, state, points, [0])
    assert after.explicit_steps == 10 + 4


def test_without_curvature_all_steps_are_explicit() -> None:
    """A concave loss has none, so the result is the full retrain."""
    error, nothing, explicit = distances(Bowl(-0.7), recipe(penalty=0.0), blobs(60), [3, 4], burn_in=2)
    assert explicit == recipe().epochs
    assert error < 1e-12 < nothing


@pytest.mark.parametrize(("batch_size", "worst"), [(None, 0.5), (10, 3.0)])
def test_a_network_needs_both_guards(batch_size: int | None, worst: float) -> None:
    """Without them, the errors are 2 and 200,000 times that of doing nothing: estimates are too large, or useless."""
    settings = recipe(epochs=60, batch_size=batch_size)
    burn_in = 30 if batch_size is None else 10
    error, nothing, explicit = distances(MODELS["net"], settings, blobs(60), [3, 4], burn_in=burn_in)
    planned = burn_in + (settings.count_steps(60) - burn_in) / 5
    assert planned < explicit < 1.2 * planned
    assert error < worst * nothing


def test_the_compact_form_is_the_recursion_of_bfgs() -> None:
    """From a multiple of the identity, pair after pair; older pairs are dropped."""
    changes, noise = normal_numbers("changes", 24).reshape(4, 6), normal_numbers("noise", 24).reshape(4, 6)
    growths = changes * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] + 0.1 * noise
    hessian = CompactHessian(3)
    for change, growth in zip(changes, growths, strict=True):
        hessian.add(change, growth)
    matrix = np.eye(6) * (changes[-1] @ growths[-1]) / (changes[-1] @ changes[-1])
    for change, growth in zip(changes[1:], growths[1:], strict=True):
        along = matrix @ change
        matrix += np.outer(growth, growth) / (growth @ change) - np.outer(along, along) / (change @ along)
    vector = normal_numbers("vector", 6)
    found, last = hessian.times(vector, most=100), hessian.times(changes[-1], most=100)
    assert found is not None
    assert last is not None
    np.testing.assert_allclose(found, matrix @ vector)
    np.testing.assert_allclose(last, growths[-1])
    assert hessian.times(vector, most=0.1) is None


def test_a_hessian_without_pairs_says_nothing_except_of_no_change() -> None:
    """A change of zero needs no pair, and adds none."""
    hessian = CompactHessian(2)
    hessian.add(np.zeros(3), np.zeros(3))
    assert hessian.times(np.ones(3), most=2) is None
    np.testing.assert_array_equal(hessian.times(np.zeros(3), most=2), np.zeros(3))
    hessian.add(np.ones(3), np.ones(3))
    assert hessian.times(np.ones(3), most=2) is not None
    hessian.add(np.ones(3), -np.ones(3))
    assert hessian.times(np.ones(3), most=2) is None


@pytest.mark.parametrize("batch_size", [None, 7])
def test_the_cache_becomes_that_of_the_new_descent(batch_size: int | None) -> None:
    """Every step leads to the next one, nothing of the old cache is in it, and the old state is unchanged."""
    points, settings = blobs(60), recipe(batch_size=batch_size)
    learner = DeltaGrad(MODELS["softmax"], settings, burn_in=3)
    state = learner.learn(points)
    before = {name: array.copy() for name, array in learner.arrays(state).items()}
    after, rest = without(learner, state, points, [0, 1, 30])
    for name, array in learner.arrays(state).items():
        np.testing.assert_array_equal(array, before[name])
        assert not np.shares_memory(array, learner.arrays(after)[name])
    per_epoch = len(after.gradients_TP) // settings.epochs
    rates = np.repeat([settings.rate_of(epoch) for epoch in range(settings.epochs)], per_epoch)[:, None]
    expected = (1 - rates * settings.penalty) * after.parameters_TP[:-1] - rates * after.gradients_TP
    np.testing.assert_allclose(after.parameters_TP[1:], expected, rtol=0, atol=1e-12)
    first = int(np.flatnonzero((after.gradients_TP != state.gradients_TP).any(axis=1))[0])
    assert (after.gradients_TP[first:] != state.gradients_TP[first:]).any(axis=1).all()
    assert (after.parameters_TP[first + 1 :] != state.parameters_TP[first + 1 :]).any(axis=1).all()
    assert not np.isin(points.keys_N[[0, 1, 30]], after.kept.keys_N).any()
    if batch_size is None:
        exact = DeltaGrad(MODELS["softmax"], settings, period=1)
        again, other = exact.learn(rest), without(exact, state, points, [0, 1, 30])[0]
        np.testing.assert_allclose(other.gradients_TP, again.gradients_TP, rtol=0, atol=1e-12)


def test_requests_one_after_another_arrive_near_the_request_of_all_at_once() -> None:
    """The second one starts from the cache of the first."""
    points, settings = blobs(300), recipe(epochs=40)
    learner, yardstick = DeltaGrad(MODELS["softmax"], settings), FullRetrain(MODELS["softmax"], settings)
    start = learner.learn(points)
    first, rest = without(learner, start, points, [0, 1, 2])
    second, _ = without(learner, first, rest, [0, 1, 2])
    gone = [0, 1, 2, 297, 298, 299]  # what is left comes in the opposite order
    expected, _ = without(yardstick, yardstick.learn(points), points, gone)
    assert np.linalg.norm(learner.parameters(second) - expected.parameters_P) < 0.1 * np.linalg.norm(
        learner.parameters(start) - expected.parameters_P
    )


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_a_whole_batch_and_a_whole_class_may_leave(kind: str) -> None:
    """The step of the batch is skipped, as in the full retrain; the next request skips it too."""
    points, settings = blobs(60), recipe(batch_size=6, epochs=2)
    learner, yardstick = DeltaGrad(MODELS[kind], settings, period=1), FullRetrain(MODELS[kind], settings)
    state, expected, left = learner.learn(points), yardstick.learn(points), points
    gone = keyed_order("descent/0/0", 60)[6:12]
    state, _ = without(learner, state, left, gone)
    expected, left = without(yardstick, expected, left, gone)
    assert (state.parameters_TP[1] == state.parameters_TP[2]).all()
    assert (state.gradients_TP[1] == 0).all()
    gone = np.flatnonzero(left.labels_N == 1)
    state, _ = without(learner, state, left, gone)
    expected, _ = without(yardstick, expected, left, gone)
    np.testing.assert_allclose(learner.parameters(state), expected.parameters_P, rtol=0, atol=1e-10)
    estimated, _, _ = distances(MODELS[kind], settings, points, np.flatnonzero(points.labels_N == 1), burn_in=1)
    assert np.isfinite(estimated)


@pytest.mark.parametrize("batch_size", [None, 7])
def test_when_all_leave_the_parameters_are_those_of_the_start(batch_size: int | None) -> None:
    """After that, no data point is left that could be erased."""
    points = blobs(20)
    learner = DeltaGrad(MODELS["net"], recipe(batch_size=batch_size))
    after, rest = without(learner, learner.learn(points), points, np.arange(20))
    np.testing.assert_array_equal(learner.parameters(after), MODELS["net"].initial(0))
    assert (after.gradients_TP == 0).all()
    assert after.explicit_steps == 0
    with pytest.raises(Invalid, match="a data point is not one of those that were learned"):
        learner.unlearn(after, chosen(points, np.array([0])), lambda: rest)


def test_steps_that_leave_all_bounds_are_refused() -> None:
    """Estimates that are far off, and most of the data points gone: the error says so."""
    points = blobs(60)
    learner = DeltaGrad(MODELS["softmax"], recipe(epochs=400, penalty=0.0, rate=5.0), period=400, burn_in=1)
    with pytest.raises(Diverged, match="the parameters are beyond all bounds, or not numbers"):
        without(learner, learner.learn(points), points, np.arange(55))


def test_it_answers_with_its_last_parameters_and_says_what_it_keeps() -> None:
    """The cache is its storage; with batches, the places are needed too."""
    points = blobs(20)
    full, batches = (DeltaGrad(MODELS["softmax"], recipe(batch_size=size)) for size in (None, 8))
    assert isinstance(full.guarantee, Approximate)
    state = full.learn(points)
    size = MODELS["softmax"].size
    assert {name: array.shape for name, array in full.arrays(state).items()} == {
        "path": (13, size),
        "gradients": (12, size),
    }
    assert {name: len(array) for name, array in batches.arrays(batches.learn(points)).items()} == {
        "path": 37,
        "gradients": 36,
        "keys": 20,
        "places": 20,
    }
    probabilities_NC = full.probabilities(state, points.features_NF)
    expected = FullRetrain(MODELS["softmax"], recipe()).learn(points)
    assert probabilities_NC.shape == (20, CLASSES)
    np.testing.assert_allclose(full.parameters(state), expected.parameters_P, atol=1e-12)


@pytest.mark.parametrize("arguments", [{"period": 0}, {"burn_in": -1}, {"history": 0}], ids=str)
def test_arguments_without_a_meaning_are_refused(arguments: dict[str, int]) -> None:
    """The error names all three."""
    with pytest.raises(Invalid, match=r"DeltaGrad has period=-?\d+, burn_in=-?\d+, history=-?\d+"):
        DeltaGrad(MODELS["softmax"], recipe(), **arguments)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_without_data_points_the_start_is_learned(kind: str) -> None:
    """The penalty does not shrink parameters in steps that nobody is in, as in the full retrain."""
    points, settings = chosen(blobs(10), np.arange(0)), recipe()
    learned = DeltaGrad(MODELS[kind], settings).learn(points)
    np.testing.assert_array_equal(learned.parameters_TP[-1], MODELS[kind].initial(settings.seed))
    np.testing.assert_array_equal(
        FullRetrain(MODELS[kind], settings).learn(points).parameters_P, learned.parameters_TP[0]
    )


def test_features_of_those_who_leave_have_to_be_numbers() -> None:
    """Else every step would become explicit, without a word."""
    points = blobs(20)
    learner = DeltaGrad(MODELS["softmax"], recipe())
    state = learner.learn(points)
    gone = chosen(points, np.array([3]))
    gone.features_NF[0, 0] = np.nan
    with pytest.raises(Diverged, match="features of data points are not numbers"):
        learner.unlearn(state, gone, lambda: points)


def test_a_retrain_with_batches_does_not_claim_to_be_exact() -> None:
    """A run that never had those who left would cut other batches; over all data points there are none to cut."""
    points, left = blobs(30), np.arange(3, 30)
    for batch_size, is_exact in ((None, True), (7, False)):
        learner = FullRetrain(MODELS["softmax"], recipe(batch_size=batch_size))
        after = learner.unlearn(learner.learn(points), chosen(points, np.arange(3)), lambda: chosen(points, left))
        fresh = learner.learn(chosen(points, left))
        assert np.array_equal(after.parameters_P, fresh.parameters_P) is is_exact
        assert isinstance(learner.guarantee, Approximate) is not is_exact
