"""Packs: entries put together in one object, while writers crash, sleep or race, and nothing of the log is lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from storage.digests import canonical_json, digest_of
from storage.encodings import to_base64
from storage.errors import Corrupt, Invalid, OutcomeUnknown
from storage.objects import ObjectKey, ObjectStore
from storage.records import encode_record
from storage.stores.memory import MemoryStore
from storage.transparency import packs
from storage.transparency.check import check_log, has_entry, log_growth, read_leaf, read_leaves
from storage.transparency.checkpoint import open_checkpoint
from storage.transparency.keys import SigningKey
from storage.transparency.layout import LogLayout, entry_to_bytes, is_discarded
from storage.transparency.log import Overtaken, TransparencyLog
from storage.transparency.merkle import MerkleTree, leaf_hash, verify_consistency, verify_inclusion
from storage.transparency.packs import Pack, PackedEntry, pack_from_bytes, pack_to_bytes
from tests.doubles.stores.faulty_store import WRITES, Crash, Fault, FaultyStore
from tests.doubles.stores.interrupted_store import InterruptedStore

LAYOUT = LogLayout(origin="sisa-ray/tests")
KEY = SigningKey("checkpoints", bytes(range(32)))
KEYS = (KEY.public,)
WIDTH = 4


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles and packs of four entries."""
    monkeypatch.setattr(packs, "TILE_ENTRIES", WIDTH)


def log_of(store: ObjectStore) -> TransparencyLog:
    """A writer that has read nothing yet."""
    return TransparencyLog(store, LAYOUT, signer=KEY, keys=lambda: KEYS, admits=lambda _: True)


def pack_all(store: ObjectStore) -> None:
    """Pack every full tile, and finish what was left of the last."""
    log = log_of(store)
    entries = log.unpacked()
    if log.packed and not is_discarded(store, LAYOUT, log.packed - 1):
        log.discard(log.packed - 1)
    while entries:
        log.discard(log.pack([PackedEntry(leaf=leaf, beside=b"beside " + leaf) for _, leaf in entries]))
        entries = log.unpacked()


def leaves(start: int, end: int) -> list[bytes]:
    """Leaves that say their number."""
    return [b"%d" % number for number in range(start, end)]


def assert_whole(store: ObjectStore, expected: Sequence[bytes]) -> None:
    """The log has exactly these leaves, all covered, and nothing is wrong with it."""
    check = check_log(store, LAYOUT, KEYS)
    assert check.problems == ()
    assert (check.entries, check.uncovered) == (len(expected), 0)
    assert list(read_leaves(store, LAYOUT)) == list(enumerate(expected))


def numbers(store: ObjectStore, folder: str) -> list[int]:
    """Numbers of the objects in a folder."""
    return list(LAYOUT.numbers(store, folder)[0])


def filled(store: ObjectStore, count: int, batch: int = 3) -> str:
    """Append so many leaves, a few at a time, and return the first checkpoint."""
    log = log_of(store)
    for start in range(0, count, batch):
        log.append(leaves(start, min(start + batch, count)))
    return store.get(LAYOUT.checkpoint(min(batch, count))).payload.decode()


def test_a_packed_log_is_the_same_log(store: ObjectStore) -> None:
    """Packs take the place of entries and old checkpoints, and the log goes on; on every kind of store."""
    first = filled(store, 14)
    pack_all(store)
    assert numbers(store, "packs") == numbers(store, "tiles") == [0, 1, 2]
    assert numbers(store, "entries") == [12, 13]
    assert numbers(store, "checkpoint") == [12, 14]
    assert_whole(store, leaves(0, 14))
    log = log_of(store)
    assert log.last() == b"13"
    assert log.append(leaves(13, 17)) == (13, 14, 15, 16)
    found = log.prove(15)
    checkpoint = open_checkpoint(found.checkpoint, KEYS).checkpoint
    root = MerkleTree(map(leaf_hash, leaves(0, 17))).root(17)
    assert (checkpoint.size, checkpoint.root) == (17, root)
    assert verify_inclusion(leaf=leaf_hash(b"15"), index=15, size=17, proof=found.proof, root=root)
    pack_all(store)
    assert_whole(store, leaves(0, 17))
    check = check_log(store, LAYOUT, KEYS, first)
    assert (check.problems, check.earlier) == ((), 3)
    assert [read_leaf(store, number) for number in (0, 5, 16)] == [b"0", b"5", b"16"]
    assert [has_entry(store, number) for number in (0, 16, 17)] == [True, True, False]
    assert read_leaf(store, 17) is None


def test_the_last_entry_may_be_in_a_pack(memory: MemoryStore) -> None:
    """Where everything is packed, the last statement is still found."""
    filled(memory, WIDTH)
    pack_all(memory)
    assert log_of(memory).last() == b"3"
    assert numbers(memory, "entries") == []


