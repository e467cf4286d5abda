"""A witness: another store that keeps the log's checkpoints, and so reveals a log that was cut back or rewritten.

    witnessed/<SHA-256 of the log's name>/<size>    the signed checkpoint over the first <size> entries, created once
    entries/<SHA-256 of the log's name>/<number>    the log's entry, created once: the log can be restored from it
    erasures/<federation>/<SHA-256 of a request's id>    the request, encrypted: restoring a backup carries out again
                                                    the requests that came after it

Useful only if its writers are not the log's writers. Several logs may share a witness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from storage.digests import Json, sha256
from storage.errors import Corrupt, ObjectMissing
from storage.objects import ObjectKey, ObjectStore, key_segment, object_key
from storage.registers.create_once import create_or_read
from storage.registers.numbered import numbered_key, numbers_in
from storage.registers.record import RecordRegister
from storage.transparency.layout import entry_leaf, entry_to_bytes


@dataclass(frozen=True, slots=True)
class Witness:
    """The checkpoints kept in ``store``."""

    store: ObjectStore

    def keep(self, origin: str, size: int, note: str) -> None:
        """Keep the log's signed checkpoint of this size.

        Raises ``Corrupt`` when another one of this size is kept: the log was rewritten.
        """
        key = _key(origin, size)
        if create_or_read(self.store, key, note.encode("utf-8")) != note.encode("utf-8"):
            raise Corrupt(
                "the witness keeps another checkpoint of this size: the log was rewritten since",
                "Stop, keep both stores as they are, and compare the log with a copy.",
                witness=self.store.location,
                size=size,
            )

    def keep_entry(self, origin: str, number: int, leaf: bytes) -> bool:
        """Keep an entry of the log; return whether it is new here. Raises ``Corrupt`` when another one is kept."""
        key, payload = _entry_key(origin, number), entry_to_bytes(number, leaf)
        try:
            found = self.store.get(key).payload
        except ObjectMissing:
            found = create_or_read(self.store, key, payload)
            is_news = True
        else:
            is_news = False
        if found != payload:
            raise Corrupt(
                "the witness keeps another entry of this number: the log was rewritten since",
                "Stop, keep both stores as they are, and compare the log with a copy.",
                witness=self.store.location,
                entry=number,
            )
        return is_news

    def entries(self, origin: str, start: int) -> Iterator[bytes]:
        """Yield the log's entries from number ``start`` on, up to the first gap."""
        for number in count(start):
            key = _entry_key(origin, number)
            try:
                yield entry_leaf(self.store.get(key).payload, number, key)
            except ObjectMissing:
                return

    def note(self, place: ObjectKey, change: Callable[[Mapping[str, Json] | None], Mapping[str, Json] | None]) -> None:
        """Replace the notice of a request at ``place`` by ``change(notice)``; if that is None, keep it as it is."""
        record = _notice(self.store, place)
        if change(record.read()) is not None:
            record.change(lambda found: change(found) or found or {})

    def noted(self, federation: str) -> Iterator[tuple[ObjectKey, Mapping[str, Json]]]:
        """Yield the key and the notice of every request, in no particular order."""
        for info in self.store.list(f"erasures/{key_segment(federation)}/"):
            fields = _notice(self.store, info.key).read()
            if fields is not None:
                yield info.key, fields

    def size(self, origin: str) -> int:
        """Return how many entries the largest kept checkpoint of this log covers; 0: no checkpoint is kept."""
        folder = _folder(origin)
        return max(numbers_in(self.store.list(f"{folder}/"), folder), default=0)

    def newest(self, origin: str) -> str | None:
        """Return the largest kept checkpoint of this log, unchecked; None: no checkpoint is kept."""
        size = self.size(origin)
        return self.store.get(_key(origin, size)).payload.decode("utf-8", "replace") if size else None


def notice_key(federation: str, request_id: str) -> ObjectKey:
    """Return where the notice of a request is kept."""
    return object_key(f"erasures/{key_segment(federation)}/{sha256(request_id.encode('utf-8'))}")


def _notice(store: ObjectStore, key: ObjectKey) -> RecordRegister:
    return RecordRegister(store=store, key=key, field_names=frozenset({"sealed", "stands"}))


def _entry_key(origin: str, number: int) -> ObjectKey:
    return numbered_key(f"entries/{sha256(origin.encode('utf-8'))}", number)


def _folder(origin: str) -> str:
    return f"witnessed/{sha256(origin.encode('utf-8'))}"


def _key(origin: str, size: int) -> ObjectKey:
    return numbered_key(_folder(origin), size)
