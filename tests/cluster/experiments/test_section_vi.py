"""The survey's experiment, on few data points and steps: its rows, its report, and what it says of what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.experiments.catalog import find_experiment
from cluster.experiments.experiment import Cell, Check, Row
from cluster.experiments.runner import Finished, run_experiment
from cluster.experiments.section_vi.account import report_of
from cluster.experiments.section_vi.checks import checks_of
from cluster.experiments.section_vi.definition import COLUMNS, SECTION_VI, rows_of
from cluster.experiments.section_vi.grid import cells_of, settings_of
from cluster.experiments.section_vi.removal import IID, SKEWED, points_that_leave
from storage.errors import Conflict
from tests.cluster.experiments.crew import NearCrew
from tests.doubles.time_and_names import VirtualClock

CONTRACT = {"dataset", "model", "method", "scenario", "ratio", "round", "accuracy", "per_class", "seconds", "distance"}
SKEW: dict[str, Any] = {"skewed_class": 4, "skewed_share": 0.3}


def small() -> dict[str, Any]:
    """Return the quick grid with fewer steps, epochs, ratios and rounds."""
    settings: dict[str, Any] = json.loads(json.dumps(settings_of(True)))
    softmax, net = settings["descents"]
    softmax |= {"rounds": [0, 1], "cases": {IID: [0.01, 0.3, 0.5], SKEWED: [0.01, 0.3]}}
    net["recipe"] |= {"epochs": 2, "first_epochs": 1}
    sisa, forest = settings["federations"]
    sisa |= {"counts": [1], "cases": {IID: [0.3], SKEWED: [0.3]}}
    sisa["tables"] |= {"partition": {"shards": 2, "slices": 2}}
    sisa["tables"]["training"]["epochs"] = 2
    forest |= {"cases": {IID: [], SKEWED: [0.3]}}
    forest["tables"]["model"]["arguments"]["trees"] = 2
    return settings


def run(settings: Mapping[str, Any], folder: Path, most: int | None = None) -> Finished:
    """Run the experiment in this process."""
    return run_experiment(SECTION_VI, settings, folder, clock=VirtualClock(), crew=lambda *_: NearCrew(most))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """The small grid, computed in two parts, as after Ctrl-C."""
    folder = tmp_path_factory.mktemp("section-vi")
    with pytest.raises(KeyboardInterrupt, match="^$"):
        run(small(), folder, most=1)
    assert len(list((folder / "cells").iterdir())) == 1
    return run(small(), folder), folder


def chosen(found: Finished, **equal: Any) -> list[Row]:
    """Return the rows with these values."""
    return [row for row in found.rows if all(row[name] == value for name, value in equal.items())]


def test_rows_have_every_column(finished: tuple[Finished, Path]) -> None:
    """Every method has rows; each row after a deletion has its comparison values, and no row reports a failure."""
    found, _ = finished
    assert set(COLUMNS) > CONTRACT
    assert {tuple(row) for row in found.rows} == {COLUMNS}
    assert {row["method"] for row in found.rows} == {"trained", "full-retrain", "deltagrad", "sisa", "forest"}
    assert {row["note"] for row in found.rows} <= {"", None}
    for row in found.rows:
        assert 0 < row["accuracy"] < 1
        assert set(row["per_class"]) == set("0123456789")
        assert row["seconds"] > 0
        if row["ratio"]:
            assert row["removed"] >= 1
            assert row["retrain_seconds"] > 0
            assert row["distance"] >= 0


def test_exact_methods_are_at_the_retrain_and_deltagrad_is_not(finished: tuple[Finished, Path]) -> None:
    """DeltaGrad with T0=1 equals the retrain; with T0=5 it is nearer to it than the parameters before the deletion."""
    found, _ = finished
    exact = [row for row in found.rows if row["method"] in {"sisa", "forest"} and row["ratio"]]
    assert len(exact) == 5
    assert all(row["exact"] and row["distance"] == 0 for row in exact)
    explicit = chosen(found, method="deltagrad", variant="T0=1 j0=10 m=2")
    assert len(explicit) == 6
    assert all(row["distance"] <= 1e-10 for row in explicit)
    for scenario, ratio in ((IID, 0.3), (SKEWED, 0.3)):
        at = {"model": "softmax", "scenario": scenario, "ratio": ratio, "round": 0}
        (approximate,) = chosen(found, method="deltagrad", variant="T0=5 j0=10 m=2", **at)
        (retrained,) = chosen(found, method="full-retrain", **at)
        assert approximate["explicit_steps"] == 24
        assert 0 < approximate["distance"] < retrained["distance"] / 10


def test_a_skewed_deletion_ends_a_class(finished: tuple[Finished, Path]) -> None:
    """The mean hides it; with the same number of data points at random nothing of the kind happens."""
    found, folder = finished
    for method in ("full-retrain", "deltagrad"):
        (skewed, *_) = chosen(found, model="softmax", method=method, scenario=SKEWED, ratio=0.3)
        (iid, *_) = chosen(found, model="softmax", method=method, scenario=IID, ratio=0.3)
        assert skewed["per_class"]["4"] <= 0.1
        assert iid["per_class"]["4"] >= 0.9
        assert 0.75 < skewed["accuracy"] < 0.85 < iid["accuracy"]
    text = (folder / "results.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| softmax, retrain |")]
    assert line.split(" | ")[1].startswith("0.7")
    assert line.split(" | ")[6] == "0.000"
    assert "it is inferred" in text


def test_the_report_has_its_figures(finished: tuple[Finished, Path]) -> None:
    """Each figure has a line for every method in it; checks that need MNIST are reported as not measured."""
    found, folder = finished
    figures = {figure.name: figure for figure in found.report.figures}
    assert list(figures) == ["accuracy", "classes", "time", "distance"]
    times = [{series.name for series in panel.series} for panel in figures["time"].panels]
    assert {"softmax, T0=5 j0=10 m=2", "law, T0=5 j0=10 m=2", "survey", "a full retrain"} <= times[0]
    assert {"SISA S=2 R=2, softmax", "SISA S=2 R=2, closed form", "forest, 2 trees"} <= times[1]
    assert {len(series.x) for panel in figures["classes"].panels for series in panel.series} == {10}
    held = {check.what: check.holds for check in found.report.checks}
    assert held["largest distance between DeltaGrad with T0=1 and the retrain"] is True
    assert held["share of erasures from SISA and forests that end in the bytes of a full retrain"] is True
    assert held["accuracy before any deletion"] is None
    assert False not in held.values()
    assert "NaN" not in (folder / "results.json").read_text()


def test_the_report_names_where_deltagrad_harms(finished: tuple[Finished, Path]) -> None:
    """Where it ends farther from the retrain than it began, and which class loses by its error."""
    found, _ = finished
    at = {"scenario": SKEWED, "ratio": 0.3, "method": "deltagrad"}
    worse = [
        {**row, "distance": 99.0, "per_class": {**row["per_class"], "7": 0.0}}
        if all(row.get(name) == value for name, value in at.items())
        else row
        for row in found.rows
    ]
    before, after = (
        {section.title: section.text for section in report_of(found.settings, rows).sections}
        for rows in (found.rows, worse)
    )
    assert "worse than doing nothing: it ends at a distance of 99 from the retrain" in after["Distance"]
    assert "distance of 99" not in before["Distance"]
    assert "DeltaGrad's error harms class 7 of softmax regression: 0.000" in after["Which class is gone"]
    assert "harms class 7" not in before["Which class is gone"]


def test_a_folder_of_other_settings_is_refused(finished: tuple[Finished, Path]) -> None:
    """Its rows stay."""
    _, folder = finished
    with pytest.raises(Conflict, match="the folder has results of other settings: skewed_class is 4 there, and 5 here"):
        run({**small(), "skewed_class": 5}, folder)


def test_a_descent_that_diverges_is_a_row(tmp_path: Path) -> None:
    """In training, and in DeltaGrad alone; the report says so, and has no number for it."""
    settings = small()
    softmax = settings["descents"][0]
    softmax |= {"rounds": [0], "cases": {IID: [0.3]}, "recipe": softmax["recipe"] | {"rate": 1e40}}
    found = run(settings | {"descents": [softmax], "federations": []}, tmp_path)
    (row,) = found.rows
    assert (row["method"], row["accuracy"], row["distance"]) == ("trained", None, None)
    assert row["note"].startswith("diverged: the parameters are beyond all bounds")
    assert "## Notes" in (tmp_path / "results.md").read_text()


def test_a_federation_that_fails_is_a_row() -> None:
    """Its error is in the note."""
    settings = small()
    sisa = settings["federations"][0]
    sisa["tables"]["training"]["learning_rate"] = 1e38
    cell = Cell(name="sisa", arguments={"kind": "federations", "study": sisa | {"cases": {}}, "round": 0})
    (row,) = rows_of(cell, settings, None)
    assert (row["method"], row["accuracy"], row["removed"]) == ("sisa", None, 1)
    assert row["note"].startswith("failed: ")
    assert report_of(settings, [row]).sections[-1].title == "Notes"


@cache
def labels() -> Any:
    """1,000 labels: each class has 100."""
    return np.arange(1000) % 10


def test_the_choice_of_rows_is_keyed() -> None:
    """It depends on scenario and round; larger choices contain smaller ones, and the skewed class has its share."""
    few, many = (points_that_leave(labels(), SKEWED, count, 0, **SKEW) for count in (100, 300))
    again, other = (points_that_leave(labels(), SKEWED, 100, attempt, **SKEW) for attempt in (0, 1))
    assert few.gone_K.tolist() == again.gone_K.tolist() != other.gone_K.tolist()
    assert set(few.gone_K) < set(many.gone_K)
    assert sorted([*many.gone_K, *many.left_M]) == list(range(1000))
    assert [int(np.sum(labels()[each.gone_K] == 4)) for each in (few, many)] == [30, 90]
    assert {few.note, many.note} == {""}
    iid = points_that_leave(labels(), IID, 100, 0, **SKEW)
    assert 1 <= int(np.sum(labels()[iid.gone_K] == 4)) <= 20


def test_a_class_that_is_absent_afterwards_is_noted() -> None:
    """The note also names a class with too few data points to delete; the number of deleted data points stays."""
    found = points_that_leave(labels(), SKEWED, 400, 0, **SKEW)
    assert len(found.gone_K) == 400
    assert found.note == (
        "class 4 has only 100 of the 120 data points that were to leave; no data point of class 4 is left"
    )


def test_a_class_without_data_points_is_learned_around() -> None:
    """Every method goes on, and the class is never answered."""
    settings: dict[str, Any] = {**small(), "skewed_share": 0.9}
    softmax, _ = settings["descents"]
    softmax |= {"cases": {SKEWED: [0.2]}, "explicit": None}
    cell = Cell(name="absent", arguments={"kind": "descents", "study": softmax, "round": 0})
    before, *after = rows_of(cell, settings, None)
    assert before["per_class"]["4"] > 0.9
    assert [row["per_class"]["4"] for row in after] == [0, 0]
    assert all("no data point of class 4 is left" in row["note"] for row in after)


def checked(rows: Sequence[Row], what: str) -> Check:
    """Return one comparison of these rows."""
    (found,) = [check for check in checks_of(settings_of(False), list(rows)) if check.what == what]
    return found


@pytest.mark.parametrize(("accuracy", "holds"), [(0.8739, True), (0.8690, False), (None, None)])
def test_figures_are_held_against_the_survey(accuracy: float | None, holds: bool | None) -> None:
    """On MNIST, with the tolerance; a method without accuracy is not measured."""
    row = dict.fromkeys(COLUMNS) | {"dataset": "mnist", "model": "softmax", "recipe": "80 full steps"}
    row |= {"method": "trained", "ratio": 0.0, "accuracy": accuracy}
    found = checked([row], "accuracy before any deletion")
    assert (found.ours, found.holds, found.expected) == (accuracy, holds, 0.8735)
    assert checked([row | {"dataset": "digits"}], "accuracy before any deletion").holds is None


@pytest.mark.parametrize(
    ("shares", "crossed", "holds"), [((0.73, 0.97, 1.3), 0.409091, True), ((0.9, 1.2, 2), 0.333333, False)]
)
def test_the_cross_over_is_held_against_the_law(shares: Sequence[float], crossed: float, holds: bool) -> None:
    """It is read between the removed shares."""
    common = dict.fromkeys(COLUMNS) | {"dataset": "mnist", "model": "softmax", "recipe": "80 full steps"}
    common |= {"method": "deltagrad", "variant": "T0=5 j0=10 m=2", "scenario": IID, "retrain_seconds": 1.0}
    rows = [common | {"ratio": ratio, "seconds": share} for ratio, share in zip((0.3, 0.4, 0.5), shares, strict=True)]
    found = checked(rows, "removed share where DeltaGrad is as slow as a retrain")
    assert (found.ours, found.holds) == (crossed, holds)
    law = checked(rows, "time of DeltaGrad as a share of the retrain's, iid 0.3")
    assert law.expected == pytest.approx(0.51 / 0.7)
    assert law.holds is holds


def test_the_remark_says_how_long_more_steps_would_take() -> None:
    """The time is computed from that of a step in the rows. Rows with more steps give a value in its place."""
    net = dict.fromkeys(COLUMNS) | {"dataset": "mnist", "model": "net", "method": "trained", "ratio": 0.0}
    stopped = net | {"recipe": "42 full steps", "seconds": 63.0, "accuracy": 0.86}
    longer, long = "accuracy of the network after 80 steps", "400 steps: distance to the retrain 0.001"
    step = "a step took 1.5 s of processor time in the training of 42 steps; by that, "
    assert checked([stopped], longer).remark == f"{step}training and retrain take 4 minutes for one ratio"
    parts = "training, retrain and both variants take 29 minutes for one ratio"
    assert checked([stopped], long).remark == step + parts
    found = checked([stopped, net | {"recipe": "80 full steps", "accuracy": 0.885}], longer)
    assert (found.ours, found.holds) == (0.885, True)
    retrain = net | {"recipe": "400 full steps", "method": "full-retrain", "scenario": IID, "ratio": 0.001}
    assert (checked([stopped, retrain | {"distance": 0.013}], long).remark, checked([], long).remark) == ("", "")


def test_steps_of_another_number_are_among_the_others() -> None:
    """The tables of the network are of 42 steps; no row is left out."""
    settings = settings_of(False)
    row = dict.fromkeys(COLUMNS) | {"dataset": "mnist", "model": "net", "recipe": "80 full steps", "method": "trained"}
    report = report_of(settings, [row | {"ratio": 0.0, "accuracy": 0.885}])
    (others,) = [section for section in report.sections if section.title == "Other data sets and recipes"]
    assert others.table is not None
    assert others.table.rows == [["mnist", "net", "80 full steps", "–", "–", "trained", "–", "0.8850", "–", "–"]]


def test_the_grids() -> None:
    """The quick one needs no files; all cells have names of their own, and data sets that there are."""
    quick, full = settings_of(True), settings_of(False)
    assert SECTION_VI.datasets(quick) == ["digits"]
    assert set(SECTION_VI.datasets(full)) == {"mnist", "fashion-mnist", "digits"}
    for settings in (quick, full):
        names = [cell.name for cell in cells_of(settings)]
        assert len(names) == len(set(names))
        assert json.loads(json.dumps(settings)) == settings
    assert find_experiment("section-vi") is SECTION_VI
