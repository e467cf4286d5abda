"""Delta tables on this machine, as of a version: which files are current, read by the package ``deltalake``.

It is an optional dependency (``pip install 'sisa-ray[delta]'``). Rows are read by pyarrow, as those of other files.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa

from shards.data.folders.table_formats import LOG_FOLDERS
from shards.data.readers import FileReader, Wanted
from storage.errors import Invalid

_UNDERSTOOD: Final = frozenset({"timestampNtz", "vacuumProtocolCheck", "v2Checkpoint"})
"""Table features that do not affect which rows of the files are current, or their meaning."""
_EXPORT: Final = "export the rows of this version to Parquet and name these files"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaFile:
    """One file of a version."""

    path: Path
    name: str
    """Relative to the table's folder."""
    values: Mapping[str, pa.Scalar]
    """The columns that the file does not hold, because all of its rows have the same value there."""


@dataclass(frozen=True, slots=True)
class PartitionReader:
    """A file of a partitioned table, with the columns whose values are in the table's log."""

    inner: FileReader
    values: Mapping[str, pa.Scalar]
    typed: bool = True

    def schema(self) -> pa.Schema:
        """Return the file's columns and those of the partition."""
        known = self.inner.schema()
        return pa.schema([*known, *(pa.field(name, value.type) for name, value in self.values.items())])

    def batches(self, wanted: Wanted, points: int) -> Iterator[pa.RecordBatch]:
        """Yield the wanted columns."""
        held = [name for name in wanted.names if name not in self.values] or self.inner.schema().names[:1]
        for batch in self.inner.batches(Wanted(texts=tuple(held), numbers=()), points):
            columns = [
                pa.repeat(self.values[name], batch.num_rows) if name in self.values else batch.column(name)
                for name in wanted.names
            ]
            yield pa.RecordBatch.from_arrays(columns, names=wanted.names)


def is_delta(folder: Path) -> bool:
    """Return whether the folder is the root of a Delta table."""
    return any((folder / log).is_dir() for log, name in LOG_FOLDERS.items() if name == "a Delta")


def delta_files(folder: Path, version: int | None) -> tuple[int, tuple[DeltaFile, ...]]:
    """Return the version and its files, by name; None: the current version.

    Raises ``Invalid`` when ``deltalake`` is not installed, there is no such version, or the table has features with
    which rows of its files may be deleted or renamed.
    """
    try:
        deltalake: Any = importlib.import_module("deltalake")
    except ModuleNotFoundError:
        remedy = f"Run pip install 'sisa-ray[delta]', or {_EXPORT}."
        raise Invalid("a Delta table cannot be read: deltalake is not installed", remedy, table=str(folder)) from None
    try:
        table = deltalake.DeltaTable(str(folder), version=version)
    except deltalake.exceptions.DeltaError as error:
        wanted = "current version" if version is None else f"version {version}"
        remedy = "Name a version that the table's log still has in [data] version, or check the table."
        raise Invalid(f"the {wanted} of the Delta table cannot be read", remedy, table=str(folder)) from error
    _refuse_features(table, folder)
    added = pa.table(table.get_add_actions(flatten=True))
    parts = [name for name in added.column_names if name.startswith("partition.")]
    files = []
    for row in range(added.num_rows):
        name = unquote(added["path"][row].as_py())
        if "://" in name or Path(name).is_absolute():
            fact = "the Delta table refers to files in another place"
            raise Invalid(fact, f"Copy the table with its files, or {_EXPORT}.", table=str(folder))
        values = {part.removeprefix("partition."): added[part][row] for part in parts}
        files.append(DeltaFile(path=folder / name, name=name, values=values))
    return table.version(), tuple(sorted(files, key=lambda each: each.name))


def _refuse_features(table: Any, folder: Path) -> None:
    features = {str(name) for name in table.protocol().reader_features or ()} - _UNDERSTOOD
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        features.add("columnMapping")
    if features:
        fact = f"the Delta table has features that change what its files hold: {', '.join(sorted(features))}"
        raise Invalid(fact, f"Write it again without them, or {_EXPORT}.", table=str(folder))
