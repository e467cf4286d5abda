"""How much a store holds. No Ray in here.

The count proceeds a piece at a time, so that a store of a million objects does not hold up the thread's other reports;
and it runs once an hour, because every thousand objects cost a request on S3.
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
"""How long after one count the next one begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSize:
    """What a store holds; older versions that a bucket keeps are not part of it."""

    objects: int = 0
    payload_bytes: int = 0


class StoreCount:
    """Counts one store's objects, again and again. For one thread."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._listing: Iterator[ObjectInfo] | None = None
        self._counted = StoreSize()
        self._found: StoreSize | None = None
        self._begins_at = clock.monotonic()

    def step(self) -> StoreSize | None:
        """Count the next piece if a count is due; return the result of the last complete count, None before the first.

        A store that cannot be listed ends the count; the next one begins as much later as after a complete one.
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
