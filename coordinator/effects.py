"""Measures on hold-out points: of a generation, and before and after an erasure. They hold counts and shares alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shards.measures import Measures

_DIGITS: Final = 6
_ERRORS: Final = ("rmse", "inertia")
"""The measures, of numbers and of clusters, that must not grow."""
_SHARES: Final = ("hit_rate",)
"""The measures, of recommended items, that must not fall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutMeasure:
    """How good one generation's answers to the hold-out points were."""

    generation: int
    points: int
    """Hold-out points that were measured."""
    metrics: Mapping[str, float]
    """By name, as in the output of ``sisa evaluate``."""
    per_class: Mapping[str, float | None] | None = None
    """Share of each class's or label's points recognised; None: a target of numbers, a class without points."""
    at: str
    """When it was measured, UTC, ISO 8601."""

    @classmethod
    def of(cls, found: Measures, generation: int, at: str) -> HoldoutMeasure:
        """Return the measures that a state keeps."""
        shares = found.per_class
        return cls(
            generation=generation,
            points=found.points,
            metrics={name: round(value, _DIGITS) for name, value in found.metrics.items()},
            per_class=None
            if shares is None
            else {name: None if share is None else round(share, _DIGITS) for name, share in shares.items()},
            at=at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureEffect:
    """The measures before and after an erasure. Other erasures and trainings in between count, too."""

    before: HoldoutMeasure | None
    """The last measure when the data points were removed; None: nothing was measured before."""
    after: HoldoutMeasure | None = None
    """The first measure once the request was complete; None: not measured yet, or never."""
    unmeasured: str = ""
    """Why there will be no measure after it; empty: there is one, or may still be one."""
    margin: float = 1.0
    """The setting ``[erasure] alarm_margin`` when ``after`` was measured."""

    @property
    def alarms(self) -> tuple[str, ...]:
        """The classes or labels whose share fell by more than the margin, or ``hit_rate``; an error that grew by it."""
        if self.before is None or self.after is None or self.margin >= 1.0:
            return ()
        earlier, later = self.before.per_class, self.after.per_class
        if earlier is None or later is None:
            was, now = self.before.metrics, self.after.metrics
            both = was.keys() & now.keys()
            grown = [name for name in _ERRORS if name in both and now[name] > was[name] * (1.0 + self.margin)]
            return (*grown, *(name for name in _SHARES if name in both and was[name] - now[name] > self.margin))
        return tuple(
            name
            for name, share in earlier.items()
            if share is not None and (left := later.get(name)) is not None and share - left > self.margin
        )
