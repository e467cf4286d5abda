"""A store with planned failures: before an operation, after it, or as if the process died.

Without faults it fulfils the whole contract (the contract suite runs on it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Literal

from storage.errors import OutcomeUnknown, SisaError
from storage.objects import ObjectInfo, ObjectKey, ObjectStore, StoredObject, VersionTag

Operation = Literal["put_if_absent", "put_if_match", "get", "list", "delete", "remove_unfinished"]
"""The operations that can fail."""

WRITES: frozenset[Operation] = frozenset({"put_if_absent", "put_if_match", "delete", "remove_unfinished"})
"""The operations that change the store: its crash points."""


class Crash(BaseException):
    """The process died here. No ``except`` in the product may catch it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One planned failure: at the ``nth`` call that matches, once."""

    when: Literal["before", "after"]
    """Whether it fails before the operation takes effect or after."""
    operation: Operation | Literal["write", "any"] = "any"
    """``write`` matches any of ``WRITES``."""
    prefix: str = ""
    """Matches keys with this prefix (for ``list``: listings whose prefix starts with it)."""
    nth: int = 1
    """1 means the next matching call."""
    error: type[BaseException] = OutcomeUnknown

    def matches(self, operation: Operation, key: str) -> bool:
        """Return whether the call matches this fault."""
        named = self.operation in {"any", operation} or (self.operation == "write" and operation in WRITES)
        return named and key.startswith(self.prefix)


@dataclass(slots=True)
class FaultyStore:
    """``inner`` with ``faults``, each of which occurs once; ``calls`` records all calls."""

    inner: ObjectStore
    faults: tuple[Fault, ...] = ()
    calls: list[tuple[Operation, str]] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def location(self) -> str:
        """Where the inner store is."""
        return self.inner.location

    def plan(self, *faults: Fault) -> None:
        """Replace the remaining faults, and clear the record of calls."""
        with self._lock:
            self.faults = faults
            self.calls.clear()

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object."""
        due = self._due("put_if_absent", key)
        _strike(due, "before")
        tag = self.inner.put_if_absent(key, payload)
        _strike(due, "after")
        return tag

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object."""
        due = self._due("put_if_match", key)
        _strike(due, "before")
        tag = self.inner.put_if_match(key, payload, expected)
        _strike(due, "after")
        return tag

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object."""
        due = self._due("get", key)
        _strike(due, "before")
        found = self.inner.get(key)
        _strike(due, "after")
        return found

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Return the object; faults treat it as a ``get``."""
        due = self._due("get", key)
        _strike(due, "before")
        found = self.inner.get_durable(key)
        _strike(due, "after")
        return found

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Return the objects; a fault after the operation occurs when all have been read."""
        due = self._due("list", prefix)
        _strike(due, "before")
        found = tuple(self.inner.list(prefix))
        _strike(due, "after")
        return iter(found)

    def delete(self, key: ObjectKey) -> None:
        """Remove the object."""
        due = self._due("delete", key)
        _strike(due, "before")
        self.inner.delete(key)
        _strike(due, "after")

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Remove the objects one after another."""
        for key in keys:
            self.delete(key)

    def unfinished(self, prefix: str) -> Iterator[str]:
        """Yield the inner store's leftovers."""
        return self.inner.unfinished(prefix)

    def remove_unfinished(self, prefix: str) -> int:
        """Remove the inner store's leftovers."""
        due = self._due("remove_unfinished", prefix)
        _strike(due, "before")
        count = self.inner.remove_unfinished(prefix)
        _strike(due, "after")
        return count

    def foreign(self) -> Iterator[str]:
        """Yield the inner store's foreign names."""
        return self.inner.foreign()

    def exclusive(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Hold the inner store's exclusive right."""
        return self.inner.exclusive(name, holder)

    def _due(self, operation: Operation, key: str) -> tuple[Fault, ...]:
        """Record the call; remove and return the faults that are due."""
        with self._lock:
            self.calls.append((operation, key))
            counted = [
                replace(fault, nth=fault.nth - 1) if fault.matches(operation, key) else fault for fault in self.faults
            ]
            self.faults = tuple(fault for fault in counted if fault.nth > 0)
            return tuple(fault for fault in counted if fault.nth <= 0)

    def __reduce__(self) -> tuple[object, ...]:
        return FaultyStore, (self.inner, self.faults)


def _strike(due: tuple[Fault, ...], moment: Literal["before", "after"]) -> None:
    for fault in due:
        if fault.when != moment:
            continue
        if issubclass(fault.error, SisaError):
            raise fault.error("planned fault", "none", when=moment)
        raise fault.error
