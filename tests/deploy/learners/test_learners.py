"""Learners other than torch, through the commands and as estimators: a federation that forgets directly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cluster.doctor
import cluster.training.workers
import sisa
from cluster.config.specification import read_specification
from cluster.ensemble.loaded import Ensemble
from coordinator.engine.ledger import read_state
from shards.learner_kinds.kinds import LEARNERS as KINDS
from shards.learners.trainer import ConstituentTrainer
from shards.slices.files import read_part
from storage.errors import Conflict, Invalid
from tests.doubles.user_folder import MARKED, UserFolder, small_points, without

LEARNERS: dict[str, dict[str, Any]] = {
    "forest": {"trees": 5, "min_leaf": 2},
    "naive_bayes": {},
    "ridge": {"penalty": 0.5},
    "bayesian_linear": {"interval": 0.95},
    "beta_bernoulli": {},
    "dirichlet_categorical": {},
    "gamma_poisson": {},
}
NUMBERS: dict[str, Callable[[int], float]] = {
    "bayesian_linear": float,
    "beta_bernoulli": lambda value: value // 84 % 2,
    "gamma_poisson": lambda value: value // 10,
}
"""Learners that predict numbers, and the label of a data point with this value of x00."""
NO_RECIPE = {"training__epochs": None, "training__batch_size": None, "training__learning_rate": None}


def _specified(home: UserFolder, learner: str, **changes: object) -> UserFolder:
    changes |= {"model__learner": learner, "model__factory": None, "model__arguments": LEARNERS[learner]}
    columns = _columns(learner, changes.pop("columns", None))
    if KINDS[learner].is_counting:
        changes |= {"data__features": ["group"], "data__scale": None}
    if learner in NUMBERS:
        changes |= {"data__target": "number", "data__classes": None, "data__label": "amount"}
    return home.fill(columns, **NO_RECIPE, **changes)


def _columns(learner: str, columns: Any = None) -> dict[str, list[Any]]:
    """Return data points; with numbers to predict if the learner predicts numbers."""
    found = columns or small_points()
    found = found | {"group": [value // 84 for value in found["x00"]]}
    if learner in NUMBERS:
        found = found | {"amount": [NUMBERS[learner](value) for value in found["x00"]]}
    return found


def _measured(home: UserFolder) -> float:
    """Return the accuracy, or the share of labels in their intervals, or R², on the training data."""
    found = home.json("evaluate", "train.parquet").data
    metrics = found["metrics"]
    return float(metrics["accuracy"] if found["target"] == "class" else metrics.get("coverage", metrics["r2"]))


def assert_everybody_may_be_erased(home: UserFolder) -> None:
    """Train, and check that a federation of the usual people answers no longer and can be verified without them."""
    assert home.run("train").code == 0
    people = sorted(set(small_points()["user_id"]))
    assert home.json("erase", *(word for who in people for word in ("--subject", who)), "--wait").code == 0
    assert home.json("verify").code == 0
    assert "no data points are left" in home.refused("predict", "train.parquet", "--out", "o.parquet").error["message"]


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of points with which constituents were changed directly, as they come."""
    counts: list[int] = []
    plain = ConstituentTrainer._directly

    def counted(trainer: Any, *arguments: Any) -> Any:
        found = plain(trainer, *arguments)
        counts.append(-1 if found is None else found[1])
        return found

    monkeypatch.setattr(ConstituentTrainer, "_directly", counted)
    return counts


