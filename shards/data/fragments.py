"""Fragments: a source divided into pieces that different processes can read independently of each other.

A fragment is some files, or a piece of one large file if its format lets a reader start in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol, runtime_checkable

from shards.data.readers import FileReader
from shards.data.sources import Batch, DataFile, Source
from storage.errors import Invalid, InvariantBroken


@runtime_checkable
class Divisible(Protocol):
    """A reader whose file can be read in pieces, each without reading those before it."""

    def pieces(self) -> Sequence[tuple[int, int]]:
        """Return the data points and bytes of each piece, in the file's order; empty if the file cannot be divided."""
        ...

    def between(self, start: int, end: int) -> FileReader:
        """Return a reader of the pieces from ``start`` up to but not including ``end``, counted from 0."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """Consecutive files of a source, or consecutive pieces of one file; is sent to other processes."""

    files: tuple[DataFile, ...]
    payload_bytes: int
    skipped: int = 0
    """Data points of the file that precede this fragment."""
    is_whole: bool = True
    """Whether the fragment consists of whole files."""

    @property
    def source(self) -> Source:
        """The fragment as a source; rows of a piece are numbered from the piece's first row."""
        return Source(location=self.files[0].name, files=self.files)

    def numbered(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches of ``source`` with the row numbers of the file."""
        return (replace(batch, first=batch.first + self.skipped) for batch in batches)


def divide(source: Source, most_bytes: int) -> tuple[Fragment, ...]:
    """Return the source in fragments, in order, each of at most ``most_bytes`` if its files can be divided that far.

    Small files share a fragment. Raises ``Invalid`` when a file has disappeared.
    """
    fragments: list[Fragment] = []
    for each in chain.from_iterable(_cut(file, most_bytes) for file in source.files):
        last = fragments[-1] if fragments else None
        if last and last.is_whole and each.is_whole and last.payload_bytes + each.payload_bytes <= most_bytes:
            total = last.payload_bytes + each.payload_bytes
            fragments[-1] = replace(last, files=(*last.files, *each.files), payload_bytes=total)
        else:
            fragments.append(each)
    return tuple(fragments)


def payload_bytes(source: Source) -> int:
    """Return the total size of the source's files. Raises ``Invalid`` when a file has disappeared."""
    return sum(map(_size, source.files))


def _cut(file: DataFile, most_bytes: int) -> Iterator[Fragment]:
    """Yield the file in fragments: a single one, unless the file is larger than ``most_bytes`` and can be divided."""
    size = _size(file)
    pieces = file.reader.pieces() if size > most_bytes and isinstance(file.reader, Divisible) else ()
    if len(pieces) < 2 or not isinstance(file.reader, Divisible):
        yield Fragment(files=(file,), payload_bytes=size)
        return
    start, skipped = 0, 0
    while start < len(pieces):
        end, points, payload = _filled(pieces, start, most_bytes)
        part = replace(file, reader=file.reader.between(start, end))
        yield Fragment(files=(part,), payload_bytes=payload, skipped=skipped, is_whole=False)
        start, skipped = end, skipped + points


def _filled(pieces: Sequence[tuple[int, int]], start: int, most_bytes: int) -> tuple[int, int, int]:
    """Return the end, data points and bytes of the fragment that begins at ``start``; it has at least one piece."""
    end, points, payload = start, 0, 0
    while end < len(pieces) and (end == start or payload + pieces[end][1] <= most_bytes):
        points, payload = points + pieces[end][0], payload + pieces[end][1]
        end += 1
    return end, points, payload


def _size(file: DataFile) -> int:
    if file.remote is not None:
        return file.remote.file.payload_bytes
    if file.path is None:
        raise InvariantBroken("a table in memory is not read in fragments")
    try:
        return file.path.stat().st_size
    except OSError as error:
        fact = f"the file cannot be read ({error.strerror})"
        raise Invalid(fact, "Leave it in its place while it is read.", file=file.name) from error
