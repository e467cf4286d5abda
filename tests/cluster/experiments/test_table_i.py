"""The survey's table, on few data points: exact methods arrive at the retrain, and rows say what they cannot show."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.experiments.catalog import find_experiment
from cluster.experiments.experiment import Cell, Row
from cluster.experiments.runner import run_experiment
from cluster.experiments.table_i.grid import COLUMNS, TABLE_I, cells, rows_of_cell, settings
from cluster.experiments.table_i.methods import METHODS
from cluster.experiments.table_i.report import report
from cluster.experiments.table_i.trial import Measured, Repetition, trial_of
from shards.learners.approximate.protocol import Diverged
from tests.cluster.experiments.crew import NearCrew
from tests.doubles.time_and_names import VirtualClock

DATA = {"source": "digits", "labels": [3, 8], "points": 120, "erased": 20, "never_seen": 120, "tests": 60}
FEW = [
    "do-nothing",
    "full-retrain",
    "sisa-logistic",
    "forest",
    "deltagrad",
    "sekhari",
    "certified-alone",
    "fisher-scrubbing",
    "variational-eubo",
]
"""One quick method of each kind."""
FAR = ("do-nothing", "deltagrad", "sekhari", "certified-alone", "fisher-scrubbing", "variational-eubo")
"""Those of them that are not exact."""
GUARANTEES = {"certified-alone": "certified(epsilon=1.0, delta=0.0001)"}


def small(*methods: str, rounds: int = 1) -> dict[str, Any]:
    """Return settings of a grid in a second or two."""
    return {"data": {"small": DATA}, "rounds": rounds, "methods": list(methods)}


def test_the_table_on_few_data_points(tmp_path: Path) -> None:
    """Exact methods have the retrain's parameters, the floor is as far as before; JSON has every column."""
    found = run_experiment(TABLE_I, small(*FEW), tmp_path, clock=VirtualClock(), crew=lambda *_: NearCrew())
    rows = {row["method"]: row for row in found.rows}
    assert list(rows) == FEW
    assert {name: METHODS[name].is_exact for name in FEW} == {name: name not in FAR for name in FEW}
    for name, row in rows.items():
        assert tuple(row) == COLUMNS
        assert row["accuracy_after"] == row["retrain_accuracy"] or name in FAR
        assert row["distance"] == row["relative_distance"] == 0 or name in FAR
        assert row["guarantee"] == ("exact" if name not in FAR else GUARANTEES.get(name, "approximate"))
        assert row["storage_bytes"] > 0
        assert row["ratio"] > 0
        assert row["one_ratio"] > 0
        assert row["note"] == ""
        assert row["power"] == (row["auc_before"] > row["auc_high"])
    floor = rows["do-nothing"]
    assert floor["relative_distance"] == 1
    assert floor["auc_after"] == floor["auc_before"] == rows["full-retrain"]["auc_before"]
    assert 0 < rows["deltagrad"]["relative_distance"] < 0.5
    assert rows["sekhari"]["relative_distance"] > 1  # of so few data points, noise hides everything
    assert rows["certified-alone"]["relative_distance"] < 0.01  # the retrain has the same noise
    assert {name: row["nats"] is not None for name, row in rows.items()} == {
        name: name in ("fisher-scrubbing", "variational-eubo") for name in FEW
    }
    assert rows["fisher-scrubbing"]["nats"] > 0
    assert rows["variational-eubo"]["nats"] > 0
    forest = rows["forest"]
    assert forest["power"]
    assert forest["auc_low"] < forest["auc_after"] < forest["auc_high"]
    document = json.loads((tmp_path / "results.json").read_text())
    holds = {check["what"].split(": ")[1][:16]: check["holds"] for check in document["checks"]}
    assert holds["largest distance"] is True
    text = (tmp_path / "results.md").read_text()
    assert "## Table for small" in text
    for name in FEW:
        assert METHODS[name].proves in text


def test_nothing_but_learning_distinguishes_the_erased_from_the_never_seen() -> None:
    """Both have wrong labels, by one rule; all methods of a round have these data, another round has others."""
    trial, again, other = (trial_of("small", DATA, number, None) for number in (1, 1, 2))
    assert (trial.train_NF == again.train_NF).all()
    assert (trial.train_labels_N == again.train_labels_N).all()
    assert not (trial.train_NF == other.train_NF).all()
    assert set(np.unique(trial.train_labels_N)) == {0, 1}
    assert len({row.tobytes() for row in np.concatenate([trial.train_NF, trial.never_NF])}) == 240
    clean = trial_of("small", {**DATA, "erased": 0}, 1, None)
    assert (trial.train_labels_N[20:] == clean.train_labels_N[20:]).all()
    assert (trial.train_labels_N[:20] == 1 - clean.train_labels_N[:20]).all()
    assert (
        trial.never_labels_N
        == 1 - trial_of("small", {**DATA, "points": 240, "never_seen": 0, "erased": 0}, 1, None).train_labels_N[120:]
    ).all()


