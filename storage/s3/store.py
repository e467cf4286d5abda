"""An object store on a bucket: how each operation is built from requests, for every kind of server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from storage.errors import ObjectMissing
from storage.objects import ObjectInfo, ObjectKey, StoredObject, VersionTag, new_name
from storage.s3.backoff import pause
from storage.s3.bucket import Bucket, Read, Upload
from storage.s3.conditional_put import ConditionalPut
from storage.s3.lease import LeaseRecord, leased
from storage.s3.names import S3Names, may_start_a_key
from storage.s3.purge import purge, remove_older

_HOLDER_CHARACTERS = 400

_REPLACED: dict[str, set[str]] = {}
"""Names of the objects that this process has replaced, by store: only a few are, such as floors and keyrings."""


class BucketStore(ABC):
    """An ``ObjectStore``; subclasses add its place and its requests.

    The right to write is a lease (``storage.s3.lease``): a command that was killed keeps others out for up to
    ``lease_seconds``. On a server that keeps objects in folders (SeaweedFS) a folder of keys cannot become a key;
    other servers hold both.
    """

    __slots__ = ()

    lease_seconds: float
    monotonic: Callable[[], float]

    @property
    @abstractmethod
    def full_names(self) -> S3Names:
        """The names under the store's prefix."""

    @property
    @abstractmethod
    def requests(self) -> Bucket:
        """The bucket, through this process's clients."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Server, bucket and prefix, which together identify the store."""

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object: ``If-None-Match``, and a check of the object if the answer leaves doubt."""
        return self.put(self.full_names.name(key), key, payload, None)

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object: ``If-Match``, and a check of the object if the answer leaves doubt.

        A versioned bucket keeps the previous content as an older version, which is removed when the right to write is
        freed, or after some renewals.
        """
        name = self.full_names.name(key)
        _REPLACED.setdefault(self.address, set()).add(name)
        return self.put(name, key, payload, expected)

    def get(self, key: ObjectKey) -> StoredObject:
        """Read the object and check its digest. Raises ``Corrupt`` when no attempt returns the bytes that were put."""
        found = self.requests.read(self.full_names.name(key))
        if found is None:
            raise ObjectMissing("the store has no such object", key=key)
        return StoredObject(payload=found.payload, tag=found.tag)

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Read the object: what a server returns is stored durably."""
        return self.get(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects page by page."""
        if not may_start_a_key(prefix):
            return
        for listed in self.requests.objects(self.full_names.start + prefix):
            if (key := self.full_names.key(listed.name)) is not None:
                yield ObjectInfo(key=key, payload_bytes=listed.payload_bytes)

    def delete(self, key: ObjectKey) -> None:
        """Remove every version and delete marker, until a pass finds none; an error names Object Lock as its cause."""
        purge(self.requests, self.full_names.name(key), pause)

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Remove the objects one after another."""
        for key in keys:
            self.delete(key)

    def unfinished(self, prefix: str) -> Iterator[str]:
        """Yield the multipart uploads that were not completed."""
        for upload in self._uploads(prefix):
            yield f"{upload.name.removeprefix(self.full_names.start)} (upload {upload.upload})"

    def remove_unfinished(self, prefix: str) -> int:
        """Abort the multipart uploads, which frees their parts."""
        uploads = tuple(self._uploads(prefix))
        for upload in uploads:
            self.requests.abort(upload)
        return len(uploads)

    def foreign(self) -> Iterator[str]:
        """Yield the names under the prefix that are neither keys nor leases."""
        for listed in self.requests.objects(self.full_names.start):
            if (name := self.full_names.foreign(listed.name)) is not None:
                yield name

    @contextmanager
    def exclusive(self, name: str, holder: str) -> Iterator[None]:
        """Hold a lease at ``.leases/<name>``, which a thread of its own renews."""
        port = _LeaseObject(store=self, name=self.full_names.lease(name))
        record = LeaseRecord(
            holder=" ".join(holder.split())[:_HOLDER_CHARACTERS],
            nonce=new_name(),
            lease_seconds=self.lease_seconds,
        )
        with leased(port, record, watch=f"{self.address} {name}", monotonic=self.monotonic):
            yield

    def put(self, name: str, key: ObjectKey, payload: bytes, expected: VersionTag | None) -> VersionTag:
        """Put the object ``name`` if it is absent (``expected`` is None) or has that tag; errors call it ``key``."""
        return ConditionalPut(
            bucket=self.requests,
            name=name,
            key=key,
            payload=payload,
            expected=expected,
            nonce=new_name(),
            pause=pause,
        ).run()

    def _uploads(self, prefix: str) -> Iterator[Upload]:
        if may_start_a_key(prefix):
            yield from self.requests.uploads(self.full_names.start + prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LeaseObject:
    """A lease's object. Implements ``storage.s3.lease.LeasePort``."""

    store: BucketStore
    name: str

    @property
    def place(self) -> ObjectKey:
        return ObjectKey(self.name.removeprefix(self.store.full_names.start))

    def read(self) -> Read | None:
        return self.store.requests.read(self.name)

    def write(self, payload: bytes, expected: VersionTag | None) -> VersionTag:
        return self.store.put(self.name, self.place, payload, expected)

    def tidy(self) -> None:
        for name in (self.name, *sorted(_REPLACED.get(self.store.address, ()))):
            remove_older(self.store.requests, name)
