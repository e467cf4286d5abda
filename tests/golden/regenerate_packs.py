"""Write the golden files of packs, and of what names them, again: ``python -m tests.golden.regenerate_packs``.

A difference that this makes is a change of a stored format: raise ``format_version`` and keep reading the old one. Only
the compressed bytes may differ, with the zlib that is installed.
"""

from __future__ import annotations

from pathlib import Path

from coordinator.receipts.archive import Archive
from coordinator.receipts.checking import keep_checked
from coordinator.receipts.packing import ORIGIN, announce_packs, create_layout
from storage.digests import sha256
from storage.each import in_turn
from storage.objects import object_key
from storage.stores.memory import MemoryStore
from storage.transparency.check import LogCheck
from storage.transparency.checkpoint import LogCheckpoint, sign_checkpoint
from storage.transparency.keys import SigningKey
from storage.transparency.packs import TILE_ENTRIES, Pack, PackedEntry, pack_to_bytes

FOLDER = Path(__file__).parent / "packs"

PACK = Pack(
    number=2,
    subtrees=(bytes.fromhex(sha256(b"entries 0 to 511")), bytes.fromhex(sha256(b"entries 512 to 767"))),
    entries=tuple(
        PackedEntry(leaf=b"leaf %d \x00\xff" % number, beside=b'{"proof":%d}' % number)
        for number in range(TILE_ENTRIES)
    ),
)
NUMBERS = {"erase-0001": 513, "erase-0123": 514}
"""Two request ids whose digests begin alike, and their entries."""
INDEX = object_key(f"receipts/index/{sha256(b'erase-0001')[:1]}")
CHECKED = object_key("log/checked")
LOG = "sisa-ray/golden"
KEY = SigningKey("checkpoints", bytes(range(32)))
CHECKPOINT = LogCheckpoint(origin=LOG, size=520, root=bytes(range(32)))


def golden() -> dict[str, bytes]:
    """The golden files by name."""
    store = MemoryStore("golden-packs")
    store.forget()
    Archive(store, in_turn).note(NUMBERS)
    create_layout(store, LOG)
    announce_packs(store)
    check = LogCheck(entries=520, root="", checkpoint=sign_checkpoint(CHECKPOINT, KEY), packed=2)
    keep_checked(store, check, "2026-01-01T00:00:00.000+00:00")
    kept = {
        "pack-v1.json": pack_to_bytes(PACK),
        "index-v1.json": store.get(INDEX).payload,
        "origin-with-packs-v1.json": store.get(ORIGIN).payload,
        "checked-v1.json": store.get(CHECKED).payload,
    }
    store.forget()
    return kept


def regenerate() -> None:
    """Write every golden file."""
    FOLDER.mkdir(exist_ok=True)
    for name, payload in golden().items():
        (FOLDER / name).write_bytes(payload)


if __name__ == "__main__":
    regenerate()
