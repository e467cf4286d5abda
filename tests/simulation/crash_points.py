"""The steps of one erasure, each as the operation that makes it durable, and places where a process can die at one.

STORAGE section 6.2 names 18 steps. In our design some of them are one operation: points are removed, the erasure floor
rises and the purge list is stated by one entry of the journal; the retrained ensemble is committed and taken over by
readers with one entry, too. They stand in the table under each of their names.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

from storage.objects import ObjectInfo, ObjectKey, ObjectStore, StoredObject, VersionTag
from storage.stores.durability import write_temporary
from storage.stores.local import LocalStore
from tests.doubles.stores.faulty_store import Crash
from tests.doubles.stores.memory_bucket import MemoryBucketStore, RetriedBucket

When = Literal["before", "unacknowledged", "torn"]
"""Before the operation took effect; after it did, unheard; in the middle of it."""

Operation = Literal["put_if_absent", "put_if_match", "delete", "list", "remove_unfinished"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, and how to recognise its operation among those of the erasure."""

    name: str
    operation: Operation
    key: str
    """Pattern of the object's key; of the prefix for ``list``."""
    entry: str = ""
    """For an entry of the journal: the event that it records."""
    place: int = 0
    """Which of the operations that match, in order; -1: the last."""
    same_as: str = ""
    """The step that is the same operation in our design."""

    def matches(self, operation: str, key: str, payload: bytes) -> bool:
        """Return whether an operation is of this kind."""
        event = f'"event":"{self.entry}"'.encode() if self.entry else b""
        return operation == self.operation and re.search(self.key, key) is not None and event in payload


_OBJECT = r"^shards/"
_ENTRY = r"^journal/"

STEPS: Final = (
    # The names of a large request; those of a small one stand in its entry.
    Step(name="accept", operation="put_if_absent", key=r"^requests/.*\.digests$"),
    Step(name="ack", operation="put_if_absent", key=_ENTRY, entry="erasure_accepted"),
    # The state before it, which the receipt is written from: the last object before the removal is committed.
    Step(name="plan", operation="put_if_absent", key=r"^requests/.*\.before$"),
    Step(name="floor", operation="put_if_absent", key=_ENTRY, entry="points_removed"),
    Step(name="slices put", operation="put_if_absent", key=r"^shards/.*/slices/"),
    Step(name="data commit", operation="put_if_absent", key=_ENTRY, entry="points_removed", same_as="floor"),
    Step(name="checkpoint put", operation="put_if_absent", key=r"^shards/.*/checkpoints/"),
    Step(name="checkpoint put, last", operation="put_if_absent", key=r"^shards/.*/checkpoints/", place=-1),
    Step(name="generation commit", operation="put_if_absent", key=_ENTRY, entry="checkpoint_written", place=-1),
    # Readers take the new generation from that entry.
    Step(
        name="switch",
        operation="put_if_absent",
        key=_ENTRY,
        entry="checkpoint_written",
        place=-1,
        same_as="generation commit",
    ),
    Step(name="purge list", operation="put_if_absent", key=_ENTRY, entry="points_removed", same_as="floor"),
    Step(name="deletes", operation="delete", key=_OBJECT),
    # Older versions in a bucket, temporary files and unfinished uploads beside: what a deletion by name leaves.
    Step(name="version purge", operation="remove_unfinished", key=""),
    # Nothing is cached outside the store. What still names purged objects are superseded manifests.
    Step(name="cache evict", operation="delete", key=r"^manifest/"),
    Step(name="key destroy", operation="delete", key=r"^keyrings/.*/kek-"),
    Step(name="re-scan", operation="list", key=r"^shards/$", place=-1),
    Step(name="receipt", operation="put_if_absent", key=r"^receipts/bundles/"),
    Step(name="log checkpoint", operation="put_if_absent", key=r"^log/checkpoint/"),
    Step(name="done", operation="put_if_absent", key=_ENTRY, entry="purged", place=-1),
)


@dataclass(slots=True, kw_only=True)
class Place:
    """Where the process dies: at operation number ``number`` of those that match ``step``."""

    step: Step
    when: When
    number: int
    is_hit: bool = False


