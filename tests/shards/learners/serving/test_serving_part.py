"""The part of a constituent that serves: it answers to the bit, and has nothing of single data points."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shards.learner_kinds.kinds import LEARNERS
from shards.learners.protocol import Serves
from shards.learners.registry import fix_numerics, open_learner
from shards.learners.scikit.attributes import SERVING
from shards.learners.tensors import decode_serving, encode_serving
from shards.specification import ModelSettings, TrainingSettings
from storage.digests import sha256
from storage.errors import Corrupt, Invalid
from tests.doubles.lineages import lineage_of
from tests.shards.learners.direct import SHARD, chosen, learned, moved, points_of

GENERATOR = np.random.default_rng(11)
POINTS, FEATURES = 240, 6
CODES_NF = GENERATOR.integers(0, 4, size=(POINTS, FEATURES)).astype(np.float32)
FEATURES_NF = (np.round(GENERATOR.normal(size=(POINTS, FEATURES)) * 2**15) / 2**16).astype(np.float32)
CLASSES_N = (FEATURES_NF[:, 0] > 0).astype(np.int64) + (FEATURES_NF[:, 1] > 0.3)
NUMBERS_NW = (FEATURES_NF[:, :2] * 3 + FEATURES_NF[:, 2:4]).astype(np.float32)
DIGEST = sha256(b"checkpoint")

_PLACES = {"chosen", "trees_M", "paths_M", "attribute_M"}
"""Arrays whose whole numbers name trees, nodes and features."""

BOX: Mapping[str, Any] = {"trees": 7, "thresholds": "box", "low": -2.0, "high": 2.0, "share": 0.4}
CERTIFIED: Mapping[str, Any] = {"norm": 4.0, "penalty": 0.01, "noise": 1.0, "epsilon": 1.0, "delta": 1e-4, "clip": True}
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("ridge", {}, "class"),
    ("ridge", {"penalty": 1e-9}, "number"),
    ("naive_bayes", {}, "class"),
    ("naive_bayes", {"form": "bernoulli"}, "class"),
    ("naive_bayes", {"form": "bernoulli", "select": 3}, "class"),
    ("naive_bayes", {"form": "multinomial"}, "class"),
    ("naive_bayes", {"form": "multinomial", "select": 2}, "class"),
    ("naive_bayes", {"form": "categorical", "values": 4}, "class"),
    ("naive_bayes", {"form": "categorical", "values": 4, "select": 3}, "class"),
    ("certified_linear", {**CERTIFIED}, "class"),
    ("certified_linear", {**CERTIFIED}, "number"),
    ("sklearn", {"estimator": "SGDClassifier", "loss": "log_loss", "average": 100}, "class"),
    ("sklearn", {"estimator": "SGDClassifier", "loss": "modified_huber"}, "class"),
    ("sklearn", {"estimator": "Perceptron"}, "class"),
    ("sklearn", {"estimator": "MLPClassifier", "hidden_layer_sizes": [5]}, "class"),
    ("sklearn", {"estimator": "SGDRegressor"}, "number"),
    ("sklearn", {"estimator": "MLPRegressor", "hidden_layer_sizes": [5], "solver": "sgd"}, "number"),
    ("forest", {**BOX}, "class"),
    ("forest", {**BOX, "min_leaf": 9}, "number"),
]
IDS = [
    f"{learner}-{arguments.get('form', '')}{arguments.get('estimator', '')}{arguments.get('select', '')}-{to}{number}"
    for number, (learner, arguments, to) in enumerate(CASES)
]


def learner_of(learner: str, arguments: Mapping[str, Any], target: str) -> Any:
    """Return the learner."""
    is_certified = learner == "certified_linear"
    guarantee: Any = "certified" if is_certified else "exact"
    model = ModelSettings(learner=learner, arguments=dict(arguments), guarantee=guarantee)
    fix_numerics(model, 1, "cpu")
    return open_learner(
        model=model,
        training=TrainingSettings(epochs=3, batch_size=1, learning_rate=1.0, seed=5),
        inputs=FEATURES,
        classes=3 if target == "class" else 2,
        slices=1,
        target=target,
    )


def features_of(arguments: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Return features that the form takes."""
    return FEATURES_NF if arguments.get("form", "gaussian") == "gaussian" else CODES_NF


