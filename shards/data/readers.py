"""Readers: one per format, over a file on this machine, a file in a bucket, or a table in memory.

Reading holds at most one batch, one CSV block, or one Parquet page per column in memory. For a file in a bucket it also
holds the part fetched last (``shards.data.remote_files``), and one whole record batch of an Arrow file, which cannot be
mapped. Errors name column and row (from 1, without a CSV's header), never a value; a cause whose text quotes cells is
not chained.
"""

from __future__ import annotations

import gzip
import io
import json
import mmap
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn, Protocol, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from shards.csv_form import USUAL_CSV, CsvForm
from shards.data.csv_text import HEAD_BYTES, whole_lines
from shards.data.remote_files import RemoteBytes, RemoteFile
from storage.errors import Invalid

_MEBIBYTE = 1 << 20
_PARQUET_BUFFERS_BYTES = 8 * _MEBIBYTE
_REMOTE_BUFFERS_BYTES = 24 * _MEBIBYTE
"""Buffers for a row group that is too large for memory; they are large, because each refill may be a request."""
_ARROW_FILE = b"ARROW1"
"""The first bytes of an Arrow file, which an Arrow stream does not have."""
_ARROW_END = b"\xff\xff\xff\xff\0\0\0\0"
_EARLIER_ARROW_END = b"\0\0\0\0"
"""How streams ended before Arrow 0.15."""
_Part = TypeVar("_Part")
_IpcReader: TypeAlias = pa.RecordBatchReader | pa.ipc.RecordBatchFileReader
_REMEDY_ENCODING = (
    'Save the file as UTF-8, or set its encoding, for example [data] encoding = "cp1252" (sisa init --encoding).'
)
NOT_A_NUMBER: Final = "the cell is not a number or truth value"
_DECIMAL_COMMA = re.compile(r"invalid value '[+-]?[0-9]*,[0-9]+'")
_CSV_PLACE = re.compile(r"(?:In CSV column #(?P<column>\d+): )?.*?Row #(?P<row>\d+):")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which columns to read."""

    texts: tuple[str, ...]
    """Ids, subjects, classes: CSV cells are taken literally."""
    numbers: tuple[str, ...]
    """Features and numeric labels: CSV cells are parsed as float64, or as bool if the first lines contain true and
    false."""
    labels: tuple[str, ...] = ()
    """Which of ``numbers`` are labels."""

    @property
    def names(self) -> list[str]:
        """The names of all wanted columns."""
        return [*self.texts, *self.numbers]


class FileReader(Protocol):
    """Reads one table. Every method may raise ``Invalid``, whose text does not name the file."""

    @property
    def typed(self) -> bool:
        """Whether the schema's types are stored in the file, not guessed from its first lines."""
        ...

    def schema(self) -> pa.Schema:
        """Return names and types of all columns."""
        ...

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        """Yield the wanted columns, at most ``points`` data points at a time, in the file's order."""
        ...


@dataclass(frozen=True, slots=True)
class TableReader:
    """A table in memory."""

    table: pa.Table
    typed: bool = True

    def schema(self) -> pa.Schema:
        """Return the table's own schema."""
        return self.table.schema

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        """Yield slices of the wanted columns."""
        yield from self.table.select(wanted.names).to_batches(max_chunksize=points)


