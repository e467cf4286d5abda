"""What the outside world gives: the clock, fresh names, this process's name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final, TypeVar

_AT_ONCE: Final = 8

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")


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


def many_at_once(act: Callable[[_Thing], _Result], things: Sequence[_Thing], /) -> list[_Result]:
    """Do up to eight at once. Implements ``coordinator.ports.Each``.

    Meant for small durable writes, which mostly wait: the disk or the server takes eight in the time of one.
    """
    if len(things) < 2:
        return [act(thing) for thing in things]
    with ThreadPoolExecutor(min(_AT_ONCE, len(things)), thread_name_prefix="sisa-writes") as pool:
        return list(pool.map(act, things))
