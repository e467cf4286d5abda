"""Boosted trees are LightGBM's, and are continued from checkpoints."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shards.learner_kinds.boosting import BoostingArguments
from shards.learners.boosting.library import boosting_profile
from shards.learners.registry import fix_numerics, open_learner
from shards.learners.tensors import encode_arrays
from shards.lineage import NumericsProfile
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from storage.errors import Corrupt, Invalid
from tests.doubles.federation import Point, specification_of
from tests.doubles.lineages import lineage_of
from tests.exactness.federations import checkpoints, federation_of
from tests.shards.learners.direct import points_of

GENERATOR = np.random.default_rng(3)
FEATURES_NF = GENERATOR.normal(size=(300, 4)).astype(np.float32)
CLASSES_N = (FEATURES_NF[:, 0] * FEATURES_NF[:, 1] > 0).astype(np.int64) + (FEATURES_NF[:, 2] > 1)
MODEL = ModelSettings(learner="boosting", arguments={"min_leaf": 5})
SHARD = ShardId(2)


@pytest.fixture
def lightgbm() -> Any:
    """LightGBM, an optional dependency."""
    return pytest.importorskip("lightgbm")


def _learner(outputs: int, target: str = "class", slices: int = 1, seed: int = 0, **arguments: Any) -> Any:
    return open_learner(
        model=replace(MODEL, arguments={"min_leaf": 5, **arguments}),
        training=TrainingSettings(epochs=20, batch_size=1, learning_rate=1.0, seed=seed),
        inputs=4,
        classes=outputs,
        slices=slices,
        target=target,
    )


def _learned(learner: Any, labels: Any, ends: tuple[int, ...] = (300,), features_NF: Any = FEATURES_NF) -> Any:
    """Return the constituent after all slices, continued from the checkpoint of each."""
    points = replace(points_of(features_NF, labels), ends=ends)
    state = learner.initial(SHARD)
    for number in range(1, len(ends) + 1):
        learning = learner.learn(state, points, SHARD, SliceIndex(number))
        epochs = 0
        while True:
            try:
                epochs = next(learning)
            except StopIteration as end:
                state = learner.from_bytes(learner.to_bytes(end.value, lineage_of()), SHARD)
                break
        assert epochs == learner.steps(points, SliceIndex(number))
    return state


def test_answers_are_those_of_lightgbm(lightgbm: Any) -> None:
    """With a single slice it is a model of LightGBM that starts from the classes' shares, and takes no huge steps."""
    learner = _learner(3)
    found = learner.probabilities(_learned(learner, CLASSES_N), FEATURES_NF)
    shares = (np.bincount(CLASSES_N) + 1) / 303
    own = {"objective": "multiclass", "num_class": 3, "min_data_in_leaf": 5, "max_delta_step": 10, "num_threads": 1}
    start = np.tile(np.log(shares), (300, 1))
    known = lightgbm.train(
        own | {"deterministic": True, "force_col_wise": True, "verbosity": -1},
        lightgbm.Dataset(FEATURES_NF, CLASSES_N, init_score=start),
        num_boost_round=20,
    )
    expected = np.exp(known.predict(FEATURES_NF, raw_score=True) + start)
    assert found == pytest.approx(expected / expected.sum(axis=1, keepdims=True))
    assert (found.argmax(axis=1) == CLASSES_N).mean() > 0.9


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        ("class", CLASSES_N),
        ("class", (CLASSES_N > 0).astype(np.int64)),
        ("number", FEATURES_NF[:, :2] * 3 + 1),
        ("multi_label", (FEATURES_NF[:, :3] > 0).astype(np.float32)),
    ],
)
@pytest.mark.usefixtures("lightgbm")
def test_each_target_is_learned_slice_by_slice(target: str, labels: Any) -> None:
    """Slices without points included: what a checkpoint holds is all that the next slice needs."""
    outputs = labels.shape[1] if labels.ndim > 1 else int(labels.max()) + 1
    learner = _learner(outputs, target, slices=4, learning_rate=0.3)
    found = learner.probabilities(_learned(learner, labels, (0, 100, 100, 300)), FEATURES_NF)
    assert found.shape == (300, outputs)
    if target == "number":
        assert np.abs(found - labels).mean() < 0.5
    elif target == "multi_label":
        assert ((found > 0.5) == labels).mean() > 0.95
    else:
        assert found.sum(axis=1) == pytest.approx(1)
        assert (found.argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.usefixtures("lightgbm")
def test_a_single_class_is_answered_by_its_share(outputs: int) -> None:
    """LightGBM learns nothing from one class."""
    learner, zeros = _learner(outputs), np.zeros(50, dtype=np.int64)
    found = learner.probabilities(_learned(learner, zeros, (50,), FEATURES_NF[:50]), FEATURES_NF)
    assert found[:, 0] == pytest.approx(51 / (50 + outputs))


@pytest.mark.parametrize(("outputs", "late"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
@pytest.mark.usefixtures("lightgbm")
def test_a_class_that_is_not_there_yet_is_learned_later(outputs: int, late: int) -> None:
    """It has a small probability, from which a later slice brings it up, and not too far."""
    labels_N = np.minimum(CLASSES_N, outputs - 1)
    order = np.argsort(labels_N == late, kind="stable")
    ends = (int((labels_N != late).sum()), 300)
    learner = _learner(outputs, slices=2, learning_rate=0.3)
    found = learner.probabilities(_learned(learner, labels_N[order], ends, FEATURES_NF[order]), FEATURES_NF)
    assert (found.argmax(axis=1) == labels_N).mean() > 0.9


@pytest.mark.usefixtures("lightgbm")
def test_few_points_and_none() -> None:
    """One data point makes no tree, and without any there is nothing to answer from but equal shares."""
    learner = _learner(3)
    alone = learner.probabilities(_learned(learner, CLASSES_N[:1], (1,), FEATURES_NF[:1]), FEATURES_NF[:2])
    assert alone[:, CLASSES_N[0]] == pytest.approx(0.5)
    nobody = _learned(learner, CLASSES_N[:0], (0,), FEATURES_NF[:0])
    assert learner.probabilities(nobody, FEATURES_NF) == pytest.approx(1 / 3)
    assert learner.digest(nobody) == learner.digest(learner.initial(SHARD))
    assert learner.probabilities(nobody, FEATURES_NF[:0]).shape == (0, 3)


@pytest.mark.usefixtures("lightgbm")
def test_the_seed_draws_features() -> None:
    """Equal seeds give equal bytes, other ones other trees."""
    digests = []
    for seed in (1, 1, 2):
        learner = _learner(3, seed=seed, feature_share=0.5)
        digests.append(learner.digest(_learned(learner, CLASSES_N)))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("damage", ["base", "text", "name", "number"])
@pytest.mark.usefixtures("lightgbm")
def test_a_checkpoint_of_something_else_is_refused(damage: str) -> None:
    """Another model's arrays, and texts that LightGBM cannot read."""
    learner = _learner(2, "number")
    arrays = learner.arrays(_learned(learner, FEATURES_NF[:, :2]))
    if damage == "base":
        arrays["base"] = np.zeros(3)
    elif damage == "text":
        arrays["trees/0000/0001"] = arrays["trees/0000/0001"][:100]
    elif damage == "name":
        arrays["other"] = arrays.pop("trees/0000/0001")
    else:
        del arrays["trees/0000/0001"]
    with pytest.raises(Corrupt, match="no boosted trees of this model"):
        learner.from_bytes(encode_arrays(arrays, lineage_of()), SHARD)


@pytest.mark.usefixtures("lightgbm")
def test_values_of_an_erased_point_are_in_no_checkpoint() -> None:
    """LightGBM's text has the smallest and largest value of each feature: they are of people who are still there."""
    points = [
        Point(id=f"p{each}", subject=f"s{each}", label="ab"[each % 2], features=(float(each), float(each % 7)))
        for each in range(60)
    ]
    marked = Point(id="marked", subject="marked", label="a", features=(31337.25, -31338.5))
    specification = specification_of(
        shards=1,
        slices=3,
        model=replace(MODEL, arguments={"min_leaf": 1}),
        training=TrainingSettings(epochs=4, batch_size=1, learning_rate=1.0),
    )
    federation = federation_of(specification)
    federation.train([*points, marked])
    held = [payload for chain in checkpoints(federation) for payload in chain]
    assert any(b"31337.25" in payload and b"-31338.5" in payload for payload in held)
    federation.accept(subjects=("marked",), request_id="er-1")
    federation.engine.settle()
    held = [payload for chain in checkpoints(federation) for payload in chain]
    assert not any(b"31337" in payload or b"31338" in payload for payload in held)


def test_the_profile_names_library_and_probe(lightgbm: Any) -> None:
    """Another version may grow other trees: it is part of the lineage."""
    profile = fix_numerics(MODEL, 4, "cpu", probed=True)
    assert profile.record()["library"] == f"lightgbm {lightgbm.__version__}"
    assert (profile.threads, profile.probe is None) == (1, False)
    assert boosting_profile(probed=False) == replace(profile, probe=None)
    torch = NumericsProfile(torch="2", threads=1, device="cpu", dtype="float32", deterministic=True, packing="none")
    assert "library" not in torch.record()


def test_without_lightgbm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By workers, which name their node, and by everybody who answers."""
    plain = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == "lightgbm":
            raise ModuleNotFoundError(name)
        return plain(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(Invalid, match=r"pip install 'sisa-ray\[boosting\]' here and on all nodes") as refused:
        fix_numerics(MODEL, 1, "cpu", probed=True)
    assert "node=" in str(refused.value)
    with pytest.raises(Invalid, match="needs LightGBM, which is not installed here"):
        _learner(2)


def test_arguments_are_checked() -> None:
    """Each within its range."""
    wrong = BoostingArguments(learning_rate=0, leaves=1, depth=-1, min_leaf=0, min_gain=-1.0, bins=1, feature_share=1.5)
    assert [problem.split()[0] for problem in wrong.problems()] == [
        "leaves",
        "depth",
        "min_leaf",
        "bins",
        "learning_rate",
        "min_gain",
        "feature_share",
    ]
