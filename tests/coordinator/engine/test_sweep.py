"""The sweep: it ends however many requests keep coming, and says so when it is another process that keeps writing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest

from coordinator.engine.codec import decode_state
from coordinator.engine.ledger import Ledger
from coordinator.engine.sweep import Drafts, left_over, sweep
from coordinator.ports import Notice, RequestMoved
from coordinator.receipts.bundles import read_statement
from coordinator.receipts.issuer import Registrar
from coordinator.requests import RequestState
from storage.encryption.store import SealedStore
from storage.errors import Fenced, ObjectMissing, SisaError, Unavailable
from storage.objects import ObjectInfo, ObjectKey, VersionTag, object_key
from storage.registers.numbered import Numbers
from storage.stores.folder_memory import folder_memory
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore
from storage.transparency.envelope import envelope_payload
from tests.coordinator.records import federation, paused, request_of
from tests.doubles.federation import Point, SmallFederation, names_of, plain_conditions, specification_of
from tests.doubles.time_and_names import CountingNames
from tests.doubles.workers.fake_learner import HashLearner, HashState

FRESH = federation((2, 1), (1, 1))
POINTS = [Point(id=f"p{n}", subject=f"s{n}", label="ab"[n % 2], features=(float(n), 1.0)) for n in range(20)]
_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class BusyStore(MemoryStore):
    """A store in which others have their turn after every deletion."""

    turns: list[Callable[[], None]] = field(default_factory=list)

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Delete, and let the others come."""
        MemoryStore.delete_all(self, keys)
        for turn in self.turns:
            turn()

    def leave(self) -> None:
        """Put an object that no state names."""
        self.put_if_absent(object_key(f"shards/00000/slice-00001/left-{next(_NUMBERS)}.parquet"), b"superseded")


@pytest.fixture
def store() -> Iterator[BusyStore]:
    """A store with one object that no state names."""
    found = BusyStore(f"swept-{next(_NUMBERS)}")
    found.leave()
    yield found
    found.forget()


def test_requests_that_keep_coming_wait_for_once(store: BusyStore) -> None:
    """A thread that leaves an object behind whenever it may draft cannot keep the sweep from ending."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    drafts = Drafts(CountingNames("drafts"), store, ledger)

    def draft_if_allowed() -> None:
        if drafts._lock.acquire(blocking=False):
            store.leave()
            drafts._lock.release()

    with ThreadPoolExecutor(1) as thread:
        store.turns.append(lambda: thread.submit(draft_if_allowed).result())
        sweep(store, ledger, drafts)
    assert left_over(store, ledger.state) == []


def test_another_process_that_writes_is_reported_of(store: BusyStore) -> None:
    """A writer that ignores the lock and keeps adding objects causes an error with a remedy, not an endless loop."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    store.turns.append(store.leave)
    with pytest.raises(Unavailable, match=r"keep appearing in the store while it is purged, 1 are left.* another pro"):
        sweep(store, ledger, Drafts(CountingNames("drafts"), store, ledger))


@pytest.mark.parametrize("kind", [Fenced, ObjectMissing])
def test_a_superseded_writer_takes_its_drafts_back(store: BusyStore, kind: type[SisaError]) -> None:
    """The writer that took over may have swept before they were written, and then nobody would delete them."""
    ledger = Ledger.start(store, CountingNames(), FRESH)
    drafts = Drafts(CountingNames("drafts"), store, ledger)
    (left,) = left_over(store, ledger.state)

    def lose_the_store() -> None:
        with drafts as draw:
            Ledger.start(store, CountingNames("other"), FRESH)
            store.put_if_absent(object_key(f"shards/0000/slices/0001/{draw()}.parquet"), b"drafted")
            raise kind("another writer purged what this one was reading", "Try again.")

    with pytest.raises(Fenced, match="another"):
        lose_the_store()
    assert left_over(store, ledger.state) == [left]


def test_acceptances_alone_are_not_swept_after(store: BusyStore) -> None:
    """Requests that are only accepted make no manifest, however often it is settled; what is carried out does.

    A sweep writes the whole state: as many as there are acceptances would leave no time for any.
    """
    specification = specification_of(shards=2, slices=2)
    small: SmallFederation[HashState] = SmallFederation(
        specification=specification,
        store=store,
        learners=lambda _: HashLearner(slices=2),
        conditions=lambda _: plain_conditions(specification),
    )
    small.train(POINTS)
    manifests = Numbers(store, "manifest").present()
    for number in range(3):
        names = names_of([POINTS[number].subject], [])
        small.engine.accept(replace(paused(request_of(f"er-{number}")), body=names.digest()), names)
        small.engine.settle()
    assert Numbers(store, "manifest").present() == manifests
    small.erase(subjects=[POINTS[5].subject], request_id="er-9")
    assert Numbers(store, "manifest").present() > manifests
    assert Numbers(store, "journal").present() == ()
    assert left_over(store, small.state) == []


