"""Digests of data points, kept from the moment that their part is written, so that no part is read again to record it.

What is kept fits into a fixed amount of memory. When it is full, and when another process needs them, digests are
written as objects of the store, encrypted like parts, and deleted once the slices are recorded. A slice with few
digests is left out of that: reading its parts again costs less than one more object.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy.typing as npt

from shards.points import PointBlock
from shards.routing import PointDigest, SliceId
from shards.slices.contents import PartDigests
from shards.slices.files import PartRecord, SliceRecord, identities_of, read_part, record_of, repeat_among
from storage.digests import Sha256, sha256
from storage.errors import Corrupt, ObjectMissing
from storage.objects import NewName, ObjectKey, ObjectStore, object_key
from storage.registers.create_once import create_or_read

_LEAST_BYTES: Final = 1 << 16
"""Fewer bytes of a slice's digests are not written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestsObject:
    """An object with the digests of all data points of some parts of a slice."""

    key: ObjectKey
    sha256: Sha256
    points: int
    parts: frozenset[ObjectKey]

    def read(self, store: ObjectStore) -> PartDigests:
        """Return the digests. Raises ``Corrupt`` when the object is missing or is not what was written."""
        return PartDigests.from_bytes(fetch_temporary(store, self.key, self.sha256), self.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSource:
    """The parts of a slice, and where the digests of their data points are to be had without reading them."""

    parts: tuple[PartRecord, ...]
    held: tuple[PartDigests, ...] = ()
    objects: tuple[DigestsObject, ...] = ()
    left: tuple[PartRecord, ...] = ()
    """The parts that have to be read."""

    def record(self, store: ObjectStore) -> SliceRecord:
        """Return the record of the slice."""
        read = (PartDigests.of(read_part(store, part)) for part in self.left)
        return record_of(self.parts, [*self.held, *(each.read(store) for each in self.objects), *read])

    def points(self, store: ObjectStore) -> Iterator[npt.NDArray[Any]]:
        """Yield the digests of the data points' ids."""
        yield from (each.points_N for each in self.held)
        yield from (each.read(store).points_N for each in self.objects)
        yield from (block.points_N for block in identities_of(store, self.left))


@dataclass(slots=True, kw_only=True)
class DigestKeeper:
    """Keeps the digests of the parts that one process writes."""

    store: ObjectStore
    new_name: NewName
    most_bytes: int
    """How many bytes of digests may be held in memory."""
    _held: dict[SliceId, dict[ObjectKey, PartDigests]] = field(default_factory=dict)
    _objects: dict[SliceId, list[DigestsObject]] = field(default_factory=dict)
    _held_bytes: int = 0

    def add(self, slice_id: SliceId, part: PartRecord, block: PointBlock) -> None:
        """Keep the digests of a part that has been written."""
        digests = PartDigests.of(block)
        self._held.setdefault(slice_id, {})[part.key] = digests
        self._held_bytes += digests.held_bytes
        if self._held_bytes > self.most_bytes:
            self.write()

    def write(self) -> dict[SliceId, tuple[DigestsObject, ...]]:
        """Write what is held, and return all objects with digests; those that are too few are dropped."""
        while self._held:
            slice_id, own = self._held.popitem()
            if sum(each.held_bytes for each in own.values()) >= _LEAST_BYTES:
                self._write(slice_id, own)
        self._held_bytes = 0
        return {slice_id: tuple(own) for slice_id, own in self._objects.items()}

    def sources(self, parts: Mapping[SliceId, tuple[PartRecord, ...]]) -> dict[SliceId, SliceSource]:
        """Return the sources of slices that this process alone has written, in order."""
        found = {}
        for slice_id, own in sorted(parts.items()):
            held = self._held.get(slice_id, {})
            source = slice_source(own, self._objects.get(slice_id, ()), without=held.keys())
            found[slice_id] = SliceSource(
                parts=own, held=tuple(held.values()), objects=source.objects, left=source.left
            )
        return found

    def discard(self) -> None:
        """Delete every object written."""
        self.store.delete_all(each.key for own in self._objects.values() for each in own)

    def _write(self, slice_id: SliceId, own: Mapping[ObjectKey, PartDigests]) -> None:
        digests = PartDigests.joined(list(own.values()))
        payload = digests.to_bytes()
        folder = f"shards/{slice_id.shard:04d}/kept/{slice_id.slice:04d}"
        made = DigestsObject(
            key=object_key(f"{folder}/{self.new_name()}.digests"),
            sha256=sha256(payload),
            points=len(digests.points_N),
            parts=frozenset(own),
        )
        self._objects.setdefault(slice_id, []).append(made)
        create_or_read(self.store, made.key, payload)


def slice_source(
    parts: tuple[PartRecord, ...], objects: Sequence[DigestsObject], without: Collection[ObjectKey] = ()
) -> SliceSource:
    """Return a slice's source; parts neither in ``objects`` nor ``without`` have to be read."""
    known = {*without, *(key for each in objects for key in each.parts)}
    left = tuple(part for part in parts if part.key not in known)
    return SliceSource(parts=parts, objects=tuple(objects), left=left)


def repeat_in_slices(store: ObjectStore, slices: Sequence[SliceSource], most_points: int) -> PointDigest | None:
    """Return the least digest of a data point that occurs twice in the slices, or None.

    Holds about ``most_points`` more digests in memory, and reads all objects once for each such range.
    """
    total = sum(part.points for each in slices for part in each.parts)
    return repeat_among(lambda: (points_N for each in slices for points_N in each.points(store)), total, most_points)


def fetch_temporary(store: ObjectStore, key: ObjectKey, expected: Sha256) -> bytes:
    """Return an object that an ingest in progress has written. Raises ``Corrupt`` when it is missing or differs."""
    try:
        payload = store.get(key).payload
    except ObjectMissing as error:
        raise _damaged("is missing", key) from error
    if sha256(payload) != expected:
        raise _damaged("is not what was written", key)
    return payload


def _damaged(fact: str, key: ObjectKey) -> Corrupt:
    return Corrupt(f"an object of an ingest in progress {fact}", "Run 'sisa train' to read the source again.", key=key)
