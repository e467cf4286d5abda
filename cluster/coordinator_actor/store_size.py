"""Measures how much a store holds. No Ray in here.

It counts a piece at a time, so that a store of a million objects does not delay the thread's other reports, and once an
hour, because every thousand objects cost a request on S3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from coordinator.ports import Clock
from storage.errors import SisaError
from storage.objects import ObjectInfo, ObjectStore

PIECE: Final = 5_000
"""Objects counted at a time: five requests on S3."""

AGAIN_SECONDS: Final = 3600.0
"""Time from the end of one count to the beginning of the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSize:
    """What a store holds, without the older versions that a bucket may keep."""

    objects: int = 0
    payload_bytes: int = 0


class StoreCount:
    """Counts one store's objects repeatedly. Not thread-safe."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._listing: Iterator[ObjectInfo] | None = None
        self._counted = StoreSize()
        self._found: StoreSize | None = None
        self._begins_at = clock.monotonic()

    def step(self) -> StoreSize | None:
        """Count the next piece if a count is due; return the result of the last complete count, None before the first.

        If the store cannot be listed, the count ends, and the next one begins after the usual time.
        """
        if self._clock.monotonic() >= self._begins_at:
            try:
                is_complete = self._count()
            except SisaError:
                self._end()
            else:
                if is_complete:
                    self._found = self._counted
                    self._end()
        return self._found

    def _count(self) -> bool:
        """Count the next piece; return whether it was the last one."""
        if self._listing is None:
            self._listing = iter(self._store.list(""))
        piece = [info.payload_bytes for info in islice(self._listing, PIECE)]
        self._counted = StoreSize(
            objects=self._counted.objects + len(piece), payload_bytes=self._counted.payload_bytes + sum(piece)
        )
        return len(piece) < PIECE

    def _end(self) -> None:
        self._listing, self._counted = None, StoreSize()
        self._begins_at = self._clock.monotonic() + AGAIN_SECONDS
