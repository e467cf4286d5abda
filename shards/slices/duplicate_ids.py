"""Repeated ids among data points written by many processes: found by their digests, range by range.

    shards/<shard>/digests/<range>/...    during an ingest: digests of data points, joined

Each process that writes data points also writes their digests, 16 bytes each, sorted into ranges. Then each range is
searched by one process, within its memory limit. The digests are protected there in the same way as in the slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.routing import DIGEST_BYTES, PointDigest
from shards.slices.files import point_keys
from shards.slices.kept_digests import fetch_temporary
from shards.tombstones import sorted_digests
from storage.digests import Sha256, sha256
from storage.objects import NewName, ObjectKey, ObjectStore, object_key
from storage.registers.create_once import create_or_read

_MOST_RANGES: Final = 1024
_LEAST_DIGESTS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestRun:
    """An object with digests of data points, all in one range."""

    range: int
    key: ObjectKey
    sha256: Sha256
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The number of ranges into which digests are divided, and the memory for searching one."""

    count: int
    buffer_bytes: int

    @classmethod
    def within(cls, buffer_bytes: int, points: int) -> Ranges:
        """Return ranges for about ``points`` data points; if there are more, searching a range takes several passes."""
        return cls(count=min(1 + points // _most_digests(buffer_bytes), _MOST_RANGES), buffer_bytes=buffer_bytes)


@dataclass(slots=True, kw_only=True)
class DigestWriter:
    """Writes digests of data points as they come, sorted into ranges."""

    store: ObjectStore
    ranges: int
    shards: int
    new_name: NewName
    runs: list[DigestRun] = field(default_factory=list)
    """The objects written; the last one may not have been."""

    def add(self, points_N: npt.NDArray[np.void]) -> None:
        """Write the digests."""
        numbers_N = _ranges_of(points_N, self.ranges)
        for number in np.unique(numbers_N).tolist():
            self._write(number, points_N[numbers_N == number].tobytes())

    def discard(self) -> None:
        """Delete every object written."""
        self.store.delete_all(run.key for run in self.runs)

    def _write(self, number: int, payload: bytes) -> None:
        # Spread over the shards: writers that all need the same shard's key ring would slow each other down.
        folder = f"shards/{number % self.shards:04d}/digests/{number:04d}"
        key = object_key(f"{folder}/{self.new_name()}.digests")
        self.runs.append(DigestRun(range=number, key=key, sha256=sha256(payload), payload_bytes=len(payload)))
        create_or_read(self.store, key, payload)


def find_repeat(store: ObjectStore, runs: Sequence[DigestRun], ranges: Ranges) -> PointDigest | None:
    """Return the least digest that occurs twice in ``runs``, which are all runs of one range; None if all differ.

    Reads the runs once for every set of digests that fits into memory. Raises ``Corrupt`` when one is damaged.
    """
    passes = -(-sum(run.payload_bytes for run in runs) // (_most_digests(ranges.buffer_bytes) * DIGEST_BYTES))
    for index in range(passes):
        place = runs[0].range * passes + index
        found = _repeat_among([_within(store, run, ranges.count * passes, place) for run in runs])
        if found is not None:
            return found
    return None


def _most_digests(buffer_bytes: int) -> int:
    """Return how many digests fit into memory, given that concatenating needs each of them twice."""
    return max(_LEAST_DIGESTS, buffer_bytes // 8)


def _ranges_of(points_N: npt.NDArray[np.void], ranges: int) -> npt.NDArray[np.uint64]:
    """Return the number of each digest's range; a multiple of the number of ranges divides each range evenly."""
    leading_N = point_keys(points_N) >> np.uint64(32)
    return (leading_N * np.uint64(ranges)) >> np.uint64(32)


def _within(store: ObjectStore, run: DigestRun, ranges: int, number: int) -> npt.NDArray[np.void]:
    """Return the digests of the run that are in range ``number`` of ``ranges``."""
    payload = fetch_temporary(store, run.key, run.sha256)
    points_N: npt.NDArray[Any] = np.frombuffer(payload, dtype=f"V{DIGEST_BYTES}")
    chosen: npt.NDArray[np.void] = points_N[_ranges_of(points_N, ranges) == number]
    return chosen


def _repeat_among(digests: Sequence[npt.NDArray[np.void]]) -> PointDigest | None:
    ordered = sorted_digests(np.concatenate(digests))
    repeats = np.flatnonzero(ordered[1:] == ordered[:-1])
    return PointDigest(ordered[repeats[:1]].tobytes()) if len(repeats) else None
