"""What an experiment is: a grid as data, a function that computes one cell of it, and what is said of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Settings = Mapping[str, Any]
"""All that decides an experiment's rows, besides the machine: JSON values."""
Row = dict[str, Any]
"""One measurement: JSON values by column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A part of the grid that one task computes, from these arguments and the settings alone."""

    name: str
    """Unique in the grid; lower-case letters, digits, dots and hyphens: the name of its file."""
    arguments: Mapping[str, Any]
    """JSON values."""
    weight: float = 1.0
    """About how long it takes, beside the other cells: for the time left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line, or bars of one colour."""

    name: str
    x: Sequence[float | str]
    y: Sequence[float | None]
    """A value for each of ``x``; None where there is no value."""
    spread: Sequence[float] | None = None
    """Standard deviations."""
    is_reference: bool = False
    """A published or computed value beside measured ones: drawn as dashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes."""

    title: str
    x: str
    """What the horizontal axis shows, with the unit."""
    y: str
    series: Sequence[Series]
    kind: Literal["lines", "points", "bars"] = "lines"
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Panels side by side, and what a reader is to see in them. Data, so that any page or program may draw it."""

    name: str
    """The figure's name, which is also that of its files."""
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A published, derived or earlier figure beside ours."""

    what: str
    ours: float | None
    """None: not measured with these settings."""
    expected: float | None
    tolerance: str
    """In words, such as "within 0.003"."""
    holds: bool | None
    """None: not measured with these settings."""
    source: str
    """Where the expected figure is from."""
    remark: str = ""
    """Why ours differs, where it does."""

    def __post_init__(self) -> None:
        """Make the values Python's own: those of NumPy are compared in other ways. What is not finite becomes None."""
        for name, value in (("ours", self.ours), ("expected", self.expected)):
            object.__setattr__(self, name, None if value is None or not math.isfinite(value) else float(value))
        object.__setattr__(self, "holds", None if self.holds is None else bool(self.holds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Texts in columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report."""

    title: str
    text: str = ""
    table: Table | None = None
    figure: str = ""
    """The name of a figure that is shown here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the rows say."""

    sections: Sequence[Section]
    figures: Sequence[Figure] = ()
    checks: Sequence[Check] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One of the laboratory's experiments. Its functions stand in modules, so that tasks can import them."""

    name: str
    summary: str
    """One line."""
    columns: tuple[str, ...]
    """The columns of every row, in order."""
    settings: Callable[[bool], Settings]
    """Returns the settings; True: of the quick run, in minutes."""
    cells: Callable[[Settings], Sequence[Cell]]
    """Returns the grid."""
    run: Callable[[Cell, Settings, Path | None], list[Row]]
    """Returns a cell's rows, in a task of its own with one thread; the path is the folder of data sets that are not on
    this machine by themselves. A method that fails gives a row that says so."""
    report: Callable[[Settings, Sequence[Row]], Report]
    """Returns what all rows say."""
    datasets: Callable[[Settings], Sequence[str]] = field(default=lambda _: ())
    """Returns the data sets that these settings need, so that one that is missing is found before anything runs."""
