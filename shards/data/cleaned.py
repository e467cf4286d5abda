"""Copies of data files without some rows: same format, same columns, all other rows unchanged."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from io import BufferedReader, TextIOWrapper
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.data.readers import Wanted, ending_of, reader_of
from shards.data.sources import DataFile, csv_form_of
from storage.errors import Conflict, Invalid

_BATCH_CELLS: Final = 1 << 22
_ARROW_FILE: Final = b"ARROW1"
"""The first bytes of an Arrow file, which an Arrow stream does not have."""
_READ_BYTES: Final = 4 << 20


def copy_without(file: DataFile, rows: Sequence[int], target: Path, id_column: str) -> None:
    """Write a copy of ``file`` to ``target`` without ``rows``, which are ascending row numbers from 1.

    The remaining lines of a CSV file are copied byte for byte. The copy is read back and its ids are compared with the
    expected ones. Raises ``Conflict`` when ``target`` exists, and ``Invalid``, leaving no copy, when the rows cannot be
    removed.
    """
    if target.exists():
        raise Conflict(f"{target} exists already", "Name another folder for the copies.")
    ending = ending_of(file.name) or ""
    unfinished = target.with_name(f".{target.name}.partial{ending}")
    try:
        if ending.startswith(".csv"):
            _copy_lines(file, rows, unfinished, is_compressed=ending.endswith(".gz"))
        else:
            _copy_table(file, rows, unfinished, ending)
        _check(
            file,
            rows,
            DataFile(name=target.name, path=unfinished, reader=reader_of(ending, unfinished, csv_form_of(file))),
            id_column,
        )
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _copy_table(file: DataFile, rows: Sequence[int], target: Path, ending: str) -> None:
    schema = file.schema()
    if any(_holds_dictionary(each.type, at_top=True) for each in schema):
        raise _not_cut("a nested column is encoded with a dictionary, which keeps values of deleted rows", file)
    kept = _kept_batches(file, rows, schema)
    with ExitStack() as open_files:
        if ending in {".parquet", ".pq"}:
            sink: Any = open_files.enter_context(pq.ParquetWriter(target, schema))
        elif not _is_arrow_file(file):
            sink = open_files.enter_context(pa.ipc.new_stream(target, schema))
        else:
            sink = open_files.enter_context(pa.ipc.new_file(target, schema))
            if any(pa.types.is_dictionary(each.type) for each in schema):  # such a file has one dictionary per column
                kept = iter(pa.Table.from_batches(kept, schema).unify_dictionaries().to_batches())
        for batch in kept:
            sink.write_batch(batch)


def _kept_batches(file: DataFile, rows: Sequence[int], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    gone, names = _Gone(rows), tuple(schema.names)
    for batch in file.reader.batches(Wanted(texts=names, numbers=()), max(1, _BATCH_CELLS // len(names))):
        kept = batch.filter(pa.array(gone.others(batch.num_rows)))
        arrays = [_with_own_dictionary(column) for column in kept.columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _is_arrow_file(file: DataFile) -> bool:
    with bytes_of_file(file) as stream:
        return stream.read(len(_ARROW_FILE)) == _ARROW_FILE


def _with_own_dictionary(array: pa.Array) -> pa.Array:
    """Return the array with a dictionary of its current values: filtering alone would keep the erased ones in it."""
    if not pa.types.is_dictionary(array.type):
        return array
    return array.dictionary_decode().dictionary_encode().cast(array.type)


def _holds_dictionary(data_type: pa.DataType, *, at_top: bool) -> bool:
    if pa.types.is_dictionary(data_type):
        return not at_top
    return any(_holds_dictionary(data_type.field(index).type, at_top=False) for index in range(data_type.num_fields))


class _Gone:
    """Finds the rows to drop in each batch, one batch after the other."""

    def __init__(self, rows: Sequence[int]) -> None:
        self._rows = np.array(rows, dtype=np.int64)
        self._before = 0

    def others(self, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return a mask of the next ``count`` rows: true for the rows that stay."""
        mask = np.ones(count, dtype=np.bool_)
        first, last = np.searchsorted(self._rows, [self._before + 1, self._before + count + 1])
        mask[self._rows[first:last] - self._before - 1] = False
        self._before += count
        return mask


def _copy_lines(file: DataFile, rows: Sequence[int], target: Path, *, is_compressed: bool) -> None:
    gone, form = set(rows), csv_form_of(file)
    with ExitStack() as open_files:
        source: Any = open_files.enter_context(bytes_of_file(file))
        sink: Any = open_files.enter_context(target.open("wb"))
        if is_compressed:
            source = open_files.enter_context(gzip.GzipFile(fileobj=source))
            sink = open_files.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=sink, mtime=0))
        # Line ends are not translated, and bytes that are invalid in the encoding are kept.
        options: dict[str, Any] = {"encoding": form.encoding, "errors": "surrogateescape", "newline": ""}
        lines = open_files.enter_context(TextIOWrapper(source, **options))
        copy = open_files.enter_context(TextIOWrapper(sink, **options))
        number = 0  # the header's
        for record in records(lines, form.delimiter):
            is_blank = not record.strip("\r\n")  # readers skip it
            if is_blank or number not in gone:
                copy.write(record)
            number += not is_blank


def bytes_of_file(file: DataFile) -> IO[bytes]:
    """Return the bytes of a file on a disk or in a bucket."""
    if file.path is not None:
        return file.path.open("rb")
    assert file.remote is not None
    return BufferedReader(file.remote.open(), _READ_BYTES)


def records(lines: Iterable[str], delimiter: str) -> Iterator[str]:
    """Yield each record with its line end: one line, or several when a quoted value contains line ends.

    A quote opens a quoted value only at the beginning of the value; within it, two quotes stand for one.
    """
    begins = rf"(?:^|(?<={re.escape(delimiter)}))"
    quoted, begun = re.compile(rf'{begins}"[^"]*(?:""[^"]*)*"'), re.compile(rf'{begins}"')
    record = ""
    for line in lines:
        record += line
        if '"' in record and begun.search(quoted.sub("", record)):
            continue
        yield record
        record = ""
    if record:
        yield record


def _check(file: DataFile, rows: Sequence[int], copy: DataFile, id_column: str) -> None:
    """Raise ``Invalid`` unless the copy has exactly the other rows, judged by their ids."""
    try:
        ours, theirs = _ids(file, id_column, rows), _ids(copy, id_column, ())
        same = all(mine == other for mine, other in zip_longest(ours, theirs, fillvalue=_END))
    except (Invalid, pa.ArrowException) as error:
        raise _not_cut("the copy cannot be read", file) from error
    if not same:
        raise _not_cut("the copy does not have exactly the other rows", file)


_END: Final = object()


def _ids(file: DataFile, column: str, without: Sequence[int]) -> Iterator[object]:
    gone = _Gone(without)
    for batch in file.reader.batches(Wanted(texts=(column,), numbers=()), 1 << 16):
        yield from batch.filter(pa.array(gone.others(batch.num_rows))).column(0).to_pylist()


def _not_cut(why: str, file: DataFile) -> Invalid:
    return Invalid(
        f"no copy without the rows could be made: {why}",
        "Remove them where the file was made: 'sisa doctor --rows FILE' lists them.",
        file=file.name,
    )
