"""Receipts in packs: found as before, in the same bytes, although processes crash or sleep while they are put there."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from coordinator.receipts.archive import INDEX, Archive, bundle_key, envelope_key
from coordinator.receipts.bundles import ReceiptBundle, verify_bundle
from coordinator.receipts.checking import CHECKED
from coordinator.receipts.issuer import Registrar
from coordinator.receipts.packing import ORIGIN
from storage.backups.cut import Part, cut
from storage.backups.repository import Repository
from storage.digests import sha256
from storage.each import in_turn
from storage.errors import Conflict, NewerFormat, ObjectMissing, OutcomeUnknown, SisaError
from storage.objects import ObjectKey, ObjectStore, object_key
from storage.records import decode_record, encode_record
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore
from storage.transparency import packs
from storage.transparency.layout import ANY_LOG
from tests.coordinator.receipts.facts import evidence_of
from tests.doubles.stores.faulty_store import WRITES, Crash, Fault, FaultyStore
from tests.doubles.stores.interrupted_store import InterruptedStore
from tests.doubles.time_and_names import CountingNames, VirtualClock
from tests.volume import examples, spread

pytestmark = pytest.mark.volume

WIDTH = 3


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of three receipts."""
    monkeypatch.setattr(packs, "TILE_ENTRIES", WIDTH)


def registrar(store: ObjectStore, told: list[str] | None = None) -> Registrar:
    """A registrar of a process that has just started."""
    tell = (lambda _: None) if told is None else told.append
    return Registrar(store, VirtualClock(), CountingNames("registrar"), tell=tell)


def issue(store: ObjectStore, start: int, end: int) -> list[ReceiptBundle]:
    """Issue receipts one by one, as a process that has just started does, and pack none."""
    by = registrar(store)
    return [by.issue(evidence_of(f"r{number}")) for number in range(start, end)]


def issued_before(store: MemoryStore, count: int) -> list[ReceiptBundle]:
    """Put the first receipts into an empty store, which were issued once for all tests."""
    issued, objects = _issued(count)
    for key, payload in objects.items():
        store.put_if_absent(key, payload)
    return list(issued)


@cache
def _issued(count: int) -> tuple[list[ReceiptBundle], dict[ObjectKey, bytes]]:
    store = MemoryStore(f"packing-issued-{count}")
    issued = issue(store, 0, count)
    objects = {info.key: store.get(info.key).payload for info in store.list("")}
    store.forget()
    return issued, objects


def pack(store: ObjectStore) -> None:
    """Pack as the next process does after a receipt that was issued before."""
    by = registrar(store)
    by.issue(evidence_of("one more"))
    by.pack()


def names(store: ObjectStore, folder: str) -> list[str]:
    """Objects in a folder."""
    return sorted(info.key.removeprefix(folder) for info in store.list(folder))


def assert_sound(store: ObjectStore, count: int) -> None:
    """Each request has a receipt, and everything holds."""
    check = registrar(store).check_all([f"r{number}" for number in range(count)])
    assert check.broken == ()


def assert_nothing_left_over(store: ObjectStore) -> None:
    """Beside packs stands nothing that they have replaced."""
    packed = len(names(store, "log/packs/")) * WIDTH
    alone = names(store, "log/entries/")
    assert [number for number in map(int, alone) if number < packed] == []
    assert [size for size in map(int, names(store, "log/checkpoint/")) if size < packed] == []
    assert names(store, "receipts/bundles/") == names(store, "receipts/envelopes/")
    assert len(names(store, "receipts/bundles/")) == len(alone)


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_packed_receipts_are_found_in_the_same_bytes(memory: MemoryStore, tmp_path: Path, kind: str) -> None:
    """What was handed out is handed out again, verifies, and is asked for by its request id."""
    store = memory if kind == "memory" else LocalStore(str(tmp_path))
    issued = issue(store, 0, 7)
    pack(store)
    assert len(names(store, "log/packs/")) == 2
    assert names(store, "receipts/bundles/") == names(store, "receipts/envelopes/")
    assert len(names(store, "receipts/bundles/")) == len(names(store, "log/entries/")) == 2
    reader = registrar(store)
    for number, bundle in enumerate(issued):
        found = reader.find(f"r{number}")
        assert found.to_bytes() == bundle.to_bytes()
        assert verify_bundle(found, reader.public_keys()).failures == ()
        assert reader.issue(evidence_of(f"r{number}")) == bundle
    with pytest.raises(ObjectMissing, match="there is no receipt for this request"):
        reader.find("unknown")
    assert reader.check_all(["unknown"]).broken == ("request unknown: it has no receipt",)
    assert_sound(store, 7)
    assert registrar(store).check_all().checked == 8


