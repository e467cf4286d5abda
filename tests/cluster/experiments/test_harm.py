"""Harm by erasures: of whom so many are erased, what is recognised of them then, and when the average hides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from cluster.experiments.catalog import find_experiment
from cluster.experiments.datasets import load
from cluster.experiments.experiment import Report, Row
from cluster.experiments.harm.grid import METHODS, alarms_of, removed
from cluster.experiments.harm.groups import GROUPS, groups_of, slant
from cluster.experiments.harm.learners import LearnerMaker
from cluster.experiments.harm.report import HARM
from cluster.experiments.runner import Finished, run_experiment
from shards.points import ShardPoints
from tests.cluster.experiments.crew import NearCrew
from tests.doubles.time_and_names import VirtualClock

SMALL: Mapping[str, Any] = {
    **HARM.settings(True),
    "targets": [
        {"dataset": "digits", "points": 200, "kind": "class", "target": "4", "rounds": 1},
        {"dataset": "digits", "points": 200, "kind": "group", "target": "leans left", "rounds": 1},
    ],
    "ratios": [0.1, 0.3],
    "skews": [None, 1.0],
    "methods": [
        *("full retrain", "DeltaGrad", "ascent, rate 0.02", "Fisher scrubbing", "Sekhari", "certified removal"),
        "one network",
    ],
    "network_epochs": 3,
    "hidden": 4,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """All rows of a small grid."""
    folder = tmp_path_factory.mktemp("harm")
    return run_experiment(HARM, SMALL, folder, clock=VirtualClock(), crew=lambda *_: NearCrew())


def test_so_many_are_erased_of_the_target() -> None:
    """As many as asked for, or all there are; more of the same with a higher ratio, at random without a skew."""
    member_N = np.arange(100) < 20
    for ratio, skew, members in ((0.1, 0.3, 3), (0.1, 1.0, 10), (0.3, 0.6, 18), (0.3, 1.0, 20)):
        rows = removed(member_N, ratio, skew, "test")
        assert len(set(rows.tolist())) == len(rows) == round(100 * ratio)
        assert member_N[rows].sum() == members
    for each in (None, 0.3, 1.0):
        assert set(removed(member_N, 0.1, each, "test")) < set(removed(member_N, 0.3, each, "test"))
    drawn = [member_N[removed(member_N, 0.5, None, f"test/{number}")].sum() for number in range(40)]
    assert np.mean(drawn) == pytest.approx(10, abs=1)


def test_a_group_is_how_far_a_picture_leans() -> None:
    """A picture's group depends on that picture alone, by constant thresholds."""
    strokes = np.zeros((3, 8, 8))
    for down in range(8):
        strokes[0, down, down] = strokes[1, down, 3] = strokes[2, down, 7 - down] = 1
    pictures_NF = strokes.reshape(3, 64)
    assert slant(pictures_NF).round(6).tolist() == [-1.0, 0.0, 1.0]
    assert [GROUPS[number] for number in groups_of(pictures_NF)] == ["leans left", "upright", "leans right"]
    data_NF = load("digits").train_NF[:50]
    assert groups_of(data_NF).tolist() == [groups_of(each[None])[0] for each in data_NF]


def test_the_alarm_is_that_of_a_federation() -> None:
    """For each class that fell by more than the margin, also where the average rose."""
    before = {"class": {"a": 0.9, "b": 0.5, "c": None}}
    assert alarms_of(before, {"class": {"a": 0.84, "b": 0.9, "c": None}}) == ["a"]
    assert alarms_of(before, {"class": {"a": 0.86, "b": 0.46, "c": 0.1}}) == []


def test_an_exact_method_does_not_recognise_a_class_that_was_erased(found: Finished) -> None:
    """Ascent may: in the larger erasure its mean loss is mostly that of others. One that only adds noise does."""
    whole = [row for row in found.rows if row["kind"] == "class" and row["target_left"] == 0]
    best = {method: max(row["target_after"] for row in whole if row["method"] == method) for method in SMALL["methods"]}
    assert [best[method] for method in ("full retrain", "DeltaGrad", "one network")] == [0, 0, 0]
    assert best["ascent, rate 0.02"] > 0.1
    assert best["Fisher scrubbing"] > 0.5
    assert f"Fisher scrubbing: {mean_left(whole, 'Fisher scrubbing'):.2f}; " in learned(found.report)


def mean_left(rows: Sequence[Row], method: str) -> float:
    """Return how much of the target a method still recognises."""
    return float(np.mean([row["target_after"] for row in rows if row["method"] == method]))


def learned(report: Report) -> str:
    """Return what the report says was learned."""
    (text,) = [section.text for section in report.sections if section.title == "What was learned"]
    return text


def test_rows_compare_with_the_same_model_before(found: Finished) -> None:
    """The average over classes weighs each by its test points, and so do groups."""
    labels_N = load("digits").test_labels_N
    shares = np.bincount(labels_N) / len(labels_N)
    for row in found.rows:
        assert row["note"] == ""
        assert row["accuracy_after"] == pytest.approx(shares @ list(row["per_class_after"].values()))
        assert row["fall"] == pytest.approx(row["accuracy_before"] - row["accuracy_after"])
        assert row["target_before"] in {*row["per_class_before"].values(), *row["per_group_before"].values()}
        assert row["hidden"] == (bool(row["alarms"]) and row["fall"] <= 0.05)


