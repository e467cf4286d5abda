"""The log: one order, no gap and no leaf twice, through every race and crash."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from storage.errors import Corrupt, OutcomeUnknown
from storage.objects import ObjectKey, ObjectStore
from storage.stores.memory import MemoryStore
from storage.transparency.check import check_log, read_leaves
from storage.transparency.checkpoint import open_checkpoint
from storage.transparency.keys import SigningKey
from storage.transparency.layout import LogLayout, entry_to_bytes
from storage.transparency.log import TransparencyLog
from storage.transparency.merkle import leaf_hash, verify_inclusion
from storage.transparency.packs import TILE_ENTRIES
from tests.doubles.stores.faulty_store import WRITES, Crash, Fault, FaultyStore

LAYOUT = LogLayout(origin="sisa-ray/tests")
KEY = SigningKey("checkpoints", bytes(range(32)))
ROTATED = SigningKey("checkpoints", bytes(range(1, 33)))
KEYS = (KEY.public, ROTATED.public)


@pytest.fixture
def memory() -> Iterator[MemoryStore]:
    """An empty store."""
    store = MemoryStore("transparency")
    store.forget()
    yield store
    store.forget()


def log_of(store: ObjectStore, signer: SigningKey = KEY) -> TransparencyLog:
    """A writer that has read nothing yet; leaves that start with ``forged`` are not ours."""
    return TransparencyLog(
        store, LAYOUT, signer=signer, keys=lambda: KEYS, admits=lambda leaf: not leaf.startswith(b"forged")
    )


def leaves_of(store: ObjectStore) -> list[bytes]:
    """All leaves, in order, without a gap."""
    found = list(read_leaves(store, LAYOUT))
    assert [number for number, _ in found] == list(range(len(found)))
    return [leaf for _, leaf in found]


def assert_whole(store: ObjectStore, expected: Sequence[bytes]) -> None:
    """The log has exactly these leaves, all covered, and nothing is wrong with it."""
    check = check_log(store, LAYOUT, KEYS)
    assert check.problems == ()
    assert (check.entries, check.uncovered) == (len(expected), 0)
    assert leaves_of(store) == list(expected)


def test_leaves_stand_in_the_order_of_their_appending(store: ObjectStore) -> None:
    """Each append gets the next index, a batch as many, and everything is provable; on every kind of store."""
    log = log_of(store)
    assert log.append([b"a"]) == (0,)
    assert log.append([b"b", b"c"]) == (1, 2)
    assert log_of(store).append([b"d"]) == (3,)
    assert_whole(store, [b"a", b"b", b"c", b"d"])
    log.append([])
    for index, leaf in enumerate([b"a", b"b", b"c", b"d"]):
        found = log.prove(index)
        checkpoint = open_checkpoint(found.checkpoint, KEYS, LAYOUT.origin).checkpoint
        assert checkpoint.size == 4
        assert verify_inclusion(leaf=leaf_hash(leaf), index=index, size=4, proof=found.proof, root=checkpoint.root)


def test_a_leaf_has_one_index(store: ObjectStore) -> None:
    """The same leaf again, by this writer or another, alone or in a batch, keeps its index and writes nothing."""
    log = log_of(store)
    log.append([b"a", b"b"])
    objects = sorted(info.key for info in store.list(""))
    assert log.append([b"b", b"a", b"b"]) == (1, 0, 1)
    assert log_of(store).append([b"b"]) == (1,)
    assert sorted(info.key for info in store.list("")) == objects
    assert log.append([b"c", b"c", b"a"]) == (2, 2, 0)
    assert_whole(store, [b"a", b"b", b"c"])


def test_nothing_is_written_for_nothing(memory: MemoryStore) -> None:
    """An append without leaves leaves an empty log empty."""
    assert log_of(memory).append([]) == ()
    assert list(memory.list("")) == []
    assert check_log(memory, LAYOUT, KEYS).is_sound


def test_a_start_reads_tiles_instead_of_old_entries(memory: MemoryStore) -> None:
    """A writer that starts on a long log reads at most one tile's worth of entries."""
    leaves = [b"%d" % number for number in range(3 * TILE_ENTRIES + 5)]
    log_of(memory).append(leaves)
    counted = FaultyStore(memory)
    assert log_of(counted).append([b"300"]) == (300,)
    reads = [key for operation, key in counted.calls if operation == "get"]
    assert len(reads) == 3 + 5 + 1 + 2  # tiles, the rest, the checkpoint, the entry and the pack that are not there
    assert log_of(memory).append([b"new"]) == (len(leaves),)
    assert_whole(memory, [*leaves, b"new"])


