"""Clusters, through the commands and as an estimator: no column of labels, from training to verification."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

import sisa
from storage.errors import Invalid
from tests.deploy.learners.test_learners import NO_RECIPE, assert_everybody_may_be_erased
from tests.deploy.test_estimators import EXCUSED
from tests.doubles.user_folder import MARKED, UserFolder, small_points, without

BLOBS_NF = (np.arange(120)[:, None] % 4 * 10 + np.random.default_rng(2).normal(size=(120, 2))).astype(np.float32)
PEOPLE = [f"person-{number % 30:02d}" for number in range(120)]


def _clustered(home: UserFolder, **changes: object) -> UserFolder:
    own: dict[str, object] = {
        "model__learner": "k_means",
        "model__factory": None,
        "model__arguments": {"clusters": 3, "pivots": 2, "step": 0.5},
        "data__target": "cluster",
        "data__label": None,
        "data__classes": None,
    }
    return home.fill(changes.pop("columns", None), **NO_RECIPE, **own | changes)  # type: ignore[arg-type]


def test_a_person_is_taken_out_of_clusters(home: UserFolder, tmp_path: Path) -> None:
    """Train, predict, evaluate, erase and verify, on a file without labels; three shards answer together."""
    plain = {name: values for name, values in small_points().items() if name != "label"}
    _clustered(home, columns=plain, data__holdout=0.2)
    with sisa.connect(home.config) as federation:
        assert not federation.faults()
    assert home.run("train").code == 0
    held_out = home.run("evaluate")
    assert held_out.code == 0, held_out.err
    assert "inertia" in held_out.out
    found = home.json("evaluate", "train.parquet").data
    assert found["target"] == "cluster"
    assert 0 < found["metrics"]["inertia"] < 3
    assert sum(each["points"] for each in found["breakdown"].values()) == 120
    assert home.json("erase", "--subject", MARKED, "--wait", "--request-id", "r-1").data["state"] == "complete"
    assert home.json("verify").data["exact"]
    assert home.run("receipt", "r-1").code == 0
    assert "hold-out points: inertia" in home.run("status", "r-1").out
    assert home.json("predict", "train.parquet", "--out", "answers.parquet").code == 0
    answers = pq.read_table(home.folder / "answers.parquet")
    assert answers.column_names == ["id", "prediction", "distance"]
    assert set(answers["prediction"].to_pylist()) == {0, 1, 2}
    (tmp_path / "other").mkdir()
    other = UserFolder(tmp_path / "other")
    _clustered(other, columns=without(plain, subjects=[MARKED]), data__holdout=0.2)
    assert other.run("train").code == 0
    assert other.json("status").digests == home.json("status").digests
    assert other.json("predict", "train.parquet", "--out", "others.parquet").code == 0
    assert pq.read_table("others.parquet").equals(answers)


def test_everybody_may_be_erased_from_clusters(home: UserFolder) -> None:
    """Then nothing is left to answer, and verification holds."""
    _clustered(home)
    assert_everybody_may_be_erased(home)


def test_a_draft_for_clusters_trains(home: UserFolder) -> None:
    """``sisa init --learner k_means`` leaves out what is called a label; naming one is refused."""
    home.write("train.parquet", small_points())
    words = ("init", "train.parquet", "--label", "label", "--learner", "k_means", "--force")
    assert "have no label" in home.refused(*words).error["message"]
    drafted = home.json("init", "train.parquet", "--learner", "k_means", "--force").data
    assert (drafted["label"], drafted["target"]) == (None, "cluster")
    assert "label" in drafted["left_out"]
    assert home.run("train").code == 0
    assert home.json("evaluate", "train.parquet").data["metrics"]["inertia"] > 0


def test_a_clusterer_clusters_and_forgets(home: UserFolder) -> None:
    """As ``KMeans`` of scikit-learn: also in a pipeline, and from its store after it was pickled."""
    assert home.folder == Path.cwd()
    with sisa.Clusterer(clusters=4, slices=2, store="own", arguments={"pivots": 5}) as model:
        found_N = model.fit_predict(BLOBS_NF, subjects=PEOPLE)
        assert (model.predict(BLOBS_NF) == found_N).all()
        centers_KF = model.cluster_centers_
        assert centers_KF.shape == (4, 2)
        assert found_N.dtype == np.int32
        apart_N = ((BLOBS_NF - centers_KF[found_N]) ** 2).sum(axis=1)
        assert model.score(BLOBS_NF) == pytest.approx(-apart_N.sum(), rel=1e-5)
        assert sorted(centers_KF[:, 0].round(-1)) == [0, 10, 20, 30]
        assert model.erase(subjects=[PEOPLE[3]]).state == "complete"
        assert model.verify().holds
        again = pickle.loads(pickle.dumps(model))
        assert (again.predict(BLOBS_NF) == model.predict(BLOBS_NF)).all()
        assert clone(model).get_params() == model.get_params()
        with pytest.raises(Invalid, match="predicts a cluster, and this is a Classifier"):
            sisa.Classifier(store="own").predict(BLOBS_NF)
        again.close()
    with sisa.Clusterer(clusters=4, shards=3, store=None, scale=10.0) as scaled:
        piped = make_pipeline(FunctionTransformer(), scaled).fit(BLOBS_NF)
        assert len(set(piped.predict(BLOBS_NF))) == 4
        assert sorted(scaled.cluster_centers_[:, 0].round(-1)) == [0, 10, 20, 30]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # it would rather have its own base class
def test_the_checks_of_scikit_learn_for_a_clusterer(home: UserFolder) -> None:
    """All pass but those that are excused, and an excuse that is not needed fails as well."""
    assert home.folder == Path.cwd()
    model = sisa.Clusterer(clusters=3, slices=1, store=None, key="0f" * 16)
    excused = {name: reason for name, reason in EXCUSED.items() if name != "check_supervised_y_2d"}
    found = check_estimator(model, expected_failed_checks=excused, on_fail="raise")
    assert {each["check_name"] for each in found if each["status"] == "xfail"} == excused.keys()


def test_what_a_clusterer_refuses(home: UserFolder) -> None:
    """Too few clusters, a learner without clusters, and centroids of a federation that has none."""
    assert home.folder == Path.cwd()
    with pytest.raises(Invalid, match=r"clusters must be 2 \.\. 10000, got 1"):
        sisa.Clusterer(clusters=1, store="own").fit(BLOBS_NF)
    with pytest.raises(Invalid, match="clusters is not an argument of forest"):
        sisa.Clusterer(learner="forest", store="own").fit(BLOBS_NF)
    home.fill()
    with sisa.connect("sisa.toml") as federation, pytest.raises(Invalid, match="the target class has no centroids"):
        federation.centroids()


def test_more_clusters_than_data_points_are_one_each(home: UserFolder) -> None:
    """Digits that occur once are centroids of their own."""
    assert home.folder == Path.cwd()
    digits_NF = load_digits().data[:5].astype(np.float32)
    with sisa.Clusterer(clusters=8, slices=1, store=None) as model:
        assert sorted(model.fit(digits_NF).predict(digits_NF)) == [0, 1, 2, 3, 4]
        assert model.score(digits_NF) == pytest.approx(0, abs=1e-3)