def test_the_report_says_when_the_average_hides_a_fall(found: Finished) -> None:
    """With a line for each method, a table for each target, and figures."""
    assert find_experiment("harm") is HARM
    sections = {section.title: section for section in found.report.sections}
    table = sections["When the average hides it"].table
    assert table is not None
    assert [line[:2] for line in table.rows] == [[method, "4"] for method in SMALL["methods"]]
    hidden = sum(row["hidden"] for row in found.rows if row["skew"] is not None)
    assert sum(int(line[3]) for line in table.rows) == hidden
    assert f"in {hidden} of these the average fell by no more" in sections["What was learned"].text
    assert {"Erased: class 4 of digits", "Erased: the group that leans left of digits"} < set(sections)
    per_class, *against_skew = found.report.figures
    assert [figure.name for figure in against_skew] == ["against-skew", "against-skew-approximate"]
    assert [len(figure.panels) for figure in (per_class, *against_skew)] == [2, 4, 4]
    exact, others = ([series.name for series in figure.panels[0].series] for figure in against_skew)
    assert exact == ["full retrain", "one network"]
    assert others == SMALL["methods"][:-1]
    checks = {check.what: check.holds for check in found.report.checks}
    assert checks["largest difference of an accuracy between DeltaGrad and the full retrain"] is True


@pytest.mark.parametrize("quick", [True, False])
def test_every_cell_has_a_name_of_its_own(quick: bool) -> None:
    """Names are unique in the quick grid and in the full one."""
    names = [cell.name for cell in HARM.cells(HARM.settings(quick))]
    assert len(set(names)) == len(names)


def test_an_erasure_counts_once(found: Finished) -> None:
    """Where all of a target are gone, a higher skew erases the same data points; the counts do not grow by that."""
    again = [{**row, "skew": 2.0} for row in found.rows if row["skew"] == 1.0]
    doubled = HARM.report(SMALL, [*found.rows, *again])
    titles = ("What was learned", "When the average hides it")
    once, twice = ([each for each in report.sections if each.title in titles] for report in (found.report, doubled))
    assert once == twice


@pytest.mark.parametrize("method", [method for method, (_, run) in METHODS.items() if run.__name__ == "_alone"])
def test_a_learner_promises_what_the_rows_say(method: str) -> None:
    """Its noise depends on the cell alone: the same when repeated, different in another cell."""
    first, again, other = (
        LearnerMaker(SMALL, dataset="digits", inputs=2, classes=2, stream=stream).make(method)
        for stream in ("one", "one", "another")
    )
    assert str(first.guarantee).partition("(")[0] == METHODS[method][0]
    learned_NC = []
    for learner in (first, again, other):
        changed = learner.unlearn(learner.learn(few(20)), few(1), lambda: few(20, first=1))
        learned_NC.append(learner.probabilities(changed, few(20).features_NF))
    np.testing.assert_array_equal(learned_NC[0], learned_NC[1])
    has_noise = method in ("Fisher scrubbing", "Sekhari", "certified removal")
    assert np.array_equal(learned_NC[0], learned_NC[2]) is not has_noise


def few(end: int, first: int = 0) -> ShardPoints:
    """Return some of 20 data points of two classes."""
    rows = np.arange(first, end)
    features_NF = np.stack([np.sin(rows), np.cos(rows)], axis=1).astype(np.float32)
    keys_N = rows.astype(np.uint64)
    return ShardPoints(features_NF=features_NF, labels_N=rows % 2, keys_N=keys_N, subjects_N=keys_N, ends=(len(rows),))


def test_a_budget_that_is_used_up_is_a_fact_of_the_row(found: Finished) -> None:
    """Other methods have none. The report counts each erasure once; at random they are the same for both targets."""
    used_up = {row["method"]: row["budget_used_up"] for row in found.rows}
    assert {method for method, used in used_up.items() if used is not None} == {"certified removal"}
    certified = [row for row in found.rows if row["method"] == "certified removal"]
    different = [row for row in certified if row["kind"] == "class" or row["skew"] is not None]
    again = sum(row["budget_used_up"] for row in different)
    assert f"was used up by {again} of its {len(different)} different erasures" in learned(found.report)
    never = [{**row, "budget_used_up": row["budget_used_up"] and False} for row in found.rows]
    assert f"was used up by 0 of its {len(different)} different erasures" in learned(HARM.report(SMALL, never))


def test_an_erasure_that_diverged_has_no_result(found: Finished) -> None:
    """It is named in tables and text, and counts nowhere."""
    kept = {"target_after", "accuracy_after", "per_class_after", "per_group_after", "alarms", "hidden", "fall"}
    rows = [
        {name: value for name, value in row.items() if name not in kept} | {"note": "diverged"}
        if row["method"] == "Sekhari"
        else row
        for row in found.rows
    ]
    report = HARM.report(SMALL, rows)
    assert "Some erasures diverged (Sekhari: 6). They have no result, and are not counted." in learned(report)
    assert "diverged" not in learned(found.report)
    tables = {section.title: section.table for section in report.sections if section.table}
    assert {line[0]: line[2:] for line in tables["Erased: class 4 of digits"].rows}["Sekhari"] == ["diverged"] * 4
    counts = {line[0]: line[1] for line in tables["When the average hides it"].rows}
    assert (counts["Sekhari"], counts["DeltaGrad"]) == ("0", "4")


def test_what_harms_everybody_is_named(found: Finished) -> None:
    """The report names methods with which random erasures lower the mean accuracy."""
    lower = [{**row, "fall": 0.5} if row["method"] == "Sekhari" else {**row, "fall": 0.0} for row in found.rows]
    assert "by more than 0.05 with some methods (Sekhari: 0.50): they harm" in learned(HARM.report(SMALL, lower))
    assert "they harm" not in learned(HARM.report(SMALL, [{**row, "fall": 0.0} for row in found.rows]))
