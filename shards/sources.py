"""The user's files: found, opened and streamed with bounded memory, whatever their format.

Formats: Parquet, Arrow IPC (file and stream), CSV (also gzipped). Reading never holds more than one batch, one CSV
block, or one Parquet page per column. Errors name the file, the column and the row (from 1, without a CSV's header),
never a value: the causes' texts quote cells, so they are not chained where they do.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path
from typing import NoReturn, Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from storage.digests import Sha256
from storage.errors import Invalid

_MEBIBYTE = 1 << 20
_PARQUET_BUFFERS_BYTES = 8 * _MEBIBYTE
_CSV_HEADER_BYTES = 16 * _MEBIBYTE
_CSV_CELL_BYTES = 128
_CSV_PLACE = re.compile(r"(?:In CSV column #(?P<column>\d+): )?.*?Row #(?P<row>\d+):")
_REMEDY_FILE = "Write the file again, or leave it out of [data] train."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which columns to read."""

    texts: tuple[str, ...]
    """Names, subjects, classes: CSV cells are taken literally."""
    numbers: tuple[str, ...]
    """Features: CSV cells are parsed as float64, or as bool where the first lines say true and false."""

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.texts, *self.numbers]


class Reader(Protocol):
    """Reads one table. Every method may raise ``Invalid``, without the file's name."""

    @property
    def typed(self) -> bool:
        """Whether the schema's types are the file's own, not a guess from its first lines."""
        ...

    def schema(self) -> pa.Schema:
        """Return names and types of all columns."""
        ...

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        """Yield the wanted columns, at most ``points`` data points at a time, in the file's order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file of a source, or a table in memory."""

    name: str
    """Path relative to the source's base, with ``/``; as people see it in errors."""
    path: Path | None
    """None for a table in memory."""
    reader: Reader

    def schema(self) -> pa.Schema:
        """Return names and types of all columns. Raises ``Invalid`` when the file cannot be read."""
        with _naming(self.name):
            return self.reader.schema()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Consecutive data points of one file."""

    file: str
    first: int
    """Row number of the first one within the file, from 1."""
    columns: pa.RecordBatch

    def column(self, name: str) -> pa.Array:
        """Return a column with plain values: neither a dictionary nor an extension type."""
        return plain(self.columns.column(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """What a source's inventory says of one file."""

    name: str
    payload_bytes: int
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file, all files of a folder, all files of a glob, or a table in memory."""

    location: str
    files: tuple[DataFile, ...]

    def batches(self, wanted: Wanted, points: int) -> Iterator[Batch]:
        """Yield the wanted columns file after file, at most ``points`` data points at a time.

        Raises ``Invalid`` naming the file when it is truncated, damaged, or has a line that cannot be parsed.
        """
        for file in self.files:
            first = 1
            with _naming(file.name):
                for columns in file.reader.batches(wanted, points):
                    yield Batch(file=file.name, first=first, columns=columns)
                    first += columns.num_rows


def open_source(location: str, base: Path, *, leave_out: tuple[Path, ...] = ()) -> Source:
    """Return the source that ``location`` names, relative to ``base``: a file, a folder or a glob.

    A folder stands for all files of known endings in it and below, sorted by name; hidden files and those that start
    with ``_`` are left out. Files in the folders ``leave_out`` and below are never data: folders and globs pass them
    over. Raises ``Invalid`` when nothing is found, an ending is unknown, or ``location`` itself is to be left out.
    """
    if "://" in location:
        raise Invalid(
            f"{location.partition('://')[0]}:// is not supported for data", "Copy the files to a local folder."
        )
    target, passed_over = base / location, {way for folder in leave_out for way in _ways_to(folder)}
    if target.exists() and not passed_over.isdisjoint(_above(target)):
        raise Invalid(f"a store's own files are not data: {location}", "Name data outside of the store and its keys.")
    if target.is_dir():
        found = (path for path in target.rglob("*") if _is_data(path.relative_to(target)) and path.is_file())
        paths = sorted(path for path in found if passed_over.isdisjoint(_above(path)))
        if not paths:
            raise _nothing("the folder holds no data file", location)
    elif target.is_file():
        paths = [target]
    else:
        # Path.glob refuses absolute patterns. The base is a folder's name, whatever characters it has.
        matches = map(Path, glob(str(Path(escape(str(base))) / location), recursive=True))  # noqa: PTH207
        paths = sorted(path for path in matches if path.is_file() and passed_over.isdisjoint(_above(path)))
        if not paths:
            raise _nothing("no file matches" if glob_like(location) else "there is no such file or folder", location)
    return Source(location=location, files=tuple(_data_file(path, base) for path in paths))


def table_source(table: pa.Table) -> Source:
    """Return a table in memory as a source."""
    return Source(location="table", files=(DataFile(name="table", path=None, reader=_TableReader(table)),))


def inventory(source: Source) -> tuple[SourceFile, ...]:
    """Return name, size and SHA-256 of each file; a table in memory has none."""
    entries = []
    for file in source.files:
        if file.path is None:
            continue
        with _naming(file.name), file.path.open("rb") as stream:
            digest = Sha256(hashlib.file_digest(stream, "sha256").hexdigest())
            entries.append(SourceFile(name=file.name, payload_bytes=stream.tell(), sha256=digest))
    return tuple(entries)


def glob_like(text: str) -> bool:
    """Return whether ``text`` has a character with a meaning in globs."""
    return any(character in text for character in "*?[")


def plain(array: pa.Array) -> pa.Array:
    """Return the array's values without dictionary, extension type and string views."""
    if isinstance(array, pa.ExtensionArray):
        return plain(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return plain(array.dictionary_decode())
    # pyarrow encodes and compares string views in few places.
    return array.cast(pa.string()) if pa.types.is_string_view(array.type) else array


def plain_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type of ``plain``'s result for an array of this type."""
    if isinstance(data_type, pa.BaseExtensionType):
        return plain_type(data_type.storage_type)
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type


def is_text(data_type: pa.DataType) -> bool:
    """Return whether the type holds character strings."""
    types = pa.types
    return bool(types.is_string(data_type) or types.is_large_string(data_type) or types.is_string_view(data_type))


def is_list(data_type: pa.DataType) -> bool:
    """Return whether the type holds a list per data point."""
    types = pa.types
    return bool(types.is_fixed_size_list(data_type) or types.is_list(data_type) or types.is_large_list(data_type))


@dataclass(frozen=True, slots=True)
class _TableReader:
    table: pa.Table
    typed: bool = True

    def schema(self) -> pa.Schema:
        return self.table.schema

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        yield from self.table.select(wanted.names).to_batches(max_chunksize=points)


@dataclass(frozen=True, slots=True)
class _ParquetReader:
    path: Path
    typed: bool = True

    def schema(self) -> pa.Schema:
        return pq.read_schema(self.path)

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        # Without buffering, pyarrow reads whole column chunks: a row group at a time. Each column has its own buffer.
        buffer_bytes = max(8192, min(_MEBIBYTE, _PARQUET_BUFFERS_BYTES // len(wanted.names)))
        with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=buffer_bytes) as file:
            for batch in file.iter_batches(batch_size=points, columns=wanted.names, use_threads=False):
                yield batch
                pa.default_memory_pool().release_unused()


@dataclass(frozen=True, slots=True)
class _ArrowReader:
    path: Path
    typed: bool = True

    def schema(self) -> pa.Schema:
        return self._open(self._map()).schema

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        # Mapped, so that a record batch larger than the memory at hand can be cut without being read whole.
        mapped = self._map()
        for batch in self._record_batches(self._open(mapped)):
            for piece in _cut(batch.select(wanted.names), points):
                yield piece
                # Pages read so far are the file's own: give them back, or the whole file would count as ours.
                mapped.madvise(mmap.MADV_DONTNEED)

    def _map(self) -> mmap.mmap:
        # Never closed by hand: batches point into it, and it goes when the last of them does.
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _open(self, mapped: mmap.mmap) -> pa.RecordBatchReader | pa.ipc.RecordBatchFileReader:
        buffer = pa.py_buffer(mapped)
        return pa.ipc.open_file(buffer) if mapped[:6] == b"ARROW1" else pa.ipc.open_stream(buffer)

    def _record_batches(self, reader: pa.RecordBatchReader | pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            return (reader.get_batch(index) for index in range(reader.num_record_batches))
        return iter(reader)


@dataclass(frozen=True, slots=True)
class _CsvReader:
    path: Path
    typed: bool = False

    def schema(self) -> pa.Schema:
        with suppress(pa.ArrowInvalid), self._open(pacsv.ConvertOptions(), _MEBIBYTE) as reader:
            return reader.schema
        # Perhaps the first lines are longer than a block.
        with _naming_csv_place(()), self._open(pacsv.ConvertOptions(), _CSV_HEADER_BYTES) as reader:
            return reader.schema

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        schema = self.schema()
        names = tuple(schema.names)
        truths = {field.name for field in schema if pa.types.is_boolean(field.type)}
        numbers = {name: pa.bool_() if name in truths else pa.float64() for name in wanted.numbers}
        options = pacsv.ConvertOptions(
            column_types=dict.fromkeys(wanted.texts, pa.string()) | numbers,
            include_columns=wanted.names,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        # A line must fit into a block.
        block_bytes = max(_MEBIBYTE, _CSV_CELL_BYTES * len(names))
        with _naming_csv_place(names), self._open(options, block_bytes) as reader:
            for batch in reader:
                yield from _cut(batch, points)

    def _open(self, options: pacsv.ConvertOptions, block_bytes: int) -> pacsv.CSVStreamingReader:
        # One thread: only then does pyarrow know the row of a bad line.
        return pacsv.open_csv(
            self.path,
            read_options=pacsv.ReadOptions(use_threads=False, block_size=block_bytes),
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=options,
        )


_READERS: dict[str, Callable[[Path], Reader]] = {
    ".parquet": _ParquetReader,
    ".pq": _ParquetReader,
    ".arrow": _ArrowReader,
    ".feather": _ArrowReader,
    ".ipc": _ArrowReader,
    ".csv": _CsvReader,
    ".csv.gz": _CsvReader,
}


def _ending(name: str) -> str | None:
    return next((ending for ending in _READERS if name.lower().endswith(ending)), None)


def _is_data(path: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.parts) and _ending(path.name) is not None


def _ways_to(path: Path) -> frozenset[Path]:
    """Return the path as it is written and as it is without symbolic links, both absolute."""
    return frozenset({Path(os.path.abspath(path)), Path(os.path.realpath(path))})  # noqa: PTH100


def _above(path: Path) -> Iterator[Path]:
    """Yield the path and every folder it lies in, by way of symbolic links and without."""
    return (folder for way in _ways_to(path) for folder in (way, *way.parents))


def _data_file(path: Path, base: Path) -> DataFile:
    name = (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()
    ending = _ending(path.name)
    if ending is None:
        raise Invalid("the file's ending is not a known format", f"Known are {', '.join(_READERS)}.", file=name)
    if not path.stat().st_size:
        raise Invalid("the file is empty (0 bytes)", _REMEDY_FILE, file=name)
    return DataFile(name=name, path=path, reader=_READERS[ending](path))


def _nothing(fact: str, location: str) -> Invalid:
    return Invalid(f"{fact}: {location}", f"Set [data] train to a file, folder or glob of {', '.join(_READERS)}.")


def _cut(batch: pa.RecordBatch, points: int) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, points) for start in range(0, batch.num_rows, points))


@contextmanager
def _naming(file: str) -> Iterator[None]:
    """Turn what reading raises into ``Invalid`` that names the file."""
    try:
        yield
    except Invalid as error:
        if "file" in error.context:
            raise
        raise Invalid(error.fact, error.remedy, file=file, **error.context) from None
    except OSError as error:
        # pyarrow raises it for damaged bytes, with no errno; the system raises it with one.
        fact = f"the file cannot be read ({error.strerror})" if error.errno else "the file is damaged or cut off"
        raise Invalid(fact, _REMEDY_FILE, file=file) from error
    except (pa.ArrowException, EOFError, zlib.error) as error:
        raise Invalid("the file is damaged, cut off, or not what its ending says", _REMEDY_FILE, file=file) from error


@contextmanager
def _naming_csv_place(names: tuple[str, ...]) -> Iterator[None]:
    """Turn pyarrow's complaint about a CSV cell or line, which quotes it, into ``Invalid`` that says where it is."""
    try:
        yield
    except pa.ArrowInvalid as error:
        place = _CSV_PLACE.match(str(error))
        if place is None:
            raise Invalid("the CSV file cannot be parsed", "Check header, quotes and encoding (UTF-8).") from None
        _refuse_csv_place(place, names)


def _refuse_csv_place(place: re.Match[str], names: tuple[str, ...]) -> NoReturn:
    row = int(place["row"]) - 1
    if place["column"] is None:
        raise Invalid("the line has another number of fields than the header", "Correct the line.", row=row) from None
    raise Invalid(
        "the cell is not a number or truth value, or not UTF-8 text",
        "Correct it, or take the column out of [data] features.",
        column=names[int(place["column"])],
        row=row,
    ) from None
