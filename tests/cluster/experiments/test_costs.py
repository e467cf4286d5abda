"""What erasures cost: the engine does what the plan says, and both are near the closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cluster.experiments.catalog import find_experiment
from cluster.experiments.costs.grid import COLUMNS, closed_form
from cluster.experiments.costs.report import SISA_COSTS
from cluster.experiments.runner import Finished, run_experiment
from tests.cluster.experiments.crew import NearCrew
from tests.doubles.time_and_names import VirtualClock

SMALL: Mapping[str, Any] = {
    "dataset": "digits",
    "points": 120,
    "hidden": 4,
    "batch_size": 16,
    "learning_rate": 0.1,
    "plan_rounds": 8,
    "plan_draws": 10,
    "account_rounds": 8,
    "partitions": [
        {"shards": 2, "slices": 3, "epochs": 2, "rounds": 1, "batches": [1, 3], "singly": 4, "plan": [1, 2, 4]},
        {"shards": 3, "slices": 1, "epochs": 1, "rounds": 1, "batches": [2], "singly": 3, "plan": [3]},
    ],
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """All rows of a small grid."""
    folder = tmp_path_factory.mktemp("costs")
    return run_experiment(SISA_COSTS, SMALL, folder, clock=VirtualClock(), crew=lambda *_: NearCrew())


def test_the_engine_trains_what_the_plan_prices(found: Finished) -> None:
    """To the last point-epoch, for batches and one by one, at random and aimed."""
    engine = [row for row in found.rows if row["means"] == "engine"]
    assert {(row["aimed"], row["batched"]) for row in engine} == {
        (aimed, batched) for aimed in (0, 1) for batched in (0, 1)
    }
    for row in engine:
        assert set(row) <= set(COLUMNS)
        assert row["point_epochs"] == row["planned_point_epochs"] > 0
        assert 0 < row["worker_seconds"] < row["seconds"]
        assert row["overhead_share"] < 1


def test_aimed_requests_cost_a_full_training_in_a_batch(found: Finished) -> None:
    """One by one, each retrains one shard."""
    aimed = [row for row in found.rows if row["means"] == "engine" and row["aimed"]]
    batches = [row["fraction"] for row in aimed if row["batched"]]
    assert batches == [1.0, 1.0]
    (singly,) = [row["fraction"] for row in aimed if not row["batched"] and row["slices"] == 3]
    assert singly == pytest.approx(2.0, abs=0.1)


def test_random_draws_are_priced_near_the_closed_form(found: Finished) -> None:
    """For all numbers of requests at once: of 120 data points in 6 slices, means of 80 draws."""
    planned = [row for row in found.rows if row["means"] == "plan"]
    for size, batched in sorted({(row["requests"], row["batched"]) for row in planned if row["slices"] == 3}):
        fractions = [
            row["fraction"] for row in planned if (row["requests"], row["batched"], row["slices"]) == (size, batched, 3)
        ]
        expected = closed_form(2, 3, size, aimed=False, batched=batched)
        assert sum(fractions) / len(fractions) == pytest.approx(expected, rel=0.15)
    accounts = [row["accounts"] for row in found.rows if row["means"] == "accounts" and row["slices"] == 3]
    assert len(accounts) == 8
    assert min(accounts) >= 2


def test_the_report_has_tables_figures_and_checks(found: Finished) -> None:
    """Checks of what this grid lacks say that they are not measured."""
    assert find_experiment("sisa-costs") is SISA_COSTS
    assert [figure.name for figure in found.report.figures] == ["speed-up", "aimed", "seconds"]
    checks = {check.what: check for check in found.report.checks}
    assert checks["share of the engine's counts that are the plan's prices"].holds is True
    assert checks["speed-up at K = 8, S = 20, R = 50: Purchase"].holds is None
    assert checks["data points retrained one by one, K = 3, S = 3, R = 1"].expected == pytest.approx(116)
    batches = found.report.sections[1].table
    assert batches is not None
    assert [line[:3] for line in batches.rows] == [
        ["2 × 3", "1", "0.389"],
        ["2 × 3", "2", "0.611"],
        ["2 × 3", "3", "0.742"],
        ["2 × 3", "4", "0.823"],
        ["3 × 1", "2", "0.556"],
        ["3 × 1", "3", "0.704"],
    ]


@pytest.mark.parametrize("quick", [True, False])
def test_every_cell_has_a_name_of_its_own(quick: bool) -> None:
    """Names are unique in the quick grid and in the full one."""
    names = [cell.name for cell in SISA_COSTS.cells(SISA_COSTS.settings(quick))]
    assert len(set(names)) == len(names)