def sent(learner: Any, state: Any) -> bytes:
    """Return what leaves the site."""
    return encode_serving(learner.to_serving(state), DIGEST)


@pytest.mark.parametrize(("learner", "arguments", "target"), CASES, ids=IDS)
def test_it_answers_as_the_constituent(learner: str, arguments: dict[str, Any], target: str) -> None:
    """Every bit of every answer is the same, asked for one point or for many, also after somebody was erased."""
    made, features_NF = learner_of(learner, arguments, target), features_of(arguments)
    every = points_of(features_NF, CLASSES_N if target == "class" else NUMBERS_NW)
    was, now = np.ones(POINTS, dtype=bool), np.arange(POINTS) % 7 > 0
    state = learned(made, every)
    after = moved(made, state, every, was, now) if LEARNERS[learner].whole else learned(made, chosen(every, now))
    for each in (state, after):
        there = made.from_serving(decode_serving(sent(made, each), DIGEST))
        for asked_NF in (features_NF, features_NF[:1], features_NF + 0.25):
            expected = made.probabilities(made.from_bytes(_checkpoint(made, each), SHARD), asked_NF)
            assert made.probabilities(there, asked_NF).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("learner", "arguments", "target"), CASES, ids=IDS)
def test_it_has_the_order_in_memory_that_it_arrives_in(learner: str, arguments: dict[str, Any], target: str) -> None:
    """On some processors products of matrices that are stored by column have other bits than those of rows."""
    made, features_NF = learner_of(learner, arguments, target), features_of(arguments)
    part = made.to_serving(learned(made, points_of(features_NF, CLASSES_N if target == "class" else NUMBERS_NW)))
    by_column = {name for name, each in part.items() if not each.flags.c_contiguous}
    assert not by_column or learner == "sklearn", "scikit-learn's arrays are put back as they were"


def test_a_tree_without_data_points_has_no_vote() -> None:
    """Those of a single person are in some of the trees, and only these leave."""
    made = learner_of("forest", BOX, "class")
    keys_N = np.arange(POINTS, dtype=np.uint64)
    state = learned(made, points_of(FEATURES_NF, CLASSES_N, keys_N, np.zeros_like(keys_N)))
    part = decode_serving(sent(made, state), DIGEST)
    assert len(np.unique(part["trees_M"])) == 3
    assert (made.probabilities(made.from_serving(part), FEATURES_NF) == made.probabilities(state, FEATURES_NF)).all()


def test_features_that_there_are_not_are_refused() -> None:
    """Answers would look for them."""
    made = learner_of("naive_bayes", {"form": "bernoulli", "select": 3}, "class")
    part = made.to_serving(learned(made, points_of(CODES_NF, CLASSES_N)))
    for place in (-1, FEATURES):
        wrong = part["chosen"].copy()
        wrong[0] = place
        with pytest.raises(Corrupt, match="not this learner's"):
            made.from_serving({**part, "chosen": wrong})


@pytest.mark.parametrize(("learner", "arguments", "target"), CASES, ids=IDS)
def test_it_has_nothing_of_single_data_points(learner: str, arguments: dict[str, Any], target: str) -> None:
    """No feature, number, count, sum or candidate of the checkpoint is among its numbers."""
    made, features_NF = learner_of(learner, arguments, target), features_of(arguments)
    state = learned(made, points_of(features_NF, CLASSES_N if target == "class" else NUMBERS_NW))
    part = made.to_serving(state)
    told = {float(value) for name, each in part.items() if _is_compared(name) for value in each.ravel()}
    few = {float(value) for value in range(-1, 2)}
    people = {float(value) for value in features_NF.ravel()} | {float(value) for value in NUMBERS_NW.ravel()}
    assert not told & (people - few)
    if learner == "sklearn":
        (about, *_) = (each.tobytes() for name, each in part.items() if name.endswith("attributes"))
        assert set(json.loads(about)) <= SERVING
        assert not any("optimizer" in name or "average" in name for name in part)
        return
    held = {name: each for name, each in made.arrays(state).items() if _is_kept(name)}
    kept = {float(value) for each in held.values() for value in each.ravel()}
    assert held, "there is something to compare"
    assert not told & (kept - few)


