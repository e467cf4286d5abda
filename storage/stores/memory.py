"""Objects in this process's memory, under the contract of every store: for tests and simulations."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from storage.digests import sha256
from storage.errors import Invalid, ObjectChanged, ObjectExists, ObjectMissing, WriterBusy
from storage.objects import ObjectInfo, ObjectKey, StoredObject, VersionTag, key_segment, object_key


@dataclass(slots=True, kw_only=True)
class _Space:
    """The objects of one name, with the lock that guards them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Guards all fields below."""
    objects: dict[ObjectKey, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    holders: dict[str, str] = field(default_factory=dict)


_SPACES: dict[str, _Space] = {}  # no lock: ``setdefault`` and ``pop`` are atomic


@dataclass(frozen=True, slots=True)
class MemoryStore:
    """An ``ObjectStore`` in memory; stores of one name are one store, in all threads of this process.

    It can be unpickled only in the same process: another process would find an empty store and rely on that.
    """

    name: str

    @property
    def location(self) -> str:
        """``memory:`` and the name."""
        return f"memory:{self.name}"

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object."""
        space = self._space
        with space.lock:
            folders = _folders(object_key(key))
            if key in space.folders or any(folder in space.objects for folder in folders):
                raise Invalid("the key is a folder of another key, or is inside one", "Choose another key.", key=key)
            if key in space.objects:
                raise ObjectExists("an object with this key exists", "Read it, then decide.", key=key)
            space.folders.update(folders)
            space.objects[key] = bytes(payload)
        return _tag(payload)

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object."""
        space = self._space
        with space.lock:
            if _tag(_found(space, key)) != expected:
                raise ObjectChanged("the object changed since it was read", "Read it again.", key=key)
            space.objects[key] = bytes(payload)
        return _tag(payload)

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object."""
        space = self._space
        with space.lock:
            payload = _found(space, key)
        return StoredObject(payload=payload, tag=_tag(payload))

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Return the object: like all objects here, it lasts as long as this process."""
        return self.get(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects as they are when the iteration begins."""
        space = self._space
        with space.lock:
            found = {key: len(payload) for key, payload in space.objects.items() if key.startswith(prefix)}
        for key, size in sorted(found.items()):
            yield ObjectInfo(key=key, payload_bytes=size)

    def delete(self, key: ObjectKey) -> None:
        """Remove the object."""
        space = self._space
        with space.lock:
            space.objects.pop(object_key(key), None)

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Remove the objects one after another."""
        for key in keys:
            self.delete(key)

    def unfinished(self, prefix: str) -> Iterator[str]:  # noqa: ARG002  there is nothing to look for
        """Yield nothing: a put in memory happens at once."""
        return iter(())

    def remove_unfinished(self, prefix: str) -> int:  # noqa: ARG002  there is nothing to look for
        """Return 0: there is never a leftover."""
        return 0

    def foreign(self) -> Iterator[str]:
        """Yield nothing: no other program can write here."""
        return iter(())

    @contextmanager
    def exclusive(self, name: str, holder: str) -> Iterator[None]:
        """Hold the right within this process."""
        space = self._space
        with space.lock:
            taken = space.holders.get(key_segment(name))
            if taken is not None:
                raise WriterBusy(
                    f"another command holds the right to write: {taken}",
                    "Wait until it ends, or stop it. The right is then free at once.",
                    right=name,
                    store=self.location,
                )
            space.holders[name] = holder
        try:
            yield
        finally:
            with space.lock:
                space.holders.pop(name, None)

    def forget(self) -> None:
        """Delete all objects of the store with this name, and free their memory."""
        _SPACES.pop(self.name, None)

    @property
    def _space(self) -> _Space:
        # setdefault on a dict with text keys is atomic under the interpreter's lock
        return _SPACES.get(self.name) or _SPACES.setdefault(self.name, _Space())

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.name, os.getpid())


def _reopen(name: str, process: int) -> MemoryStore:
    if os.getpid() != process:
        raise Invalid(
            "a memory store was sent to another process, which cannot reach its objects",
            "Use a folder as the store.",
            store=f"memory:{name}",
        )
    return MemoryStore(name)


def _found(space: _Space, key: ObjectKey) -> bytes:
    payload = space.objects.get(object_key(key))
    if payload is None:
        raise ObjectMissing("the store has no such object", key=key)
    return payload


def _folders(key: str) -> tuple[str, ...]:
    """Return the folders above ``key``: ``a`` and ``a/b`` for ``a/b/c``."""
    segments = key.split("/")
    return tuple("/".join(segments[:depth]) for depth in range(1, len(segments)))


def _tag(payload: bytes) -> VersionTag:
    return VersionTag(sha256(payload))