def test_a_retired_keys_checkpoints_stay_good(memory: MemoryStore) -> None:
    """After a rotation the log goes on under the new key, and the old checkpoints still hold."""
    log_of(memory, KEY).append([b"a"])
    old = memory.get(LAYOUT.checkpoint(1)).payload.decode()
    log_of(memory, ROTATED).append([b"b"])
    check = check_log(memory, LAYOUT, KEYS, old)
    assert (check.problems, check.earlier) == ((), 1)
    assert check_log(memory, LAYOUT, [ROTATED.public]).problems == (
        "checkpoint 1: the checkpoint is signed by none of the known keys, or was altered",
    )


STEPS: tuple[tuple[bytes, ...], ...] = ((b"a",), (b"b", b"c"), (b"b", b"d"))
ORDER = [b"a", b"b", b"c", b"d"]
STEP_WRITES = 7  # entries a, b, c, d and a checkpoint for each step


def test_all_writes_were_crash_points(memory: MemoryStore) -> None:
    """The crash test below reaches every write of its steps."""
    store = FaultyStore(memory)
    log = log_of(store)
    for leaves in STEPS:
        log.append(leaves)
    assert sum(operation in WRITES for operation, _ in store.calls) == STEP_WRITES


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [Crash, OutcomeUnknown])
@pytest.mark.parametrize("nth", range(1, STEP_WRITES + 1))
def test_crashes_at_every_write(memory: MemoryStore, when: str, error: type[BaseException], nth: int) -> None:
    """Any write may fail or end the process: repeating the steps gives the same log as a run without a crash."""
    store = FaultyStore(memory, (Fault(when=when, operation="write", nth=nth, error=error),))  # type: ignore[arg-type]
    log = log_of(store)
    try:
        for leaves in STEPS:
            log.append(leaves)
    except Crash:
        assert check_log(memory, LAYOUT, KEYS).problems == ()
        log = log_of(store)
    indexes = [log.append(leaves) for leaves in STEPS]
    assert indexes == [(0,), (1, 2), (1, 3)]
    assert_whole(memory, ORDER)


@pytest.mark.parametrize("nth", range(1, 10))
@pytest.mark.parametrize("length", [2, TILE_ENTRIES])
def test_a_failed_read_loses_nothing(memory: MemoryStore, length: int, nth: int) -> None:
    """When a read or a listing fails in mid-append, the same writer can try again and goes on from the truth."""
    leaves = [b"%d" % number for number in range(length)]
    log_of(memory).append(leaves)
    log = log_of(FaultyStore(memory, (Fault(when="before", operation="any", nth=nth),)))
    for _ in range(3):
        try:
            log.append([b"c", b"0"])
        except OutcomeUnknown:
            continue
    assert log.append([b"d"]) == (length + 1,)
    assert_whole(memory, [*leaves, b"c", b"d"])


def test_a_crash_before_a_tile_heals(memory: MemoryStore) -> None:
    """A tile that a crash prevented is written by the next append."""
    leaves = [b"%d" % number for number in range(TILE_ENTRIES)]
    store = FaultyStore(memory, (Fault(when="before", operation="write", prefix="log/tiles", error=Crash),))
    with pytest.raises(Crash, match="^$"):
        log_of(store).append(leaves)
    assert list(memory.list("log/tiles/")) == []
    log_of(memory).append([b"one more"])
    assert [info.payload_bytes for info in memory.list("log/tiles/")] == [TILE_ENTRIES * 32]
    assert_whole(memory, [*leaves, b"one more"])