def test_files_do_not_grow_with_receipts(memory: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of receipts are some objects, not hundreds."""
    monkeypatch.setattr(packs, "TILE_ENTRIES", 64)
    by = registrar(memory)
    by.issue(evidence_of("first"))
    by.pack()
    before = len(names(memory, ""))
    count = examples(1000, few=500)
    for start in range(0, count, 50):
        by.issue_all([evidence_of(f"r{number}") for number in range(start, start + 50)])
        by.pack()
    entries = len(names(memory, "log/entries/"))
    assert entries < 64
    packed = [each for folder in ("log/packs/", "log/tiles/", "receipts/index/") for each in names(memory, folder)]
    assert len(packed) == 2 * (count // 64) + 16
    assert len(names(memory, "")) < before + len(packed) + 3 * entries + 3
    assert_sound(memory, count)


def test_a_packed_request_id_for_something_else_is_a_conflict(memory: MemoryStore) -> None:
    """Nobody gets the receipt of another body, however long ago it was issued."""
    issue(memory, 0, 3)
    pack(memory)
    with pytest.raises(Conflict, match=r"states the erasure of something else \[request=r0\]"):
        registrar(memory).issue(replace(evidence_of("r0"), request_digest=sha256(b"other")))


def _written(memory: MemoryStore) -> int:
    """Return how many writes packing six receipts takes."""
    issue(memory, 0, 6)
    by = registrar(store := FaultyStore(memory))
    by.issue(evidence_of("r5"))
    by.issue(evidence_of("r6"))
    before = sum(operation in WRITES for operation, _ in store.calls)
    by.pack()
    return sum(operation in WRITES for operation, _ in store.calls) - before


def test_all_writes_of_packing_were_crash_points(memory: MemoryStore) -> None:
    """The crash test below reaches every write of packing."""
    assert _written(memory) <= PACKING_WRITES


PACKING_WRITES = 32


_ENDS = list(product(range(1, PACKING_WRITES + 1), [Crash, OutcomeUnknown], ["before", "after"]))


@pytest.mark.parametrize(("nth", "error", "when"), spread(_ENDS, 3))  # each write in one of the four ways, some in two
def test_packing_breaks_off_anywhere(memory: MemoryStore, when: str, error: type[BaseException], nth: int) -> None:
    """Any write may fail or end the process: every receipt is found, and the next process leaves nothing over."""
    issued = issued_before(memory, 6)
    store = FaultyStore(memory)
    by = registrar(store)
    by.issue(evidence_of("r6"))
    store.plan(Fault(when=when, operation="write", nth=nth, error=error))  # type: ignore[arg-type]
    try:
        by.pack()
    except Crash:
        assert error is Crash
    assert_sound(memory, 7)
    assert [registrar(memory).find(f"r{number}") for number in range(6)] == issued
    pack(memory)
    assert len(names(memory, "log/packs/")) == 2
    assert len(names(memory, "log/entries/")) == len(names(memory, "receipts/bundles/")) == 2
    assert [registrar(memory).find(f"r{number}") for number in range(6)] == issued
    assert_sound(memory, 7)


@pytest.mark.parametrize("nth", spread(range(1, 40), 2))
def test_a_registrar_that_slept_states_nothing_twice(memory: MemoryStore, nth: int) -> None:
    """Another process issues the same receipt, and others, and packs them, between any two operations: one statement
    stands in the log, and it is what both return.
    """
    begun = 2
    issued_before(memory, begun)
    theirs: list[ReceiptBundle] = []

    def others() -> None:
        by = registrar(memory)
        theirs.append(by.issue(evidence_of("mine")))
        for number in range(begun, begun + 2 * WIDTH):
            by.issue(evidence_of(f"r{number}"))
            by.pack()

    store = InterruptedStore(memory, others, nth)
    sleeper = registrar(store)
    sleeper.issue(evidence_of("before"))
    mine = sleeper.issue(evidence_of("mine"))
    sleeper.pack()
    assert [mine] * len(theirs) == theirs
    assert registrar(memory).find("mine") == mine
    check = registrar(memory).check_all(["before", "mine"])
    assert check.broken == ()
    assert check.checked == begun + 2 + (2 * WIDTH if theirs else 0)
    assert_nothing_left_over(memory)


@pytest.mark.parametrize("nth", spread(range(1, 40), 2))
def test_two_may_pack_at_once(memory: MemoryStore, nth: int) -> None:
    """Another process packs the same receipts, and goes on, between any two operations: nothing is lost or doubled."""
    issued = issued_before(memory, 5)

    def others() -> None:
        issue(memory, 5, 8)
        pack(memory)

    by = registrar(InterruptedStore(memory, others, nth))
    by.issue(evidence_of("r4"))
    by.issue(evidence_of("last"))
    by.pack()
    pack(memory)
    assert [registrar(memory).find(f"r{number}") for number in range(5)] == issued
    check = registrar(memory).check_all(f"r{number}" for number in range(5))
    assert check.broken == ()
    assert_nothing_left_over(memory)


def test_an_entry_without_receipt_gets_one_when_it_is_packed(memory: MemoryStore) -> None:
    """A crash before the last step of a receipt keeps no other one from being packed, and the receipt is found."""
    store = FaultyStore(memory, (Fault(when="before", operation="write", prefix="receipts/bundles/", error=Crash),))
    with pytest.raises(Crash, match="^$"):
        registrar(store).issue(evidence_of("r0"))
    issue(memory, 1, 3)
    pack(memory)
    found = registrar(memory).find("r0")
    assert (found.index, len(names(memory, "log/packs/"))) == (0, 1)
    assert registrar(memory).issue(evidence_of("r0")) == found
    assert_sound(memory, 3)


def test_what_keeps_receipts_from_being_packed_is_told(memory: MemoryStore) -> None:
    """A damaged receipt is not packed; others are still issued, and it is said why the store grows."""
    issue(memory, 0, 3)
    key = bundle_key("r1")
    whole = memory.get(key).payload
    memory.delete(key)
    memory.put_if_absent(key, whole[:-1])
    told: list[str] = []
    by = registrar(memory, told)
    by.issue(evidence_of("r3"))
    by.pack()
    assert told == [
        "receipts could not be packed: this is not a receipt of ours, or it was altered [part=JSON]",
    ]
    assert names(memory, "log/packs/") == []
    memory.delete(key)
    memory.put_if_absent(key, whole)
    pack(memory)
    assert len(names(memory, "log/packs/")) == 1


def test_whoever_packs_next_finishes_what_another_one_left(memory: MemoryStore) -> None:
    """Also who had found all tidy before: a pack whose receipts the index does not name is never the last but one."""
    issue(memory, 0, 2)
    by = registrar(memory)
    by.pack()
    issue(memory, 2, 3)
    store = FaultyStore(memory, (Fault(when="before", operation="write", prefix="receipts/index/", error=Crash),))
    with pytest.raises(Crash, match="^$"):
        pack(store)
    issue(memory, 3, 5)
    by.issue(evidence_of("r5"))
    by.pack()
    assert len(names(memory, "log/packs/")) == 2
    assert len(names(memory, "log/entries/")) == len(names(memory, "receipts/bundles/")) == 1
    assert_sound(memory, 6)


@pytest.mark.parametrize("nth", spread(range(1, 40), 2))
def test_the_first_to_pack_decides_about_a_receipt_that_a_crash_prevented(memory: MemoryStore, nth: int) -> None:
    """Two pack an entry that has no receipt, between any two operations: one receipt stands, and nobody complains."""
    store = FaultyStore(memory, (Fault(when="before", operation="write", prefix="receipts/bundles/", error=Crash),))
    with pytest.raises(Crash, match="^$"):
        registrar(store).issue(evidence_of("r0"))
    issue(memory, 1, 4)
    told: list[str] = []

    def others() -> None:
        pack(memory)

    by = registrar(InterruptedStore(memory, others, nth), told)
    by.issue(evidence_of("r3"))
    by.pack()
    registrar(memory).pack()
    assert told == []
    assert names(memory, "log/packs/") == names(memory, "log/packs/")[:1]
    assert_sound(memory, 4)
    found = registrar(memory).find("r0")
    pack(memory)
    assert registrar(memory).find("r0") == found
    assert registrar(memory).issue(evidence_of("r0")) == found


def test_earlier_versions_refuse_a_log_with_packs_by_version(memory: MemoryStore) -> None:
    """They read the log's name first; it has another field from before the first pack on, and not a moment earlier."""
    origin, earlier = object_key("log/origin"), frozenset({"origin"})
    issue(memory, 0, 2)
    registrar(memory).pack()
    assert decode_record(memory.get(origin).payload, origin, earlier)["origin"]
    issue(memory, 2, 3)
    store = FaultyStore(memory, (Fault(when="before", operation="write", prefix="log/packs/", error=Crash),))
    with pytest.raises(Crash, match="^$"):
        pack(store)
    with pytest.raises(NewerFormat, match="written by a newer version"):
        decode_record(memory.get(origin).payload, origin, earlier)
    pack(memory)
    assert_sound(memory, 3)


@pytest.mark.parametrize("nth", spread(range(1, 60, 2), 2))
def test_a_backup_taken_while_receipts_are_packed_is_sound(memory: MemoryStore, nth: int) -> None:
    """Wherever the copy stands when they are packed, what it holds is the store of one moment."""
    issued = issued_before(memory, 7)
    kept = Repository(MemoryStore("packing-backup"))
    kept.store.forget()  # type: ignore[attr-defined]
    store = InterruptedStore(memory, lambda: pack(memory), nth)
    part = Part(store=store, takes=lambda _: True, repository=kept, replaced=(INDEX, CHECKED, ORIGIN))
    (objects,) = cut([part], lambda: None, lambda one, many: list(map(one, many)), lambda _done, _all: None)
    copy = MemoryStore("packing-restored")
    copy.forget()
    for key, blob in objects.items():
        copy.put_if_absent(key, kept.get(blob))
    assert_sound(copy, 7)
    assert [registrar(copy).find(f"r{number}") for number in range(7)] == issued
    issue(copy, 7, 9)
    pack(copy)
    assert_sound(copy, 9)
    copy.forget()


def test_a_damaged_index_is_named(memory: MemoryStore) -> None:
    """The index that names an entry wrongly, or not at all, or is not a record, does not pass."""
    issue(memory, 0, 3)
    pack(memory)
    archive = Archive(memory, in_turn)
    for key in [ObjectKey(f"receipts/index/{name}") for name in names(memory, "receipts/index/")]:
        whole = memory.get(key).payload
        memory.delete(key)
        assert any("index does not name it" in each for each in registrar(memory).check_all().broken)
        memory.put_if_absent(key, whole[:-1])
        assert any("a stored record is not what was written" in each for each in registrar(memory).check_all().broken)
        memory.delete(key)
        memory.put_if_absent(key, encode_record({"entries": {"00" * 16: 7, "11" * 16: 8}}))
        assert any("is not whose it says" in each for each in registrar(memory).check_all().broken)
        memory.delete(key)
        memory.put_if_absent(key, encode_record({"entries": {"00": "x"}}))
        with pytest.raises(SisaError, match="index is not what was written"):
            archive.packed()
        memory.delete(key)
        memory.put_if_absent(key, whole)
    assert registrar(memory).check_all().broken == ()


def test_a_lost_pack_is_named(memory: MemoryStore) -> None:
    """Asking for a receipt in a pack that is gone names the pack."""
    issue(memory, 0, 6)
    pack(memory)
    memory.delete(ANY_LOG.pack(1))
    with pytest.raises(SisaError, match=r"a pack of the log is missing, which has a receipt \[entry=4\]"):
        registrar(memory).find("r4")
    assert any("missing" in each for each in registrar(memory).check_all().broken)


def test_what_a_late_write_brings_back_is_not_used(memory: MemoryStore) -> None:
    """A statement or receipt that arrives after its packing is left over: it is not given out, and breaks nothing."""
    (first, *_) = issue(memory, 0, 3)
    kept = {key: memory.get(key).payload for key in (bundle_key("r0"), envelope_key("r0"))}
    pack(memory)
    for key, payload in kept.items():
        memory.put_if_absent(object_key(key), payload)
    assert registrar(memory).find("r0") == first
    assert_sound(memory, 3)
