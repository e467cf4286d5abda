"""A clock that advances when it is read, and numbered names."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class VirtualClock:
    """Implements ``coordinator.ports.Clock``: every reading is one second after the one before."""

    _seconds: int = 0

    def now(self) -> datetime:
        """Return the next second of the year 2026."""
        return _START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Return the next whole number."""
        self._seconds += 1
        return float(self._seconds)

    def advance_to(self, moment: datetime) -> None:
        """Advance to ``moment``, unless it has passed; the next reading is a second later."""
        self._seconds = max(self._seconds, int((moment - _START).total_seconds()))


@dataclass(slots=True)
class CountingNames:
    """Returns ``<prefix>-000001``, ``<prefix>-000002``, and so on."""

    prefix: str = "name"
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def __call__(self) -> str:
        """Return the next name."""
        return f"{self.prefix}-{next(self._numbers):06d}"