class _Fails:
    """A method that diverges."""

    name, kind, proves, is_exact = "fails", "floor", "Nothing.", False
    is_for_two = False

    def guarantee(self, trial: Repetition) -> str:
        del trial
        return "approximate"

    def measure(self, trial: Repetition) -> Measured:
        del trial
        raise Diverged("the parameters are beyond all bounds", "Take a lower learning rate.")


def test_a_method_that_fails_gives_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report says so as well, and still has the other methods."""
    assert isinstance(METHODS, dict)
    monkeypatch.setitem(METHODS, "fails", _Fails())
    given = small("fails", "naive-bayes")
    rows = [row for cell in cells(given) for row in rows_of_cell(cell, given, None)]
    assert rows[0]["note"] == "failed: the parameters are beyond all bounds. Take a lower learning rate."
    assert rows[0]["guarantee"] == "approximate"
    assert rows[0]["accuracy_after"] is rows[0]["distance"] is rows[0]["auc_after"] is None
    found = report(given, rows)
    table = next(section.table for section in found.sections if section.title == "Table for small")
    assert table is not None
    assert [line[0] for line in table.rows] == ["fails", "naive-bayes"]
    assert {len(line) for line in table.rows} == {len(table.columns)}
    notes = next(section.table for section in found.sections if section.title == "Notes")
    assert notes is not None
    assert notes.rows[0][1] == "fails"


def _row(method: str, number: int, after: float, **more: Any) -> Row:
    return {
        **dict.fromkeys(COLUMNS),
        "dataset": "small", "method": method, "kind": "exact", "guarantee": "exact", "round": number, "distance": 0.0,
        "relative_distance": 0.0, "ratio": 0.5, "one_ratio": 0.1, "auc_before": 0.9, "auc_after": after,
        "auc_low": 0.36, "auc_high": 0.64, "power": True, "note": "", **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([_row("ridge", 1, 0.5), _row("forest", 1, 0.62)], [True, True, True, None], id="at-random"),
        pytest.param([_row("ridge", 1, 0.5, distance=None)], [False, True, True, None], id="other-parameters"),
        pytest.param([_row("ridge", 1, 0.75)], [True, False, False, None], id="still-members"),
        pytest.param(
            [_row("ridge", each, 0.63) for each in range(1, 10)], [True, True, False, None], id="always-above"
        ),
        pytest.param([_row("do-nothing", 1, 0.9)], [None, None, None, None], id="no-exact-method"),
    ],
)
def test_checks_of_exact_methods(rows: list[Row], expected: list[bool | None]) -> None:
    """Their distance is 0, no row is beyond what the number of rows explains, and rows are not all on one side."""
    assert [check.holds for check in report(small(*FEW), rows).checks] == expected


@pytest.mark.parametrize(("ratio", "holds"), [(0.25, True), (0.27, False)])
def test_the_time_of_deltagrad_is_beside_its_law(ratio: float, holds: bool) -> None:
    """With 600 steps of which 128 are explicit, and 1 % erased, it is 0.23 of a retrain's; few points show nothing."""
    given = {**small("deltagrad"), "data": {"small": {**DATA, "points": 2000}}}
    law = report(given, [_row("deltagrad", 1, 0.5, ratio=ratio)]).checks[-1]
    assert law.expected == pytest.approx((128 / 600 + 472 / 600 * 0.01) / 0.99)
    assert (law.ours, law.holds) == (ratio, holds)


def test_rows_without_power_are_named() -> None:
    """A result of chance after the erasure counts only where membership showed before."""
    rows = [_row("ridge", 1, 0.5), _row("ridge", 2, 0.5, auc_before=0.5, power=False)]
    table = next(each.table for each in report(small(*FEW), rows).sections if each.title == "Table for small")
    assert table is not None
    (line,) = table.rows
    columns: Mapping[str, str] = dict(zip(table.columns[-3:], line[-3:], strict=True))
    assert columns["membership before"] == "0.700 ± 0.283 (no power in 1)"
    assert columns["after"] == "0.500 ± 0.000, 2 of 2 as at random"


def test_the_grid_has_every_method_in_every_round() -> None:
    """In the quick form without MNIST; cells have names of their own."""
    quick, full = settings(True), settings(False)
    assert find_experiment("table-i") is TABLE_I
    assert TABLE_I.datasets(quick) == ["digits"]
    assert TABLE_I.datasets(full) == ["mnist"]
    grid: list[Cell] = cells(full)
    assert len({cell.name for cell in grid}) == len(grid)
    counts = Counter((cell.arguments["dataset"], cell.arguments["method"]) for cell in grid)
    assert counts == Counter(
        {
            (dataset, name): full["rounds"]
            for dataset in ("mnist", "mnist-3-or-8")
            for name, method in METHODS.items()
            if dataset == "mnist-3-or-8" or not method.is_for_two
        }
    )
