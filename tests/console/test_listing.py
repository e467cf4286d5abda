"""The list of requests: those due first come first, and old requests are read once, and only when needed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cluster.serving.console.listing import ON_A_PAGE, RequestListing
from coordinator.delays import Pause
from coordinator.engine import ended
from coordinator.requests import ErasureRequest, Readmission, RequestState
from coordinator.state import EndedRequests, FederationState
from storage.digests import sha256
from storage.objects import NewName, ObjectKey, StoredObject
from storage.stores.memory import MemoryStore
from tests.coordinator.records import federation, paused, request_of
from tests.doubles.time_and_names import CountingNames

NOW = datetime(2026, 11, 30, tzinfo=UTC)
NAMES = CountingNames()
OLD = 130
"""Requests that have left the state: more than two pages of them."""


def day(number: int) -> str:
    """Return the moment this many days from now."""
    return (NOW + timedelta(days=number)).isoformat()


def asked(name: str, due: int = 30, **changes: object) -> ErasureRequest:
    """Return a request that is due in so many days."""
    return replace(request_of(name), received_at=day(due - 30), due_at=day(due), **changes)  # type: ignore[arg-type]


def over(name: str, at: int, state: RequestState = RequestState.COMPLETE) -> ErasureRequest:
    """Return a request that ended so many days from now."""
    return asked(name, at + 30, state=state, times={state.value: day(at)}, names=None)


class CountingStore:
    """A store in memory that counts what is read."""

    def __init__(self) -> None:
        self.reads = 0
        self._store = MemoryStore("list")
        self._store.forget()

    def get(self, key: ObjectKey) -> StoredObject:
        """Count and read."""
        self.reads += 1
        return self._store.get(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def with_old(store: Any, count: int = OLD, names: NewName = NAMES) -> FederationState:
    """Return a federation of which this many requests, and a readmission, have left the state."""
    state = federation((4, 4))
    made = ended._Buckets(store, state)
    made.grow(3)
    for number in range(count):
        refused = RequestState.REFUSED if number % 10 == 0 else RequestState.COMPLETE
        made.add(number, over(f"old-{number:05d}", -1000 + number, refused))
    made.add(0, Readmission(request_id="re-1", body=sha256(b"1"), subjects=1, reason="r", at=day(-2000)))
    refused_ones = -(-count // 10)
    kept = EndedRequests(
        complete=count - refused_ones, refused=refused_ones, readmissions=1, buckets=made.written(names)
    )
    return replace(state, ended=kept)


def test_what_is_due_first_stands_first() -> None:
    """Overdue requests first, then by due date, then ended ones, newest first; a paused request does not become
    late.
    """
    store = CountingStore()
    held = replace(asked("held", -2), pause=Pause(reason="court", held_at=day(-20)))
    state = replace(
        with_old(store, 0),
        requests=(over("done", -1), asked("late", -1), asked("soon", 3), asked("far", 20), held, over("before", -9)),
    )
    page = RequestListing(store, lambda: state).page("all", 1, NOW)
    assert [each.request_id for each in page.requests[:6]] == ["late", "held", "soon", "far", "done", "before"]
    assert [(each.overdue, each.due_soon) for each in page.requests[:4]] == [
        (True, False),
        (False, False),
        (False, True),
        (False, False),
    ]
    assert page.counts == {
        "all": 7,
        "open": 4,
        "overdue": 1,
        "complete": 2,
        "refused": 0,
        "cancelled": 0,
        "readmitted": 1,
    }


def test_the_first_page_reads_nothing_old() -> None:
    """What is open, and what ended last, is in the state; older pages read every bucket only once."""
    store = CountingStore()
    state = replace(with_old(store), requests=tuple(over(f"new-{number}", -1) for number in range(ON_A_PAGE)))
    listing = RequestListing(store, lambda: state)
    store.reads = 0
    assert len(listing.page("all", 1, NOW).requests) == ON_A_PAGE
    assert store.reads == 0
    assert listing.page("all", 2, NOW).requests[0].request_id == f"old-{OLD - 1:05d}"
    once = store.reads
    assert once == len([each for each in state.ended.buckets if each])
    listing.page("all", 3, NOW)
    assert store.reads == once


def test_every_request_is_on_one_page() -> None:
    """Every request of a group is on exactly one of its pages; a number beyond the last page gives the last page."""
    store = CountingStore()
    state = replace(with_old(store), requests=(asked("open"), paused(asked("held"))))
    listing = RequestListing(store, lambda: state)
    for group, count in (("all", OLD + 3), ("complete", OLD - 13), ("refused", 13), ("readmitted", 1), ("open", 2)):
        pages = listing.page(group, 1, NOW).pages
        found = [each for number in range(pages) for each in listing.page(group, number + 1, NOW).requests]
        assert len({each.request_id for each in found}) == len(found) == count
        assert listing.page(group, 999, NOW).number == pages
    assert listing.page("nothing", 1, NOW).group == "all"
    assert RequestListing(store, lambda: None).page("all", 1, NOW).requests == ()


def test_buckets_that_were_replaced_meanwhile_are_read_again() -> None:
    """If a writer replaces a bucket before it is read, the list is made from the newer state."""
    store = CountingStore()
    before = with_old(store)
    for ref in before.ended.buckets:
        if ref is not None:
            store.delete(ref.key)
    after = with_old(store)
    states = [before, after]
    listing = RequestListing(store, lambda: states.pop(0) if len(states) > 1 else states[0])
    assert len(listing.page("refused", 1, NOW).requests) == 13
