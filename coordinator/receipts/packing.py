"""Packing: receipts and their entries of the log are put together, 256 in one object, once they are done with.

1. Have the log's name say that there are packs: releases that cannot read them then refuse the log, by version.
2. Create the pack.
3. Have the index name its receipts.
4. Delete what was stored of each by itself; the log's last entry last.

The next writer to pack finishes what a crash has left. Several may pack at once: the first to create a pack decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from coordinator.receipts.archive import Archive, request_id_in, to_pack
from coordinator.receipts.bundles import ReceiptBundle
from storage.errors import Corrupt, NewerFormat, ObjectChanged, ObjectMissing, OutcomeUnknown, Unavailable
from storage.objects import ObjectStore, object_key
from storage.records import decode_record, encode_record
from storage.registers.create_once import create_or_read
from storage.transparency.layout import ANY_LOG, LogLayout, is_all_packed, is_discarded, read_pack
from storage.transparency.log import Inclusion, TransparencyLog

ORIGIN: Final = object_key("log/origin")
"""The log's name, in a record that also says whether there may be packs."""

_ATTEMPTS: Final = 64
_PACKS_AT_ONCE: Final = 4
"""A log of an earlier version is packed little by little, so that no request waits long for that."""
_NAMES: Final = frozenset({"origin"})
_NAMES_WITH_PACKS: Final = frozenset({"origin", "packs"})


@dataclass(slots=True, kw_only=True)
class Packing:
    """Packs the receipts of one store, for one process."""

    archive: Archive
    open_log: Callable[[], TransparencyLog]
    fix: Callable[[tuple[bytes, Inclusion]], ReceiptBundle]
    """Stores the receipt of an entry as an object of its own, and returns it."""
    _is_tidy: bool = False
    """Whether all objects that the last pack replaced are deleted: a crash may leave some."""

    def pack(self, opened: TransparencyLog | None) -> None:
        """Pack what is full, and finish what was left; costs nothing while there is nothing to do.

        ``opened`` is the log, if this process has read it.
        """
        store = self.archive.store
        if opened is None and not self._is_tidy:
            self._is_tidy = find_layout(store) is None or is_all_packed(store, ANY_LOG)
        if self._is_tidy and (opened is None or not opened.is_full):
            return
        log = self.open_log()
        for _ in range(_PACKS_AT_ONCE):
            entries = log.unpacked()
            if log.packed and not is_discarded(store, ANY_LOG, log.packed - 1):
                self._finish(log, log.packed - 1)
            self._is_tidy = not entries
            if not entries:
                return
            receipts = self.archive.each(lambda entry: self._receipt(log, *entry), entries)
            announce_packs(store)
            self._finish(log, log.pack([to_pack(each) for each in receipts]))

    def _receipt(self, log: TransparencyLog, number: int, leaf: bytes) -> ReceiptBundle:
        """Return the receipt whose statement is this entry; a crash may have left it without one."""
        bundle = self.archive.alone(request_id_in(leaf)) or self.fix((leaf, log.prove(number)))
        if (bundle.index, bundle.envelope) != (number, leaf):
            raise Corrupt("the receipt of an entry's request is another one", "See 'sisa log --check'.", entry=number)
        return bundle

    def _finish(self, log: TransparencyLog, number: int) -> None:
        """Do the steps after a pack's creation, perhaps by another process."""
        pack = read_pack(self.archive.store, ANY_LOG, number, durable=True)
        numbers = {request_id_in(each.leaf): pack.start + place for place, each in enumerate(pack.entries)}
        self.archive.note(numbers)
        self.archive.take_out(numbers)
        log.discard(number, lambda keys: self.archive.each(self.archive.store.delete, keys))


def create_layout(store: ObjectStore, name: str) -> LogLayout:
    """Return the log's layout, durable; the log gets this name if it has none yet."""
    return _layout_from(create_or_read(store, ORIGIN, encode_record({"origin": name})))


def find_layout(store: ObjectStore) -> LogLayout | None:
    """Return the log's layout; None: there is no log yet. Raises ``Corrupt``, or ``Invalid`` for a newer version's."""
    try:
        return _layout_from(store.get(ORIGIN).payload)
    except ObjectMissing:
        return None


def _layout_from(payload: bytes) -> LogLayout:
    try:
        fields = decode_record(payload, ORIGIN, _NAMES)
    except NewerFormat:
        fields = decode_record(payload, ORIGIN, _NAMES_WITH_PACKS)
    return LogLayout(origin=str(fields["origin"]))


def announce_packs(store: ObjectStore) -> None:
    """Have the log's name say, durably, that there may be packs."""
    for _ in range(_ATTEMPTS):
        found = store.get_durable(ORIGIN)  # perhaps by a put that is not known to be durable
        said = encode_record({"origin": _layout_from(found.payload).origin, "packs": True})
        if found.payload == said:
            return
        try:
            store.put_if_match(ORIGIN, said, found.tag)
        except (ObjectChanged, OutcomeUnknown):
            continue
        return
    raise Unavailable("other writers keep changing the log's name", "Try again.", key=ORIGIN)
