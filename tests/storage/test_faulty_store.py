"""The faulty store strikes exactly as planned."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable, Iterator

import pytest

from storage.errors import ObjectExists, ObjectMissing, OutcomeUnknown, Unavailable
from storage.objects import object_key
from storage.stores.memory import MemoryStore
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore

KEY = object_key("folder/object")


@pytest.fixture
def store() -> Iterator[FaultyStore]:
    """A faulty store without faults yet."""
    memory = MemoryStore(secrets.token_hex(8))
    yield FaultyStore(memory)
    memory.forget()


def test_a_fault_before_changes_nothing(store: FaultyStore) -> None:
    """A fault before the operation leaves the store as it was; it strikes once."""
    store.plan(Fault(when="before", error=Unavailable))
    with pytest.raises(Unavailable, match=r"planned fault \[when=before\]"):
        store.put_if_absent(KEY, b"x")
    with pytest.raises(ObjectMissing, match="no such object"):
        store.inner.get(KEY)
    store.put_if_absent(KEY, b"x")


def test_a_fault_after_changes_everything(store: FaultyStore) -> None:
    """A fault after the operation comes when it has taken effect."""
    store.plan(Fault(when="after"))
    with pytest.raises(OutcomeUnknown, match=r"planned fault \[when=after\]"):
        store.put_if_absent(KEY, b"x")
    assert store.get(KEY).payload == b"x"


def test_a_fault_waits_for_its_turn(store: FaultyStore) -> None:
    """Only calls of its operation under its prefix count towards ``nth``."""
    store.plan(Fault(when="before", operation="put_if_absent", prefix="b/", nth=2))
    for text in ("a/1", "a/2", "b/1"):
        store.put_if_absent(object_key(text), b"x")
    store.delete(object_key("b/1"))
    with pytest.raises(OutcomeUnknown, match="planned fault"):
        store.put_if_absent(object_key("b/2"), b"x")
    assert store.faults == ()


@pytest.mark.parametrize("operation", ["put_if_absent", "put_if_match", "delete", "remove_unfinished"])
def test_every_write_is_a_crash_point(store: FaultyStore, operation: str) -> None:
    """A crash planned for the next write strikes each kind of write and no read."""
    tag = store.put_if_absent(KEY, b"x")
    store.plan(Fault(when="before", operation="write", error=Crash))
    store.get(KEY)
    list(store.list(""))
    acts: dict[str, Callable[[], object]] = {
        "put_if_absent": lambda: store.put_if_absent(object_key("other"), b"x"),
        "put_if_match": lambda: store.put_if_match(KEY, b"y", tag),
        "delete": lambda: store.delete(KEY),
        "remove_unfinished": lambda: store.remove_unfinished(""),
    }
    with pytest.raises(Crash, match=r"^$"):
        acts[operation]()
    assert [called for called, _ in store.calls] == ["get", "list", operation]


def test_the_plan_survives_pickling(store: FaultyStore) -> None:
    """A pickled faulty store has the faults still to come."""
    store.plan(Fault(when="before"))
    again = pickle.loads(pickle.dumps(store))
    with pytest.raises(OutcomeUnknown, match="planned fault"):
        again.get(KEY)


def test_a_refused_operation_keeps_its_own_error(store: FaultyStore) -> None:
    """A fault planned for after an operation that is refused does not hide the refusal."""
    store.put_if_absent(KEY, b"x")
    store.plan(Fault(when="after"))
    with pytest.raises(ObjectExists, match="exists"):
        store.put_if_absent(KEY, b"y")