def test_a_slice_that_is_written_again_leaves_no_base(home: UserFolder) -> None:
    """A damaged slice file is replaced from the source; its constituent stays, and nothing keeps the old objects."""
    _specified(home, "ridge")
    assert home.run("train").code == 0
    state = read_state(home.objects)
    assert state is not None
    part = state.shards[0].slices[0].parts[0]
    home.objects.delete(part.key)
    assert home.run("train").code == 0
    after = read_state(home.objects)
    assert after is not None
    assert after.shards[0].chain == state.shards[0].chain
    assert all(shard.base is None for shard in after.shards)
    assert part.key not in after.referenced()


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_person_is_taken_out_directly(learner: str, home: UserFolder, direct: list[int], tmp_path: Path) -> None:
    """Train, predict, erase, verify: with the bytes of a federation that never saw the person, who is in one shard."""
    _specified(home, learner)
    assert home.run("train").code == 0
    before = home.json("status")
    assert [len(each["slice_digests"]) for each in before.data["constituents"]] == [1, 1, 1]
    assert _measured(home) > 0.4
    erased = home.json("erase", "--subject", MARKED, "--wait", "--request-id", "r-1")
    assert (erased.code, erased.data["state"], erased.data["points"]) == (0, "complete", 4)
    assert direct == [4]
    after = home.json("status")
    assert sum(was != now for was, now in zip(before.digests, after.digests, strict=True)) == 1
    verified = home.json("verify")
    assert (verified.code, verified.data["exact"]) == (0, True)
    assert home.run("receipt", "r-1").code == 0
    (tmp_path / "other").mkdir()
    other = UserFolder(tmp_path / "other")
    _specified(other, learner, columns=without(small_points(), subjects=[MARKED]))
    assert other.run("train").code == 0
    assert other.json("status").digests == after.digests


