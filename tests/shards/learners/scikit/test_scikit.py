"""Estimators of scikit-learn go on from what a checkpoint holds, as they would without one."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn import linear_model, neural_network

from shards.learner_kinds.kinds import read_arguments
from shards.learner_kinds.scikit import ESTIMATORS
from shards.learners.registry import fix_numerics, open_learner
from shards.learners.scikit import attributes
from shards.learners.tensors import encode_arrays
from shards.ordering import INITIAL_WEIGHTS, SHUFFLE, epoch_order, stream
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from storage.errors import Corrupt, Invalid
from tests.doubles.lineages import lineage_of
from tests.shards.learners.direct import points_of

GENERATOR = np.random.default_rng(3)
FEATURES_NF = GENERATOR.normal(size=(250, 4)).astype(np.float32)
CLASSES_N = (FEATURES_NF[:, 0] > 0).astype(np.int64) + (FEATURES_NF[:, 1] > 0.5)
NUMBERS_NW = (FEATURES_NF[:, :2] * 2 + FEATURES_NF[:, 2:] + 1).astype(np.float32)
SHARD = ShardId(2)
CASES: list[dict[str, Any]] = [
    {"estimator": "SGDClassifier"},
    {"estimator": "SGDClassifier", "loss": "log_loss", "penalty": "elasticnet", "average": 100},
    {"estimator": "SGDClassifier", "loss": "modified_huber", "learning_rate": "adaptive", "eta0": 0.1},
    {"estimator": "Perceptron", "penalty": "l1", "alpha": 1e-5},
    {"estimator": "SGDClassifier", "penalty": "none", "learning_rate": "optimal"},
    {"estimator": "MLPClassifier", "hidden_layer_sizes": [8, 5], "batch_size": 40, "learning_rate_init": 0.02},
    {"estimator": "MLPClassifier", "solver": "sgd", "learning_rate": "invscaling", "activation": "tanh"},
    {"estimator": "SGDRegressor", "loss": "huber", "average": True},
    {"estimator": "MLPRegressor", "hidden_layer_sizes": [8], "learning_rate_init": 0.01},
    {"estimator": "MLPRegressor", "solver": "sgd", "learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 1},
]


def _learner(arguments: dict[str, Any], outputs: int = 0, slices: int = 1, seed: int = 0) -> Any:
    is_class = ESTIMATORS[arguments["estimator"]][1] == "class"
    return open_learner(
        model=ModelSettings(learner="sklearn", arguments=arguments),
        training=TrainingSettings(epochs=12, batch_size=1, learning_rate=1.0, seed=seed),
        inputs=4,
        classes=outputs or (3 if is_class else 2),
        slices=slices,
        target="class" if is_class else "number",
    )


def _labels(arguments: dict[str, Any]) -> Any:
    return CLASSES_N if ESTIMATORS[arguments["estimator"]][1] == "class" else NUMBERS_NW


def _learned(learner: Any, labels: Any, ends: tuple[int, ...] = (250,), through: str = "bytes") -> Any:
    """Return the constituent after all slices, continued from checkpoints or from memory."""
    points = replace(points_of(FEATURES_NF[: ends[-1]], labels[: ends[-1]]), ends=ends)
    state = learner.initial(SHARD)
    for number in range(1, len(ends) + 1):
        learning = learner.learn(state, points, SHARD, SliceIndex(number))
        while True:
            try:
                next(learning)
            except StopIteration as end:
                state = end.value
                break
        if through == "bytes":
            state = learner.from_bytes(learner.to_bytes(state, lineage_of()), SHARD)
    return state


@pytest.mark.parametrize("arguments", CASES, ids=str)
def test_a_checkpoint_holds_all_that_the_next_slice_needs(arguments: dict[str, Any]) -> None:
    """Training from the restored state equals training on, bit for bit; a slice without points changes nothing."""
    learner, labels, ends = _learner(arguments, slices=4), _labels(arguments), (0, 100, 100, 250)
    restored, straight = (_learned(learner, labels, ends, through) for through in ("bytes", "memory"))
    assert learner.to_bytes(restored, lineage_of()) == learner.to_bytes(straight, lineage_of())
    found = learner.probabilities(restored, FEATURES_NF)
    assert (found == learner.probabilities(straight, FEATURES_NF)).all()
    assert found.shape == (250, 3 if labels is CLASSES_N else 2)
    if labels is CLASSES_N:
        assert found.sum(axis=1) == pytest.approx(1)
        assert (found.argmax(axis=1) == labels).mean() > 0.4


def test_learning_is_calls_of_partial_fit() -> None:
    """In the order of the data points' keys, with first weights from seed and shard."""
    arguments = {"estimator": "MLPClassifier", "hidden_layer_sizes": [6]}
    learner = _learner(arguments)
    found = learner.probabilities(_learned(learner, CLASSES_N), FEATURES_NF)
    first = stream(0, SHARD, SliceIndex(0), 0, INITIAL_WEIGHTS) >> 32
    own = neural_network.MLPClassifier([6], random_state=first, shuffle=False)
    keys_N = np.arange(250, dtype=np.uint64)
    for epoch in range(12):
        order_N = epoch_order(keys_N, stream(0, SHARD, SliceIndex(1), epoch, SHUFFLE))
        own.partial_fit(FEATURES_NF[order_N], CLASSES_N[order_N], classes=[0, 1, 2])
    assert found == pytest.approx(own.predict_proba(FEATURES_NF))
    other = _learner(arguments, seed=1)
    assert other.digest(_learned(other, CLASSES_N)) != learner.digest(_learned(learner, CLASSES_N))


