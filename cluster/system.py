"""What the outside world gives: the clock, fresh names, this process's name."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime


class SystemClock:
    """The machine's own clock. Implements ``coordinator.ports.Clock``."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.now(UTC)  # noqa: TID251  the one place where time comes in

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()


def holder(command: str, now: datetime) -> str:
    """Return what others are told while ``command`` holds the federation."""
    return f"'sisa {command}' (process {os.getpid()}, since {now.isoformat(timespec='seconds')})"


def cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
