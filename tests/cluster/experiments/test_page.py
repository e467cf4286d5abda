"""The page about experiments shows one that runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cluster.experiments.runner import run_experiment
from tests.cluster.experiments.crew import NearCrew
from tests.doubles.time_and_names import VirtualClock

PAGE = Path(__file__).parents[3] / "docs" / "experiments.md"


def test_the_experiment_of_one_s_own_runs(tmp_path: Path) -> None:
    """With a row for each cell, a figure and a check that holds."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "means"}
    exec(code, names)  # noqa: S102
    means = names["MEANS"]
    found = run_experiment(means, means.settings(True), tmp_path, clock=VirtualClock(), crew=lambda *_: NearCrew())
    assert [row.keys() for row in found.rows] == [set(means.columns)] * 3
    assert [figure.name for figure in found.report.figures] == ["sizes"]
    assert [check.holds for check in found.report.checks] == [True]
