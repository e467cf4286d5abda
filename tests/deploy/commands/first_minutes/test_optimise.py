"""``sisa plan --optimise``: what it recommends, says and refuses, with a pace that is given and not measured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cluster.writer.optimising
from cluster.writer.throw_away import TriedLayout
from coordinator.decisions.optimise import Layout
from coordinator.decisions.pace import BATCH_WORK, BATCHES, LEARNED, GrowingCost, Pace
from tests.doubles.user_folder import MARKED, UserFolder

STEPS = Pace(workers={BATCHES: 0.001, LEARNED: 0.02}, coordinator={BATCH_WORK: 0.05}, checkpoint_bytes=10_000.0)
DIRECT = Pace(
    workers={},
    coordinator={BATCH_WORK: 0.05},
    checkpoint_bytes=0.0,
    learning=GrowingCost((100.0,), (1.0,)),
    forgetting=GrowingCost((100.0,), (0.01,)),
    learned_bytes=GrowingCost((100.0,), (5000.0,)),
)
NO_RECIPE: dict[str, Any] = {
    "training__epochs": None,
    "training__batch_size": None,
    "training__learning_rate": None,
    "model__factory": None,
    "model__arguments": None,
}
RATE = ("plan", "--optimise", "--requests-per-month", "30")


@pytest.fixture(autouse=True)
def _given_pace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing is measured; and nothing temporary is left."""

    class GivenPace:
        def __init__(self, specification: Any, *_args: object, **_options: object) -> None:
            self._is_whole = specification.model.is_whole

        def pace(self) -> Pace:
            return DIRECT if self._is_whole else STEPS

    monkeypatch.setattr(cluster.writer.optimising, "PaceTrial", GivenPace)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield
    assert list((tmp_path / "temporary").glob("*sisa-plan*")) == []


def test_a_recommendation_without_accuracies_says_so(home: UserFolder) -> None:
    """It also says how to measure accuracies. JSON has every candidate; the cheapest is recommended."""
    said = home.json(*RATE)
    data = said.data
    assert data["recommended"]["accuracy_measured"] is False
    best = min(data["candidates"], key=lambda each: (each["cost"], each["stored_bytes"]))
    assert (data["recommended"]["shards"], data["recommended"]["slices"]) == (best["shards"], best["slices"])
    assert data["current"] == {"shards": 3, "slices": 2}
    assert (data["points"], data["subjects"], data["tried"], data["price_cpu_hour"]) == (120, 30, [], None)
    assert best["price"] is None
    text = home.run(*RATE).out
    assert "as specified" in text
    assert "accuracy was not measured" in text
    assert "CPU in all" in text
    assert '"until_due" a month takes' in text
    assert "federation keeps" not in text
    assert not home.store.exists()


def test_prices_decide_where_they_are_given(home: UserFolder) -> None:
    """Dear storage makes few checkpoints cheapest, dear processors many shards."""
    dear = home.json(*RATE, "--price-gib-month", "1000000", "--price-cpu-hour", "0.01").data
    fast = home.json(*RATE, "--price-gib-month", "0", "--price-cpu-hour", "100", "--months", "120").data
    assert dear["recommended"]["shards"] * dear["recommended"]["slices"] == 1
    assert fast["recommended"]["shards"] > 1
    chosen = next(each for each in fast["candidates"] if each["shards"] == fast["recommended"]["shards"])
    assert chosen["price"] > 0
    assert "price in all" in home.run(*RATE, "--price-cpu-hour", "0.04").out


