"""The formats of packs, and of what names them, as the first version wrote them."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib

import pytest

from coordinator.receipts.archive import Archive
from coordinator.receipts.checking import read_checked
from coordinator.receipts.packing import ORIGIN, find_layout
from storage.each import in_turn
from storage.errors import NewerFormat
from storage.objects import object_key
from storage.records import decode_record
from storage.stores.memory import MemoryStore
from storage.transparency.check import SoundPacks
from storage.transparency.layout import LogLayout
from storage.transparency.packs import TILE_ENTRIES, pack_from_bytes
from tests.golden.regenerate_packs import CHECKED, CHECKPOINT, FOLDER, INDEX, LOG, NUMBERS, PACK, golden
from tests.golden.regenerate_packs import KEY as SIGNER

GOLDEN = golden()
KEY = object_key("log/packs/00000000000000000002")


def _unpacked(payload: bytes) -> dict[str, object]:
    """The record with its entries unpacked, by published means alone."""
    record = json.loads(payload)
    digest = record.pop("sha256")
    assert hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest() == digest
    return {**record, "entries": zlib.decompress(base64.b64decode(record["entries"]))}


def test_every_golden_file_is_checked() -> None:
    """Each golden file is read by a test."""
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(GOLDEN)


def test_the_golden_pack_is_read() -> None:
    """What the first version packed is read as it was meant."""
    assert pack_from_bytes((FOLDER / "pack-v1.json").read_bytes(), 2, KEY) == PACK


def test_what_is_packed_is_the_golden_pack() -> None:
    """What this version packs is, unpacked, byte for byte what the first one did."""
    found = _unpacked(GOLDEN["pack-v1.json"])
    assert found == _unpacked((FOLDER / "pack-v1.json").read_bytes())
    assert sorted(found) == ["entries", "format_version", "number", "subtrees"]


def test_a_tile_is_for_good() -> None:
    """Stores rely on how many entries are in a tile and in a pack: the number never changes."""
    assert TILE_ENTRIES == 256


@pytest.mark.parametrize("name", ["checked-v1.json", "index-v1.json", "origin-with-packs-v1.json"])
def test_what_is_written_is_the_golden_file(name: str) -> None:
    """What this version writes is what the first one wrote."""
    assert (FOLDER / name).read_bytes() == GOLDEN[name]


def test_the_golden_index_is_read() -> None:
    """The entries of receipts are found by request id, those of others are not."""
    store = MemoryStore("golden-index")
    store.forget()
    store.put_if_absent(INDEX, (FOLDER / "index-v1.json").read_bytes())
    archive = Archive(store, in_turn)
    assert {request_id: archive.packed_at(request_id) for request_id in NUMBERS} == NUMBERS
    assert archive.packed_at("erase-0261") is None
    store.forget()


def test_the_golden_name_of_a_log_with_packs_is_read() -> None:
    """It is the name that the log had before, and releases without packs refuse it as one of a newer version."""
    store = MemoryStore("golden-origin")
    store.forget()
    store.put_if_absent(ORIGIN, (FOLDER / "origin-with-packs-v1.json").read_bytes())
    layout = find_layout(store)
    assert layout is not None
    assert layout.origin == LOG
    with pytest.raises(NewerFormat, match="written by a newer version"):
        decode_record(store.get(ORIGIN).payload, ORIGIN, frozenset({"origin"}))
    store.forget()


def test_the_golden_record_of_a_check_is_read() -> None:
    """How many packs were sound, under which checkpoint."""
    store = MemoryStore("golden-checked")
    store.forget()
    store.put_if_absent(CHECKED, (FOLDER / "checked-v1.json").read_bytes())
    found = read_checked(store, LogLayout(origin=LOG), (SIGNER.public,))
    assert found == SoundPacks(packs=2, checkpoint=CHECKPOINT)
    store.forget()
