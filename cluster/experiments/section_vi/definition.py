"""The experiment ``section-vi``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cluster.experiments.experiment import Cell, Experiment, Row, Settings
from cluster.experiments.section_vi.account import report_of
from cluster.experiments.section_vi.descents import descent_rows
from cluster.experiments.section_vi.federations import federation_rows
from cluster.experiments.section_vi.grid import cells_of, datasets_of, settings_of

COLUMNS: Final = (
    *("dataset", "model", "recipe", "method", "variant", "scenario", "ratio", "removed", "round"),
    *("accuracy", "per_class", "seconds", "retrain_seconds", "distance", "accuracy_before", "explicit_steps"),
    *("work_share", "expected_share", "exact", "note"),
)


def rows_of(cell: Cell, settings: Settings, data_folder: Path | None) -> list[Row]:
    """Return the rows of a cell, each with every column."""
    compute = descent_rows if cell.arguments["kind"] == "descents" else federation_rows
    return [{name: row.get(name) for name in COLUMNS} for row in compute(cell, settings, data_folder)]


SECTION_VI: Final = Experiment(
    name="section-vi",
    summary="The survey's own experiment: DeltaGrad, SISA, forests and retrains after deletions of every size.",
    columns=COLUMNS,
    settings=settings_of,
    cells=cells_of,
    run=rows_of,
    report=report_of,
    datasets=datasets_of,
)
