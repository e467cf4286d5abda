"""Learning rate schedules: functions of how much of the declared training is done, never of a count of steps.

The steps of slice r depend on its data points, which the lineage of slice 1 does not name. If the rate depended on
them, a checkpoint of slice 1 would depend on data points that it has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "constant": ("warmup",),
    "linear": ("warmup", "end", "final"),
    "cosine": ("warmup", "end", "final"),
    "step": ("warmup", "at", "factor"),
}
"""The settings of each kind, besides ``kind``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The table ``schedule`` in ``[training]``. All positions are fractions of the whole training, 0 .. 1."""

    kind: str = "constant"
    """One of ``constant``, ``linear``, ``cosine``, ``step``."""
    warmup: float = 0.0
    """Where the rate has risen from 0 to its full value, in a straight line."""
    end: float = 1.0
    """Where ``linear`` and ``cosine`` reach ``final``, at which the rate then stays."""
    final: float = 0.0
    """Share of the rate that is left at ``end``."""
    at: tuple[float, ...] = ()
    """Where ``step`` multiplies the rate by ``factor``."""
    factor: float = 0.1

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """Return the schedule that a table without problems describes."""
        given = dict(table)
        if "at" in given:
            given["at"] = tuple(given["at"])
        return cls(**given)

    def share(self, progress: float) -> float:
        """Return the share of the learning rate at ``progress``, the part of the training that is done.

        >>> Schedule(kind="cosine", final=0.2).share(1.0)
        0.2
        >>> Schedule(kind="step", at=(0.5, 0.75)).share(0.6)
        0.1
        """
        if progress < self.warmup:
            return progress / self.warmup
        if self.kind == "step":
            return math.prod(self.factor for place in self.at if progress >= place)
        if self.kind == "constant":
            return 1.0
        left = max(0.0, (self.end - progress) / (self.end - self.warmup))
        if self.kind == "cosine":
            left = _squared_cosine(1.0 - left)
        return self.final + (1.0 - self.final) * left


def progress_at(epochs_done: int, batch: int, batches: int, epochs: int) -> float:
    """Return how much of the training is done in the middle of a batch, counted from 0.

    ``epochs_done`` and ``epochs`` are declared numbers of epochs over all slices. The middle, so that neither the first
    step of a warm-up nor the last one of a decay has a rate of 0.

    >>> progress_at(3, 0, 2, 4)
    0.8125
    """
    return (epochs_done + (batch + 0.5) / batches) / epochs


def schedule_problems(table: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the table ``schedule``, each as a fragment that begins with its name."""
    if not table:
        return []
    kind = table.get("kind", "constant")
    if not isinstance(kind, str) or kind not in _SETTINGS:
        return [f"schedule.kind must be one of {', '.join(_SETTINGS)}, got {kind!r}"]
    own = _SETTINGS[kind]
    problems = [
        f"schedule.{name} is not a setting of kind {kind!r}; it has {', '.join(own)}"
        for name in sorted(table.keys() - {"kind", *own})
    ]
    problems += [
        problem for name in sorted(table.keys() & {*own} - {"at"}) if (problem := _number_problem(name, table[name]))
    ]
    return problems or _at_problems(kind, table.get("at")) or _end_problems(kind, table)


def _number_problem(name: str, value: object) -> str | None:
    text, is_in = _RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_in(value):
        return f"schedule.{name} must be {text}, got {value!r}"
    return None


_RANGES: Final[Mapping[str, tuple[str, Callable[[float], bool]]]] = {
    "warmup": ("a number from 0 to below 1, the share of the training that it takes", lambda value: 0 <= value < 1),
    "end": ("a number above 0, at most 1", lambda value: 0 < value <= 1),
    "final": ("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "factor": ("a number above 0", lambda value: 0 < value < math.inf),
}


def _at_problems(kind: str, at: object) -> list[str]:
    if kind != "step":
        return []
    places = at if isinstance(at, list | tuple) else ()
    numbers = [place for place in places if isinstance(place, int | float) and not isinstance(place, bool)]
    if not numbers or len(numbers) < len(places) or not all(0 < place < 1 for place in numbers):
        return [f"schedule.at must be a list of numbers between 0 and 1, such as [0.5, 0.75], got {at!r}"]
    if numbers != sorted(set(numbers)):
        return [f"schedule.at must rise, got {list(places)}"]
    return []


def _end_problems(kind: str, table: Mapping[str, Any]) -> list[str]:
    if kind not in {"linear", "cosine"}:
        return []
    schedule = Schedule.of(table)
    if schedule.end <= schedule.warmup:
        return [f"schedule.end = {schedule.end} is not after schedule.warmup = {schedule.warmup}"]
    if schedule.end < 1 and schedule.final == 0:
        fact = f"schedule ends before training: from {schedule.end} of the training on the rate would be 0"
        return [f"{fact}; set schedule.final above 0, or leave out schedule.end"]
    return []


_HALF_PI: Final = 1.5707963267948966


def _squared_cosine(share: float) -> float:
    """Return the square of the cosine of ``share`` quarter turns, for 0 .. 1.

    By its series: machines agree in the last bit of sums, products and quotients, but not of ``math.cos``.
    """
    square = (share * _HALF_PI) ** 2
    term = total = 1.0
    for even in range(2, 30, 2):
        term = -term * square / (even * (even - 1))
        total += term
    return total * total
