"""Requests that ended long ago leave the state; asked for again by id, they are unchanged (D4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from coordinator.decisions import ended as leaving
from coordinator.decisions.events import (
    EndedKept,
    Event,
    RequestCancelled,
    RequestHeld,
)
from coordinator.engine import ended
from coordinator.engine.codec import encode_state
from coordinator.engine.ended import all_readmissions, all_requests, find_known, find_readmission, find_request
from coordinator.engine.engine import Engine
from coordinator.engine.ledger import read_state
from coordinator.engine.lookup import load_object
from coordinator.ports import Notice
from coordinator.receipts.rollback import forgotten_by
from coordinator.requests import ObjectRef, RequestState
from coordinator.verification import scan_residue
from storage.digests import sha256
from storage.errors import Conflict, Corrupt
from storage.objects import ObjectInfo, ObjectKey, ObjectStore, StoredObject
from storage.stores.memory import MemoryStore
from tests.doubles.federation import Point, SmallFederation, plain_conditions, specification_of
from tests.doubles.stores.faulty_store import Crash
from tests.doubles.workers.fake_learner import HashLearner, HashState

_STORES = count()
_SPECIFICATION = specification_of(shards=2, slices=2)
_TOGETHER = 3
PEOPLE = [Point(id=f"p{n}", subject=f"s{n}", label="ab"[n % 2], features=(float(n), 1.0)) for n in range(12)]
Small = SmallFederation[HashState]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Small]:
    """A trained federation whose state forgets three requests at once."""
    monkeypatch.setattr(leaving, "TOGETHER", _TOGETHER)
    monkeypatch.setattr(ended, "IN_A_BUCKET", 2)
    made: Small = SmallFederation(
        specification=_SPECIFICATION,
        store=MemoryStore(f"ended-{next(_STORES)}"),
        learners=lambda _: HashLearner(slices=2),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
    )
    made.train(PEOPLE)
    yield made
    made.store.forget()  # type: ignore[attr-defined]


def refuse(small: Small, *numbers: int) -> None:
    """Have requests end that name nobody, each with its statement."""
    for number in numbers:
        small.accept(
            subjects=[f"nobody-{number}"], request_id=f"no-{number}", commitment=sha256(f"salt-{number}".encode())
        )
    small.engine.settle()


def withdraw(small: Small, request_id: str) -> None:
    """Have a request end that is cancelled before anything is removed."""
    small.accept(subjects=["s11"], request_id=request_id)
    engine = small.engine
    engine.intervene(lambda _: RequestCancelled(request_id=request_id, reason="by mistake", at=engine.now()))
    engine.settle()


def several(small: Small) -> None:
    """Let requests end in every possible way, and then so many others that the first ones leave the state."""
    small.erase(subjects=["s0"], request_id="er-0")
    withdraw(small, "no-more")
    small.readmit(subjects=["s0"], request_id="back-0")
    small.erase(subjects=["s1", "nobody"], request_id="er-1")
    refuse(small, *range(5 * _TOGETHER))


def test_what_is_over_leaves_the_state(small: Small) -> None:
    """The state keeps only a few ended requests; the order, counts and records of all of them are kept."""
    several(small)
    state = small.state
    assert len(state.requests) + len(state.readmissions) < 2 * _TOGETHER
    assert (state.ended.complete, state.ended.cancelled, state.ended.readmissions) == (2, 1, 1)
    every = all_requests(small.store, state)
    ids = ["er-0", "no-more", "er-1", *(f"no-{n}" for n in range(5 * _TOGETHER))]
    assert [each.request_id for each in every] == ids
    assert [each.state.value for each in every[:4]] == ["complete", "cancelled", "complete", "refused"]
    assert [each.request_id for each in all_readmissions(small.store, state)] == ["back-0"]
    assert len(every) == state.ended.requests + len(state.requests)
    assert state.ended.purged_at == every[2].times["purged"]
    assert scan_residue(small.store, state).found == ()
    small.restart()
    assert all_requests(small.store, small.state) == every
    assert read_state(small.store) == state


def test_what_is_open_stays_in_the_state(small: Small) -> None:
    """A request that is paused for years stays where it is, and keeps its place among those that have left."""
    small.accept(subjects=["s3"], request_id="held")
    engine = small.engine
    engine.intervene(lambda _: RequestHeld(request_id="held", reason="a lawsuit", at=engine.now()))
    refuse(small, *range(4 * _TOGETHER))
    assert small.state.request("held") is not None
    assert all_requests(small.store, small.state)[0].request_id == "held"
    assert small.state.ended.numbers == ((1, small.state.ended.count),)


@pytest.mark.parametrize("again", [False, True], ids=["same process", "another process"])
def test_an_id_is_used_for_ever(small: Small, again: bool) -> None:
    """Complete, refused, cancelled or readmitted: the same id and body is the same request, another body a conflict."""
    several(small)
    if again:
        small.restart()
    before = small.state
    assert not {"er-0", "er-1", "no-more", "no-0"} & {each.request_id for each in before.requests}
    assert before.readmission("back-0") is None
    assert small.accept(subjects=["s0"], request_id="er-0").state is RequestState.COMPLETE
    assert small.accept(subjects=["s1", "nobody"], request_id="er-1").found.unknown == 1
    assert small.accept(subjects=["s11"], request_id="no-more").reason == "by mistake"
    assert small.accept(subjects=["nobody-0"], request_id="no-0").state is RequestState.REFUSED
    assert small.readmit(subjects=["s0"], request_id="back-0").receipt is not None
    for request_id in ("er-0", "er-1", "no-more", "no-0", "back-0"):
        with pytest.raises(Conflict, match="this request id was used before"):
            small.accept(subjects=["s5"], request_id=request_id)
        with pytest.raises(Conflict, match="this request id was used before"):
            small.readmit(subjects=["s1"], request_id=request_id)
    assert small.state == before
    assert small.accept(subjects=["s5"], request_id="new").state is RequestState.ACCEPTED


def test_an_id_that_ends_and_leaves_meanwhile_is_looked_for_again(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request is found even if it was accepted, ended and left between the look-up of its id and the recording."""
    record, is_late = Engine.record, [True]

    def late(self: Engine, *events: Event, notice: Notice | None = None) -> None:
        if is_late:
            is_late.clear()
            several(small)
        record(self, *events, notice=notice)

    monkeypatch.setattr(Engine, "record", late)
    with pytest.raises(Conflict, match="this request id was used before"):
        small.accept(subjects=["s5"], request_id="no-0")
    assert [each.request_id for each in all_requests(small.store, small.state)].count("no-0") == 1


