"""The folder of an experiment: its settings, the rows of each cell, and the results as JSON, CSV and Markdown.

A cell's file is written whole or not at all, so that an experiment goes on where it stopped. One process at a time
writes to a folder.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.experiments.experiment import Cell, Check, Experiment, Report, Row, Section, Settings, Table
from storage.errors import Conflict, Corrupt, Invalid, StoreFull
from storage.release import RELEASE
from storage.stores.lock import held

_SETTINGS: Final = "settings.json"
_CELLS: Final = "cells"
KEPT: Final = "The cells that are done are kept: the same command goes on from there."
_ANOTHER_FOLDER: Final = "Name another folder with --out, or remove this one."
_AGAIN: Final = "Remove it: it is computed again."
_BESIDE: Final = "Beside earlier figures"
_LIBRARIES: Final = ("numpy", "ray", "scikit-learn", "torch")


class ResultFolder:
    """Where one run of an experiment keeps its rows."""

    def __init__(self, experiment: Experiment, settings: Settings, path: Path) -> None:
        self.path = path
        self._experiment = experiment
        self._settings = {"experiment": experiment.name, "release": RELEASE, **_plain(settings)}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Have the folder for this process alone; make it, if there is none.

        Raises ``Conflict`` when another process works there, or when the folder has results of other settings; what
        cannot be written raises as ``recorded_in`` does.
        """
        with ExitStack() as stack:
            with recorded_in(self.path):
                (self.path / _CELLS).mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(held(self.path / ".lock"))
                except BlockingIOError:
                    raise Conflict(
                        "another process computes results in this folder",
                        "Wait until it ends, or name another with --out.",
                        folder=str(self.path),
                    ) from None
            self._check_settings()
            yield

    def _check_settings(self) -> None:
        file = self.path / _SETTINGS
        if not file.exists():
            if any((self.path / _CELLS).iterdir()):
                raise Conflict(
                    "the folder has rows, but no settings", "Name another folder with --out.", folder=str(self.path)
                )
            _write(file, json.dumps(self._settings, indent=1) + "\n")
            return
        found = _read(file, _ANOTHER_FOLDER)
        differing = sorted(
            name for name in found.keys() | self._settings.keys() if found.get(name) != self._settings.get(name)
        )
        if differing:
            name = differing[0]
            raise Conflict(
                f"the folder has results of other settings: {name} is {found.get(name)!r} there, and"
                f" {self._settings.get(name)!r} here",
                _ANOTHER_FOLDER,
                folder=str(self.path),
            )

    def rows_of(self, cell: Cell) -> list[Row] | None:
        """Return the rows of a cell; None: it was not computed yet."""
        file = self._file(cell)
        if not file.exists():
            return None
        found = _read(file, _AGAIN)
        rows: list[Row] = found.get("rows", [])
        if found.get("cell") != cell.name or not isinstance(rows, list):
            raise _unreadable(file, _AGAIN)
        return rows

    def keep(self, cell: Cell, rows: Sequence[Row]) -> None:
        """Write the rows of a cell."""
        _write(self._file(cell), json.dumps({"cell": cell.name, "rows": _plain(rows)}) + "\n")

    def write_results(self, rows: Sequence[Row], report: Report, finished_at: str) -> None:
        """Write ``results.json``, ``results.csv`` and ``results.md``."""
        document = {
            "name": self._experiment.name,
            "settings": self._settings,
            "finished_at": finished_at,
            "environment": environment(),
            "rows": rows,
            "figures": [asdict(figure) for figure in report.figures],
            "checks": [asdict(check) for check in report.checks],
        }
        _write(self.path / "results.json", json.dumps(_plain(document), indent=1) + "\n")
        _write(self.path / "results.csv", _csv(self._experiment.columns, rows))
        _write(self.path / "results.md", self._markdown(report, finished_at))

    def _markdown(self, report: Report, finished_at: str) -> str:
        about = environment()
        libraries = ", ".join(f"{name} {about[name]}" for name in _LIBRARIES)
        shown = [Section(title=figure.title, figure=figure.name) for figure in report.figures]
        named = {section.figure for section in report.sections}
        parts = [
            f"# {self._experiment.name}",
            self._experiment.summary,
            f"Finished {finished_at}; sisa-ray {RELEASE}, Python {about['python']}, {libraries}; {about['processor']}.",
            *(
                [f"{summary_of(report.checks)}: [see below](#{_BESIDE.lower().replace(' ', '-')})."]
                if report.checks
                else []
            ),
            *(_section(section) for section in report.sections),
            *(_section(section) for section in shown if section.figure not in named),
        ]
        if report.checks:
            parts.append(_section(Section(title=_BESIDE, table=_checks(report.checks))))
        parts.append(_section(Section(title="Settings", table=_settings(self._settings))))
        return "\n\n".join(parts) + "\n"

    def _file(self, cell: Cell) -> Path:
        return self.path / _CELLS / f"{cell.name}.json"