@dataclass(frozen=True, slots=True)
class CountingStore(MemoryStore):
    """A store that counts listings."""

    listed: Counter[str] = field(default_factory=Counter)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List, and count it."""
        self.listed[prefix] += 1
        return MemoryStore.list(self, prefix)


@pytest.mark.parametrize("shards", [2, 9])
def test_an_erasure_lists_the_store_three_times(shards: int) -> None:
    """Once for each sweep and once for its receipt, however many shards there are."""
    store = CountingStore(f"swept-{next(_NUMBERS)}")
    specification = specification_of(shards=shards, slices=2)
    small: SmallFederation[HashState] = SmallFederation(
        specification=specification,
        store=SealedStore(store),
        learners=lambda _: HashLearner(slices=2),
        conditions=lambda _: plain_conditions(specification),
    )
    small.train(POINTS)
    store.listed.clear()
    assert small.erase(subjects=["s3"], request_id="er-1").state is RequestState.COMPLETE
    assert store.listed[""] == 3
    assert not any(prefix.startswith("shards") for prefix in store.listed)
    assert store.listed["keyrings/"] == 3


def test_a_purge_is_recorded_in_the_manifest_of_its_sweep() -> None:
    """An erasure takes one sweep before its receipt and one after it: no third one for manifests with purged names."""
    store = MemoryStore(f"swept-{next(_NUMBERS)}")
    specification = specification_of(shards=2, slices=2)
    notices: list[Notice] = []
    small: SmallFederation[HashState] = SmallFederation(
        specification=specification,
        store=store,
        learners=lambda _: HashLearner(slices=2),
        conditions=lambda _: plain_conditions(specification),
        listener=notices.append,
    )
    small.train(POINTS)
    before = small.register.latest()
    request = small.erase(subjects=["s3"], request_id="er-1")
    after = small.register.latest()
    assert before is not None
    assert after is not None
    assert request.state is RequestState.COMPLETE
    assert after.number == before.number + 2
    assert decode_state(after.body).condemned == ()
    assert small.engine.journal_entries == 0
    # What the sweep records is announced, too.
    moved = [notice.request.shown for notice in notices if isinstance(notice, RequestMoved)]
    assert moved[-2:] == [RequestState.PURGED, RequestState.COMPLETE]


@dataclass(frozen=True, slots=True)
class LateStore(LocalStore):
    """A folder in which something is written right after the sweep's first deletion, or before the receipt's scan."""

    late: dict[str, Callable[[], None]] = field(default_factory=dict, compare=False)

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Delete, and let what is late come."""
        LocalStore.delete_all(self, keys)
        self.late.pop("purge", lambda: None)()

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Put; after a manifest, let what is late come."""
        tag = LocalStore.put_if_absent(self, key, payload)
        if key.startswith("manifest/"):
            self.late.pop("manifest", lambda: None)()
        return tag


@pytest.mark.parametrize(("moment", "findings"), [("purge", 0), ("manifest", 1)])
def test_what_a_late_worker_leaves_is_gone_before_a_receipt_says_so(tmp_path: Path, moment: str, findings: int) -> None:
    """Also in a shard that the request does not affect, and in a folder that every listing had skipped for long.

    What comes before the purge is recorded is deleted, and the receipt finds nothing. What comes after that is counted
    in the receipt, and gone once the request is complete.
    """
    store = LateStore(str(tmp_path / "store"))
    specification = specification_of(shards=4, slices=2)
    small: SmallFederation[HashState] = SmallFederation(
        specification=specification,
        store=store,
        learners=lambda _: HashLearner(slices=2),
        conditions=lambda _: plain_conditions(specification),
    )
    seconds = count(step=2)
    folder_memory(store.root).monotonic = lambda: float(next(seconds))
    small.train(POINTS)
    small.erase(subjects=["s4"], request_id="er-1")
    small.erase(subjects=["s5"], request_id="er-2")
    here = {place.shard for place in (point.slice_id(4, 2) for point in POINTS if point.subject == "s3")}
    other = next(shard for shard in range(4) if shard not in here)
    left = object_key(f"shards/{other:04d}/checkpoints/0001/late.safetensors")

    def leave() -> None:
        store.put_if_absent(left, b"superseded")

    store.late[moment] = leave
    assert small.erase(subjects=["s3"], request_id="er-3").state is RequestState.COMPLETE
    assert not store.late
    receipt = read_statement(envelope_payload(Registrar(store, small.clock, small.names).find("er-3").envelope))
    assert receipt["predicate"]["scan"]["findings"] == findings
    assert left_over(store, small.state) == []
    assert folder_memory(store.root)._marks_folders
