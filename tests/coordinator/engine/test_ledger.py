"""The ledger: state made durable event by event, replayed by readers, held by one writer."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from coordinator.decisions.events import (
    ErasureAccepted,
    Event,
    RequestHeld,
)
from coordinator.engine import ledger as ledger_module
from coordinator.engine.codec import encode_event, encode_state
from coordinator.engine.ledger import Ledger, read_ledger, read_state
from storage.digests import Json
from storage.errors import Conflict, Corrupt, Fenced, Invalid, OutcomeUnknown
from storage.registers.journal import START, Journal
from storage.registers.manifest import ManifestRegister
from storage.registers.numbered import Numbers
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore
from tests.coordinator.records import federation, request_of
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore
from tests.doubles.stores.forgetful_disk import ForgetfulDisk
from tests.doubles.time_and_names import CountingNames

_STORES = count()
AT = "2026-01-01T00:00:00.000+00:00"
FRESH = federation((2, 1), (1, 1))


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """An empty store."""
    found = MemoryStore(f"ledger-{next(_STORES)}")
    yield found
    found.forget()


def accepted(number: int) -> Event:
    """Return the acceptance of one of many requests."""
    return ErasureAccepted(request=request_of(f"er-{number}"))


def entries(store: MemoryStore) -> int:
    """Return how many entries the journal has."""
    return len(Numbers(store, "journal").present())


def test_nothing_is_read_before_anything_is_committed(store: MemoryStore) -> None:
    """An empty store holds no state, at the start of a journal."""
    assert read_state(store) is None
    assert read_ledger(store).position == START


def test_what_is_recorded_is_read(store: MemoryStore) -> None:
    """After every record a reader who replays the journal has the writer's state; the next writer takes it over."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    assert read_state(store) == ledger.state == FRESH
    for number in range(5):
        change = ledger.record(accepted(number), RequestHeld(request_id=f"er-{number}", reason="a lawsuit", at=AT))
        assert change.after == ledger.state == read_state(store)
        assert len(change.after.requests) == number + 1
        assert entries(store) == number + 1
    assert Ledger.start(store, CountingNames("next"), FRESH).state == ledger.state
    assert read_state(store) == ledger.state