@dataclass(frozen=True, slots=True)
class _ParquetReader:
    path: Path
    groups: range | None = None
    """The row groups to read; None: all."""
    typed: bool = True

    def schema(self) -> pa.Schema:
        return pq.read_schema(self.path)

    def pieces(self) -> Sequence[tuple[int, int]]:
        return _row_groups(pq.read_metadata(self.path))

    def between(self, start: int, end: int) -> FileReader:
        return replace(self, groups=range(start, end))

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        # Unbuffered, pyarrow reads whole column chunks, a row group at a time. Each column has its own buffer.
        buffer_bytes = max(8192, min(_MEBIBYTE, _PARQUET_BUFFERS_BYTES // len(wanted.names)))
        with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=buffer_bytes) as file:
            groups = self.groups or range(file.num_row_groups)
            for batch in file.iter_batches(points, list(groups), columns=wanted.names, use_threads=False):
                yield batch
                pa.default_memory_pool().release_unused()


@dataclass(frozen=True, slots=True)
class _RemoteParquetReader:
    file: RemoteFile
    groups: range | None = None
    """The row groups to read; None: all."""
    typed: bool = True

    def schema(self) -> pa.Schema:
        return pq.read_schema(pa.PythonFile(self.file.open(), mode="r"))

    def pieces(self) -> Sequence[tuple[int, int]]:
        return _row_groups(pq.read_metadata(pa.PythonFile(self.file.open(), mode="r")))

    def between(self, start: int, end: int) -> FileReader:
        return replace(self, groups=range(start, end))

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        remote = self.file.open()
        whole = remote.hold_all()
        handle = pa.PythonFile(remote, mode="r")
        metadata = pq.read_metadata(handle)
        for group in self.groups or range(metadata.num_row_groups):
            held = whole or remote.hold(*_span(metadata.row_group(group), wanted.names))
            total = _PARQUET_BUFFERS_BYTES if held else _REMOTE_BUFFERS_BYTES
            buffer_bytes = max(8192, min(_MEBIBYTE, total // len(wanted.names)))
            with pq.ParquetFile(handle, metadata=metadata, pre_buffer=False, buffer_size=buffer_bytes) as file:
                for batch in file.iter_batches(points, [group], columns=wanted.names, use_threads=False):
                    yield batch
                    pa.default_memory_pool().release_unused()


@dataclass(frozen=True, slots=True)
class _ArrowReader:
    path: Path
    typed: bool = True

    def schema(self) -> pa.Schema:
        reader, source = self._open(self._map())
        if not isinstance(reader, pa.ipc.RecordBatchFileReader):
            deque(_whole_stream(pa.ipc.MessageReader.open_stream(source), source), maxlen=0)  # reads no column
        return reader.schema

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        # Mapped, so that a record batch larger than the available memory can be sliced without reading it whole.
        mapped = self._map()
        reader, source = self._open(mapped)
        for batch in _record_batches(reader, source):
            for piece in _cut(batch.select(wanted.names), points):
                yield piece
                # Release the pages read so far, which the kernel can reload; else the whole file would count as ours.
                mapped.madvise(mmap.MADV_DONTNEED)

    def _map(self) -> mmap.mmap:
        # Never closed explicitly: batches point into it, and it is freed with the last of them.
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _open(self, mapped: mmap.mmap) -> tuple[_IpcReader, pa.NativeFile]:
        source = pa.BufferReader(pa.py_buffer(mapped))
        is_file = mapped[: len(_ARROW_FILE)] == _ARROW_FILE
        return (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)), source


@dataclass(frozen=True, slots=True)
class _RemoteArrowReader:
    file: RemoteFile
    typed: bool = True

    def schema(self) -> pa.Schema:
        return self._open(self.file.open(), pa.ipc.IpcReadOptions())[0].schema

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        schema = self.schema()
        needed = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in wanted.names])
        remote = self.file.open()
        remote.hold_all()
        for batch in _record_batches(*self._open(remote, needed)):
            yield from _cut(batch.select(wanted.names), points)

    def _open(self, remote: RemoteBytes, options: pa.ipc.IpcReadOptions) -> tuple[_IpcReader, pa.NativeFile]:
        is_file = remote.read(len(_ARROW_FILE)) == _ARROW_FILE
        remote.seek(0)
        source = pa.PythonFile(remote, mode="r")
        return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source, options=options), source


