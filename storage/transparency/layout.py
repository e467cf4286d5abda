"""The keys of a log's objects, and how each is read; ``log`` explains the objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from storage.encodings import from_base64, to_base64
from storage.errors import Corrupt, ObjectMissing
from storage.objects import ObjectKey, ObjectStore
from storage.records import decode_record, encode_record
from storage.registers.numbered import number_of, numbered_key
from storage.transparency import packs
from storage.transparency.merkle import HASH_BYTES, MerkleTree
from storage.transparency.packs import Pack, pack_from_bytes

REMEDY = "Stop, keep the store as it is, and compare the log with a copy."

_NAMES = frozenset({"index", "leaf"})


_LOG = "log"
ENTRIES = f"{_LOG}/entries/"
"""Folder of the log's entries that are not in a pack."""
PACKS = f"{_LOG}/packs/"
"""Folder of the packs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLayout:
    """The keys of the log's objects, and the log's name."""

    origin: str
    """First line of its checkpoints."""
    prefix: str = _LOG

    def entry(self, number: int) -> ObjectKey:
        """Return the key of entry ``number``, 0 for the first."""
        return self._numbered("entries", number)

    def checkpoint(self, size: int) -> ObjectKey:
        """Return the key of the checkpoint over the first ``size`` entries."""
        return self._numbered("checkpoint", size)

    def tile(self, number: int) -> ObjectKey:
        """Return the key of tile ``number``."""
        return self._numbered("tiles", number)

    def pack(self, number: int) -> ObjectKey:
        """Return the key of pack ``number``."""
        return self._numbered("packs", number)

    def numbers(self, store: ObjectStore, folder: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the numbers in a folder, rising, and the keys there that are not a number."""
        found, foreign = [], []
        for info in store.list(f"{self.prefix}/{folder}/"):
            number = number_of(info.key.removeprefix(f"{self.prefix}/{folder}/"))
            foreign.append(info.key) if number is None else found.append(number)
        return tuple(sorted(found)), tuple(sorted(foreign))

    def _numbered(self, folder: str, number: int) -> ObjectKey:
        return numbered_key(f"{self.prefix}/{folder}", number)


ANY_LOG = LogLayout(origin="")
"""Where entries are stored; their keys do not depend on the log's name."""


def entry_to_bytes(number: int, leaf: bytes) -> bytes:
    """Return the stored form of entry ``number``."""
    return encode_record({"index": number, "leaf": to_base64(leaf)})


def entry_leaf(payload: bytes, number: int, key: ObjectKey) -> bytes:
    """Return the leaf of entry ``number``. Raises ``Corrupt`` for damage, or when it is another entry."""
    fields = decode_record(payload, key, _NAMES)
    index, leaf = fields["index"], fields["leaf"]
    if isinstance(index, bool) or index != number or not isinstance(leaf, str):
        raise Corrupt("an entry of the log is stored under another entry's number", REMEDY, key=key)
    return from_base64(leaf)


def tile_bytes(tree: MerkleTree, number: int) -> bytes:
    """Return the stored form of tile ``number``: its leaf hashes, joined."""
    return b"".join(tree.leaf_hashes(number * packs.TILE_ENTRIES, (number + 1) * packs.TILE_ENTRIES))


def tile_hashes(payload: bytes, number: int) -> Iterator[bytes]:
    """Yield the leaf hashes of a stored tile. Raises ``Corrupt`` for another length; the content shows in the root."""
    if len(payload) != packs.TILE_ENTRIES * HASH_BYTES:
        raise Corrupt("a part of the log's hashes is damaged", REMEDY, tile=number)
    return (payload[start : start + HASH_BYTES] for start in range(0, len(payload), HASH_BYTES))


def count_packs(store: ObjectStore, layout: LogLayout) -> int:
    """Return how many packs there are. Raises ``Corrupt`` when one before the last is missing."""
    numbers, _ = layout.numbers(store, "packs")
    for expected, number in enumerate(numbers):
        if number != expected:
            raise Corrupt("a part of the log's entries is missing", REMEDY, pack=expected)
    return len(numbers)


def is_discarded(store: ObjectStore, layout: LogLayout, number: int) -> bool:
    """Return whether all objects that pack ``number`` replaced are deleted."""
    try:
        store.get(layout.entry((number + 1) * packs.TILE_ENTRIES - 1))
    except ObjectMissing:
        return True
    return False


def is_all_packed(store: ObjectStore, layout: LogLayout) -> bool:
    """Return whether every tile is in a pack, and all objects that the last pack replaced are deleted."""
    count = count_packs(store, layout)
    tiles, _ = layout.numbers(store, "tiles")
    return len(tiles) <= count and (not count or is_discarded(store, layout, count - 1))


def read_pack(store: ObjectStore, layout: LogLayout, number: int, *, durable: bool = False) -> Pack:
    """Return the pack, durable where that is asked for.

    Raises ``ObjectMissing`` when there is none, ``Corrupt`` when it is damaged.
    """
    key = layout.pack(number)
    return pack_from_bytes((store.get_durable if durable else store.get)(key).payload, number, key)


def resumed(store: ObjectStore, layout: LogLayout, count: int) -> MerkleTree:
    """Return the tree of the first ``count`` packs' entries, which covers the entries that follow them."""
    if not count:
        return MerkleTree()
    pack = read_pack(store, layout, count - 1)
    return MerkleTree(start=pack.end, subtrees=pack.subtrees)


def read_entry(store: ObjectStore, layout: LogLayout, number: int, packed: int | None = None) -> bytes:
    """Return the leaf of an entry, from its pack or its own object; ``packed`` is the number of packs, if it is known.

    Raises ``ObjectMissing`` when there is none, ``Corrupt`` or ``Invalid`` when it is not what was written.
    """
    place = number // packs.TILE_ENTRIES
    key = layout.entry(number)
    try:
        alone = None if packed is not None and place < packed else store.get(key).payload
    except ObjectMissing:
        alone = None
    try:
        # The pack first: an entry is deleted after its pack is written, and an entry whose pack exists is a leftover.
        if alone is None or packed is None:
            pack = read_pack(store, layout, place)
            return pack.entries[number - pack.start].leaf
    except ObjectMissing:
        if alone is None:
            raise
    return entry_leaf(alone, number, key)