def _is_compared(name: str) -> bool:
    """Return whether an array that leaves holds numbers that were learned."""
    return name not in _PLACES and not re.search(r"classes_$|attributes$", name)


def _is_kept(name: str) -> bool:
    """Return whether an array of a checkpoint holds something that does not leave."""
    return name not in {*_PLACES, "threshold_M", "coefficients"}


def _checkpoint(learner: Any, state: Any) -> bytes:
    return bytes(learner.to_bytes(state, lineage_of()))


@pytest.mark.parametrize(
    ("learner", "arguments", "kept"),
    [
        ("ridge", {}, np.arange(POINTS) < 4),
        ("naive_bayes", {}, (CLASSES_N != 1) | (np.cumsum(CLASSES_N == 1) < 5)),
        ("forest", {**BOX}, np.arange(POINTS) < 4),
    ],
)
def test_it_is_withheld_of_few_data_points(
    learner: str, arguments: dict[str, Any], kept: npt.NDArray[np.bool_]
) -> None:
    """A mean or a share of fewer than five data points would show them."""
    made = learner_of(learner, arguments, "class")
    with pytest.raises(Invalid, match="has fewer than 5 data points, which it would show"):
        made.to_serving(learned(made, points_of(FEATURES_NF[kept], CLASSES_N[kept])))


@pytest.mark.parametrize(("learner", "arguments", "target"), CASES, ids=IDS)
def test_a_part_of_another_model_is_refused(learner: str, arguments: dict[str, Any], target: str) -> None:
    """Damage, another checkpoint and arrays of another model are Corrupt, and never answer."""
    made, features_NF = learner_of(learner, arguments, target), features_of(arguments)
    part = made.to_serving(learned(made, points_of(features_NF, CLASSES_N if target == "class" else NUMBERS_NW)))
    payload = encode_serving(part, DIGEST)
    for wrong in (payload[:-1], payload[:-1] + bytes([payload[-1] ^ 1]), b"", payload[:40]):
        with pytest.raises(Corrupt, match="with another digest"):
            decode_serving(wrong, DIGEST)
    with pytest.raises(Corrupt, match="with another digest"):
        decode_serving(payload, sha256(b"another"))
    first = next(name for name in part if name != "chosen")
    if learner == "sklearn":
        about = next(name for name in part if name.endswith("attributes"))
        foreign = json.dumps({**json.loads(part[about].tobytes()), "predict": 1})
        other = {**part, about: np.frombuffer(foreign.encode(), dtype=np.uint8)}
    else:
        other = {**part, first: part[first].astype(np.float16)}
    fewer = {name: each for name, each in part.items() if name != first}
    for wrong_part in ({}, {**part, "more": np.zeros(1)}, fewer, other):
        with pytest.raises(Corrupt, match="not this learner's"):
            made.from_serving(wrong_part)


def test_trees_of_another_model_are_refused() -> None:
    """Nodes that lead nowhere, or look at features that there are not, do not come to answer."""
    made = learner_of("forest", BOX, "class")
    part = made.to_serving(learned(made, points_of(FEATURES_NF, CLASSES_N)))
    for name, wrong in (
        ("attribute_M", np.where(part["attribute_M"] >= 0, FEATURES, -1).astype(np.int32)),
        ("paths_M", part["paths_M"] + 1),
        ("trees_M", part["trees_M"] + np.int32(7)),
    ):
        with pytest.raises(Corrupt, match="not this learner's"):
            made.from_serving({**part, name: wrong})


@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"torch", "k_means"}))
def test_a_learner_either_has_a_part_that_serves_or_says_why_not(name: str) -> None:
    """What the table says is what the learners do."""
    arguments: dict[str, Any] = {"norm": 1.0} if name == "certified_linear" else {}
    (target, *_) = LEARNERS[name].targets
    arguments = {"forest": {"thresholds": "box"}, "sklearn": {"estimator": "Perceptron"}}.get(name, arguments)
    model = ModelSettings(
        learner=name, arguments=arguments, guarantee="certified" if name == "certified_linear" else "exact"
    )
    made = open_learner(
        model=model,
        training=TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0),
        inputs=FEATURES,
        classes=2,
        slices=1,
        target=target,
    )
    assert isinstance(made, Serves) == (LEARNERS[name].withheld(model.learner_arguments) is None)
