"""An experiment that doubles sizes, for tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cluster.experiments.experiment import (
    Cell,
    Check,
    Experiment,
    Figure,
    Panel,
    Report,
    Row,
    Section,
    Series,
    Settings,
    Table,
)

COMPUTED: list[str] = []
"""Names of the cells that were computed in this process."""


def settings(quick: bool) -> Settings:
    """Return the settings, as an experiment does."""
    return {"sizes": [1, 2] if quick else [1, 2, 3, 4], "seed": 7}


def _cells(settings: Settings) -> list[Cell]:
    return [Cell(name=f"size-{size}", arguments={"size": size}, weight=size) for size in settings["sizes"]]


def _run(cell: Cell, settings: Settings, data_folder: Path | None) -> list[Row]:
    COMPUTED.append(cell.name)
    if data_folder is not None and (data_folder / cell.name).exists():
        _meet(data_folder / cell.name)
    size = cell.arguments["size"]
    return [{"size": size, "double": 2 * size, "per_class": {"a": 0.5}, "failed": float("nan")}]


def _meet(obstacle: Path) -> None:
    """Wait until somebody writes, if it is a pipe; else die or fail as the file says."""
    word = obstacle.read_text(encoding="utf-8")
    if word.endswith("once"):
        obstacle.unlink()
    if word.startswith("die"):
        os._exit(1)
    if word.startswith("fail"):
        raise ZeroDivisionError(word)


def report(settings: Settings, rows: Sequence[Row]) -> Report:
    """Return what the rows say, as an experiment does."""
    sizes = [row["size"] for row in rows]
    line = Series(name="double", x=sizes, y=[row["double"] for row in rows], spread=[0.1] * len(rows))
    text = Series(name="as text", x=[str(size) for size in sizes], y=[row["failed"] for row in rows])
    panels = [
        Panel(title="left", x="size", y="double", series=[line], log_x=True),
        Panel(title="right", x="size", y="failed", series=[text, text], kind="bars"),
    ]
    return Report(
        sections=[Section(title="Sizes", text="All of them.", table=Table(columns=["size"], rows=[["1"]]))],
        figures=[Figure(name="sizes", title="Sizes and their doubles", panels=panels)],
        checks=[Check(what="four", ours=5.0, expected=4.0, tolerance="exact", holds=False, source="arithmetic")],
    )


def _datasets(settings: Settings) -> Sequence[str]:
    return ("mnist",) if settings["seed"] == 8 else ()


TOY = Experiment(
    name="toy",
    summary="Doubles sizes.",
    columns=("size", "double", "per_class", "failed"),
    settings=settings,
    cells=_cells,
    run=_run,
    report=report,
    datasets=_datasets,
)
