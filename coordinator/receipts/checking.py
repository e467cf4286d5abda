"""Checking all receipts of a store against the log that states them. What is wrong is named, never raised.

What was sound is remembered, so that the next check does not have to read all packs again:

    log/checked    how many packs were sound, with a signed checkpoint over their entries, and when; compare-and-swap

Receipts that are stored by themselves, fewer than two packs hold, are read by every check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from coordinator.receipts.archive import (
    BUNDLES,
    ENVELOPES,
    Archive,
    bundle_key,
    index_name,
    request_id_in,
    unpacked,
)
from coordinator.receipts.bundles import ReceiptBundle, bundle_from_bytes, verify_bundle
from storage.errors import Corrupt, Invalid, ObjectChanged, ObjectExists, ObjectMissing, OutcomeUnknown
from storage.objects import ObjectKey, ObjectStore, object_key
from storage.records import decode_record, encode_record
from storage.transparency import packs
from storage.transparency.check import LogCheck, SoundPacks, read_leaf
from storage.transparency.checkpoint import open_checkpoint
from storage.transparency.keys import PublicKey
from storage.transparency.layout import ANY_LOG, LogLayout, read_pack
from storage.transparency.merkle import MerkleTree, leaf_hash

CHECKED: Final = object_key("log/checked")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptsCheck:
    """What a check of all receipts found."""

    checked: int
    """Receipts looked at."""
    broken: tuple[str, ...]
    """What is wrong, by name; empty when all is well."""
    unread: int = 0
    """Receipts that were not looked at because an earlier check had found the packs sound that hold them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checker:
    """Checks the receipts of one store."""

    archive: Archive
    keys: Sequence[PublicKey]
    """All public keys that receipts and checkpoints are or were signed with."""
    log: LogCheck
    """What checking the log found, before."""
    tree: MerkleTree
    """Over the log's sound entries."""

    @property
    def store(self) -> ObjectStore:
        """Where the receipts are."""
        return self.archive.store

    def check(self, layout: LogLayout | None, expected: Mapping[str, int | None]) -> ReceiptsCheck:
        """Check every receipt, except those in packs that the log's check left out.

        Each id in ``expected`` must have one; its value is the number of the log's entry, if that is known.
        """
        broken = [f"log: {problem}" for problem in self.log.problems]
        stored = sorted(info.key for info in self.store.list(BUNDLES))
        begun = sorted(info.key for info in self.store.list(ENVELOPES))
        numbers, _ = (
            layout.numbers(self.store, "packs") if layout else ((), ())
        )  # read afterwards, because a pack is written before it is indexed
        unread = self.log.unread
        new = [number for number in numbers if number * packs.TILE_ENTRIES >= unread]
        index = self._index(broken) if new else {}
        found = [each for number in new for each in self._packed(number, index, broken)]
        named = {(name, at) for name, at in index.items() if at >= unread}
        broken += [f"the receipts' index: packed entry {at} is not whose it says" for _, at in sorted(named - {*found})]
        packed, checked = {name for name, _ in found}, len(found)
        statements = dict[int, bytes]()
        for key in stored:
            failures = None if index_name(key) in packed else self._alone(key, statements)
            checked += failures is not None
            broken += [f"{key}: {failure}" for failure in failures or ()]
        finished = {
            *map(index_name, stored),
            *packed,
        }  # a receipt that is in a pack and still stored by itself is a leftover
        unfinished = [key for key in begun if index_name(key) not in finished]
        broken += [f"{key}: it was not finished" for key in unfinished if not self.archive.is_packed(key)]
        if layout is not None and not self.log.problems:
            broken += self._without_receipt((numbers[-1] + 1) * packs.TILE_ENTRIES if numbers else 0, statements)
        for request_id, at in expected.items():
            has_one = index_name(bundle_key(request_id)) in finished or (at is not None and at < unread)
            if not has_one and not self._has_receipt(request_id):
                broken.append(f"request {request_id}: it has no receipt")
        return ReceiptsCheck(checked=checked, broken=tuple(broken), unread=unread)

    def _index(self, broken: list[str]) -> Mapping[str, int]:
        try:
            return self.archive.packed()
        except (Corrupt, Invalid) as error:
            broken.append(f"{error.message}")
            return {}

    def _packed(self, number: int, index: Mapping[str, int], broken: list[str]) -> Iterator[tuple[str, int]]:
        """Yield the receipts of a pack as the index should name them, and note what is wrong with each."""
        try:
            pack = read_pack(self.store, ANY_LOG, number)
        except (Corrupt, Invalid, ObjectMissing):
            return  # the log's check has named it
        for place, entry in enumerate(pack.entries):
            at = pack.start + place
            try:
                key = bundle_key(request_id_in(entry.leaf))
                bundle = unpacked(entry)
            except (Corrupt, Invalid) as error:
                broken.append(f"packed entry {at}: {error.fact}")
                continue
            yield index_name(key), at
            failures = list(self._failures(bundle))
            if bundle.index != at:
                failures.append("its receipt is another one")
            if index_name(key) not in index and not self._holds(key):  # a crash may have prevented its naming
                failures.append("the receipts' index does not name it")
            broken += [f"packed entry {at}: {failure}" for failure in failures]

    def _alone(self, key: ObjectKey, statements: dict[int, bytes]) -> list[str] | None:
        """Return what is wrong with a receipt that is stored by itself; None: it was put into a pack meanwhile.

        ``statements`` gets its statement, by the number of the log's entry.
        """
        try:
            bundle = bundle_from_bytes(self.store.get(key).payload)
        except ObjectMissing:
            return None
        except (Corrupt, Invalid) as error:
            return [error.fact]
        if bundle.index < self.log.unread:
            return None  # a leftover of its pack
        statements[bundle.index] = bundle.envelope
        failures = [*self._failures(bundle, key)]
        if not self._holds(object_key(f"{ENVELOPES}{key.removeprefix(BUNDLES)}"), bundle.envelope):
            failures.append("the statement that was fixed for it is missing or another one")
        return failures

    def _failures(self, bundle: ReceiptBundle, key: ObjectKey | None = None) -> Iterator[str]:
        """Yield what is wrong with a receipt, which is stored by itself under ``key``."""
        check = verify_bundle(bundle, self.keys)
        yield from check.failures
        if key is not None and check.request_id is not None and key != bundle_key(check.request_id):
            yield "it is the receipt of another request than its name says"
        if not check.origin or self.log.problems:
            return
        size = check.log_size
        is_covered = self.tree.start <= size <= self.log.entries - self.log.uncovered
        if not is_covered or self.tree.root(size) != check.log_root:
            yield f"its checkpoint of size {size} is not the log's"

    def _without_receipt(self, start: int, statements: Mapping[int, bytes]) -> Iterator[str]:
        """Yield the entries without a receipt: a crash may leave one, until the receipt is issued again."""
        for number in range(start, self.tree.size):
            (expected,) = self.tree.leaf_hashes(number, number + 1)
            if number in statements and leaf_hash(statements[number]) == expected:
                continue
            leaf = read_leaf(self.store, number)
            if leaf is None:
                continue  # named already
            try:
                request_id = request_id_in(leaf)
                bundle = self.archive.alone(request_id) or self.archive.find(request_id)
            except (Corrupt, Invalid):
                continue  # named already
            if bundle is None:
                yield f"entry {number}: its receipt is missing"
            elif (bundle.index, bundle.envelope) != (number, leaf):
                yield f"entry {number}: the receipt of its request is another one"

    def _has_receipt(self, request_id: str) -> bool:
        return self._holds(bundle_key(request_id)) or self.archive.packed_at(request_id) is not None

    def _holds(self, key: ObjectKey, payload: bytes | None = None) -> bool:
        """Return whether the store has the object, and ``payload`` in it if one is given."""
        try:
            found = self.store.get(key).payload
        except ObjectMissing:
            return False
        return payload is None or found == payload


