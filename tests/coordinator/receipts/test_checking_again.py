"""Packs that were found sound are not read again, and what has changed since is found nevertheless."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from coordinator.receipts.issuer import Registrar
from storage.digests import Json
from storage.errors import Fenced, StoreFull
from storage.objects import ObjectKey, ObjectStore, object_key
from storage.records import decode_record, encode_record
from storage.stores.memory import MemoryStore
from storage.transparency import packs
from storage.transparency.layout import ANY_LOG
from tests.coordinator.receipts.facts import evidence_of
from tests.doubles.stores.faulty_store import Fault, FaultyStore
from tests.doubles.time_and_names import CountingNames, VirtualClock

WIDTH = 3
CHECKED = object_key("log/checked")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryStore]:
    """A store with ten receipts, nine of them in three packs, all found sound."""
    monkeypatch.setattr(packs, "TILE_ENTRIES", WIDTH)
    store = MemoryStore("checking-again")
    store.forget()
    issue(store, 0, 10)
    assert registrar(store).verify_all(everything=True).checked == 10
    yield store
    store.forget()


def registrar(store: ObjectStore, told: list[str] | None = None) -> Registrar:
    """A registrar of a process that has just started."""
    tell = (lambda _: None) if told is None else told.append
    return Registrar(store, VirtualClock(), CountingNames("registrar"), tell=tell)


def issue(store: ObjectStore, start: int, end: int) -> None:
    """Issue receipts and pack."""
    by = registrar(store)
    for number in range(start, end):
        by.issue(evidence_of(f"r{number}"))
        by.pack()


def replace(store: MemoryStore, key: ObjectKey, payload: bytes) -> None:
    """Put other bytes in an object's place."""
    store.delete(key)
    store.put_if_absent(key, payload)


def test_only_what_is_new_is_checked(memory: MemoryStore) -> None:
    """Receipts in packs that were checked are counted; those that are stored by themselves are always read."""
    found = registrar(memory).verify_all()
    assert (found.checked, found.unread, found.broken) == (1, 9, ())
    issue(memory, 10, 14)  # twelve in four packs, and two
    found = registrar(memory).verify_all({"r13": 13, "r0": 0})
    assert (found.checked, found.unread, found.broken) == (5, 9, ())
    found = registrar(memory).verify_all({"unknown": None})
    assert (found.checked, found.unread, found.broken) == (2, 12, ("request unknown: it has no receipt",))
    found = registrar(memory).verify_all(everything=True)
    assert (found.checked, found.unread, found.broken) == (14, 0, ())


def test_a_pack_of_receipts_that_were_checked_before_is_read(memory: MemoryStore) -> None:
    """What was sound while it was stored by itself is read once more as a pack: its bytes are others."""
    issue(memory, 10, 11)
    assert registrar(memory).verify_all().unread == 9
    issue(memory, 11, 13)
    key = ANY_LOG.pack(3)
    replace(memory, key, memory.get(key).payload[:-1])
    assert any("pack 3:" in each for each in registrar(memory).verify_all().broken)


def test_old_packs_are_not_read(memory: MemoryStore) -> None:
    """Without new packs, one pack is read, and none of the receipts' index."""
    counted = FaultyStore(memory)
    assert registrar(counted).verify_all({"r0": 0, "r9": 9}).broken == ()
    read = [key for operation, key in counted.calls if operation == "get"]
    assert {key for key in read if key.startswith("log/packs/")} == {ANY_LOG.pack(2)}
    assert [key for key in read if key.startswith("receipts/index/")] == []


def test_what_was_read_before_is_read_on_demand(memory: MemoryStore) -> None:
    """A pack that was damaged after it was checked is found on demand, and from then on until it is whole."""
    key = ANY_LOG.pack(0)
    whole = memory.get(key).payload
    replace(memory, key, whole[:-1])
    assert registrar(memory).verify_all().broken == ()
    assert any("pack 0:" in each for each in registrar(memory).check_log().problems)
    assert any("pack 0:" in each for each in registrar(memory).verify_all(everything=True).broken)
    assert any("pack 0:" in each for each in registrar(memory).verify_all().broken)
    replace(memory, key, whole)
    assert (registrar(memory).verify_all().unread, registrar(memory).verify_all().unread) == (0, 9)


def test_a_pack_that_was_read_before_and_is_gone_is_missed(memory: MemoryStore) -> None:
    """Packs that are not read have to be there."""
    memory.delete(ANY_LOG.pack(1))
    broken = registrar(memory).verify_all().broken
    assert "log: pack 1 is missing" in broken


