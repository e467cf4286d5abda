"""The object store: all operations that every store offers, and what each of them promises."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NewType, Protocol, runtime_checkable

from storage.digests import sha256
from storage.errors import Invalid

ObjectKey = NewType("ObjectKey", str)
"""Name of an object: segments of ``a-z 0-9 . _ -`` joined by ``/``. Never personal data."""

VersionTag = NewType("VersionTag", str)
"""Opaque mark of an object's content; equal tags mean equal content (an S3 ETag)."""

NewName = Callable[[], str]
"""Returns a name that was never used before and cannot be guessed: for segments of keys, ids and nonces."""


def new_name() -> str:
    """Return 128 random bits, in hexadecimal digits. The one source of new names outside tests."""
    return secrets.token_hex(16)


_SEGMENT = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,199}")
_KEY = re.compile(rf"{_SEGMENT.pattern}(?:/{_SEGMENT.pattern})*")


class StoredObject:
    """What ``get`` returns; it does not change."""

    __slots__ = ("_tag", "payload")

    payload: bytes

    def __init__(self, *, payload: bytes, tag: VersionTag | None = None) -> None:
        """Without a ``tag``, the tag is the payload's digest.

        It is computed on first use, because most readers never need it.
        """
        self.payload = payload
        self._tag = tag

    @property
    def tag(self) -> VersionTag:
        """The mark of this content."""
        if self._tag is None:
            self._tag = VersionTag(sha256(self.payload))
        return self._tag

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredObject) and (self.payload, self.tag) == (other.payload, other.tag)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What ``list`` says of one object."""

    key: ObjectKey
    payload_bytes: int


class ObjectStore(Protocol):
    """A flat space of objects with conditional puts.

    Implementations hold configuration, not connections: they pickle, and every process that
    unpickles one reaches the same objects. All methods may raise ``Unavailable``.

    A key must not also be a folder of another key (``a/b`` when ``a/b/c`` exists): a store on a file system cannot hold
    both and raises ``Invalid``.
    """

    @property
    def location(self) -> str:
        """Where the store is, as a person would write it; holds no secret."""
        ...

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object, durably, if no object has ``key``; readers see all of it or nothing.

        Raises ``ObjectExists`` when the key is taken, ``StoreFull`` when there is no room (nothing
        published), ``OutcomeUnknown`` when the write may have landed.
        """
        ...

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object, durably, if its tag is still ``expected``.

        Raises ``ObjectChanged`` when the tag differs, ``ObjectMissing`` when the object does not exist.
        """
        ...

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object. Raises ``ObjectMissing`` when it does not exist."""
        ...

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Return the object after making it durable: from then on it survives a power cut.

        For writers that rely on an object without knowing that its put succeeded: after ``OutcomeUnknown``, or because
        another process put it. An object that ``get`` returns may still be in memory only. Raises as ``get`` does, and
        ``OutcomeUnknown`` or ``Unavailable`` when the object exists but could not be made durable.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in no particular order.

        Objects created or deleted while it runs may or may not be seen. Unfinished writes never are.
        """
        ...

    def delete(self, key: ObjectKey) -> None:
        """Remove the object, durably, with every older version; a missing object is not an error."""
        ...

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Remove the objects like ``delete``, perhaps at less cost; when it raises, any of them may be left."""
        ...

    def unfinished(self, prefix: str) -> Iterator[str]:
        """Yield the names of leftovers of unfinished writes under ``prefix``.

        Writes in progress are among them: only a caller that excludes other writers may treat all of them as leftovers.
        """
        ...

    def remove_unfinished(self, prefix: str) -> int:
        """Remove everything that ``unfinished`` yields; return how many there were."""
        ...

    def foreign(self) -> Iterator[str]:
        """Yield the names in the store that this system cannot have written; ``list`` never shows them."""
        ...

    def exclusive(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Hold the right called ``name`` (one key segment) until the block ends or this process dies.

        For liveness, not for safety: fencing tokens keep stale writers out. ``holder`` is the text that others see,
        such as "train, process 123"; it holds no personal data. Child processes do not inherit the right, and it
        is not re-entrant. Never waits: raises ``WriterBusy``, which names the holder, when the right is taken.
        """
        ...


@runtime_checkable
class ReadsPieces(Protocol):
    """A store that can return a payload in pieces, so that a reader need not hold all of it beside the result."""

    def pieces(self, key: ObjectKey) -> Iterator[memoryview]:
        """Yield the payload in pieces, each valid until the next one is taken.

        Do not use any before the last one is there. Raises as ``get``, and ``Corrupt`` also where ``get`` would try
        again.
        """
        ...


def key_segment(text: str) -> str:
    """Return ``text`` as one segment of a key. Raises ``Invalid`` when it cannot be one."""
    if not _SEGMENT.fullmatch(text):
        raise Invalid(
            "this name has to be one segment of an object key", "Use a-z, 0-9, '.', '_', '-'.", name=repr(text)
        )
    return text


def is_object_key(text: str) -> bool:
    """Return whether ``text`` is within the grammar of keys."""
    return _KEY.fullmatch(text) is not None


def object_key(text: str) -> ObjectKey:
    """Return ``text`` as a key. Raises ``Invalid`` when it is outside the grammar."""
    if not is_object_key(text):
        raise Invalid(
            "an object key has segments of a-z, 0-9, '.', '_' and '-' joined by single '/'",
            "Name the object within that alphabet.",
            key=repr(text[:80]),
        )
    return ObjectKey(text)
