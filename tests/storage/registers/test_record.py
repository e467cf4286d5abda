"""The record that several writers change: whole or not at all, and none of them lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from storage.digests import Json
from storage.errors import Corrupt, Unavailable
from storage.objects import object_key
from storage.registers.record import RecordRegister
from storage.stores.memory import MemoryStore
from tests.doubles.stores.faulty_store import Fault, FaultyStore

KEY = object_key("control/some")
_NUMBERS = count()


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """An empty store."""
    found = MemoryStore(f"records-{next(_NUMBERS)}")
    yield found
    found.forget()


def record(store: Any) -> RecordRegister:
    """Return the record under test."""
    return RecordRegister(store=store, key=KEY, field_names=frozenset({"numbers"}))


def adding(number: int) -> Any:
    """Return the change that adds a number, once."""

    def changed(fields: Mapping[str, Json] | None) -> Mapping[str, Json]:
        numbers: Any = fields["numbers"] if fields else []
        return {"numbers": numbers if number in numbers else [*numbers, number]}

    return changed


def test_what_is_changed_is_read(store: MemoryStore) -> None:
    """There is no record before the first change; then the last change is what is read."""
    assert record(store).read() is None
    assert record(store).change(adding(1)) == {"numbers": [1]}
    assert record(store).change(adding(2)) == record(store).read() == {"numbers": [1, 2]}


def test_a_change_that_changes_nothing_writes_nothing(store: MemoryStore) -> None:
    """What is as it should be stays the object that it is."""
    record(store).change(adding(1))
    tag = store.get(KEY).tag
    record(store).change(adding(1))
    assert store.get(KEY).tag == tag


def test_no_change_is_lost_in_a_race(store: MemoryStore) -> None:
    """When many writers change the record at once, it has the change of every one."""
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda number: record(store).change(adding(number)), range(40)))
    fields = record(store).read()
    assert fields is not None
    numbers: Any = fields["numbers"]
    assert sorted(numbers) == list(range(40))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_in_doubt_is_made_once(store: MemoryStore, when: Any) -> None:
    """A write of which nobody knows whether it landed is looked at before anything else (D6)."""
    faulty = FaultyStore(store)
    faulty.plan(
        Fault(when=when, operation="put_if_absent", prefix="control/"),
        Fault(when=when, operation="put_if_match", prefix="control/"),
    )
    record(faulty).change(adding(1))
    record(faulty).change(adding(2))
    assert record(store).read() == {"numbers": [1, 2]}


def test_a_store_that_is_away_is_reported(store: MemoryStore) -> None:
    """After some attempts the error is the caller's."""
    faulty = FaultyStore(store)
    faulty.plan(
        *(
            Fault(when="before", operation="put_if_absent", prefix="control/", nth=number, error=Unavailable)
            for number in range(1, 65)
        )
    )
    with pytest.raises(Unavailable, match="."):
        record(faulty).change(adding(1))
    assert record(store).read() is None


def test_a_damaged_record_is_not_believed(store: MemoryStore) -> None:
    """Any other byte is an error, and nothing is written over it."""
    record(store).change(adding(1))
    stored = store.get(KEY)
    store.put_if_match(KEY, stored.payload.replace(b"[1]", b"[7]"), stored.tag)
    with pytest.raises(Corrupt, match="."):
        record(store).change(adding(2))