@pytest.mark.parametrize("arguments", [CASES[1], CASES[3], CASES[4]], ids=str)
def test_classes_are_declared(arguments: dict[str, Any]) -> None:
    """A shard that has never seen one of them still has a place for it."""
    learner = _learner(arguments, outputs=4)
    found = learner.probabilities(_learned(learner, CLASSES_N), FEATURES_NF)
    assert found.shape == (250, 4)
    assert (found.argmax(axis=1) != 3).mean() > 0.9
    alone = learner.probabilities(_learned(learner, CLASSES_N * 0, (1,)), FEATURES_NF)
    assert alone.shape == (250, 4)
    assert np.isfinite(alone).all()


@pytest.mark.parametrize(("estimator", "expected"), [("Perceptron", 1 / 3), ("MLPRegressor", 0.0)])
def test_without_any_point_there_is_nothing_to_answer_from(estimator: str, expected: float) -> None:
    """Classes are equally likely, and numbers are 0."""
    learner = _learner({"estimator": estimator})
    nobody = _learned(learner, CLASSES_N[:0] if estimator == "Perceptron" else NUMBERS_NW[:0], (0,))
    assert learner.probabilities(nobody, FEATURES_NF) == pytest.approx(expected)
    assert learner.digest(nobody) == learner.digest(learner.initial(SHARD))


def test_an_attribute_that_cannot_be_kept_is_named() -> None:
    """It may come with another version of scikit-learn; nothing is ever pickled."""
    estimator = linear_model.SGDClassifier().partial_fit(FEATURES_NF, CLASSES_N, classes=[0, 1, 2])
    estimator.memory_ = {"seen": FEATURES_NF}
    with pytest.raises(Invalid, match=r"its attribute SGDClassifier.memory_ is a dict, which a checkpoint cannot hold"):
        attributes.taken(estimator)


def test_training_that_diverges_is_refused() -> None:
    """The error names a setting that may help, and no data point's value."""
    learner = _learner({"estimator": "MLPRegressor", "solver": "sgd", "learning_rate_init": 1e6})
    with pytest.raises(Invalid, match="training diverged: .* Lower its learning rate"):
        _learned(learner, NUMBERS_NW)


@pytest.mark.parametrize("damage", ["other", "missing", "text"])
def test_a_checkpoint_of_something_else_is_refused(damage: str) -> None:
    """The checkpoint is of another estimator or of another width, or it cannot be read."""
    learner = _learner({"estimator": "SGDRegressor"})
    arrays = learner.arrays(_learned(learner, NUMBERS_NW))
    if damage == "missing":
        del arrays["0001/SGDRegressor.coef_"]
    elif damage == "text":
        arrays["0001/attributes"] = arrays["0001/attributes"][:10]
    else:
        wide = _learner({"estimator": "SGDRegressor"})
        wide._inputs = 5
        learner = wide
    with pytest.raises(Corrupt, match="a checkpoint holds no SGDRegressor of this model"):
        learner.from_bytes(encode_arrays(arrays, lineage_of()), SHARD)


def test_the_profile_names_libraries_and_probe() -> None:
    """Other versions may compute other bits, and so may other machines."""
    model = ModelSettings(learner="sklearn", arguments={"estimator": "Perceptron"})
    profile = fix_numerics(model, 4, "cpu", probed=True)
    assert (profile.library or "").startswith("scikit-learn ")
    assert (profile.threads, profile.probe is None) == (1, False)
    assert fix_numerics(model, 4, "cpu") == replace(profile, probe=None)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "arguments.estimator must be one of SGDClassifier, Perceptron, MLPClassifier"),
        ({"estimator": "SVC"}, "got 'SVC'"),
        ({"estimator": ["SVC"]}, "must be one of"),
        ({"estimator": "Perceptron", "max_iter": 5}, "arguments.max_iter is not to be set: passes over the data"),
        (
            {"estimator": "Perceptron", "alphas": 5},
            "arguments.alphas is not a parameter of Perceptron; did you mean alpha?",
        ),
        ({"estimator": "SGDRegressor", "alpha": -1.0}, "The 'alpha' parameter of SGDRegressor must be a float"),
        ({"estimator": "MLPClassifier", "solver": "lbfgs"}, "cannot continue from slice to slice: take adam or sgd"),
    ],
)
def test_parameters_are_checked_as_scikit_learn_does(arguments: dict[str, Any], problem: str) -> None:
    """Before anything is read."""
    made, problems = read_arguments("sklearn", arguments)
    assert made is None
    assert problem in problems[0]
    with warnings.catch_warnings(), pytest.raises(Invalid, match="^.model. arguments"):
        ModelSettings(learner="sklearn", arguments=arguments)
