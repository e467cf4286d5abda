"""The place that keeps backups. Blobs are named by their digests, so any tool's copy of the place can be verified.

    blobs/<SHA-256>     the bytes of one object, created once; backups share what did not change
    backups/<n>         the index of backup n, created once, after all its blobs: which object has which bytes

A backup exists once its index exists. Blobs that no index names are removed after the next backup, so data that a store
has purged does not outlast that backup here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from storage.backups.sources import Readable
from storage.digests import Json, Sha256, sha256
from storage.errors import Corrupt, Invalid, ObjectMissing
from storage.objects import ObjectKey, ObjectStore, object_key
from storage.records import decode_record, encode_record
from storage.registers.create_once import create_or_read
from storage.registers.numbered import numbered_key, numbers_in

_BLOBS: Final = "blobs"
_INDEXES: Final = "backups"
FOLDERS: Final = (f"{_INDEXES}/", f"{_BLOBS}/")
"""All that a place of backups holds."""

_NAMES: Final = frozenset({"number", "about", "objects"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """The bytes of one object."""

    sha256: Sha256
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One backup."""

    number: int
    """1 for the first in its repository, rising."""
    about: Mapping[str, Any]
    """Facts that the maker of the backup recorded about it."""
    objects: Mapping[ObjectKey, Blob]

    @property
    def payload_bytes(self) -> int:
        """How many bytes its objects have."""
        return sum(blob.payload_bytes for blob in self.objects.values())

    def to_bytes(self) -> bytes:
        """Return the stored form."""
        objects: dict[str, Json] = {key: [blob.sha256, blob.payload_bytes] for key, blob in self.objects.items()}
        return encode_record({"number": self.number, "about": dict(self.about), "objects": objects})


def index_from_bytes(payload: bytes, key: ObjectKey) -> Index:
    """Return the index stored as ``payload``. Raises ``Corrupt`` for any change, ``Invalid`` for a newer version."""
    fields: Any = decode_record(payload, key, _NAMES)
    try:
        objects = {
            object_key(name): Blob(sha256=blob[0], payload_bytes=blob[1]) for name, blob in fields["objects"].items()
        }
        return Index(number=fields["number"], about=dict(fields["about"]), objects=objects)
    except (Invalid, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Corrupt("the index of a backup is not what was written", "Use another backup.", key=key) from error


@dataclass(frozen=True, slots=True)
class Backups:
    """Backups for reading; any tool may have copied them here. Holds no state: every call reads."""

    store: Readable

    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of the backups that are there, rising."""
        return numbers_in(self.store.list(f"{_INDEXES}/"), _INDEXES)

    def newest(self) -> Index | None:
        """Return the last backup; None when there are no backups. Raises as ``index_from_bytes`` does."""
        numbers = self.numbers()
        return self.index(numbers[-1]) if numbers else None

    def index(self, number: int) -> Index:
        """Return backup ``number``. Raises ``Invalid`` when it does not exist, and as ``index_from_bytes`` does."""
        key = _index_key(number)
        try:
            return index_from_bytes(self.store.get(key).payload, key)
        except ObjectMissing:
            kept = ", ".join(map(str, self.numbers()))
            raise Invalid(
                f"there is no backup {number} here",
                f"Choose one of these: {kept}." if kept else "Name a place that holds backups.",
                place=self.store.location,
            ) from None

    def kept(self) -> dict[Sha256, int]:
        """Return the digests of all blobs here, and their sizes."""
        folder = f"{_BLOBS}/"
        return {Sha256(info.key.removeprefix(folder)): info.payload_bytes for info in self.store.list(folder)}

    def get(self, blob: Blob) -> bytes:
        """Return the bytes. Raises ``Corrupt`` when they are damaged or gone."""
        try:
            payload = self.store.get(_key(blob.sha256)).payload
        except ObjectMissing:
            payload = b""
        if len(payload) != blob.payload_bytes or sha256(payload) != blob.sha256:
            raise Corrupt(
                "a part of the backup is damaged or gone",
                "Use another backup, or another copy of this one.",
                blob=blob.sha256,
                place=self.store.location,
            )
        return payload


@dataclass(frozen=True, slots=True)
class Repository(Backups):
    """Backups that are made in ``store``."""

    store: ObjectStore

    def put(self, payload: bytes) -> Blob:
        """Store the bytes durably, unless they are here already."""
        blob = Blob(sha256=sha256(payload), payload_bytes=len(payload))
        create_or_read(self.store, _key(blob.sha256), payload)
        return blob

    def add(self, about: Mapping[str, Any], objects: Mapping[ObjectKey, Blob]) -> Index:
        """Write the index of a backup, durably, after all its blobs are stored; return it."""
        while True:
            number = max(self.numbers(), default=0) + 1
            made = Index(number=number, about=about, objects=objects)
            if create_or_read(self.store, _index_key(number), made.to_bytes()) == made.to_bytes():
                return made

    def forget(self, keep: Collection[int]) -> int:
        """Remove all backups except ``keep``, then the blobs that none of those names; return how many blobs.

        Must not run while another backup is made here.
        """
        numbers = self.numbers()
        kept = [self.index(number) for number in numbers if number in keep]
        named = {_key(blob.sha256) for index in kept for blob in index.objects.values()}
        self.store.delete_all(_index_key(number) for number in numbers if number not in keep)
        self.store.remove_unfinished("")
        left = [info.key for info in self.store.list(f"{_BLOBS}/") if info.key not in named]
        self.store.delete_all(left)
        return len(left)


def _key(digest: Sha256) -> ObjectKey:
    return object_key(f"{_BLOBS}/{digest}")


def _index_key(number: int) -> ObjectKey:
    return numbered_key(_INDEXES, number)
