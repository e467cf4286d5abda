"""The steps of one erasure, each with the operation that makes it durable, and crash points at these operations.

An erasure has 18 named steps. In our design, some operations carry out several of them: one journal entry removes
points, raises the erasure floor and states the purge list; another commits the retrained ensemble and switches readers
to it. The table lists such an operation under each of its steps.
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
"""Before the operation takes effect; after it, without the answer; in the middle of it."""

Operation = Literal["put_if_absent", "put_if_match", "delete", "list", "remove_unfinished"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureStep:
    """One step, and how to recognise its operation."""

    name: str
    operation: Operation
    key: str
    """Pattern of the object's key; for ``list`` of the prefix."""
    entry: str = ""
    """For a journal entry: the event that it records."""
    occurrence: int = 0
    """Which of the matching operations, in order; -1: the last."""
    same_as: str = ""
    """Another step that is the same operation in our design."""

    def matches(self, operation: str, key: str, payload: bytes) -> bool:
        """Return whether an operation matches this step."""
        event = f'"event":"{self.entry}"'.encode() if self.entry else b""
        return operation == self.operation and re.search(self.key, key) is not None and event in payload


_OBJECT = r"^shards/"
_ENTRY = r"^journal/"

STEPS: Final = (
    # The names of a large request; a small one has them in its entry.
    ErasureStep(name="accept", operation="put_if_absent", key=r"^requests/.*\.digests$"),
    ErasureStep(name="ack", operation="put_if_absent", key=_ENTRY, entry="erasure_accepted"),
    # The earlier state, needed for the receipt: the last object before the removal is committed.
    ErasureStep(name="plan", operation="put_if_absent", key=r"^requests/.*\.before$"),
    ErasureStep(name="floor", operation="put_if_absent", key=_ENTRY, entry="points_removed"),
    ErasureStep(name="slices put", operation="put_if_absent", key=r"^shards/.*/slices/"),
    ErasureStep(name="data commit", operation="put_if_absent", key=_ENTRY, entry="points_removed", same_as="floor"),
    ErasureStep(name="checkpoint put", operation="put_if_absent", key=r"^shards/.*/checkpoints/"),
    ErasureStep(name="checkpoint put, last", operation="put_if_absent", key=r"^shards/.*/checkpoints/", occurrence=-1),
    ErasureStep(
        name="generation commit", operation="put_if_absent", key=_ENTRY, entry="checkpoint_written", occurrence=-1
    ),
    # Readers learn of the new generation from that entry.
    ErasureStep(
        name="switch",
        operation="put_if_absent",
        key=_ENTRY,
        entry="checkpoint_written",
        occurrence=-1,
        same_as="generation commit",
    ),
    ErasureStep(name="purge list", operation="put_if_absent", key=_ENTRY, entry="points_removed", same_as="floor"),
    ErasureStep(name="deletes", operation="delete", key=_OBJECT),
    # What a deletion by name leaves: older versions in a bucket, temporary files and unfinished uploads.
    ErasureStep(name="version purge", operation="remove_unfinished", key=""),
    # Nothing is cached outside the store; only superseded manifests still name purged objects.
    ErasureStep(name="cache evict", operation="delete", key=r"^manifest/"),
    ErasureStep(name="key destroy", operation="delete", key=r"^keyrings/.*/kek-"),
    ErasureStep(name="re-scan", operation="list", key=r"^$", occurrence=-1),
    ErasureStep(name="receipt", operation="put_if_absent", key=r"^receipts/bundles/"),
    ErasureStep(name="log checkpoint", operation="put_if_absent", key=r"^log/checkpoint/"),
    ErasureStep(name="done", operation="put_if_absent", key=_ENTRY, entry="purged", occurrence=-1),
)


@dataclass(slots=True, kw_only=True)
class CrashPoint:
    """Where the process dies: at matching operation number ``number`` of ``step``."""

    step: ErasureStep
    when: When
    number: int
    is_hit: bool = False