@dataclass(frozen=True, slots=True)
class CsvReader:
    """A CSV file, compressed with gzip or not."""

    file: Path | RemoteFile
    compressed: bool = False
    form: CsvForm = USUAL_CSV
    typed: bool = False

    def schema(self) -> pa.Schema:
        """Return the columns with the types that their first cells seem to have."""
        with self._bytes() as source:
            return self._schema(next(whole_lines(source, self.form), b""))

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        """Yield the wanted columns, block by block."""
        options = self._options()
        options.include_columns = wanted.names
        options.null_values, options.strings_can_be_null, options.quoted_strings_can_be_null = [""], True, False
        names: tuple[str, ...] = ()
        rows = 0
        with self._bytes() as source:
            for block in whole_lines(source, self.form):
                first = not names
                if first:
                    schema = self._schema(block)
                    names = tuple(schema.names)
                    options.column_types = _cell_types(schema, wanted)
                # After an empty line, what looks like a byte order mark is part of the first cell.
                with _naming_csv_place(names, self.form, -1 if first else rows, wanted.labels):
                    table = self._parsed(block if first else b"\n" + block, options, () if first else names)
                rows += table.num_rows
                for batch in table.to_batches():
                    yield from _cut(batch, points)

    def head(self) -> bytes:
        """Return its first bytes, decompressed."""
        with self._bytes() as source:
            return source.read(HEAD_BYTES) or b""

    def _schema(self, block: bytes) -> pa.Schema:
        with _naming_csv_place((), self.form, -1):
            schema = self._parsed(block, self._options()).schema
        try:
            schema.names  # noqa: B018  pyarrow decodes them now
        except UnicodeDecodeError:
            raise Invalid("the header is not UTF-8 text", _REMEDY_ENCODING) from None
        return schema

    def _options(self) -> pacsv.ConvertOptions:
        return pacsv.ConvertOptions(decimal_point=self.form.decimal)

    def _parsed(self, block: bytes, options: pacsv.ConvertOptions, names: tuple[str, ...] = ()) -> pa.Table:
        # One thread, so that pyarrow knows the row of a bad line. One block: see shards.data.csv_text.
        return pacsv.read_csv(
            pa.BufferReader(block),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names or None),
            parse_options=pacsv.ParseOptions(delimiter=self.form.delimiter, newlines_in_values=True),
            convert_options=options,
        )

    @contextmanager
    def _bytes(self) -> Iterator[io.RawIOBase | io.BufferedIOBase]:
        with self.file.open("rb") if isinstance(self.file, Path) else self.file.open() as stream:
            if not self.compressed:
                yield stream
                return
            try:
                with gzip.GzipFile(fileobj=stream) as decompressed:
                    yield decompressed
            except gzip.BadGzipFile:
                fact = "the file is not compressed with gzip, or damaged"
                raise Invalid(fact, "Name it .csv if it is not compressed. Otherwise copy it again.") from None


_READERS: dict[str, tuple[Callable[[Path], FileReader], Callable[[RemoteFile], FileReader]]] = {
    ".parquet": (_ParquetReader, _RemoteParquetReader),
    ".pq": (_ParquetReader, _RemoteParquetReader),
    ".arrow": (_ArrowReader, _RemoteArrowReader),
    ".feather": (_ArrowReader, _RemoteArrowReader),
    ".ipc": (_ArrowReader, _RemoteArrowReader),
}
_CSV_ENDINGS: Final = (".csv", ".csv.gz")

ENDINGS: Final = (*_READERS, *_CSV_ENDINGS)
"""File name endings of all supported formats."""


def number_remedy(*, is_label: bool, has_comma: bool) -> str:
    """Return what to do about a cell that is not a number."""
    if has_comma:
        return 'If its numbers have a comma before the fraction, set [data] decimal = ",".'
    if is_label:
        return "Correct it, leave the data point out, or name another column in [data] label."
    return "Correct it, remove the column from [data] features, or declare its encoder in [data.encode]."


def ending_of(name: str) -> str | None:
    """Return the ending that identifies the format; None when the format is unknown."""
    return next((ending for ending in ENDINGS if name.lower().endswith(ending)), None)


def reader_of(ending: str, file: Path | RemoteFile, csv: CsvForm = USUAL_CSV) -> FileReader:
    """Return a reader for the file; ``ending`` is one of ``ENDINGS``. Nothing is read yet."""
    if ending in _CSV_ENDINGS:
        return CsvReader(file, compressed=ending.endswith(".gz"), form=csv)
    local, remote = _READERS[ending]
    return local(file) if isinstance(file, Path) else remote(file)


