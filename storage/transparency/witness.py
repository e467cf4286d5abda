"""A witness: another store that keeps the log's checkpoints. A log that was cut back or rewritten shows against it.

    witnessed/<SHA-256 of the log's name>/<size>    the signed checkpoint over the first <size> entries, created once
    entries/<SHA-256 of the log's name>/<number>    the log's entry, created once: the log can be restored from it
    erasures/<federation>/<SHA-256 of a request's id>    what was asked for, encrypted: what came after a backup is done
                                                    again when that is restored

Only worth something where others write it than those who write the log. Several logs may share one.
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
from storage.transparency.log import entry_leaf, entry_to_bytes


@dataclass(frozen=True, slots=True)
class Witness:
    """The checkpoints kept in ``store``."""

    store: ObjectStore

    def keep(self, origin: str, size: int, note: str) -> None:
        """Have the log's signed checkpoint of this size kept.

        Raises ``Corrupt`` when another one of this size is kept: the log is not what it was. Else as the store does.
        """
        key = _key(origin, size)
        if create_or_read(self.store, key, note.encode("utf-8")) != note.encode("utf-8"):
            raise Corrupt(
                "the witness keeps another checkpoint of this size: the log was rewritten since",
                "Stop, keep both stores as they are, and compare the log with a copy: see 'sisa log --check'.",
                witness=self.store.location,
                size=size,
            )

    def keep_entry(self, origin: str, number: int, leaf: bytes) -> bool:
        """Have an entry of the log kept; return whether it is news. Raises ``Corrupt`` when another one is kept."""
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
                "Stop, keep both stores as they are, and compare the log with a copy: see 'sisa log --check'.",
                witness=self.store.location,
                entry=number,
            )
        return is_news

    def entries(self, origin: str, start: int) -> Iterator[bytes]:
        """Yield the log's entries from number ``start`` on, as far as they are kept without a gap."""
        for number in count(start):
            key = _entry_key(origin, number)
            try:
                yield entry_leaf(self.store.get(key).payload, number, key)
            except ObjectMissing:
                return

    def note(self, place: ObjectKey, change: Callable[[Mapping[str, Json] | None], Mapping[str, Json] | None]) -> None:
        """Keep at ``place`` what ``change`` makes of what is known of a request; nothing where it makes nothing."""
        record = _notice(self.store, place)
        if change(record.read()) is not None:
            record.change(lambda found: change(found) or found or {})

    def noted(self, federation: str) -> Iterator[tuple[ObjectKey, Mapping[str, Json]]]:
        """Yield what is known of every request, with the key of each, in no promised order."""
        for info in self.store.list(f"erasures/{key_segment(federation)}/"):
            fields = _notice(self.store, info.key).read()
            if fields is not None:
                yield info.key, fields

    def size(self, origin: str) -> int:
        """Return how many entries the largest checkpoint of this log covers that is kept; 0: there is none."""
        folder = _folder(origin)
        return max(numbers_in(self.store.list(f"{folder}/"), folder), default=0)

    def newest(self, origin: str) -> str | None:
        """Return the largest checkpoint of this log that is kept, unchecked; None: there is none."""
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