def test_a_start_reads_one_pack(memory: MemoryStore) -> None:
    """However long the log is, a writer that starts reads its last pack, what came after it, and nothing else."""
    filled(memory, 10 * WIDTH + 2)
    pack_all(memory)
    counted = FaultyStore(memory)
    assert log_of(counted).append([b"new"]) == (10 * WIDTH + 2,)
    reads = [key for operation, key in counted.calls if operation == "get"]
    assert reads == [
        LAYOUT.pack(9),
        *(LAYOUT.entry(number) for number in range(40, 42)),
        LAYOUT.checkpoint(42),
        LAYOUT.entry(42),
        LAYOUT.pack(10),
        LAYOUT.pack(10),
    ]


def test_growth_is_proved_over_packs(memory: MemoryStore) -> None:
    """From every earlier size to the newest the proof is that of the whole tree."""
    filled(memory, 5 * WIDTH + 1)
    tree = MerkleTree(map(leaf_hash, leaves(0, 21)))
    pack_all(memory)
    for earlier in range(1, 22):
        grown = log_growth(memory, LAYOUT, KEYS, earlier)
        assert grown is not None
        assert grown.consistency == tuple(each.hex() for each in tree.consistency_proof(earlier, 21))
        proof = tuple(bytes.fromhex(each) for each in grown.consistency)
        assert verify_consistency(
            old_size=earlier, old_root=tree.root(earlier), size=21, root=tree.root(21), proof=proof
        )


def test_an_earlier_versions_log_is_packed(memory: MemoryStore) -> None:
    """A log without packs, however long, is read, and packed by the next writer, which writes its tiles, too."""
    filled(memory, 11)
    memory.delete(LAYOUT.tile(1))  # as a crash before it leaves the log
    pack_all(memory)
    assert numbers(memory, "packs") == numbers(memory, "tiles") == [0, 1]
    log_of(memory).append([b"11"])
    assert_whole(memory, leaves(0, 12))


def test_all_writes_of_packing_were_crash_points(memory: MemoryStore) -> None:
    """The crash test below reaches every write."""
    filled(memory, 2 * WIDTH)
    store = FaultyStore(memory)
    pack_all(store)
    assert sum(operation in WRITES for operation, _ in store.calls) == PACKING_WRITES


PACKING_WRITES = 12  # two packs, eight entries and two checkpoints


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [Crash, OutcomeUnknown])
@pytest.mark.parametrize("nth", range(1, PACKING_WRITES + 1))
def test_packing_breaks_off_anywhere(memory: MemoryStore, when: str, error: type[BaseException], nth: int) -> None:
    """Any write of packing may fail or end the process: the log is whole, and the next one finishes it."""
    filled(memory, 2 * WIDTH)
    store = FaultyStore(memory, (Fault(when=when, operation="write", nth=nth, error=error),))  # type: ignore[arg-type]
    try:
        pack_all(store)
    except (Crash, OutcomeUnknown):
        assert_whole(memory, leaves(0, 8))
        assert log_of(memory).last() == b"7"
    pack_all(memory)
    assert (numbers(memory, "entries"), numbers(memory, "packs")) == ([], [0, 1])
    assert log_of(memory).append([b"8"]) == (8,)
    assert_whole(memory, leaves(0, 9))


@pytest.mark.parametrize("seen", range(3 * WIDTH))
def test_a_writer_that_slept_through_packing_forks_nothing(memory: MemoryStore, seen: int) -> None:
    """Regardless of what a writer had read before others appended and packed, it continues from the packs."""
    filled(memory, seen) if seen else None
    sleeper = log_of(memory)
    sleeper.append([])
    log_of(memory).append(leaves(seen, 3 * WIDTH + 1))
    pack_all(memory)
    assert sleeper.append([b"late"]) == (3 * WIDTH + 1,)
    assert_whole(memory, [*leaves(0, 3 * WIDTH + 1), b"late"])


def _others(store: ObjectStore) -> None:
    log_of(store).append([b"other %d" % number for number in range(2 * WIDTH)])
    pack_all(store)


@pytest.mark.parametrize("nth", range(1, 12))
def test_a_writer_that_is_overtaken_in_mid_append_says_so(memory: MemoryStore, nth: int) -> None:
    """Others append and pack between any two operations of an append: it is refused, or right; the log stays whole."""
    filled(memory, 3)
    log = log_of(InterruptedStore(memory, lambda: _others(memory), nth))
    log.append([])
    try:
        (index,) = log.append([b"mine"])
    except Overtaken:
        mine = [number for number, leaf in read_leaves(memory, LAYOUT) if leaf == b"mine"]
        assert len(mine) <= 1
    else:
        assert read_leaf(memory, index) == b"mine"
    assert check_log(memory, LAYOUT, KEYS).problems == ()
    log_of(memory).append([b"next"])
    assert check_log(memory, LAYOUT, KEYS).problems == ()


def test_what_was_found_before_packing_is_refused(memory: MemoryStore) -> None:
    """An owner that looked for its leaves when there were fewer packs has to look again, and nothing is written."""
    filled(memory, WIDTH)
    log = log_of(memory)
    log.append([])
    pack_all(memory)
    with pytest.raises(Overtaken, match="packed entries of the log meanwhile"):
        log.append([b"3"], packed=0)
    assert log.append([b"new"], packed=1) == (WIDTH,)


