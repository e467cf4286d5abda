"""The start-up probe refuses stores that break a promise, by the name of the promise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import pytest

from storage.errors import ObjectChanged, ObjectExists, Unavailable
from storage.objects import ObjectInfo, ObjectKey, StoredObject, VersionTag
from storage.stores.memory import MemoryStore
from storage.stores.probe import probe_store
from tests.doubles.stores.faulty_store import Fault, FaultyStore

WRITERS = 8


def put(store: MemoryStore, key: ObjectKey, payload: bytes) -> VersionTag:
    """Write without a condition."""
    store.delete(key)
    return store.put_if_absent(key, payload)


@dataclass
class Overwriting(FaultyStore):
    """Ignores the condition of a creation, as some gateways ignore the header."""

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object, or so it says."""
        assert isinstance(self.inner, MemoryStore)
        return put(self.inner, key, payload)


class Unconditional(FaultyStore):
    """Ignores the condition of a replacement."""

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object, or so it says."""
        assert isinstance(self.inner, MemoryStore)
        self.inner.get(key)
        return put(self.inner, key, payload)


class Reviving(FaultyStore):
    """Replaces what is not there."""

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object, or so it says."""
        if not list(self.inner.list(key)):
            return self.inner.put_if_absent(key, payload)
        return self.inner.put_if_match(key, payload, expected)


class Undeleting(FaultyStore):
    """Says that it deleted, and keeps the object."""

    def delete(self, key: ObjectKey) -> None:
        """Remove the object, or so it says."""
        if key.endswith("-erase"):
            return
        self.inner.delete(key)


class Blind(FaultyStore):
    """Lists nothing."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects, or so it says."""
        return iter(())


class Flipping(FaultyStore):
    """Returns a body with one bit changed, as plain HTTP may."""

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object, or so it says."""
        found = self.inner.get(key)
        return StoredObject(payload=bytes([found.payload[0] ^ 1]) + found.payload[1:], tag=found.tag)


class Shared(FaultyStore):
    """Gives the right to write to all who ask."""

    def exclusive(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Hold the right, or so it says."""
        return nullcontext()


@dataclass
class Racy(FaultyStore):
    """Checks the condition, waits until all 8 writers have checked it, and writes: right only one at a time."""

    meetings: dict[str, threading.Barrier] = field(default_factory=dict)
    """By key, for the keys are raced at once."""
    operation: str = "create"

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object, or so it says."""
        if "race-create" not in key or self.operation != "create":
            return self.inner.put_if_absent(key, payload)
        if list(self.inner.list(key)):
            raise ObjectExists("taken")
        return self._write(key, payload)

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object, or so it says."""
        if "race-swap" not in key or self.operation != "replace":
            return self.inner.put_if_match(key, payload, expected)
        if self.inner.get(key).tag != expected:
            raise ObjectChanged("changed")
        return self._write(key, payload)

    def _write(self, key: ObjectKey, payload: bytes) -> VersionTag:
        assert isinstance(self.inner, MemoryStore)
        if self.meetings.setdefault(key, threading.Barrier(WRITERS)).wait() == 0:
            put(self.inner, key, payload)
        return self.inner.get(key).tag if list(self.inner.list(key)) else VersionTag("")


@pytest.mark.parametrize(
    ("breach", "message"),
    [
        (Overwriting, "creates an object over an existing one"),
        (Unconditional, "replaces an object under a stale tag"),
        (Reviving, "replaces an object that was deleted"),
        (Undeleting, "still returns an object after its deletion"),
        (Blind, "does not list an object that was just written"),
        (Flipping, "does not return what was just written"),
        (Shared, "gives the writer's right to two holders at once"),
    ],
)
def test_a_broken_promise_is_named(memory: MemoryStore, breach: type[FaultyStore], message: str) -> None:
    """Each broken promise is refused by its name, with the store's and what to do."""
    with pytest.raises(Unavailable, match=f"this store {message}.*store=memory:.*a folder on a local disk"):
        probe_store(breach(memory))


@pytest.mark.parametrize("operation", ["create", "replace"])
def test_a_store_that_fails_only_in_a_race_is_refused(memory: MemoryStore, operation: str) -> None:
    """A store that answers right one at a time and lets 8 of 8 writers win together is refused."""
    with pytest.raises(Unavailable, match=f"this store lets 8 of 8 writers {operation} the same object"):
        probe_store(Racy(memory, operation=operation))


@pytest.mark.parametrize("breach", [Overwriting, Unconditional, Reviving, Flipping, Shared])
def test_a_failed_probe_leaves_nothing(memory: MemoryStore, breach: type[FaultyStore]) -> None:
    """The probe's objects are removed also when it refuses the store."""
    with pytest.raises(Unavailable, match="this store"):
        probe_store(breach(memory))
    assert list(memory.list("")) == []


def test_a_store_that_is_away_is_reported_as_it_says(memory: MemoryStore) -> None:
    """The store's own error goes through, and what was written until then is removed."""
    for nth in range(1, 16):
        with pytest.raises(Unavailable, match="planned fault"):
            probe_store(FaultyStore(memory, (Fault(when="before", operation="get", nth=nth, error=Unavailable),)))
        assert list(memory.list("")) == []


def test_two_probes_do_not_disturb_each_other(memory: MemoryStore) -> None:
    """While one probe holds the right it tries out, another one passes."""
    with memory.exclusive("probe", holder="another probe"):
        probe_store(memory)
