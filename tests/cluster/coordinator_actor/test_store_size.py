"""Counting what a store holds: whole, in bounded pieces, seldom."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from math import inf
from typing import ClassVar

import pytest

from cluster.coordinator_actor import store_size
from cluster.coordinator_actor.store_size import AGAIN_SECONDS, StoreCount, StoreSize
from storage.errors import Unavailable
from storage.objects import ObjectInfo, ObjectKey, object_key
from storage.stores.memory import MemoryStore
from tests.doubles.time_and_names import VirtualClock

_STORES = count()


class _Still(VirtualClock):
    """A clock that stands until it is moved."""

    seconds = 0.0

    def monotonic(self) -> float:
        """Return the moment."""
        return self.seconds


class _Listed(MemoryStore):
    """Remembers what was listed of it, and is away after so many objects."""

    listed: ClassVar[list[ObjectKey]] = []
    away_after: ClassVar[float] = inf

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what there is, one after another."""
        for info in super().list(prefix):
            if len(self.listed) == self.away_after:
                raise Unavailable("the store is away", "wait")
            self.listed.append(info.key)
            yield info


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Listed]:
    """Five objects, of which two are counted at a time."""
    monkeypatch.setattr(store_size, "PIECE", 2)
    monkeypatch.setattr(_Listed, "listed", [])
    made = _Listed(f"counted-{next(_STORES)}")
    for number in range(5):
        made.put_if_absent(object_key(f"log/{number}"), b"x" * number)
    yield made
    made.forget()


def test_a_store_is_counted_piece_by_piece(store: _Listed) -> None:
    """Each step lists one piece; the last one reports objects and bytes, and earlier ones tell nothing."""
    counting = StoreCount(store, _Still())
    found = [(counting.step(), len(store.listed)) for _ in range(2)]
    assert found == [(None, 2), (None, 4)]
    assert counting.step() == StoreSize(objects=5, payload_bytes=10)


def test_it_is_counted_again_an_hour_later(store: _Listed) -> None:
    """Until then nothing is listed; then the old figures stay until the new ones are complete."""
    clock = _Still()
    counting = StoreCount(store, clock)
    before = [counting.step() for _ in range(10)][-1]
    assert len(store.listed) == 5
    store.put_if_absent(object_key("log/5"), b"xxx")
    clock.seconds += AGAIN_SECONDS
    assert [counting.step() for _ in range(3)] == [before] * 3
    assert counting.step() == StoreSize(objects=6, payload_bytes=13)


def test_a_store_that_is_away_is_counted_later(store: _Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that meets an error is given up without an error, and begun again an hour later."""
    clock = _Still()
    counting = StoreCount(store, clock)
    monkeypatch.setattr(_Listed, "away_after", 3)
    assert [counting.step() for _ in range(4)] == [None] * 4
    assert len(store.listed) == 3
    monkeypatch.setattr(_Listed, "away_after", inf)
    clock.seconds = AGAIN_SECONDS
    assert [counting.step() for _ in range(3)][-1] == StoreSize(objects=5, payload_bytes=10)
