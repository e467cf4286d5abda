"""Defects that the simulation found in the ledger, each as a test of its own (D1, D3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from coordinator.decisions.events import ErasureAccepted, RequestCancelled
from coordinator.engine.ledger import Change, Compaction, Ledger, read_ledger, read_state
from coordinator.engine.removal import put_object
from coordinator.engine.sweep import Drafts
from coordinator.engine.tasks import Revisions, train_task
from coordinator.requests import RequestState
from shards.learners.trainer import ConstituentTrainer, SliceLearned
from shards.specification import ShardId
from storage.errors import Fenced, OutcomeUnknown, SisaError, Unavailable
from storage.stores.memory import MemoryStore
from tests.coordinator.records import federation, request_of
from tests.doubles.federation import KEY, Point, SmallFederation, plain_conditions, source_of, specification_of
from tests.doubles.stores.faulty_store import Fault, FaultyStore
from tests.doubles.time_and_names import CountingNames
from tests.doubles.workers.fake_learner import HashLearner, HashState
from tests.simulation.model.audited_store import CrashingStore, left_over

FRESH = federation((2, 1), (1, 1))


POINTS = [Point(id=f"p{n}", subject=f"s{n}", label="ab"[n % 2], features=(float(n), 0.5)) for n in range(12)]


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """Returns an empty store."""
    found = MemoryStore("simulated-starts")
    yield found
    found.forget()


@pytest.mark.parametrize("shortened", [False, True], ids=["entries there", "entries in a manifest"])
def test_an_earlier_claimant_does_not_disturb_its_successor(store: MemoryStore, shortened: bool) -> None:
    """A writer that claimed its token and slept while another claimed and started ends without a trace; the other
    continues.

    Its first entry used to follow those of its successor, which then got a conflict.
    """
    successors: list[Ledger] = []

    def names() -> str:
        """Return the name for the first entry, after starting the successor."""
        if not successors:
            successors.append(Ledger.start(store, CountingNames("successor"), FRESH))
            successors[0].record(ErasureAccepted(request=request_of("er-1")))
            if shortened:
                successors[0].compact(lambda: True)
        return "sleeper"

    with pytest.raises(Fenced, match=r"started at the same time and was quicker.*token=1 higher=2"):
        Ledger.start(store, names, FRESH)
    successor = successors[0]
    successor.record(ErasureAccepted(request=request_of("er-2")))
    reading = read_ledger(store)
    assert (reading.token, reading.state) == (2, successor.state)


@pytest.mark.parametrize("error", [Unavailable, OutcomeUnknown])
def test_a_durable_record_is_not_reported_as_failed(
    store: MemoryStore, error: type[SisaError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails while the journal is compacted fails no record: the entry is already durable, and the next
    record writes the manifest.
    """
    monkeypatch.setattr("coordinator.engine.ledger._SNAPSHOT_EVERY", 1)
    faulty = FaultyStore(store)
    ledger = Ledger.start(faulty, CountingNames(), FRESH)
    before = ledger.manifest
    faulty.plan(Fault(when="before", operation="get", prefix="control/floor", error=error))
    change = ledger.record(ErasureAccepted(request=request_of("er-1")))
    assert change.after == ledger.state == read_state(store)
    assert ledger.manifest == before
    ledger.record(ErasureAccepted(request=request_of("er-2")))
    assert ledger.manifest == before + 1


def test_a_failed_compaction_fails_no_other_record(store: MemoryStore) -> None:
    """A record that shares a batch with a failing compaction succeeds; only the compaction raises."""
    ledger = Ledger.start(store, CountingNames(), FRESH)

    def ready() -> bool:
        raise Unavailable("the store is away", "Try again")

    change, error = ledger._perform([(ErasureAccepted(request=request_of("er-1")),), Compaction(ready, tuple)])
    assert isinstance(change, Change)
    assert change.after == ledger.state == read_state(store)
    assert isinstance(error, Unavailable)
    with pytest.raises(Unavailable, match="the store is away"):
        ledger.compact(ready)


def test_a_superseded_writer_leaves_objects_on_its_successors_purge_list(store: MemoryStore) -> None:
    """A superseded writer that deletes its drafts keeps objects that were committed and that its successor will purge,
    because the successor's workers may still read them.
    """
    first = Ledger.start(store, CountingNames("first"), FRESH)
    drafts = Drafts(CountingNames("draft"), store, first)
    names = drafts.__enter__()
    landed, nobodys = (put_object(store, names, "requests/", ".digests", b"names") for _ in range(2))
    first.record(ErasureAccepted(request=replace(request_of("er-1"), names=landed)))
    second = Ledger.start(store, CountingNames("second"), FRESH)
    second.record(RequestCancelled(request_id="er-1", reason="withdrawn", at="2026-01-01T00:00:00.000+00:00"))
    drafts.__exit__(Fenced, Fenced("another writer has taken over"), None)
    assert second.state.condemned == (landed.key,)
    assert {info.key for info in store.list("requests/")} == {landed.key}
    assert nobodys.key != landed.key


def _federation(store: MemoryStore, slices: int) -> SmallFederation[HashState]:
    """Return a trained federation of one shard."""
    specification = specification_of(shards=1, slices=slices)
    federation = SmallFederation(
        specification=specification,
        store=store,
        learners=lambda _: HashLearner(slices=slices),
        conditions=lambda _: plain_conditions(specification),
    )
    federation.train(POINTS)
    return federation


@pytest.mark.parametrize("slice_", [1, 2, 3])
def test_a_worker_that_was_given_up_leaves_nothing_erased(store: MemoryStore, slice_: int) -> None:
    """A worker that sleeps before writing a checkpoint, while its writer gives it up and erases a subject, leaves no
    checkpoint trained on the erased data point.
    """
    federation = _federation(store, slices=3)
    subject = next(point.subject for point in POINTS if point.slice_id(1, 3).slice == slice_)
    task = train_task(federation.state, ShardId(0), done=0, token=federation.engine._ledger.token)
    asleep = CrashingStore(store)

    def wake(write: int) -> None:
        if write == slice_ - 1:  # its checkpoint after that slice
            federation.erase(subjects=[subject], request_id="er-1")

    asleep.at_write = wake
    trainer: ConstituentTrainer[HashState] = ConstituentTrainer(
        learner=HashLearner(slices=3),
        store=asleep,
        new_name=CountingNames("asleep"),
        seconds=lambda: 0.0,
        revised=Revisions(asleep),
    )
    learned = [event.slice for event in trainer.train(task) if isinstance(event, SliceLearned)]
    assert learned == list(range(1, slice_))
    assert federation.state.requests[0].state is RequestState.COMPLETE
    assert left_over(store, federation.state) == []


def test_unneeded_objects_of_an_ingest_are_deleted_at_once(store: MemoryStore) -> None:
    """Slices that are unchanged after another ingest leave no objects, even if this writer never sweeps."""
    federation = _federation(store, slices=2)
    before = {info.key for info in store.list("shards/")}
    own = federation.specification
    federation.engine.ingest(source_of([*reversed(POINTS)]), own.data, own.partition, KEY)
    assert {info.key for info in store.list("shards/")} == before