def test_a_receipt_that_is_stored_by_itself_is_always_read(memory: MemoryStore) -> None:
    """However often it was found sound, damage to it is found."""
    assert registrar(memory).verify_all().checked == 1
    (info,) = memory.list("receipts/bundles/")
    replace(memory, info.key, memory.get(info.key).payload[:-1])
    for _ in range(2):
        assert any(each.startswith(info.key) for each in registrar(memory).verify_all().broken)


def test_who_was_superseded_records_nothing(memory: MemoryStore) -> None:
    """The writer that has taken over may have changed what was read: the error is the one of being superseded."""
    issue(memory, 10, 12)
    before = memory.get(CHECKED).payload

    def superseded() -> None:
        raise Fenced("another writer has taken over", "stop")

    with pytest.raises(Fenced, match="another writer has taken over"):
        registrar(memory).verify_all(refuse=superseded)
    assert memory.get(CHECKED).payload == before


def test_a_record_that_cannot_be_written_fails_no_verification(memory: MemoryStore) -> None:
    """What was found stands; a remark says that the next verification reads the packs again."""
    issue(memory, 10, 12)
    store = FaultyStore(memory, (Fault(when="before", operation="write", prefix="log/checked", error=StoreFull),))
    told: list[str] = []
    assert registrar(store, told).verify_all().broken == ()
    assert told[0].startswith("it was not recorded which receipts this verification has read")


def test_a_store_without_packs_is_read_whole(memory: MemoryStore) -> None:
    """Nothing is left out, and nothing recorded, before there is a pack."""
    for info in list(memory.list("")):
        memory.delete(info.key)
    issue(memory, 0, WIDTH - 1)
    for _ in range(2):
        found = registrar(memory).verify_all()
        assert (found.checked, found.unread, found.broken) == (WIDTH - 1, 0, ())
    assert [info.key for info in memory.list("log/checked")] == []


def test_a_log_that_was_rewritten_since_is_found(memory: MemoryStore) -> None:
    """The log has to continue what was checked: another log under the same keys and name does not pass."""
    mark = memory.get(CHECKED).payload
    kept = {key: memory.get(key).payload for key in _keys(memory)}
    for info in list(memory.list("")):
        if info.key.startswith(("log/", "receipts/")) and info.key not in kept:
            memory.delete(info.key)
    by = registrar(memory)
    for number in range(10):
        by.issue(evidence_of(f"other{number}"))
        by.pack()
    memory.put_if_absent(CHECKED, mark)
    assert registrar(memory).check_log(everything=False).problems
    broken = registrar(memory).verify_all().broken
    assert any("since the last check: the log was rewritten" in each for each in broken)


def _keys(memory: MemoryStore) -> list[ObjectKey]:
    return [info.key for info in memory.list("log/") if info.key.startswith(("log/keys/", "log/origin"))]


def test_a_log_that_was_cut_since_is_found(memory: MemoryStore) -> None:
    """Packs that were checked and are gone, with all that came after them, are missed."""
    issue(memory, 10, 12)
    assert registrar(memory).verify_all().broken == ()
    assert registrar(memory).verify_all().unread == 12
    memory.delete(ANY_LOG.pack(3))
    for info in list(memory.list("log/tiles/")):
        if info.key.endswith("3"):
            memory.delete(info.key)
    broken = registrar(memory).verify_all().broken
    assert any("since the last check: the log was cut" in each for each in broken)


@pytest.mark.parametrize(
    "altered",
    [
        lambda whole: whole[:-1],
        lambda whole: whole.replace(b"sisa-ray/", b"sisa-roy/"),
        lambda whole: encode_record({**_fields(whole), "packs": 4}),
        lambda whole: encode_record({**_fields(whole), "packs": "3"}),
        lambda whole: encode_record({**_fields(whole), "news": 1}),
    ],
)
def test_a_record_that_is_not_ours_has_everything_read(memory: MemoryStore, altered: Callable[[bytes], bytes]) -> None:
    """A damaged or forged record of the last check, or one of a newer version, is reported, and not relied on."""
    replace(memory, CHECKED, altered(memory.get(CHECKED).payload))
    told: list[str] = []
    found = registrar(memory, told).verify_all()
    assert (found.checked, found.unread, found.broken) == (10, 0, ())
    assert told[0].startswith("everything is read, because the record of the last check is not valid")
    assert registrar(memory).verify_all().unread == 9


def _fields(whole: bytes) -> dict[str, Json]:
    return decode_record(whole, CHECKED, frozenset({"packs", "checkpoint", "at"}))