def test_measured_accuracies_decide_with_costs(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cheapest of those that are good enough; one that fails is reported, and the others count."""
    values = {Layout(1, 1): 0.93, Layout(2, 2): 0.925, Layout(4, 2): 0.6}

    def tried(_specification: object, layout: Layout, *_rest: object) -> TriedLayout:
        if layout not in values:
            return TriedLayout(layout=layout, failed="training diverged")
        return TriedLayout(layout=layout, figure="accuracy", value=values[layout], points=40, training_seconds=1.5)

    monkeypatch.setattr(cluster.writer.optimising, "try_layout", tried)
    home.specify(data__holdout=0.25)
    words = [word for layout in ("1x1", "2×2", "4X2", "5x1") for word in ("--try", layout)]
    data = home.json(*RATE, *words).data
    assert (data["recommended"]["shards"], data["recommended"]["accuracy_measured"]) == (2, True)
    assert [each.get("failed") for each in data["tried"]] == [None, None, None, "training diverged"]
    assert data["points"] == 90
    text = home.run(*RATE, *words).out
    assert "--try 5x1 failed, and does not count: training diverged" in text
    assert "2x2: accuracy 0.9250 on 40 hold-out points, trained in 1.5 s" in text
    assert "not measured" in text
    assert home.json(*RATE, *words, "--tolerance", "0").data["recommended"]["shards"] == 1


def test_a_real_try_trains_a_federation_and_deletes_it(home: UserFolder) -> None:
    """The specification's own store is not even made."""
    home.specify(data__holdout=0.25)
    (found,) = home.json(*RATE, "--try", "2x2").data["tried"]
    assert (found["figure"], found["shards"], found["slices"]) == ("accuracy", 2, 2)
    assert found["training_seconds"] > 0 < found["predicted_training_seconds"]
    assert not home.store.exists()


def test_erased_people_stay_out_of_what_is_tried(trained: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source still has the erased people. The federation's store is not changed, and keeps its numbers."""
    assert trained.json("erase", "--subject", MARKED).code == 0
    files = sorted((path, path.read_bytes()) for path in trained.store.rglob("*") if path.is_file())
    seen = []

    def tried(specification: Any, layout: Layout, who: Any, source: Any, _holdout: object) -> TriedLayout:
        with cluster.writer.throw_away.thrown_away(specification, who) as made:
            made.ingest(source)
            seen.append(sum(shard.points for shard in made.state.shards))
        return TriedLayout(layout=layout, failed="counted")

    monkeypatch.setattr(cluster.writer.optimising, "try_layout", tried)
    monkeypatch.setattr(cluster.writer.optimising, "_check_tries", lambda *_: None)
    text = trained.run(*RATE, "--try", "2x2").out
    assert seen == [116]
    assert text.startswith("116 data points")
    assert "a federation keeps its shards and slices" in text
    assert sorted((path, path.read_bytes()) for path in trained.store.rglob("*") if path.is_file()) == files
    (trained.folder / "train.parquet").unlink()
    records = trained.json(*RATE).data
    assert (records["measured_with"], records["subjects"]) == ("records", None)
    assert "no source to measure with" in " ".join(records["notes"])


def test_slices_that_are_learned_at_once(home: UserFolder) -> None:
    """Their number stays as specified; a learner that may have to learn again says so."""
    home.specify(**NO_RECIPE, model__learner="ridge")
    data = home.json(*RATE).data
    assert {each["slices"] for each in data["candidates"]} == {2}
    assert data["until_due"] is None
    assert "learned at once" in data["notes"][0]
    certified = {"norm": 4.0, "noise": 1.0, "penalty": 0.01}
    home.specify(
        **NO_RECIPE | {"model__arguments": certified}, model__learner="certified_linear", model__guarantee="certified"
    )
    assert "cannot always take data points out directly" in home.run(*RATE).out


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("--optimise",), "--optimise needs --requests-per-month"),
        ((*RATE[1:], "--try", "ten"), "--try takes shards and slices as SxR"),
        ((*RATE[1:], "--try", "0x4"), "each from 1 to 4096"),
        ((*RATE[1:], "--shards", "5"), "--shards asks about one partition"),
        ((*RATE[1:], "--requests", "5"), "--requests asks about one partition"),
        (("--months", "3"), "--months belongs to --optimise"),
        (("--try", "2x2"), "--try belongs to --optimise"),
        (("--optimise", "--requests-per-month", "-1"), "requests a month must be 0 or more, got -1"),
        ((*RATE[1:], "--points-per-request", "0"), "points a request must be above 0"),
        ((*RATE[1:], "--price-cpu-hour", "nan"), "the price of a CPU hour must be 0 or more, got nan"),
        ((*RATE[1:], "--try", "2x2", "--tolerance", "-1"), "the tolerance must be 0 or more"),
        ((*RATE[1:], "--try", "2x20"), "gives some of 20 slices no epoch"),
        ((*RATE[1:], "--try", "50x1"), "--try 50x1 has more shards than the 22 subjects"),
    ],
)
def test_what_makes_no_sense_is_refused(home: UserFolder, words: tuple[str, ...], fact: str) -> None:
    """With what to do about it, before anything is measured or tried."""
    home.specify(data__holdout=0.25)
    said = home.run("plan", *words)
    assert said.code == 2
    assert fact in " ".join(said.err.split())


def test_without_hold_out_points_nothing_is_tried(home: UserFolder) -> None:
    """The error names the setting."""
    error = home.json(*RATE, "--try", "2x2").error
    assert error["message"] == "there are no hold-out points, so accuracy cannot be measured"
    assert "holdout = 0.1" in error["remedy"]


def test_data_that_training_would_refuse_are_refused(home: UserFolder) -> None:
    """They are refused as by a plain plan, and so is a missing source."""
    home.specify(data__classes=["a", "b"])
    assert "training would refuse the data" in home.json(*RATE).error["message"]
    (home.folder / "train.parquet").unlink()
    assert home.json(*RATE).code == 2
