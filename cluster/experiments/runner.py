"""Runs an experiment: computes, in Ray tasks, the cells that its folder lacks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.config.specification import ClusterSettings
from cluster.experiments.datasets import check_available
from cluster.experiments.experiment import Cell, Experiment, Report, Row, Settings
from cluster.experiments.results import ResultFolder
from cluster.runtime.session import join_ray, leave_ray
from cluster.runtime.task_pool import RayCrew, Work
from coordinator.ports import Clock
from shards.learners.blas import blas_profile
from shards.learners.torch.seeding import set_numerics
from shards.slices.parallel_ingest import TaskPool
from storage.objects import new_name


@dataclass(frozen=True, slots=True, kw_only=True)
class CellDone:
    """A cell is computed, or was found in the folder."""

    name: str
    share: float
    """Of the weights of all cells that are computed."""
    left_share: float
    """Of the weights of those to be computed in this run that are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """All rows of an experiment."""

    settings: Settings
    rows: Sequence[Row]
    report: Report


_COMPUTING: Final = Work(
    does="computes rows",
    do="compute rows",
    doing="computing rows",
    remedy="Check Ray's logs, and the memory: a task may take a gigabyte or two. The cells that are done are kept.",
)

Crew = Callable[[int, Callable[[str], None]], TaskPool]
"""Returns what runs at most so many tasks at once, and remarks on them."""


def run_experiment(
    experiment: Experiment,
    settings: Settings,
    out: Path,
    *,
    clock: Clock,
    data_folder: Path | None = None,
    on_done: Callable[[CellDone], None] = lambda _: None,
    remark: Callable[[str], None] = lambda _: None,
    crew: Crew | None = None,
) -> Finished:
    """Compute the cells that ``out`` lacks, each in a task of one processor, and write the results there.

    ``crew`` runs the tasks; None: Ray. Every cell is written when it is computed: after an interruption the same call
    goes on. Raises as ``ResultFolder.opened`` and ``check_available`` do, and what a cell raises.
    """
    check_available(tuple(experiment.datasets(settings)), data_folder)
    cells = experiment.cells(settings)
    folder = ResultFolder(experiment, settings, out)
    with folder.opened():
        rows = {cell.name: found for cell in cells if (found := folder.rows_of(cell)) is not None}
        missing = [cell for cell in cells if cell.name not in rows]
        total, left = sum(cell.weight for cell in cells), sum(cell.weight for cell in missing)
        to_do = left

        def done(result: tuple[Cell, list[Row]]) -> None:
            nonlocal left
            cell, found = result
            folder.keep(cell, found)
            rows[cell.name] = folder.rows_of(cell) or []
            left -= cell.weight
            on_done(CellDone(name=cell.name, share=1 - left / total, left_share=max(left, 0) / to_do))

        if missing:
            # The longest first: a long one that begins last would be waited for alone.
            ordered = sorted(missing, key=lambda cell: -cell.weight)
            _compute(experiment, settings, ordered, data_folder, crew, remark, done)
        found = [row for cell in cells for row in rows[cell.name]]
        report = experiment.report(settings, found)
        folder.write_results(found, report, clock.now().isoformat(timespec="seconds"))
    return Finished(settings=settings, rows=found, report=report)


def _compute(
    experiment: Experiment,
    settings: Settings,
    cells: Sequence[Cell],
    data_folder: Path | None,
    crew: Crew | None,
    remark: Callable[[str], None],
    done: Callable[[tuple[Cell, list[Row]]], None],
) -> None:
    started = crew is None and join_ray(ClusterSettings())
    try:
        tasks = os.cpu_count() or 1
        pool = RayCrew(tasks, remark, work=_COMPUTING) if crew is None else crew(tasks, remark)
        folder = None if data_folder is None else data_folder.resolve()
        pool(compute, cells, new_name, done, experiment.run, dict(settings), folder)
    finally:
        if started:
            leave_ray()


def compute(
    cell: Cell,
    name: str,
    run: Callable[[Cell, Settings, Path | None], list[Row]],
    settings: Settings,
    data_folder: Path | None,
) -> tuple[Cell, list[Row]]:
    """Compute a cell with one thread, in a task."""
    del name
    blas_profile(False)  # noqa: FBT003
    set_numerics(1, "cpu")
    return cell, run(cell, settings, data_folder)
