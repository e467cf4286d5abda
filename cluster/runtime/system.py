"""Values from the operating system: the time, random names, processors and threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, TypeVar

from coordinator.decisions.times import MOST_SECONDS_BEHIND, clock_is_behind
from coordinator.ports import Clock

_AT_ONCE: Final = 8

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")


def timed(act: Callable[[], _Result]) -> tuple[_Result, float]:
    """Return the result, and the seconds of processor time that this process took for it."""
    started = time.process_time()
    result = act()
    return result, time.process_time() - started


class SystemClock:
    """The machine's own clock. Implements ``coordinator.ports.Clock``."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.now(UTC)  # noqa: TID251  the one place where time comes in

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()


class SteadyClock:
    """A clock that never goes back, nor behind a time on record. Implements ``coordinator.ports.Clock``.

    While the given clock is behind, time continues from the latest one known at the pace of the monotonic clock. May be
    used from any thread.
    """

    def __init__(self, clock: Clock, tell: Callable[[str], None] = lambda _: None) -> None:
        """``tell`` is called once, with a sentence, when the clock is more than a minute behind."""
        self._clock = clock
        self._tell = tell
        self._lock = Lock()
        """Guards all fields below."""
        self._latest: datetime | None = None
        self._behind_since: float | None = None
        """Monotonic time at which the clock was first found to be behind ``_latest``."""
        self._is_reported = False

    @classmethod
    def of(cls, clock: Clock) -> SteadyClock:
        """Return ``clock``, made steady unless it is."""
        return clock if isinstance(clock, SteadyClock) else cls(clock)

    def saw(self, moment: datetime | None) -> None:
        """Take note of a time on record."""
        with self._lock:
            if moment is not None and (self._latest is None or moment > self._latest):
                self._latest, self._behind_since = moment, None

    def now(self) -> datetime:
        """Return the time in UTC."""
        found = self._clock.now()
        with self._lock:
            if self._latest is None or found >= self._latest:
                self._latest, self._behind_since = found, None
                return found
            behind = (self._latest - found).total_seconds()
            passed = self._clock.monotonic()
            if self._behind_since is None:
                self._behind_since = passed
            now = self._latest + timedelta(seconds=passed - self._behind_since)
            is_news = behind > MOST_SECONDS_BEHIND and not self._is_reported
            self._is_reported = self._is_reported or is_news
        if is_news:
            self._tell(clock_is_behind(behind))
        return now

    def machine(self) -> datetime:
        """Return the time of this machine's clock, even if it is behind."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return self._clock.monotonic()


def holder(command: str, now: datetime) -> str:
    """Return the text that names the holder of the writer lock in other processes' errors."""
    return f"'sisa {command}' (process {os.getpid()}, since {now.isoformat(timespec='seconds')})"


def cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def many_at_once(act: Callable[[_Thing], _Result], things: Sequence[_Thing], /) -> list[_Result]:
    """Process up to eight items at once. Implements ``storage.each.Each``.

    Meant for small durable writes, which mostly wait: the disk or the server takes eight in the time of one.
    """
    if len(things) < 2:
        return [act(thing) for thing in things]
    with ThreadPoolExecutor(min(_AT_ONCE, len(things)), thread_name_prefix="sisa-writes") as pool:
        return list(pool.map(act, things))
