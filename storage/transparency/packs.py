"""Packs: 256 entries of a log in one object, once nothing about them changes any more.

    log/packs/<k>    entries 256 k to 256 k + 255, and what belongs to each: a record, created once

    {"number": k,
     "subtrees": the complete subtrees that the entries up to the pack's end hash to, the largest first, hexadecimal,
     "entries": base64 of a zlib stream of canonical JSON: [[leaf, beside], ...], each byte a character (ISO 8859-1)}

Packs are created in the order of their numbers. The objects that a pack replaces are deleted after it is durable, so a
writer that creates one of these objects again finds the pack when it checks for one afterwards.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.digests import canonical_json
from storage.encodings import from_base64, from_hex, to_base64
from storage.errors import Corrupt
from storage.objects import ObjectKey
from storage.records import decode_record, encode_record
from storage.transparency.merkle import HASH_BYTES

TILE_ENTRIES: Final = 256
"""Entries of a tile, a log's object of leaf hashes, and of a pack."""

_LEVEL: Final = 6
_MOST_BYTES: Final = 1 << 30
"""Limit of the unpacked size: an account that can write to the store must not fill a reader's memory with a small
object."""
_NAMES: Final = frozenset({"number", "subtrees", "entries"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedEntry:
    """One entry."""

    leaf: bytes
    beside: bytes
    """Data that the log's owner keeps with the entry, such as the proof that was handed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """The entries of one tile."""

    number: int
    subtrees: tuple[bytes, ...]
    """The complete subtrees of the log up to the pack's end, the largest first."""
    entries: tuple[PackedEntry, ...]

    @property
    def start(self) -> int:
        """Number of the first entry."""
        return self.number * TILE_ENTRIES

    @property
    def leaves(self) -> tuple[bytes, ...]:
        """The entries alone."""
        return tuple(each.leaf for each in self.entries)

    @property
    def end(self) -> int:
        """One more than the number of the last entry."""
        return self.start + len(self.entries)


def pack_to_bytes(pack: Pack) -> bytes:
    """Return the stored form of a pack."""
    texts = [[each.leaf.decode("latin-1"), each.beside.decode("latin-1")] for each in pack.entries]
    packed = zlib.compress(canonical_json(texts), _LEVEL)
    subtrees = [each.hex() for each in pack.subtrees]
    return encode_record({"number": pack.number, "subtrees": subtrees, "entries": to_base64(packed)})


def pack_from_bytes(payload: bytes, number: int, key: ObjectKey) -> Pack:
    """Return the pack of this number. Raises ``Corrupt`` for damage, or when it is another pack."""
    fields = decode_record(payload, key, _NAMES)
    found, subtrees, entries = fields["number"], fields["subtrees"], fields["entries"]
    end = (number + 1) * TILE_ENTRIES
    if type(found) is not int or found != number or not isinstance(entries, str):
        raise _damaged(key)
    return Pack(
        number=number,
        subtrees=_hashes(subtrees, end.bit_count(), key),
        entries=_entries(from_base64(entries), key),
    )


def _hashes(found: object, count: int, key: ObjectKey) -> tuple[bytes, ...]:
    if not isinstance(found, list) or len(found) != count or not all(isinstance(each, str) for each in found):
        raise _damaged(key)
    hashes = tuple(from_hex(each) for each in found)
    if any(len(each) != HASH_BYTES for each in hashes):
        raise _damaged(key)
    return hashes


def _entries(packed: bytes, key: ObjectKey) -> tuple[PackedEntry, ...]:
    unpacker = zlib.decompressobj()
    try:
        texts = json.loads(unpacker.decompress(packed, _MOST_BYTES))
        pairs: Sequence[tuple[str, str]] = [(leaf, beside) for leaf, beside in texts]
        found = tuple(
            PackedEntry(leaf=leaf.encode("latin-1"), beside=beside.encode("latin-1")) for leaf, beside in pairs
        )
    except (zlib.error, ValueError, TypeError, AttributeError, RecursionError):
        raise _damaged(key) from None
    if not unpacker.eof or unpacker.unused_data or len(found) != TILE_ENTRIES:
        raise _damaged(key)
    return found


def _damaged(key: ObjectKey) -> Corrupt:
    return Corrupt(
        "a pack of the log's entries is not what was written",
        "Stop, keep the store as it is, and restore the object from a copy.",
        key=key,
    )