class Ground(ABC):
    """A store under test, and what a death in the middle of an operation leaves in it."""

    @property
    @abstractmethod
    def store(self) -> ObjectStore:
        """The store."""

    @abstractmethod
    def tear_put(self, key: ObjectKey, payload: bytes) -> None:
        """Leave what is left of a put that was under way."""

    @abstractmethod
    def tear_delete(self, key: ObjectKey) -> None:
        """Leave what is left of a deletion that was under way."""

    @abstractmethod
    def tear_tidying(self) -> None:
        """Leave what is left of a removal of unfinished writes that was under way."""

    def litter(self) -> None:
        """Leave what two writers left that died long ago."""
        for number in range(2):
            self.tear_put(ObjectKey(f"shards/0000/slices/0001/long-ago-{number}.parquet"), b"of an earlier death")


@dataclass(frozen=True, slots=True)
class LocalGround(Ground):
    """A folder."""

    folder: Path

    @property
    def store(self) -> ObjectStore:
        """The store in it."""
        return LocalStore(str(self.folder))

    def tear_put(self, key: ObjectKey, payload: bytes) -> None:
        """Leave a temporary file with half of it."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        write_temporary(path, payload[: len(payload) // 2])

    def tear_delete(self, key: ObjectKey) -> None:
        """Leave the folder without the name, and not synced."""
        (self.folder / key).unlink()

    def tear_tidying(self) -> None:
        """Leave all temporary files but one."""
        name = next(iter(self.store.unfinished("")))
        (self.folder / name).unlink()


@dataclass(frozen=True, slots=True)
class BucketGround(Ground):
    """A bucket that keeps versions."""

    bucket: RetriedBucket

    @property
    def store(self) -> ObjectStore:
        """The store in it."""
        return MemoryBucketStore(self.bucket)

    def tear_put(self, key: ObjectKey, payload: bytes) -> None:
        """Leave an upload that was begun."""
        self.bucket.begin(f"federation/{key}")

    def tear_delete(self, key: ObjectKey) -> None:
        """Leave the latest version."""
        versions = [each for each in self.bucket.versions(f"federation/{key}") if not each.latest]
        self.bucket.remove(versions)

    def tear_tidying(self) -> None:
        """Leave all uploads but one."""
        self.bucket.abort(self.bucket.begun[0])


@dataclass(slots=True)
class PerilousStore:
    """The store of a process that dies at one place; ``asked`` has every operation with key and payload."""

    ground: Ground
    place: Place | None = None
    is_dead: bool = False
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def location(self) -> str:
        """Where the store is."""
        return self.ground.store.location

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object."""
        act, torn = partial(self._inner.put_if_absent, key, payload), partial(self.ground.tear_put, key, payload)
        return self._do("put_if_absent", key, payload, act, torn)

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object."""
        act = partial(self._inner.put_if_match, key, payload, expected)
        return self._do("put_if_match", key, payload, act, partial(self.ground.tear_put, key, payload))

    def get(self, key: ObjectKey) -> StoredObject:
        """Read the object."""
        return self._do("get", key, b"", partial(self._inner.get, key), lambda: None)

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Read the object: in memory all of them are durable."""
        return self.get(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the objects; in the middle of a listing nothing is left."""
        return iter(self._do("list", prefix, b"", lambda: tuple(self._inner.list(prefix)), lambda: None))

    def delete(self, key: ObjectKey) -> None:
        """Remove the object."""
        self._do("delete", key, b"", partial(self._inner.delete, key), partial(self.ground.tear_delete, key))

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Remove the objects one after another."""
        for key in keys:
            self.delete(key)

    def unfinished(self, prefix: str) -> Iterator[str]:
        """Yield the inner store's leftovers."""
        return self._inner.unfinished(prefix)

    def remove_unfinished(self, prefix: str) -> int:
        """Remove the inner store's leftovers."""
        act = partial(self._inner.remove_unfinished, prefix)
        return self._do("remove_unfinished", prefix, b"", act, self.ground.tear_tidying)

    def foreign(self) -> Iterator[str]:
        """Yield the inner store's foreign names."""
        return self._inner.foreign()

    def exclusive(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Hold the inner store's right."""
        return self._inner.exclusive(name, holder)

    @property
    def _inner(self) -> ObjectStore:
        return self.ground.store

    def _do(
        self, operation: str, key: str, payload: bytes, act: Callable[[], Result], torn: Callable[[], None]
    ) -> Result:
        """Do it, unless the process dies here or is dead already: then it cleans nothing up."""
        if self.is_dead:
            raise Crash
        self.asked.append((operation, key, payload))
        place = self.place
        if place is None or not place.step.matches(operation, key, payload):
            return act()
        place.number -= 1
        if place.number >= 0:
            return act()
        self.is_dead = place.is_hit = True
        if place.when == "torn":
            torn()
        if place.when == "unacknowledged":
            act()
        raise Crash