def test_interleaved_writers(memory: MemoryStore) -> None:
    """Two writers that take turns, each with an old view of the log, leave one order and no leaf twice."""
    one, two = log_of(memory, KEY), log_of(memory, ROTATED)
    indexes = {}
    for number in range(20):
        leaf = b"%d" % number
        writer, other = (one, two) if number % 3 else (two, one)
        indexes[leaf] = writer.append([leaf, b"shared %d" % (number // 2)])[0]
        assert other.append([leaf])[0] == indexes[leaf]
    found = leaves_of(memory)
    assert len(found) == len(set(found)) == 30
    assert all(found[index] == leaf for leaf, index in indexes.items())
    assert check_log(memory, LAYOUT, KEYS).is_sound


def test_racing_writers(store: ObjectStore) -> None:
    """Eight threads that append the same and other leaves at once leave one order and no leaf twice."""
    results: dict[int, list[int]] = {}
    barrier = threading.Barrier(8)

    def write(writer: int) -> None:
        log = log_of(store, (KEY, ROTATED)[writer % 2])
        barrier.wait()
        results[writer] = [
            index
            for number in range(10)
            for index in log.append([b"shared %d" % number, b"%d of %d" % (number, writer)])
        ]

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = leaves_of(store)
    assert len(found) == len(set(found)) == 10 + 80
    assert len({tuple(indexes[::2]) for indexes in results.values()}) == 1
    for writer, indexes in results.items():
        assert [found[index] for index in indexes[1::2]] == [b"%d of %d" % (number, writer) for number in range(10)]
    assert check_log(store, LAYOUT, KEYS).is_sound


def test_a_foreign_entry_is_never_signed(memory: MemoryStore) -> None:
    """What someone left at the end of the log, well-formed but not ours, stops the writer before it signs anything."""
    log = log_of(memory)
    log.append([b"a"])
    memory.put_if_absent(LAYOUT.entry(1), entry_to_bytes(1, b"forged"))
    for writer in (log, log_of(memory)):
        with pytest.raises(Corrupt, match=r"not ours: nothing was signed \[entry=1\]"):
            writer.append([b"b"])
    assert [info.key for info in memory.list("log/checkpoint/")] == [LAYOUT.checkpoint(1)]
    memory.delete(LAYOUT.entry(1))
    assert log.append([b"b"]) == (1,)
    assert_whole(memory, [b"a", b"b"])


def _damaged(memory: MemoryStore, key: ObjectKey, payload: bytes | None) -> None:
    memory.delete(key)
    if payload is not None:
        memory.put_if_absent(key, payload)


@pytest.mark.parametrize(
    ("key", "payload", "words"),
    [
        (LAYOUT.entry(1), None, r"an entry of the log is missing \[entry=1 checkpoint=3\]"),
        (LAYOUT.entry(2), None, r"an entry of the log is missing \[entry=2 checkpoint=3\]"),
        (LAYOUT.entry(1), entry_to_bytes(1, b"other"), "not those that its checkpoint has signed"),
        (LAYOUT.entry(1), entry_to_bytes(2, b"c"), "is stored under another entry's number"),
        (LAYOUT.entry(1), b"{}", "a stored record is not what was written"),
        (LAYOUT.checkpoint(3), b"nothing", "this text is not a signed checkpoint"),
        (LAYOUT.checkpoint(3), b"\xff\xfe", "this text is not a signed checkpoint"),
    ],
)
def test_nothing_is_signed_over_damage(memory: MemoryStore, key: ObjectKey, payload: bytes | None, words: str) -> None:
    """A writer that starts on a damaged log stops, names what is wrong, and writes nothing."""
    log_of(memory).append([b"a", b"b", b"c"])
    _damaged(memory, key, payload)
    before = [(info.key, info.payload_bytes) for info in memory.list("")]
    with pytest.raises(Corrupt, match=words):
        log_of(memory).append([b"d"])
    assert [(info.key, info.payload_bytes) for info in memory.list("")] == before


@pytest.mark.parametrize(
    ("number", "payload", "words"),
    [
        (0, None, r"a part of the log's hashes is missing \[tile=0\]"),
        (1, b"short", r"a part of the log's hashes is damaged \[tile=1\]"),
        (1, bytes(TILE_ENTRIES * 32), "not those that its checkpoint has signed"),
    ],
)
def test_damaged_tiles_are_found(memory: MemoryStore, number: int, payload: bytes | None, words: str) -> None:
    """A writer never trusts a tile: the signed root must follow from it."""
    log_of(memory).append([b"%d" % each for each in range(2 * TILE_ENTRIES)])
    _damaged(memory, LAYOUT.tile(number), payload)
    with pytest.raises(Corrupt, match=words):
        log_of(memory).append([b"new"])


def test_a_fork_is_refused(memory: MemoryStore) -> None:
    """Where a checkpoint of this size exists over other entries, no second one is made."""
    other = MemoryStore("transparency-other")
    other.forget()
    log_of(other).append([b"x"])
    log = log_of(memory)
    log.append([])
    memory.put_if_absent(LAYOUT.checkpoint(1), other.get(LAYOUT.checkpoint(1)).payload)
    with pytest.raises(Corrupt, match=r"not those that its checkpoint has signed \[checkpoint=1\]"):
        log.append([b"a"])
    other.forget()


def test_lost_checkpoints_under_tiles_are_found(memory: MemoryStore) -> None:
    """Tiles show that checkpoints existed: a log that has lost them is not signed again."""
    log_of(memory).append([b"%d" % each for each in range(TILE_ENTRIES)])
    memory.delete(LAYOUT.checkpoint(TILE_ENTRIES))
    with pytest.raises(Corrupt, match=r"newest checkpoints are missing \[newest=0 entries=256\]"):
        log_of(memory).append([b"new"])
