"""Receipts as they are stored: each by itself at first, then in the packs of the log; found by request id either way.

    receipts/envelopes/<digest>    the signed statement: fixed at the first attempt
    receipts/bundles/<digest>      what is handed out: fixed once the statement is in the log
    receipts/index/<x>             which entry of the log is whose receipt, for packed receipts whose digest begins so

The digest is the SHA-256 of the request id. In a pack, a statement is the entry's leaf, and the rest of the receipt is
stored with it, so that the same bytes are handed out for ever. The index is durable before what it replaces is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from coordinator.receipts.bundles import ReceiptBundle, bundle_from_bytes, read_statement
from storage.digests import canonical_json, sha256
from storage.each import Each
from storage.errors import Corrupt, ObjectChanged, ObjectExists, ObjectMissing, OutcomeUnknown, Unavailable
from storage.objects import ObjectKey, ObjectStore, VersionTag, object_key
from storage.records import decode_record, encode_record
from storage.transparency import packs
from storage.transparency.envelope import envelope_payload
from storage.transparency.layout import ANY_LOG, read_pack
from storage.transparency.packs import PackedEntry

BUNDLES: Final = "receipts/bundles/"
ENVELOPES: Final = "receipts/envelopes/"
INDEX: Final = "receipts/index/"

_ATTEMPTS: Final = 64
_FOLDER_LETTERS: Final = 1
"""Sixteen objects: each listing of the store includes them all, and each pack changes nearly all of them."""
INDEX_LETTERS: Final = 32
"""Hexadecimal digits of a digest that the index keeps: 128 bits, so that two request ids that share them cannot be
found."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The receipts of one store. Holds no state: every call reads the store."""

    store: ObjectStore
    each: Each

    def find(self, request_id: str, *, durable: bool = False) -> ReceiptBundle | None:
        """Return the receipt of this request, made durable if ``durable``; None: there is none.

        Raises ``Corrupt`` when it is not what was written.
        """
        alone = self.alone(request_id, durable=durable)
        number = self.packed_at(request_id) if alone is None else alone.index
        if number is None:
            return None
        packed = self._packed(number)  # even if there is a separately stored one, which may be a leftover
        if packed is None and alone is None:
            raise Corrupt("a pack of the log is missing, which has a receipt", "See 'sisa log --check'.", entry=number)
        bundle = packed or alone
        assert bundle is not None
        if request_id_in(bundle.envelope) != request_id:
            raise Corrupt(
                "the receipt under this request's name is another request's",
                "See 'sisa log --check'.",
                key=bundle_key(request_id),
            )
        return bundle

    def alone(self, request_id: str, *, durable: bool = False) -> ReceiptBundle | None:
        """Return the receipt that is stored by itself; None: there is none."""
        read = self.store.get_durable if durable else self.store.get
        try:
            return bundle_from_bytes(read(bundle_key(request_id)).payload)
        except ObjectMissing:
            return None

    def packed_at(self, request_id: str) -> int | None:
        """Return which entry of the log is the receipt of this request, if that is in a pack."""
        name = _name(request_id)
        return self._index(_index_key(name))[0].get(name[:INDEX_LETTERS])

    def is_packed(self, key: ObjectKey) -> bool:
        """Return whether the index names the request whose receipt or statement has this key."""
        name = index_name(key)
        return name in self._index(_index_key(name))[0]

    def packed(self) -> Mapping[str, int]:
        """Return the whole index: the entry's number by ``index_name``."""
        keys = [info.key for info in self.store.list(INDEX)]
        return {name: number for found, _ in self.each(self._index, keys) for name, number in found.items()}

    def note(self, numbers: Mapping[str, int]) -> None:
        """Have the index name these entries by request id, durably; what it names already stays."""
        folders: dict[ObjectKey, dict[str, int]] = {}
        for request_id, number in numbers.items():
            name = _name(request_id)
            folders.setdefault(_index_key(name), {})[name[:INDEX_LETTERS]] = number
        self.each(lambda folder: self._note(*folder), list(folders.items()))

    def take_out(self, request_ids: Iterable[str]) -> None:
        """Delete what is stored by itself of receipts that are in packs, durably."""
        ids = list(request_ids)
        self.each(self.store.delete, [*map(bundle_key, ids), *map(envelope_key, ids)])

    def _packed(self, number: int) -> ReceiptBundle | None:
        try:
            pack = read_pack(self.store, ANY_LOG, number // packs.TILE_ENTRIES)
        except ObjectMissing:
            return None
        return unpacked(pack.entries[number - pack.start])

    def _note(self, key: ObjectKey, numbers: Mapping[str, int]) -> None:
        for _ in range(_ATTEMPTS):
            found, tag = self._index(key)
            if numbers.keys() <= found.keys():
                self.store.get_durable(key)  # perhaps by a put that is not known to be durable
                return
            payload = encode_record({"entries": {**numbers, **found}})
            try:
                if tag is None:
                    self.store.put_if_absent(key, payload)
                else:
                    self.store.put_if_match(key, payload, tag)
            except (ObjectExists, ObjectChanged, OutcomeUnknown):
                continue
            return
        raise Unavailable("other writers keep changing the receipts' index", "Try again.", key=key)

    def _index(self, key: ObjectKey) -> tuple[dict[str, int], VersionTag | None]:
        try:
            stored = self.store.get(key)
        except ObjectMissing:
            return {}, None
        entries = decode_record(stored.payload, key, frozenset({"entries"}))["entries"]
        found = (
            {name: number for name, number in entries.items() if type(number) is int}
            if isinstance(entries, dict)
            else None
        )
        if found is None or found != entries:
            raise Corrupt("the receipts' index is not what was written", "Restore the object from a copy.", key=key)
        return found, stored.tag


def bundle_key(request_id: str) -> ObjectKey:
    """Return where the receipt of this request is stored by itself."""
    return object_key(f"{BUNDLES}{_name(request_id)}")


def envelope_key(request_id: str) -> ObjectKey:
    """Return where the statement about this request is fixed."""
    return object_key(f"{ENVELOPES}{_name(request_id)}")


def index_name(key: ObjectKey) -> str:
    """Return what the index calls the request whose receipt or statement has this key."""
    return key.rpartition("/")[2][:INDEX_LETTERS]


def request_id_in(envelope: bytes) -> str:
    """Return the id of the request that a statement is about. Raises ``Corrupt`` for anything else."""
    return str(read_statement(envelope_payload(envelope))["predicate"]["request"]["id"])


def to_pack(bundle: ReceiptBundle) -> PackedEntry:
    """Return the receipt as an entry of a pack."""
    record = json.loads(bundle.to_bytes())
    del record["envelope"]
    return PackedEntry(leaf=bundle.envelope, beside=canonical_json(record))


def unpacked(entry: PackedEntry) -> ReceiptBundle:
    """Return the receipt that ``to_pack`` was given. Raises ``Corrupt``, or ``Invalid`` for a newer version's."""
    try:
        record = {**json.loads(entry.beside), "envelope": json.loads(entry.leaf)}
    except (ValueError, TypeError, RecursionError):
        raise Corrupt("a pack of the log holds something that is not a receipt", "See 'sisa log --check'.") from None
    return bundle_from_bytes(canonical_json(record))


def _name(request_id: str) -> str:
    """Return a request id as one segment of a key, in which nothing of it can be read."""
    return sha256(request_id.encode("utf-8", "surrogatepass"))


def _index_key(name: str) -> ObjectKey:
    return object_key(f"{INDEX}{name[:_FOLDER_LETTERS]}")