def test_a_reader_reads_on_from_where_it_was(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an earlier reading only newer entries are read, a second writer's among them; the result is the same."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    ledger.record(accepted(1))
    ledger.record(accepted(2))
    known = read_ledger(store)
    assert read_ledger(store, known) == known
    ledger.record(accepted(3))
    payload, numbers = Numbers.payload, list[int]()

    def noted(self: Numbers, number: int) -> bytes | None:
        numbers.append(number)
        return payload(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Numbers, "payload", noted)
        found = read_ledger(store, known)
    assert numbers == [known.position.number, known.position.number + 1]
    assert found == read_ledger(store)
    assert found.state == ledger.state
    second = Ledger.start(store, CountingNames("second"), FRESH)
    second.record(accepted(4))
    assert read_ledger(store, found).state == second.state
    assert read_ledger(store, found).token == second.token > found.token


def test_a_reader_whose_place_was_pruned_starts_again(store: MemoryStore) -> None:
    """It reads the manifest again. If another store has replaced this one, it does the same and reports no damage."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    ledger.record(accepted(1))
    known = read_ledger(store)
    ledger.record(accepted(2))
    ledger.record(accepted(3))
    assert ledger.compact(lambda: True)
    ledger.record(accepted(4))
    found = read_ledger(store, known)
    assert found == read_ledger(store)
    assert found.manifest > known.manifest
    for info in list(store.list("")):
        store.delete(info.key)
    other = Ledger.start(store, CountingNames("other"), FRESH)
    assert read_ledger(store, found) == read_ledger(store)
    assert read_ledger(store, found).state == other.state == FRESH


def test_a_reader_notices_a_store_that_was_set_back_and_is_as_far_as_before(store: MemoryStore) -> None:
    """Its place is pruned and nothing follows, but another entry had that number: it reads the manifest."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    earlier = {info.key: store.get(info.key).payload for info in store.list("")}
    ledger.record(accepted(1))
    known = read_ledger(store)
    for info in list(store.list("")):
        store.delete(info.key)
    for key, payload in earlier.items():
        store.put_if_absent(key, payload)
    restored = Ledger.start(store, CountingNames("restored"), FRESH)
    assert read_ledger(store).position.number == known.position.number
    assert read_ledger(store, known) == read_ledger(store)
    assert read_ledger(store, known).state == restored.state == FRESH


def test_an_event_that_changes_nothing_leaves_no_trace(store: MemoryStore) -> None:
    """The same acceptance twice is one entry (D4)."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    ledger.record(accepted(1))
    change = ledger.record(accepted(1))
    assert change.before == change.after
    assert entries(store) == 1


def test_the_journal_is_cut_and_nothing_changes(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any number of events, one manifest and a short journal hold the state."""
    monkeypatch.setattr(ledger_module, "_SNAPSHOT_EVERY", 4)
    ledger = Ledger.start(store, CountingNames(), FRESH)
    for number in range(11):
        ledger.record(accepted(number))
        assert read_state(store) == ledger.state
        assert entries(store) == (number + 1) % 4
        assert Numbers(store, "manifest").present() == (ledger.manifest,)


def test_compacting_asks_first(store: MemoryStore) -> None:
    """The journal is cut only if the caller still wants it at the moment when nobody records."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    ledger.record(accepted(1))
    assert not ledger.compact(lambda: False)
    assert entries(store) == 1
    assert ledger.compact(lambda: True)
    assert entries(store) == 0
    assert read_state(store) == ledger.state


def test_a_second_writer_fences_the_first(store: MemoryStore) -> None:
    """Once another writer has started, the first one records nothing, regardless of what the other has done (D3)."""
    first = Ledger.start(store, CountingNames("first"), FRESH)
    first.record(accepted(1))
    second = Ledger.start(store, CountingNames("second"), FRESH)
    with pytest.raises(Fenced, match="another writer has taken over"):
        first.refuse_superseded()
    with pytest.raises(Fenced, match="higher fencing token|paused while others appended"):
        first.record(accepted(2))
    second.record(accepted(3))
    with pytest.raises(Fenced, match="lost its place in the journal"):
        first.record(accepted(2))
    assert [request.request_id for request in second.state.requests] == ["er-1", "er-3"]
    assert read_state(store) == second.state


def test_a_zombies_manifest_does_no_harm(store: MemoryStore) -> None:
    """A manifest that a fenced writer wrote first is true, and the next writer continues after it."""
    first = Ledger.start(store, CountingNames("first"), FRESH)
    first.record(accepted(1))
    faulty = FaultyStore(store)
    entered = False

    def enter() -> None:
        nonlocal entered
        entered = True
        first._write_manifest()

    class Interrupted(CountingNames):
        """Lets the zombie write its manifest between the second writer's reading and its own manifest."""

        def __call__(self) -> str:
            name = CountingNames.__call__(self)
            if name.endswith("2") and not entered:  # the first name is the fence's
                enter()
            return name

    # The register refuses the zombie's manifest by its token only once the second writer has committed one.
    second = Ledger.start(faulty, Interrupted("second"), FRESH)
    assert entered
    assert [request.request_id for request in second.state.requests] == ["er-1"]
    assert read_state(store) == second.state


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_start_may_be_interrupted_anywhere(when: str, store: MemoryStore) -> None:
    """A writer that dies at any write of its start leaves what the next one starts from."""
    Ledger.start(store, CountingNames("first"), FRESH).record(accepted(1))
    expected = read_state(store)
    faulty = FaultyStore(store)
    for number in count(1):
        faulty.plan(Fault(when="before" if when == "before" else "after", operation="write", nth=number, error=Crash))
        try:
            Ledger.start(faulty, CountingNames(f"start-{number}"), FRESH)
        except Crash:
            assert read_state(store) == expected
        else:
            break
    assert number > 4
    assert Ledger.start(store, CountingNames("last"), FRESH).state == expected


def test_a_start_may_be_interrupted_in_an_empty_store(store: MemoryStore) -> None:
    """The very first start may die anywhere, too: nothing was acknowledged, and the next one begins."""
    faulty = FaultyStore(store)
    for number in count(1):
        faulty.plan(Fault(when="after", operation="write", nth=number, error=Crash))
        try:
            Ledger.start(faulty, CountingNames(f"start-{number}"), FRESH)
        except Crash:
            assert read_state(store) in (None, FRESH)
        else:
            break
    assert read_state(store) == FRESH


def test_an_unknown_outcome_is_settled(store: MemoryStore) -> None:
    """An entry whose put was not confirmed is found to be there, and counts once (D6)."""
    faulty = FaultyStore(store)
    ledger = Ledger.start(faulty, CountingNames(), FRESH)
    faulty.plan(Fault(when="after", operation="put_if_absent", error=OutcomeUnknown))
    ledger.record(accepted(1))
    assert read_state(store) == ledger.state
    assert entries(store) == 1


def test_many_submitters_share_entries(store: MemoryStore) -> None:
    """Requests of many threads are all recorded, in fewer entries than requests when they come together."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    started, go = threading.Semaphore(0), threading.Event()
    threads = [threading.Thread(target=lambda n=number: ledger.record(accepted(n))) for number in range(1, 17)]

    def hold() -> bool:
        started.release()
        go.wait()
        return False

    blocker = threading.Thread(target=lambda: ledger.compact(hold))
    blocker.start()
    started.acquire()
    for thread in threads:
        thread.start()
    while len(ledger._commits._queue) < len(threads):
        threads[0].join(0.001)  # all of them have queued up behind the blocker
    go.set()
    for thread in (blocker, *threads):
        thread.join()
    assert entries(store) == 1
    assert {request.request_id for request in ledger.state.requests} == {f"er-{number}" for number in range(1, 17)}
    assert read_state(store) == ledger.state


def test_a_store_from_before_the_journal_is_read(store: MemoryStore) -> None:
    """A manifest of format 1, which knows no journal, stands at the journal's start."""
    register = ManifestRegister(store)
    body = {**encode_state(FRESH), "format_version": 1}
    register.commit(body, after=0, token=register.claim_token(), nonce="n")
    assert read_state(store) == FRESH
    ledger = Ledger.start(store, CountingNames(), federation((9,)))
    assert ledger.state == FRESH


@pytest.mark.parametrize("place", [{}, 3, {"number": "1", "digest": "x"}, {"number": 1}])
def test_a_manifest_without_a_place_is_refused(place: Json, store: MemoryStore) -> None:
    """A manifest that names no place of the journal is not guessed at."""
    register = ManifestRegister(store)
    register.commit({**encode_state(FRESH), "journal": place}, after=0, token=register.claim_token(), nonce="n")
    with pytest.raises(Corrupt, match="does not say its place in the journal"):
        read_state(store)


def test_a_gap_in_the_journal_is_reported(store: MemoryStore) -> None:
    """Missing entries are never skipped."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    for number in range(3):
        ledger.record(accepted(number))
    middle = Numbers(store, "journal").present()[1]
    store.delete(Numbers(store, "journal").key(middle))
    with pytest.raises(Corrupt, match="an entry of the journal is missing"):
        read_state(store)
    with pytest.raises(Corrupt, match="an entry of the journal is missing"):
        Ledger.start(store, CountingNames("next"), FRESH)


def test_events_before_any_manifest_are_damage(store: MemoryStore) -> None:
    """A journal whose manifest is lost does not become an empty federation."""
    Journal(store).append([encode_event(accepted(1))], after=START, token=1, nonce="n")
    with pytest.raises(Corrupt, match="events before any manifest"):
        read_state(store)


def test_an_entry_of_newer_software_is_refused(store: MemoryStore) -> None:
    """Events of a newer format stop a reader with a remedy."""
    Ledger.start(store, CountingNames(), FRESH)
    newer = {**encode_event(accepted(1)), "format_version": 99}
    Journal(store).append([newer], after=read_ledger(store).position, token=9, nonce="n")
    with pytest.raises(Invalid, match="written in format 99"):
        read_state(store)


def test_an_entry_under_the_own_token_by_somebody_else_is_a_conflict(store: MemoryStore) -> None:
    """Two writers never share a token: a writer that meets another one under its token stops."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    Journal(store).append([], after=read_ledger(store).position, token=ledger.token, nonce="other")
    with pytest.raises(Conflict, match="another entry has this number"):
        ledger.record(accepted(1))


@pytest.mark.parametrize("last", [1, 2, 3])
def test_what_is_recorded_survives_a_power_cut(tmp_path: Path, last: int) -> None:
    """Where the sync of an entry's name fails, once or again in what is done about it, the event is there after a power
    cut if it was recorded; if that was not sure, the next writer makes it durable before it writes anything itself.
    """
    store = LocalStore(str(tmp_path / "store"))
    Ledger.start(store, CountingNames(), FRESH)
    with ForgetfulDisk(tmp_path / "store").mounted() as disk:
        ledger = Ledger.start(store, CountingNames(), FRESH)
        syncs = count(1)
        disk.fault = lambda _number, call, path: (
            OSError(errno.EIO, "") if (call, path) == ("fsync", "journal") and next(syncs) <= last else None
        )
        if last == 1:
            ledger.record(accepted(1))
        else:
            with pytest.raises(OutcomeUnknown, match="could not be synced"):
                ledger.record(accepted(1))
            if last == 3:
                with pytest.raises(OutcomeUnknown, match="could not be synced"):
                    Ledger.start(store, CountingNames(), FRESH)
                assert next(syncs) == 4  # the third was of the entry in doubt: no entry was put after it
            Ledger.start(store, CountingNames(), FRESH)
        left = read_state(LocalStore(str(disk.left(tmp_path / "left"))))
        assert left is not None
        assert left.request("er-1") is not None