def test_what_is_left_over_is_not_read(memory: MemoryStore) -> None:
    """An entry that a late write brings back under a pack changes nothing."""
    filled(memory, WIDTH)
    pack_all(memory)
    memory.put_if_absent(LAYOUT.entry(1), entry_to_bytes(1, b"another"))
    assert read_leaf(memory, 1) == b"1"
    assert log_of(memory).append([b"4"]) == (WIDTH,)
    assert_whole(memory, leaves(0, 5))


def _replace(memory: MemoryStore, key: ObjectKey, payload: bytes | None) -> None:
    memory.delete(key)
    if payload is not None:
        memory.put_if_absent(key, payload)


def test_every_flipped_bit_of_a_pack_is_found(memory: MemoryStore) -> None:
    """The check names a pack in which any byte was altered."""
    filled(memory, 2 * WIDTH)
    pack_all(memory)
    for number in (0, 1):
        key = LAYOUT.pack(number)
        whole = memory.get(key).payload
        for place in range(len(whole)):
            _replace(memory, key, whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            problems = check_log(memory, LAYOUT, KEYS).problems
            assert any(f"pack {number}:" in problem for problem in problems), place
        _replace(memory, key, None)
        assert check_log(memory, LAYOUT, KEYS).problems
        _replace(memory, key, whole)
    assert check_log(memory, LAYOUT, KEYS).is_sound


def test_a_pack_that_was_written_anew_is_found(memory: MemoryStore) -> None:
    """A pack in good form of other leaves, or of another log's hashes, does not pass: writer and check stop at it."""
    filled(memory, WIDTH)
    pack_all(memory)
    pack = pack_from_bytes(memory.get(LAYOUT.pack(0)).payload, 0, LAYOUT.pack(0))
    other = PackedEntry(leaf=b"other", beside=b"")
    for altered in (
        Pack(number=0, subtrees=pack.subtrees, entries=(other, *pack.entries[1:])),
        Pack(number=0, subtrees=(bytes(32),), entries=pack.entries),
    ):
        _replace(memory, LAYOUT.pack(0), pack_to_bytes(altered))
        assert check_log(memory, LAYOUT, KEYS).problems
    with pytest.raises(Corrupt, match="not those that its checkpoint has signed"):
        log_of(memory).append([b"new"])


def test_lost_checkpoints_over_packs_are_found(memory: MemoryStore) -> None:
    """Packs show that checkpoints existed: a log that has lost them is named, and not signed again."""
    filled(memory, WIDTH)
    pack_all(memory)
    memory.delete(LAYOUT.checkpoint(WIDTH))
    assert check_log(memory, LAYOUT, KEYS).problems == (
        "the newest checkpoints are missing: one covered the 4 entries in packs",
    )
    with pytest.raises(Corrupt, match=r"newest checkpoints are missing \[newest=0 entries=4\]"):
        log_of(memory).append([b"new"])


def test_a_lost_pack_stops_the_writer(memory: MemoryStore) -> None:
    """A gap among the packs is named; nothing is signed over it."""
    filled(memory, 2 * WIDTH)
    pack_all(memory)
    memory.delete(LAYOUT.pack(0))
    assert "pack 0 is missing" in check_log(memory, LAYOUT, KEYS).problems
    with pytest.raises(Corrupt, match=r"a part of the log's entries is missing \[pack=0\]"):
        log_of(memory).append([b"new"])


def test_a_newer_versions_pack_is_refused_by_its_version(memory: MemoryStore) -> None:
    """What this version cannot read is not called damaged."""
    filled(memory, WIDTH)
    pack_all(memory)
    whole = memory.get(LAYOUT.pack(0)).payload
    with pytest.raises(Corrupt, match="is not what was written"):
        pack_from_bytes(whole, 1, LAYOUT.pack(1))

    record = {"format_version": 2, "number": 0}
    newer = canonical_json({**record, "sha256": digest_of(record)})
    with pytest.raises(Invalid, match="newer version"):
        pack_from_bytes(newer, 0, LAYOUT.pack(0))


@pytest.mark.parametrize("content", [b"not zlib", b"", b"x\x9c"])
def test_a_pack_without_content_is_damaged(content: bytes) -> None:
    """A record in good form with invalid content is refused by its key."""
    payload = encode_record({"number": 0, "subtrees": ["00" * 32], "entries": to_base64(content)})
    with pytest.raises(Corrupt, match=r"a pack of the log's entries is not what was written \[key=log/packs/0+\]"):
        pack_from_bytes(payload, 0, LAYOUT.pack(0))


def test_any_bytes_are_packed() -> None:
    """Leaves and what stands beside them may be any bytes, and come back as they were."""
    every = bytes(range(256))
    entries = tuple(PackedEntry(leaf=every[number:], beside=every[:number]) for number in range(WIDTH))
    pack = Pack(number=0, subtrees=(bytes(32),), entries=entries)
    assert pack_from_bytes(pack_to_bytes(pack), 0, LAYOUT.pack(0)) == pack