@contextmanager
def recorded_in(folder: Path) -> Iterator[None]:
    """Say which folder cannot be written, and what to do: raise ``StoreFull`` or ``Invalid`` for an ``OSError``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                "there is no room for the results", f"Make room for them. {KEPT}", folder=str(folder)
            ) from error
        raise Invalid(
            f"the folder for the results cannot be written: {error.strerror or type(error).__name__}",
            "Name another one with --out.",
            folder=str(folder),
        ) from error


def environment() -> dict[str, str]:
    """Return the versions of what computes, and the kind of processor."""
    return {
        "release": RELEASE,
        "python": platform.python_version(),
        "processor": f"{platform.machine()}, {os.cpu_count()} processors",
        **{name: version(name) for name in _LIBRARIES},
    }


def _section(section: Section) -> str:
    parts = [f"## {section.title}"]
    if section.text:
        parts.append(section.text)
    if section.table is not None:
        parts.append(_table(section.table))
    if section.figure:
        parts.append(f"![{section.title}](figures/{section.figure}.svg)")
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(map(_in_cell, line)) + " |" for line in lines)


def _in_cell(text: str) -> str:
    """Return a text that stays in its cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def summary_of(checks: Sequence[Check]) -> str:
    """Return how many figures are as expected.

    >>> one = Check(what="four", ours=5, expected=4, tolerance="exact", holds=False, source="arithmetic")
    >>> summary_of([one]), summary_of([])
    ('0 of 1 figures are as expected', '0 of 0 figures are as expected')
    """
    measured = [check.holds for check in checks if check.holds is not None]
    left = (
        f", {len(checks) - len(measured)} are not measured with these settings" if len(measured) < len(checks) else ""
    )
    return f"{sum(measured)} of {len(measured)} figures are as expected{left}"


def number_text(value: float | None) -> str:
    """Return a number as tables show it."""
    return "–" if value is None else f"{value:.4g}"


def _checks(checks: Sequence[Check]) -> Table:
    words = {True: "yes", False: "**no**", None: "not measured"}
    return Table(
        columns=["figure", "ours", "expected", "tolerance", "holds", "source", "remark"],
        rows=[
            [
                check.what,
                number_text(check.ours),
                number_text(check.expected),
                check.tolerance,
                words[check.holds],
                check.source,
                check.remark,
            ]
            for check in checks
        ],
    )


def _settings(settings: Settings) -> Table:
    return Table(columns=["setting", "value"], rows=[[name, _setting(value)] for name, value in settings.items()])


def _setting(value: Any) -> str:
    """Return a setting as people read it; what is nested stays JSON."""
    if isinstance(value, list) and not any(isinstance(each, list | dict) for each in value):
        return ", ".join(map(str, value))
    return f"`{json.dumps(value)}`" if isinstance(value, list | dict) else str(value)


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [_plain(row.get(column)) for column in columns]
        writer.writerow([json.dumps(value) if isinstance(value, dict | list) else value for value in values])
    return out.getvalue()


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON values; numbers that are not finite become None, since JSON has none."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(file: Path, remedy: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise _unreadable(file, remedy) from error
    if not isinstance(found, dict):
        raise _unreadable(file, remedy)
    return found


def _unreadable(file: Path, remedy: str) -> Corrupt:
    return Corrupt("a file of results cannot be read", remedy, file=str(file))


def _write(file: Path, text: str) -> None:
    unfinished = file.with_name(f"{file.name}.partial")
    with recorded_in(file.parent):
        try:
            with unfinished.open("w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())  # else a power cut may leave the name, and nothing of the content
            unfinished.replace(file)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