class StoreUnderTest(ABC):
    """A store under test, and what an interrupted operation leaves in it."""

    @property
    @abstractmethod
    def store(self) -> ObjectStore:
        """The store."""

    @abstractmethod
    def tear_put(self, key: ObjectKey, payload: bytes) -> None:
        """Leave the traces of an interrupted put."""

    @abstractmethod
    def tear_delete(self, key: ObjectKey) -> None:
        """Leave the traces of an interrupted deletion."""

    @abstractmethod
    def tear_cleanup(self) -> None:
        """Leave the traces of an interrupted removal of unfinished writes."""

    def leave_old_traces(self) -> None:
        """Leave the traces of two writers that died long ago."""
        for number in range(2):
            self.tear_put(ObjectKey(f"shards/0000/slices/0001/long-ago-{number}.parquet"), b"of an earlier death")


@dataclass(frozen=True, slots=True)
class LocalStoreUnderTest(StoreUnderTest):
    """A local store in a folder."""

    folder: Path

    @property
    def store(self) -> ObjectStore:
        """The store in it."""
        return LocalStore(str(self.folder))

    def tear_put(self, key: ObjectKey, payload: bytes) -> None:
        """Leave a temporary file with half of the payload."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        write_temporary(path, payload[: len(payload) // 2])

    def tear_delete(self, key: ObjectKey) -> None:
        """Remove the name without syncing the folder."""
        (self.folder / key).unlink()

    def tear_cleanup(self) -> None:
        """Remove one temporary file only."""
        name = next(iter(self.store.unfinished("")))
        (self.folder / name).unlink()


@dataclass(frozen=True, slots=True)
class BucketUnderTest(StoreUnderTest):
    """A store in a bucket that keeps versions."""

    bucket: RetriedBucket

    @property
    def store(self) -> ObjectStore:
        """The store in it."""
        return MemoryBucketStore(self.bucket)

    def tear_put(self, key: ObjectKey, payload: bytes) -> None:
        """Leave an upload that was started."""
        self.bucket.begin(f"federation/{key}")

    def tear_delete(self, key: ObjectKey) -> None:
        """Remove all versions except the latest."""
        versions = [each for each in self.bucket.versions(f"federation/{key}") if not each.latest]
        self.bucket.remove(versions)

    def tear_cleanup(self) -> None:
        """Abort one upload only."""
        self.bucket.abort(self.bucket.begun[0])


@dataclass(slots=True)
class CrashPointStore:
    """The store of a process that dies at one crash point; ``asked`` has every operation with key and payload."""

    target: StoreUnderTest
    crash_point: CrashPoint | None = None
    is_dead: bool = False
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def location(self) -> str:
        """Where the store is."""
        return self.target.store.location

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object."""
        act, torn = partial(self._inner.put_if_absent, key, payload), partial(self.target.tear_put, key, payload)
        return self._do("put_if_absent", key, payload, act, torn)

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object."""
        act = partial(self._inner.put_if_match, key, payload, expected)
        return self._do("put_if_match", key, payload, act, partial(self.target.tear_put, key, payload))

    def get(self, key: ObjectKey) -> StoredObject:
        """Read the object."""
        return self._do("get", key, b"", partial(self._inner.get, key), lambda: None)

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Read the object: in memory all objects are durable."""
        return self.get(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the objects; an interrupted listing leaves nothing."""
        return iter(self._do("list", prefix, b"", lambda: tuple(self._inner.list(prefix)), lambda: None))

    def delete(self, key: ObjectKey) -> None:
        """Remove the object."""
        self._do("delete", key, b"", partial(self._inner.delete, key), partial(self.target.tear_delete, key))

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
        return self._do("remove_unfinished", prefix, b"", act, self.target.tear_cleanup)

    def foreign(self) -> Iterator[str]:
        """Yield the inner store's foreign names."""
        return self._inner.foreign()

    def exclusive(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Hold the inner store's exclusive right."""
        return self._inner.exclusive(name, holder)

    @property
    def _inner(self) -> ObjectStore:
        return self.target.store

    def _do(
        self, operation: str, key: str, payload: bytes, act: Callable[[], Result], torn: Callable[[], None]
    ) -> Result:
        """Do it, unless the process dies here or is already dead and so cannot clean up."""
        if self.is_dead:
            raise Crash
        self.asked.append((operation, key, payload))
        crash_point = self.crash_point
        if crash_point is None or not crash_point.step.matches(operation, key, payload):
            return act()
        crash_point.number -= 1
        if crash_point.number >= 0:
            return act()
        self.is_dead = crash_point.is_hit = True
        if crash_point.when == "torn":
            torn()
        if crash_point.when == "unacknowledged":
            act()
        raise Crash
