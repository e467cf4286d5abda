"""Stores for simulations: an auditor sees every change, and the process can crash at any operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from coordinator.state import FederationState
from storage.digests import sha256
from storage.errors import ObjectMissing
from storage.objects import ObjectInfo, ObjectKey, ObjectStore, StoredObject, VersionTag
from storage.stores.memory import MemoryStore
from tests.doubles.stores.faulty_store import WRITES, Crash, Fault, FaultyStore, Operation
from tests.simulation.model.auditor import Auditor


def left_over(store: ObjectStore, state: FederationState) -> list[ObjectKey]:
    """Return the objects that the state does not name, except those of registers, log, receipts and keyrings."""
    current = state.referenced()
    others = ("manifest/", "journal/", "control/", "receipts/", "log/", "keyrings/", "history/")
    return [info.key for info in store.list("") if info.key not in current and not info.key.startswith(others)]


@dataclass(frozen=True, slots=True)
class AuditedStore(MemoryStore):
    """Objects in memory; an auditor sees every change."""

    auditor: Auditor

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object and show it to the auditor."""
        tag = MemoryStore.put_if_absent(self, key, payload)
        self.auditor.created(self, key, payload)
        return tag

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object, unless the auditor objects."""
        self.auditor.replacing(key)
        return MemoryStore.put_if_match(self, key, payload, expected)

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object."""
        payload = self._space.objects.get(key)
        if payload is None:
            raise ObjectMissing("the store has no such object", key=key)
        return StoredObject(payload=payload, tag=_tag(payload))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Return the current objects."""
        objects = self._space.objects
        found = sorted(key for key in objects if key.startswith(prefix))
        return iter([ObjectInfo(key=key, payload_bytes=len(objects[key])) for key in found])

    def delete(self, key: ObjectKey) -> None:
        """Remove the object, unless the auditor objects."""
        self.auditor.deleting(key)
        MemoryStore.delete(self, key)


@lru_cache(10_000)
def _tag(payload: bytes) -> VersionTag:
    return VersionTag(sha256(payload))


@dataclass(slots=True)
class CrashingStore(FaultyStore):
    """After a ``Crash`` no operation reaches the inner store until ``restart``: a dead process cannot clean up."""

    dead: bool = False
    at_write: Callable[[int], None] = lambda _: None
    """Called before every write with its number, from 0."""
    writes: int = 0
    next_faults: tuple[Fault, ...] = ()
    """The faults planned for the process after the next crash."""

    def restart(self) -> None:
        """Start a new process."""
        self.dead = False
        self.plan(*self.next_faults)
        self.next_faults = ()

    def _due(self, operation: Operation, key: str) -> tuple[Fault, ...]:
        if self.dead:
            raise Crash
        if operation in WRITES:
            self.writes += 1
            self.at_write(self.writes - 1)
        due = FaultyStore._due(self, operation, key)
        self.dead = any(fault.error is Crash for fault in due)
        return due