def _row_groups(metadata: pq.FileMetaData) -> list[tuple[int, int]]:
    """Return for each row group its data points and its bytes in the file."""
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    return [
        (group.num_rows, sum(group.column(index).total_compressed_size for index in range(group.num_columns)))
        for group in groups
    ]


def _span(group: pq.RowGroupMetaData, names: list[str]) -> tuple[int, int]:
    """Return where a row group's chunks of these columns begin and end in the file."""
    chunks = [group.column(index) for index in range(group.num_columns)]
    # The name of a list column's chunk includes its items: emb.list.element.
    wanted = [chunk for chunk in chunks if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in names)]
    starts = [min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset) for chunk in wanted]
    ends = (start + chunk.total_compressed_size for start, chunk in zip(starts, wanted, strict=True))
    return min(starts), max(ends)


def _record_batches(reader: _IpcReader, source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of an Arrow file or stream that ``source`` holds; raises as ``_whole_stream``."""
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        yield from _whole_stream(reader, source)


def _whole_stream(parts: Iterable[_Part], source: pa.NativeFile) -> Iterator[_Part]:
    """Yield the parts of an Arrow stream, read one after another from ``source``.

    Raises ``Invalid`` for a stream that stops without its end mark, like an interrupted copy, or that has a successor.
    """
    end = source.tell()
    for part in parts:
        yield part
        end = source.tell()
    source.seek(end)
    rest = source.read(len(_ARROW_END) + 1)
    if not rest.startswith((_ARROW_END, _EARLIER_ARROW_END)):
        raise Invalid(
            "the Arrow stream has no end mark: it is cut off, or its writer was not closed",
            "Copy it again. If it is whole, write it again and close the writer, or write an Arrow or Parquet file.",
        )
    if rest not in {_ARROW_END, _EARLIER_ARROW_END}:
        raise Invalid("there is more data after the end of the Arrow stream", "Write each stream to its own file.")


def _cut(batch: pa.RecordBatch, points: int) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, points) for start in range(0, batch.num_rows, points))


def _cell_types(schema: pa.Schema, wanted: Wanted) -> dict[str, pa.DataType]:
    """Return the type as which each wanted column is parsed; ``schema`` is a guess from the first lines."""
    truths = {field.name for field in schema if pa.types.is_boolean(field.type)}
    numbers = {name: pa.bool_() if name in truths else pa.float64() for name in wanted.numbers}
    return dict.fromkeys(wanted.texts, pa.string()) | numbers


@contextmanager
def _naming_csv_place(names: tuple[str, ...], form: CsvForm, rows: int, labels: tuple[str, ...] = ()) -> Iterator[None]:
    """Turn pyarrow's error about a CSV cell or line, which quotes it, into an ``Invalid`` that only names its place.

    ``rows`` is the number of rows before those that pyarrow counts.
    """
    try:
        yield
    except pa.ArrowInvalid as error:
        place = _CSV_PLACE.match(str(error))
        if place is None:
            raise Invalid("the CSV file cannot be parsed", "Check header and quotes.") from None
        _refuse_csv_place(place, names, form, rows, labels)


def _refuse_csv_place(
    place: re.Match[str], names: tuple[str, ...], form: CsvForm, rows: int, labels: tuple[str, ...]
) -> NoReturn:
    row = rows + int(place["row"])
    if place["column"] is None:
        raise Invalid(
            f"the line has another number of fields than the header, with the delimiter {json.dumps(form.delimiter)}",
            "Correct the line, or [data] delimiter.",
            row=row,
        ) from None
    column = names[int(place["column"])]
    if place.string.endswith("invalid UTF8 data"):
        raise Invalid("the cell is not UTF-8 text", _REMEDY_ENCODING, column=column, row=row) from None
    has_comma = form.decimal == "." and _DECIMAL_COMMA.search(place.string) is not None
    raise Invalid(
        NOT_A_NUMBER, number_remedy(is_label=column in labels, has_comma=has_comma), column=column, row=row
    ) from None
