"""A reader of Parquet files, row group by row group, independent of the system's own readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shards.data.readers import FileReader, Wanted
from shards.data.sources import Source


@dataclass(frozen=True, slots=True)
class PiecewiseReader:
    """Implements ``shards.data.fragments.Divisible``."""

    path: Path
    groups: tuple[int, ...] | None = None
    typed: bool = True

    def schema(self) -> pa.Schema:
        """Return the file's schema."""
        return pq.read_schema(self.path)

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        """Yield the row groups."""
        with pq.ParquetFile(self.path) as file:
            groups = range(file.num_row_groups) if self.groups is None else self.groups
            yield from file.iter_batches(points, list(groups), columns=wanted.names, use_threads=False)

    def pieces(self) -> Sequence[tuple[int, int]]:
        """Return points and bytes of each row group."""
        metadata = pq.read_metadata(self.path)
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        return [(group.num_rows, group.total_byte_size) for group in groups]

    def between(self, start: int, end: int) -> FileReader:
        """Return a reader of some row groups."""
        return PiecewiseReader(self.path, tuple(range(start, end)))


def piecewise(source: Source) -> Source:
    """Return the source with its Parquet files divisible."""
    files = [
        replace(file, reader=PiecewiseReader(file.path)) if file.path and file.path.suffix == ".parquet" else file
        for file in source.files
    ]
    return replace(source, files=tuple(files))
