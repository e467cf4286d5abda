"""Data files in a bucket: found by address, folder or glob, and read piece by piece, with bounded memory."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import PurePosixPath
from typing import Final

from shards.data.folders.table_formats import LOG_FOLDERS, logged_roots, table_refused
from storage.errors import Unavailable
from storage.s3.files import SCHEME, BucketFile, BucketFiles, bucket_and_name, bucket_files

HELD_BYTES: Final = 24 << 20
"""Largest file, or part of a file, that is fetched in one request and held while it is read."""
AHEAD_BYTES: Final = 4 << 20
"""Bytes to fetch when a read starts where the last one ended, or soon after, because more such reads will follow."""

_NEAR_BYTES: Final = 1 << 16
_LOG_FILES: Final = 1000
"""Files of a table's log to examine at most: one page of a listing."""
_GLOB: Final = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file in a bucket."""

    files: BucketFiles
    file: BucketFile

    @property
    def address(self) -> str:
        """``s3://bucket/name``."""
        return f"{SCHEME}{self.files.bucket}/{self.file.name}"

    def open(self) -> RemoteBytes:
        """Return its bytes as a seekable stream. Nothing is fetched yet."""
        return RemoteBytes(self.files, self.file)


class RemoteBytes(io.RawIOBase):
    """A file in a bucket as a stream for other libraries. Passes on what ``BucketFiles.read`` raises."""

    def __init__(self, files: BucketFiles, file: BucketFile) -> None:
        super().__init__()
        self._files = files
        self._file = file
        self._position = 0
        self._held = (0, b"")
        self._last = -_NEAR_BYTES - 1

    def hold(self, start: int, end: int) -> bool:
        """Fetch this part in one request and hold it until the next fetch; return False when it is too large."""
        if end - start > HELD_BYTES:
            return False
        at, held = self._held
        if not at <= start <= end <= at + len(held):
            self._fetch(start, end)
        return True

    def hold_all(self) -> bool:
        """Fetch the whole file, verified by the server's checksum; return False when it is too large."""
        return self.hold(0, self._file.payload_bytes)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to ``offset`` from the start, the position or the end, and return the new position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.payload_bytes}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # what pyarrow and io give
        """Read into ``buffer`` from the position, and return the number of bytes read."""
        start = self._position
        end = min(start + len(buffer), self._file.payload_bytes)
        if end <= start:
            return 0
        self._provide(start, end)
        at, held = self._held
        buffer[: end - start] = memoryview(held)[start - at : end - at]
        self._position = self._last = end
        return end - start

    def _provide(self, start: int, end: int) -> None:
        """Make sure that these bytes are in memory."""
        at, held = self._held
        if at <= start and end <= at + len(held):
            return
        follows = 0 <= start - self._last <= _NEAR_BYTES
        self._fetch(start, min(max(end, start + AHEAD_BYTES), self._file.payload_bytes) if follows else end)

    def _fetch(self, start: int, end: int) -> None:
        self._held = (0, b"")  # released first, so that only one part is in memory
        self._held = (start, self._files.read(self._file, start, end))


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFound:
    """The files that an address stands for."""

    files: tuple[RemoteFile, ...]
    """Sorted by name."""
    others: tuple[str, ...] = ()
    """For a folder: the names, relative to it, of its files that are not data."""


def find_remote(
    location: str, endpoint: str | None, is_data: Callable[[PurePosixPath], bool], profile: str | None = None
) -> RemoteFound | None:
    """Return the files that ``location`` (``s3://bucket/name``) stands for; None when there is nothing.

    A name stands for the file with that name; if there is none, for all data files below it, judged by their relative
    names; if there are none, it is a glob and stands for all matches. In a glob, ``*`` and ``?`` do not match ``/``,
    ``**`` does, and hidden names match only if the pattern is hidden too. A result without files means that the folder
    or glob has no data. ``profile`` names the credentials; see ``bucket_files``. Raises what ``BucketFiles.find``
    raises, and ``Invalid`` when ``location`` is not an address or the files belong to a table
    (``shards.data.folders.table_formats``).
    """
    bucket, name = bucket_and_name(location)
    files = bucket_files(bucket, endpoint, profile)
    exact = files.find(name) if name and not name.endswith("/") else None
    if exact is not None:
        _refuse_tables(files, [], PurePosixPath(name).parents)
        return _found(files, [exact])
    folder = f"{name.rstrip('/')}/" if name else ""
    below = list(_true_files(files, folder))
    if below:
        _refuse_tables(files, below, PurePosixPath(name).parents)
        data = {each: is_data(PurePosixPath(each.name.removeprefix(folder))) for each in below}
        others = sorted(each.name.removeprefix(folder) for each in below if not data[each])
        return replace(_found(files, [each for each in below if data[each]]), others=tuple(others))
    if glob := _GLOB.search(name):
        pattern, start = name.split("/"), name[: glob.start()]
        listed = list(_true_files(files, start))
        _refuse_tables(files, listed, PurePosixPath(f"{start}*").parents)
        return _found(files, [each for each in listed if matches(each.name.split("/"), pattern)])
    return None


def _found(files: BucketFiles, chosen: list[BucketFile]) -> RemoteFound:
    ordered = sorted(chosen, key=lambda each: each.name)
    return RemoteFound(files=tuple(RemoteFile(files=files, file=each) for each in ordered))


def _refuse_tables(files: BucketFiles, listed: list[BucketFile], above: Iterable[PurePosixPath]) -> None:
    """Raise ``Invalid`` when a table's log is among the listed files, or in a folder above them."""
    roots = logged_roots(each.name for each in listed)
    for folder in above:
        for log in LOG_FOLDERS:
            # An account that may not list this folder cannot know of a log, and may still read the files.
            with suppress(Unavailable):
                names = [each.name for each in islice(files.under((folder / log).as_posix() + "/"), _LOG_FILES)]
                roots |= logged_roots(names)
    for root, format_name in sorted(roots.items()):
        raise table_refused(format_name, f"{SCHEME}{files.bucket}/{'' if root == PurePosixPath() else root}")


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a name match the parts of a glob, by the rules of Python's ``glob``.

    >>> matches(["data", "1", "a.csv"], ["data", "**", "*.csv"])
    True
    >>> matches(["data", "1", "a.csv"], ["data", "*.csv"])
    False
    """
    if not pattern:
        return not parts
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        deeper = bool(parts) and not parts[0].startswith(".")
        return matches(parts, rest) or (deeper and matches(parts[1:], pattern))
    if not parts or (parts[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatchcase(parts[0], first) and matches(parts[1:], rest)


def _true_files(files: BucketFiles, prefix: str) -> Iterator[BucketFile]:
    # Consoles create folders as empty objects whose names end with a slash.
    return (each for each in files.under(prefix) if not each.name.endswith("/"))