def read_checked(store: ObjectStore, layout: LogLayout, keys: Sequence[PublicKey]) -> SoundPacks | None:
    """Return what an earlier check found sound; None: nothing was checked yet.

    Raises ``Corrupt`` when the record is damaged, or its checkpoint is not this log's, ``Invalid`` when a newer version
    wrote it.
    """
    try:
        stored = decode_record(store.get(CHECKED).payload, CHECKED, frozenset({"packs", "checkpoint", "at"}))
    except ObjectMissing:
        return None
    checkpoint = open_checkpoint(str(stored["checkpoint"]), keys, layout.origin).checkpoint
    count = stored["packs"]
    if type(count) is not int or not 0 <= count * packs.TILE_ENTRIES <= checkpoint.size:
        raise Corrupt("the record of the last check is not what was written", "Run 'sisa verify --all'.", key=CHECKED)
    return SoundPacks(packs=count, checkpoint=checkpoint)


def keep_checked(store: ObjectStore, log: LogCheck, at: str) -> None:
    """Record that the log, and the receipts in all its packs, were found sound; another check may be faster."""
    payload = encode_record({"packs": log.packed, "checkpoint": log.checkpoint, "at": at})
    with suppress(ObjectChanged, ObjectExists, OutcomeUnknown):
        try:
            store.put_if_match(CHECKED, payload, store.get(CHECKED).tag)
        except ObjectMissing:
            store.put_if_absent(CHECKED, payload)


def forget_checked(store: ObjectStore) -> None:
    """Have the next check read everything."""
    with suppress(ObjectMissing):
        store.get(CHECKED)
        store.delete(CHECKED)
