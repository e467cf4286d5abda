"""Sources of a restore: backups, or a store that another tool copied without the objects' metadata.

Our writers put a digest and a nonce into an object's metadata, and the reader of a store requires them. Tools that copy
only bytes lose them. Readers here need only the bytes: the index of a backup proves them, and in a plain copy the
records, encrypted objects and receipts are checked when they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from storage.errors import ObjectMissing
from storage.location import is_on_s3, open_store
from storage.objects import ObjectInfo, ObjectKey, StoredObject, VersionTag
from storage.s3.files import BucketFile, BucketFiles, bucket_files
from storage.s3.names import S3Names, bucket_and_prefix


class Readable(Protocol):
    """The reading operations of an ``ObjectStore``."""

    @property
    def location(self) -> str:
        """Where it is, as a person would write it."""
        ...

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object. Raises ``ObjectMissing``."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``."""
        ...


def open_copy(location: str, base: Path, endpoint: str | None = None, profile: str | None = None) -> Readable:
    """Return the objects at ``location`` for reading, regardless of which tool wrote them. Raises as ``open_store``."""
    opened = open_store(location, base, endpoint, profile)
    if not is_on_s3(location):
        return opened
    bucket, prefix = bucket_and_prefix(location)
    return _BucketCopy(
        files=bucket_files(bucket, endpoint, profile), full_names=S3Names(prefix), location=opened.location
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _BucketCopy:
    """Objects under a prefix of a bucket, written by any tool."""

    files: BucketFiles
    full_names: S3Names
    location: str

    def get(self, key: ObjectKey) -> StoredObject:
        """Read the object as it is now; the server's checksum, if there is one, proves the transfer."""
        found = self.files.find(self.full_names.name(key))
        if found is None:
            raise ObjectMissing("the copy has no such object", key=key)
        return StoredObject(payload=self._read(found), tag=VersionTag(found.tag))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects page by page."""
        for file in self.files.under(self.full_names.start + prefix):
            if (key := self.full_names.key(file.name)) is not None:
                yield ObjectInfo(key=key, payload_bytes=file.payload_bytes)

    def _read(self, file: BucketFile) -> bytes:
        return self.files.read(file, 0, file.payload_bytes) if file.payload_bytes else b""
