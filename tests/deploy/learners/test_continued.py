"""Learners that go on from slice to slice, through the commands and as estimators: exact by training again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sisa
from shards.learners.boosting import library
from storage.errors import Invalid
from tests.doubles.user_folder import MARKED, UserFolder, small_points, without

LEARNERS: dict[str, dict[str, Any]] = {
    "boosting": {"model__arguments": {"min_leaf": 2, "leaves": 4}, "training__epochs": 6},
    "sklearn": {"model__arguments": {"estimator": "SGDClassifier", "loss": "log_loss"}, "training__epochs": 6},
}
NO_RECIPE = {"training__batch_size": None, "training__learning_rate": None}


@pytest.fixture(params=LEARNERS)
def learner(request: pytest.FixtureRequest) -> str:
    """A learner whose library is here."""
    if request.param == "boosting":
        pytest.importorskip("lightgbm")
    name: str = request.param
    return name


def _specified(home: UserFolder, learner: str, columns: Any = None) -> UserFolder:
    return home.fill(columns, **NO_RECIPE, model__learner=learner, model__factory=None, **LEARNERS[learner])


def test_a_person_is_erased_from_their_slice_on(learner: str, home: UserFolder, tmp_path: Path) -> None:
    """Train, predict, erase, verify: with the bytes of a federation that never saw the person."""
    _specified(home, learner)
    assert home.run("train").code == 0
    before = home.json("status")
    assert [len(each["slice_digests"]) for each in before.data["constituents"]] == [2, 2, 2]
    assert home.json("evaluate", "train.parquet").data["accuracy"] > 0.4
    priced = home.json("erase", "--subject", MARKED, "--dry-run").data["plan"]["point_epochs"]
    erased = home.json("erase", "--subject", MARKED, "--wait", "--request-id", "r-1")
    assert (erased.code, erased.data["state"], erased.data["points"]) == (0, "complete", 4)
    assert home.json("status", "r-1").data["spent"]["point_epochs"] == priced > 0
    after = home.json("status")
    assert sum(was != now for was, now in zip(before.digests, after.digests, strict=True)) == 1
    verified = home.json("verify")
    assert (verified.code, verified.data["exact"]) == (0, True)
    assert home.run("receipt", "r-1").code == 0
    other = UserFolder(tmp_path / "other")
    (tmp_path / "other").mkdir()
    _specified(other, learner, without(small_points(), subjects=[MARKED]))
    assert other.run("train").code == 0
    assert other.json("status").digests == after.digests


def test_a_draft_for_the_learner_trains(learner: str, home: UserFolder) -> None:
    """``sisa init --learner`` writes a specification that trains as it is, and that 'sisa plan' prices."""
    assert home.run("init", "train.parquet", "--label", "label", "--learner", learner, "--force").code == 0
    assert home.json("plan").data["checkpoint_bytes"] > 0
    assert home.run("train").code == 0
    assert home.json("evaluate", "train.parquet").data["accuracy"] > 0.4


def test_an_estimator_of_the_learner(learner: str, home: UserFolder) -> None:
    """Epochs are a parameter of it; it fits, scores, erases and verifies."""
    assert home.folder == Path.cwd()
    X_NF = np.random.default_rng(5).normal(size=(120, 3)).astype(np.float32)
    y_N = np.where(X_NF[:, 0] > 0, "yes", "no")
    people = [f"person-{number % 30:02d}" for number in range(120)]
    arguments = LEARNERS[learner]["model__arguments"]
    with sisa.Classifier(learner=learner, arguments=arguments, epochs=20, shards=1, slices=2, store="own") as model:
        model.fit(X_NF, y_N, subjects=people)
        assert model.score(X_NF, y_N) > 0.9
        model.erase(subjects=[people[3]])
        assert model.verify().holds
        assert model.predict_proba(X_NF).shape == (120, 2)


def test_without_its_library_the_extra_is_named(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised before anything is ingested."""

    def missing() -> Any:
        raise Invalid("[model] learner = 'boosting' needs LightGBM", "Run pip install 'sisa-ray[boosting]'.")

    monkeypatch.setattr(library, "lightgbm", missing)
    _specified(home, "boosting")
    assert "sisa-ray[boosting]" in home.refused("train").error["remedy"]
    assert not home.slice_files()