def test_who_dies_before_the_buckets_are_recorded_leaves_nothing_over(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next writer sweeps buckets that no event names and writes them again: nothing is lost or there twice."""
    record = Engine.record

    def dying(self: Engine, *events: Event, notice: Notice | None = None) -> None:
        if any(isinstance(event, EndedKept) for event in events):
            raise Crash("before the buckets are recorded")
        record(self, *events, notice=notice)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "record", dying)
        with pytest.raises(Crash, match="before the buckets"):
            refuse(small, *range(2 * _TOGETHER))
    assert (small.state.ended.count, len(list(small.store.list(ended.PREFIX)))) == (0, 2)
    small.restart()
    small.engine.settle()
    assert small.state.ended.count == _TOGETHER
    assert len(list(small.store.list(ended.PREFIX))) == len(list(ended.buckets(small.store, small.state)))
    assert scan_residue(small.store, small.state).found == ()
    assert [each.request_id for each in all_requests(small.store, small.state)] == [
        f"no-{number}" for number in range(2 * _TOGETHER)
    ]


def test_finding_one_reads_one_small_object(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id is looked up in one bucket of bounded size, regardless of how many requests have left."""
    several(small)
    refuse(small, *range(100, 160))
    sizes = [len(bucket.requests) + len(bucket.readmissions) for bucket in ended.buckets(small.store, small.state)]
    assert sum(sizes) == small.state.ended.count > 60
    assert len(small.state.ended.buckets) == 1 + small.state.ended.count // 2
    assert max(sizes) <= 10
    reads: list[ObjectKey] = []

    def load(store: ObjectStore, ref: ObjectRef) -> bytes:
        reads.append(ref.key)
        return load_object(store, ref)

    monkeypatch.setattr(ended, "load_object", load)
    for request_id in ("er-0", "no-105", "never"):
        reads.clear()
        found, _ = find_known(small.store, lambda: small.state, request_id)
        assert (found is None) == (request_id == "never")
        assert len(reads) <= 1


def test_a_damaged_bucket_is_reported_and_trusted_for_nothing(small: Small) -> None:
    """An id that may be in it is neither new nor known; a verification names the object."""
    several(small)
    ref = next(ref for ref in small.state.ended.buckets if ref is not None)
    small.store.delete(ref.key)
    notice = [each for each in scan_residue(small.store, small.state).found if str(ref.key) in each]
    assert notice == [f"object missing or damaged: {ref.key}"]
    with pytest.raises(Corrupt, match=f"an object of the federation's state is missing.*{ref.key}"):
        all_requests(small.store, small.state)
    place, count_ = small.state.ended.buckets.index(ref), len(small.state.ended.buckets)
    new = next(f"new-{n}" for n in range(1000) if ended._place(f"new-{n}", count_) == place)
    with pytest.raises(Corrupt, match="an object of the federation's state is missing"):
        small.accept(subjects=["s5"], request_id=new)


def test_who_reads_an_older_state_reads_again(small: Small) -> None:
    """A bucket that a writer has replaced meanwhile is read by the newer state; damage in that one is damage."""
    several(small)
    older = small.state
    refuse(small, *range(200, 230))
    states = [small.state, small.state, older]
    assert find_request(small.store, states.pop, "er-0") is not None
    states = [small.state, small.state, older]
    assert find_readmission(small.store, states.pop, "back-0") is not None
    with pytest.raises(Corrupt, match="an object of the federation's state is missing"):
        find_request(small.store, lambda: older, "er-0")


def test_the_log_still_tells_a_state_that_was_put_back(small: Small) -> None:
    """A request that left the state is still known; a request that an older state never had is not."""
    several(small)
    older = small.state
    assert forgotten_by(small.store, lambda: small.state) == ()
    small.erase(subjects=["s7"], request_id="er-7")
    refuse(small, *range(300, 300 + 3 * _TOGETHER))
    assert forgotten_by(small.store, lambda: small.state) == ()
    assert set(forgotten_by(small.store, lambda: older)) == {"er-7", *(f"no-{n}" for n in range(300, 309))}


def test_comparing_with_the_log_takes_no_longer_as_it_grows(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the state does not know is read, and the place where the next entry would be."""
    several(small)
    gets, lists, get, list_ = list[str](), list[str](), MemoryStore.get, MemoryStore.list

    def seen_get(self: MemoryStore, key: ObjectKey) -> StoredObject:
        gets.append(key)
        return get(self, key)

    def seen_list(self: MemoryStore, prefix: str) -> Iterator[ObjectInfo]:
        lists.append(prefix)
        return list_(self, prefix)

    monkeypatch.setattr(MemoryStore, "get", seen_get)
    monkeypatch.setattr(MemoryStore, "list", seen_list)
    state = small.state
    assert forgotten_by(small.store, lambda: state) == ()
    stated = 3 + 5 * _TOGETHER  # two erasures, a readmission, and those that found nothing
    assert (set(gets), lists) == ({f"log/entries/{stated:020d}", f"log/packs/{0:020d}"}, [])
    gets.clear()
    last = state.requests[-1]
    assert last.receipt is not None
    older = replace(state, requests=state.requests[:-1])
    assert forgotten_by(small.store, lambda: older) == (last.request_id,)
    assert f"log/entries/{last.receipt:020d}" in gets


def test_hundreds_of_ended_requests_cost_the_state_next_to_nothing(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state with four hundred more of them is larger by less than two bytes each."""
    monkeypatch.setattr(leaving, "TOGETHER", 16)
    monkeypatch.setattr(ended, "IN_A_BUCKET", 192)
    refuse(small, *range(40))
    few = len(str(encode_state(small.state)))
    refuse(small, *range(1000, 1400))
    assert small.state.ended.count > 400
    assert len(str(encode_state(small.state))) - few < 2 * 400