def test_an_erasure_reads_one_slice(home: UserFolder, direct: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker reads the files of the slice that changed, as it was and as it is, and no other slice of the shard."""
    _specified(home, "naive_bayes", partition__shards=1, partition__slices=8)
    assert home.run("train").code == 0
    before = read_state(home.objects)
    read: list[str] = []

    def counted(store: Any, part: Any) -> Any:
        read.append(part.key)
        return read_part(store, part)

    monkeypatch.setattr("shards.slices.differences.read_part", counted)
    monkeypatch.setattr(ConstituentTrainer, "_points", None)  # which reads the whole shard
    assert home.json("erase", "--subject", MARKED, "--wait").data["state"] == "complete"
    assert direct == [4]
    after = read_state(home.objects)
    assert before is not None
    assert after is not None
    pairs = zip(before.shards[0].slices, after.shards[0].slices, strict=True)
    ((was, now),) = [(old, new) for old, new in pairs if old != new]
    assert sorted(read) == sorted(part.key for each in (was, now) for part in each.parts)


def test_no_worker_is_started_to_take_a_person_out_directly(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take longer to start than the erasure takes; a verification has one."""
    _specified(home, "forest")
    assert home.run("train").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", lambda *_: pytest.fail("a worker was started"))
        erased = home.json("erase", "--subject", MARKED, "--wait", "--request-id", "r-1")
    assert (erased.code, erased.data["state"]) == (0, "complete")
    assert home.json("verify").data["exact"]


def test_new_points_and_corrections_are_put_in_directly(home: UserFolder, direct: list[int]) -> None:
    """A source that grew, and one that was corrected, change only what they must; nothing is left to start from."""
    _specified(home, "forest", columns=small_points(people=20))
    assert home.run("train").code == 0
    grown = small_points(people=20)
    for name, values in small_points(people=21).items():
        grown[name] += [f"new-{values[0]}" if name == "id" else values[40]]
    home.write("train.parquet", grown)
    assert home.run("train").code == 0
    assert direct == [1]
    assert home.json("verify").data["exact"]
    state = read_state(home.objects)
    assert state is not None
    assert all(shard.base is None for shard in state.shards)


def test_without_its_last_constituent_a_shard_learns_again(home: UserFolder, direct: list[int]) -> None:
    """A checkpoint that is gone, or damaged, only makes the erasure slower."""
    _specified(home, "ridge")
    assert home.run("train").code == 0
    state = read_state(home.objects)
    assert state is not None
    for shard in state.shards:
        (home.store / shard.chain[0].key).write_bytes(b"damaged")
    assert home.json("erase", "--subject", MARKED, "--wait").data["state"] == "complete"
    assert set(direct) <= {-1}
    assert home.json("verify").data["exact"]


def test_another_learner_trains_from_nothing(home: UserFolder, direct: list[int]) -> None:
    """A change of the learner or of its arguments discards every constituent, and takes no other for a start."""
    _specified(home, "ridge")
    assert home.run("train").code == 0
    first = home.json("status").digests
    home.specify(**NO_RECIPE, model__factory=None, model__learner="naive_bayes", model__arguments=None)
    assert home.json("predict", "train.parquet", "--out", "answers.parquet").code == 4
    assert home.run("train").code == 0
    home.specify()
    assert home.run("train").code == 0
    assert len(home.json("status").data["constituents"][0]["slice_digests"]) == 2
    _specified(home, "ridge")
    assert home.run("train").code == 0
    assert home.json("status").digests == first
    assert direct == []


def test_everybody_may_be_erased(home: UserFolder) -> None:
    """Then no constituent is left to answer, and verification holds."""
    _specified(home, "forest")
    assert_everybody_may_be_erased(home)


def test_a_dry_run_prices_the_points_alone(home: UserFolder) -> None:
    """Taking four points out costs four looks at a point, however many the shard holds."""
    _specified(home, "naive_bayes")
    assert home.run("train").code == 0
    priced = home.json("erase", "--subject", MARKED, "--dry-run").data
    assert priced["plan"]["point_epochs"] == 4
    assert home.json("erase", "--subject", MARKED, "--wait", "--request-id", "r-1").code == 0
    request = home.json("status", "r-1").data
    assert (request["expected"]["point_epochs"], request["spent"]["point_epochs"]) == (4, 4)


@pytest.mark.parametrize("learner", ["forest", "naive_bayes", "ridge"])
def test_a_classifier_of_any_learner(learner: str, home: UserFolder) -> None:
    """With nothing else declared it fits, scores, erases and verifies."""
    assert home.folder == Path.cwd()
    X_NF = np.random.default_rng(5).normal(size=(120, 3)).astype(np.float32)
    y_N = np.where(X_NF[:, 0] > 0, "yes", "no")
    people = [f"person-{number % 30:02d}" for number in range(120)]
    with sisa.Classifier(learner=learner, shards=1, slices=4, store="own") as model:
        model.fit(X_NF, y_N, subjects=people)
        assert model.score(X_NF, y_N) > 0.9
        model.erase(subjects=[people[3]])
        assert model.verify().holds
        assert model.predict_proba(X_NF).shape == (120, 2)


def test_a_regressor_with_a_forest(home: UserFolder) -> None:
    """Numbers are learned, too; a recipe for networks is refused."""
    assert home.folder == Path.cwd()
    X_NF = np.random.default_rng(6).normal(size=(200, 3)).astype(np.float32)
    y_N = 100 * X_NF[:, 0]
    with sisa.Regressor(learner="forest", shards=1, slices=2, store="own") as model:
        assert model.fit(X_NF, y_N).score(X_NF, y_N) > 0.8
    with pytest.raises(Invalid, match="epochs belongs to the learner torch"):
        sisa.Regressor(learner="forest", epochs=3, store="other").fit(X_NF, y_N)


def test_a_regressor_with_intervals(home: UserFolder) -> None:
    """The interval of each answer is around it, and holds as many labels as declared; forests have none."""
    assert home.folder == Path.cwd()
    generator = np.random.default_rng(7)
    X_NF = generator.normal(size=(300, 3)).astype(np.float32)
    y_NW = X_NF[:, :2] + generator.normal(size=(300, 2))
    arguments = {"interval": 0.8}
    with sisa.Regressor(learner="bayesian_linear", arguments=arguments, shards=1, slices=2, store="own") as model:
        model.fit(X_NF, y_NW)
        ends_NW2 = model.predict_interval(X_NF)
        means_NW, spreads_NW = model.predict(X_NF, return_std=True)
        inside = (ends_NW2[..., 0] < y_NW) & (y_NW < ends_NW2[..., 1])
        assert inside.mean() == pytest.approx(0.8, abs=0.06)
        assert ends_NW2.mean(axis=2) == pytest.approx(means_NW, abs=1e-5)
        assert spreads_NW == pytest.approx(1, abs=0.2)
    with sisa.Regressor(learner="forest", arguments={"trees": 2}, shards=1, slices=2, store="other") as model:
        assert model.fit(X_NF, y_NW[:, 0]).predict(X_NF).shape == (300,)
        with pytest.raises(Invalid, match="answers of the learner forest have no intervals"):
            model.predict_interval(X_NF)


def test_codes_of_categories_are_features(home: UserFolder, direct: list[int]) -> None:
    """A categorical naive Bayes counts the codes that an encoder gives each category."""
    columns = small_points()
    for number, name in enumerate(("plan", "city")):
        columns[name] = [("free", "pro", "team")[(each + number) % 3] for each in range(len(columns["id"]))]
    encode = {name: {"categories": ["free", "pro", "team"], "as": "index"} for name in ("plan", "city")}
    data = {"data__features": ["plan", "city"], "data__encode": encode, "data__scale": None}
    home.fill(
        columns,
        **NO_RECIPE,
        **data,
        model__factory=None,
        model__learner="naive_bayes",
        model__arguments={"form": "categorical", "values": 3},
    )
    assert home.run("train").code == 0
    assert home.json("erase", "--subject", MARKED, "--wait").data["state"] == "complete"
    assert direct == [4]
    assert home.json("verify").data["exact"]


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_draft_for_the_learner_trains(learner: str, home: UserFolder) -> None:
    """``sisa init --learner`` writes a specification that trains as it is, on one shard."""
    home.write("train.parquet", _columns(learner))
    label = "amount" if learner in NUMBERS else "label"
    assert home.run("init", "train.parquet", "--label", label, "--learner", learner, "--force").code == 0
    assert home.run("train").code == 0
    status = home.json("status").data
    assert len(status["constituents"]) == 1
    if KINDS[learner].is_counting:  # the draft has no groups, so that all answers are the same
        metrics = home.json("evaluate", "train.parquet").data["metrics"]
        gained = metrics["r2"] if learner in NUMBERS else metrics["accuracy"] - metrics["majority_share"]
        assert gained == pytest.approx(0, abs=1e-3)
    else:
        assert _measured(home) > 0.4


def test_a_draft_for_a_learner_that_does_not_fit_is_refused(home: UserFolder) -> None:
    """One that there is not, and one that does not predict what the label is."""
    unknown = home.refused("init", "train.parquet", "--label", "label", "--learner", "trees", "--force")
    assert unknown.error["remedy"] == f"Take one of {', '.join(KINDS)}."
    columns = small_points()
    columns["price"] = [float(number) * 1.5 for number in range(len(columns["id"]))]
    home.write("train.parquet", columns)
    words = ("init", "train.parquet", "--label", "price", "--learner", "naive_bayes", "--force")
    assert "does not predict a number" in home.refused(*words).error["message"]


def test_arguments_that_decide_answers_alone_are_conditions_of_training(home: UserFolder) -> None:
    """A penalty acts when coefficients are computed from the sums, which fit any: another one is refused."""
    _specified(home, "ridge")
    assert home.run("train").code == 0
    state = read_state(home.objects)
    assert state is not None
    assert len(Ensemble.load(home.objects, state, read_specification(home.config)).constituents) == 3
    home.specify(**NO_RECIPE, model__factory=None, model__learner="ridge", model__arguments={"penalty": 100.0})
    with pytest.raises(Conflict, match="the learner's arguments have changed"):
        Ensemble.load(home.objects, state, read_specification(home.config))
    assert home.json("predict", "train.parquet", "--out", "answers.parquet").code == 4


@pytest.mark.parametrize("learner", ["ridge", "forest", "naive_bayes"])
def test_values_outside_the_range_of_the_grid_are_refused_before_training(
    learner: str, home: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingest and doctor name file, row and column: features as scaled, labels as they are learned."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)  # doctor asks no Ray
    monkeypatch.setattr(cluster.doctor, "command_lines", list)
    columns = small_points()
    is_labels = learner == "forest"
    if is_labels:
        columns["label"] = [float(number) for number in range(len(columns["label"]))]
        columns["label"][6] = 40_000.0
    bad = "label" if is_labels else next(name for name in columns if name.startswith("x"))
    if not is_labels:
        columns[bad] = [float(value) for value in columns[bad]]
        columns[bad][6] = 1e8
    _specified(
        home, learner, columns=columns, **({"data__target": "number", "data__classes": None} if is_labels else {})
    )
    refused = home.json("train")
    assert refused.code == 2
    assert f"column={bad} row=7" in refused.error["message"]
    assert "which [model] learner does not take" in refused.error["message"]
    checks = {each["check"]: each for each in home.json("doctor").data["checks"]}
    assert (
        f"train.parquet, column {bad!r}, row 7: a data point has a {'label' if is_labels else 'feature'} outside"
        in (checks["data"]["message"])
    )
