"""A consistent copy of a store while it is written to.

Most objects are created once, each under its own name, and never replaced; the others (``MUTABLE``) are small. A copy
shows the store at one moment if, between the listing and the last read, no writer recorded anything (``position`` is
unchanged), two reads of every mutable object are equal, and no object was created or deleted. Large objects are copied
before that, so that this interval is short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.backups.repository import Blob, Repository
from storage.each import Each
from storage.errors import ObjectMissing, Unavailable
from storage.objects import ObjectKey, ObjectStore

MUTABLE: Final = ("control/", "keyrings/", "owners/")
"""Prefixes of keys whose objects are replaced or deleted by name, besides ``Part.replaced``; all others are created
once."""

_ATTEMPTS: Final = 200
_TOGETHER: Final = 64
"""Objects between two reports of progress."""


@dataclass(slots=True, kw_only=True)
class Part:
    """A part of a store's objects, and the repository that they are copied to."""

    store: ObjectStore
    takes: Callable[[ObjectKey], bool]
    """Whether an object belongs to this part."""
    repository: Repository
    replaced: tuple[str, ...] = ()
    """Prefixes of keys, besides ``MUTABLE``, whose objects are replaced by name."""
    known: dict[ObjectKey, Blob] = field(default_factory=dict)
    """Objects that are created once and are in the repository already."""

    @property
    def mutable(self) -> tuple[str, ...]:
        """Prefixes of the keys of all objects that are replaced or deleted by name."""
        return (*MUTABLE, *self.replaced)

    def created(self, listed: Mapping[ObjectKey, int]) -> frozenset[ObjectKey]:
        """Return the objects that are created once."""
        return frozenset(key for key in listed if not key.startswith(self.mutable))

    def remember(self, objects: Mapping[ObjectKey, Blob]) -> None:
        """Skip the objects that an earlier backup has copied, as long as their bytes are still in the repository."""
        kept = self.repository.kept()
        self.known |= {
            key: blob
            for key, blob in objects.items()
            if not key.startswith(self.mutable) and kept.get(blob.sha256) == blob.payload_bytes
        }


def cut(
    parts: Sequence[Part], position: Callable[[], object], each: Each, progress: Callable[[int, int], None]
) -> list[dict[ObjectKey, Blob]]:
    """Return what each part holds at one moment, after copying all of it to the repositories.

    ``position`` returns how far the writers have come; ``progress`` is called with the number of objects copied so far
    and the number of all objects. Raises ``Unavailable`` when the store changed during the copy, 200 times in a row.
    """
    for part in parts:
        _copy_new(part, _listed(part), each, progress)
    for _ in range(_ATTEMPTS):
        before, listed = position(), [_listed(part) for part in parts]
        for part, sizes in zip(parts, listed, strict=True):
            _copy_new(part, sizes, each, lambda _done, _all: None)
        first = [_mutable(part, each) for part in parts]
        if [_mutable(part, each) for part in parts] != first or position() != before:
            continue
        if any(part.created(_listed(part)) != part.created(sizes) for part, sizes in zip(parts, listed, strict=True)):
            continue  # packing receipts does not move the position
        return [_whole(*found, each) for found in zip(parts, listed, first, strict=True)]
    raise Unavailable(
        "the store changes too fast for a consistent copy",
        "Try again when fewer requests arrive, or stop the store's writer first. Objects already copied are not copied"
        " again.",
        store=parts[0].store.location,
    )


def _listed(part: Part) -> dict[ObjectKey, int]:
    return {info.key: info.payload_bytes for info in part.store.list("") if part.takes(info.key)}


def _copy_new(part: Part, listed: Mapping[ObjectKey, int], each: Each, progress: Callable[[int, int], None]) -> None:
    """Copy the objects that are created once and were not copied yet."""
    wanted = sorted(part.created(listed))
    missing = [key for key in wanted if key not in part.known or part.known[key].payload_bytes != listed[key]]
    for start in range(0, len(missing), _TOGETHER):
        progress(len(wanted) - len(missing) + start, len(wanted))
        batch = missing[start : start + _TOGETHER]
        for key, blob in zip(batch, each(lambda key: _copied(part, key), batch), strict=True):
            if blob is not None:
                part.known[key] = blob
    progress(len(wanted), len(wanted))


def _copied(part: Part, key: ObjectKey) -> Blob | None:
    payload = _read(part.store, key)
    return None if payload is None else part.repository.put(payload)


def _mutable(part: Part, each: Each) -> dict[ObjectKey, bytes]:
    keys = [info.key for prefix in part.mutable for info in part.store.list(prefix) if part.takes(info.key)]
    found = each(lambda key: _read(part.store, key), keys)
    return {key: payload for key, payload in zip(keys, found, strict=True) if payload is not None}


def _whole(
    part: Part, listed: Mapping[ObjectKey, int], mutable: Mapping[ObjectKey, bytes], each: Each
) -> dict[ObjectKey, Blob]:
    blobs = each(part.repository.put, list(mutable.values()))
    created = {key: part.known[key] for key in part.created(listed)}
    return created | dict(zip(mutable, blobs, strict=True))


def _read(store: ObjectStore, key: ObjectKey) -> bytes | None:
    """Return the object's bytes; None: it was purged after it was listed."""
    try:
        return store.get(key).payload
    except ObjectMissing:
        return None
