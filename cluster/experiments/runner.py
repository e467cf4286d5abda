"""Runs an experiment: computes, in Ray tasks, the cells that its folder lacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.config.specification import ClusterSettings
from cluster.experiments.datasets import check_available
from cluster.experiments.experiment import Cell, Experiment, Report, Row, Settings
from cluster.experiments.results import KEPT, ResultFolder
from cluster.runtime.nodes import processors
from cluster.runtime.process import reporting_wait
from cluster.runtime.session import LOCAL, join_ray, leave_ray, waiting_for_ray
from cluster.runtime.task_pool import RayCrew, Work
from coordinator.ports import Clock
from shards.learners.blas import blas_profile
from shards.learners.torch.seeding import set_numerics
from shards.slices.parallel_ingest import TaskPool
from storage.errors import Invalid, SisaError, Unavailable
from storage.objects import new_name


@dataclass(frozen=True, slots=True, kw_only=True)
class CellDone:
    """A cell is computed, or was found in the folder."""

    name: str
    share: float
    """Share of the grid that is computed, by weight."""
    left_share: float
    """Share of this run's own cells that is still to be computed, by weight."""


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
    remedy="Check Ray's logs, and the memory: a task may take a gigabyte or two.",
    grace_seconds=0.0,
)

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]*")

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
    address: str = LOCAL,
) -> Finished:
    """Compute the cells that ``out`` lacks, each in a task of one processor, and write the results there.

    ``crew`` runs the tasks; None: Ray at ``address``, as ``[cluster] address`` names it. Every cell is written when it
    is computed: after an interruption the same call goes on. Raises as ``ResultFolder.opened`` and ``check_available``
    do, and what a cell raises.
    """
    check_available(tuple(experiment.datasets(settings)), data_folder)
    cells = experiment.cells(settings)
    _check_grid(cells)
    folder = ResultFolder(experiment, settings, out)
    with folder.opened():
        rows = {cell.name: found for cell in cells if (found := folder.rows_of(cell)) is not None}
        missing = [cell for cell in cells if cell.name not in rows]
        if rows:
            remark(f"{len(rows)} of {len(cells)} cells are in the folder already")
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
            things = (experiment.run, dict(settings), None if data_folder is None else data_folder.resolve())
            with _crew(crew, address, remark) as pool:
                try:
                    pool(compute, ordered, new_name, done, *things)
                except SisaError as error:
                    remedy = error.remedy.removesuffix(KEPT).strip()
                    raise error.advising(f"{remedy} {KEPT}".strip()) from error
        found = [row for cell in cells for row in rows[cell.name]]
        report = experiment.report(settings, found)
        folder.write_results(found, report, clock.now().isoformat(timespec="seconds"))
    return Finished(settings=settings, rows=found, report=report)


def _check_grid(cells: Sequence[Cell]) -> None:
    """Raise ``Invalid`` when a cell's rows could not be kept under its name."""
    names = set[str]()
    for cell in cells:
        if not _NAME.fullmatch(cell.name):
            raise Invalid(
                f"a cell has a name that is not one of a file: {cell.name!r}",
                "Take lower-case letters, digits, dots and hyphens.",
            )
        if cell.name in names:
            raise Invalid(f"two cells have the name {cell.name!r}", "Give each a name of its own.")
        if not cell.weight > 0:
            raise Invalid(f"a cell's weight must be above 0, got {cell.weight}", "", cell=cell.name)
        names.add(cell.name)


@contextmanager
def _crew(crew: Crew | None, address: str, remark: Callable[[str], None]) -> Iterator[TaskPool]:
    """Give what runs the tasks; with Ray, one on each of its processors, and leave it at the end if it was started."""
    if crew is not None:
        yield crew(1, remark)
        return
    settings = ClusterSettings(address=address)
    try:
        with reporting_wait(remark, waiting_for_ray(settings)):
            started = join_ray(settings)
    except Unavailable as error:
        if address == LOCAL:
            raise
        raise error.advising(
            "Check --address, and that cluster with 'ray status'. Without --address, Ray starts on this machine."
        ) from error
    try:
        yield RayCrew(processors(), remark, work=_COMPUTING)
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
    try:
        return cell, run(cell, settings, data_folder)
    except SisaError:
        raise
    except Exception as error:
        raise SisaError(
            f"a cell failed with {type(error).__name__}",
            "SISA_TRACEBACK=1 shows where; in Python it is in the causes of this error.",
            cell=cell.name,
        ) from error
