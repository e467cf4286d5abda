"""Means and standard deviations of rows over the rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from cluster.experiments.experiment import Row

RowValue = Callable[[Row], float | None]
"""Reads a number of a row; None: it has none."""


class RowSet:
    """Rows that have something in common."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.all = rows

    def where(self, **equal: Any) -> RowSet:
        """Return those with these values."""
        return RowSet([row for row in self.all if all(row.get(name) == value for name, value in equal.items())])

    def values(self, value: RowValue) -> list[float]:
        """Return the numbers of the rows that have one."""
        return [found for row in self.all if (found := value(row)) is not None]

    def mean(self, value: RowValue) -> float | None:
        """Return the mean; None: no row has one."""
        return mean(self.values(value)) if self.values(value) else None

    def spread(self, value: RowValue) -> float:
        """Return the standard deviation over the rounds; 0 for a single one."""
        found = self.values(value)
        return stdev(found) if len(found) > 1 else 0.0

    def distinct(self, column: str) -> list[Any]:
        """Return the values of a column that are there, each once, in ascending order."""
        return sorted({row[column] for row in self.all if row.get(column) is not None})

    def __len__(self) -> int:
        return len(self.all)


def column(name: str) -> RowValue:
    """Return what reads a column."""
    return lambda row: row.get(name)


def of_class(name: str) -> RowValue:
    """Return what reads the accuracy of a class."""
    return lambda row: (row.get("per_class") or {}).get(name)


def time_share(row: Row) -> float | None:
    """Return how long the row's method took, as a share of the full retrain beside it."""
    seconds, retrain_seconds = row.get("seconds"), row.get("retrain_seconds")
    return None if seconds is None or not retrain_seconds else seconds / retrain_seconds


def explicit_share(steps: int, period: int, burn_in: int) -> float:
    """Return f, the share of DeltaGrad's steps that are explicit.

    >>> explicit_share(80, 5, 10)
    0.3
    """
    return sum(step < burn_in or (step - burn_in) % period == 0 for step in range(steps)) / steps


def law(explicit: float, ratio: float) -> float:
    """Return DeltaGrad's work as a share of that of a full retrain: [f + (1 - f)p]/(1 - p), p the removed share.

    An explicit step looks at all data points, any other at those that leave; a step of the retrain at those that are
    left.

    >>> round(law(0.3, 0.001), 3), round(law(0.3, 0.3), 3)
    (0.301, 0.729)
    """
    return (explicit + (1 - explicit) * ratio) / (1 - ratio)


def break_even(explicit: float) -> float:
    """Return the removed share from which on a full retrain is cheaper: (1 - f)/(2 - f).

    >>> round(break_even(0.3), 2)
    0.41
    """
    return (1 - explicit) / (2 - explicit)


def crossing(ratios: Sequence[float], shares: Sequence[float | None]) -> float | None:
    """Return where the shares pass 1, by straight lines between them; None: nowhere.

    >>> crossing([0.3, 0.4, 0.5], [0.7, 0.9, 1.1])
    0.45
    """
    points = [(ratio, share) for ratio, share in zip(ratios, shares, strict=True) if share is not None]
    for (left, low), (right, high) in pairwise(points):
        if low < 1 <= high:
            return round(left + (right - left) * (1 - low) / (high - low), 6)
    return None
