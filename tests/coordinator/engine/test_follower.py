"""Following: a reader that looks often knows the same as one that looks once, and pays only for news."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.decisions.events import (
    ErasureAccepted,
    Event,
    RequestHeld,
)
from coordinator.engine.follower import Follower
from coordinator.engine.ledger import Ledger, read_state
from storage.errors import Unavailable
from storage.objects import ObjectInfo, ObjectKey, StoredObject
from storage.stores.memory import MemoryStore
from tests.coordinator.records import federation, request_of
from tests.doubles.time_and_names import CountingNames

_STORES = count()
AT = "2026-01-01T00:00:00.000+00:00"
FRESH = federation((2, 1), (1, 1))


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """An empty store."""
    found = MemoryStore(f"following-{next(_STORES)}")
    yield found
    found.forget()


@dataclass(frozen=True, slots=True)
class _Watched(MemoryStore):
    """A store that notes what readers ask of it."""

    calls: list[str] = field(default_factory=list, compare=False)

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object."""
        self.calls.append("get")
        return MemoryStore.get(self, key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects."""
        self.calls.append("list")
        return MemoryStore.list(self, prefix)


def accepted(number: int) -> Event:
    """Return the acceptance of one of many requests."""
    return ErasureAccepted(request=request_of(f"er-{number}"))


def test_nothing_committed_is_nothing_known(store: MemoryStore) -> None:
    """A follower of an empty store knows no state, and knows the first one once it is committed."""
    follower = Follower(store)
    assert follower.look() is None
    ledger = Ledger.start(store, CountingNames(), FRESH)
    assert follower.look() == ledger.state


@given(steps=st.lists(st.sampled_from(["record", "compact", "restart", "look"]), max_size=25))
def test_it_knows_what_is_committed(steps: list[str]) -> None:
    """A read returns the current state, even if a writer recorded, compacted or took over in between."""
    store, names = MemoryStore(f"following-{next(_STORES)}"), CountingNames()
    ledger, follower = Ledger.start(store, names, FRESH), Follower(store)
    for number, step in enumerate(steps):
        match step:
            case "record":
                ledger.record(accepted(number), RequestHeld(request_id=f"er-{number}", reason="a lawsuit", at=AT))
            case "compact":
                ledger.compact(lambda: True)
            case "restart":
                ledger = Ledger.start(store, names, FRESH)
            case _:
                assert follower.look() == ledger.state
    assert follower.look() == ledger.state == read_state(store)
    store.forget()


def test_a_look_without_news_reads_two_objects(store: MemoryStore) -> None:
    """If nothing was committed since, a follower reads one name and the floor, and lists nothing."""
    Ledger.start(store, CountingNames(), FRESH)
    watched = _Watched(store.name)
    follower = Follower(watched)
    follower.look()
    watched.calls.clear()
    follower.look()
    assert watched.calls == ["get", "get"]


def test_a_store_that_is_gone_confirms_nothing(store: MemoryStore) -> None:
    """An empty store in place of a full one, or an older copy, is an error: nothing follows from what it lacks."""
    ledger, follower = Ledger.start(store, CountingNames(), FRESH), Follower(store)
    follower.look()
    kept = {info.key: store.get(info.key).payload for info in store.list("")}
    ledger.record(accepted(1))
    ledger.compact(lambda: True)
    follower.look()
    for key in [info.key for info in store.list("")]:
        store.delete(key)
    with pytest.raises(Unavailable, match="does not hold what it held before"):
        follower.look()
    _fill(store, kept)
    with pytest.raises(Unavailable, match="set back to an earlier moment"):
        follower.look()


def _fill(store: MemoryStore, kept: dict[ObjectKey, bytes]) -> None:
    for key, payload in kept.items():
        store.put_if_absent(key, payload)
