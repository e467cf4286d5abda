"""Data points to predict, and the file of predictions.

Shape legend: N points, F features, S scores.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from shards.data.columns import choose_columns, labels_of, read_features
from shards.data.sources import Source, is_text
from shards.points import scaled
from shards.specification import DataSettings
from shards.targets import ColumnKind, LabelArray, Target
from storage.errors import Invalid

_BATCH_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureBatch:
    """Some data points to predict, in their file's order."""

    ids: pa.Array | None
    """The id column as it is in the file; None when there is none."""
    labels_N: LabelArray | None
    """As in ``PointBlock``; None unless labels were requested."""
    features_NF: npt.NDArray[np.float32]
    """Scaled, C-contiguous."""

    def id_texts(self) -> list[str] | None:
        """Return the ids as an ingest reads them, empty if missing; None: the column cannot hold ids."""
        if self.ids is None or not (is_text(self.ids.type) or pa.types.is_integer(self.ids.type)):
            return None
        return ["" if value is None else str(value) for value in self.ids.to_pylist()]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictionBatch:
    """Some predictions."""

    ids: pa.Array | None
    scores_NS: npt.NDArray[np.floating]
    """The answers' numbers, in the target's form."""


def in_order_to_measure(batch: FeatureBatch, target: Target) -> FeatureBatch:
    """Return the inputs whose answers are measured for a labelled batch: see ``Target.asked``."""
    assert batch.labels_N is not None
    labels_N, features_NF = target.asked(batch.labels_N, batch.features_NF)
    return FeatureBatch(ids=None, labels_N=labels_N, features_NF=features_NF)


class _Writer(Protocol):
    def write_batch(self, batch: pa.RecordBatch) -> None: ...


def feature_batches(
    source: Source, data: DataSettings, width: int, *, labelled: bool = False
) -> Iterator[FeatureBatch]:
    """Yield the source's features, batch by batch, as they would be used in training.

    The id column, of any type, is passed on if there is one; labels are read when ``labelled`` is set.
    Raises ``Invalid`` for data that an ingest would refuse, and when the number of features is not ``width``.
    """
    columns = choose_columns(source, data, identified=False, labelled=labelled)
    for batch in source.batches(columns.wanted, columns.points_within(_BATCH_BYTES)):
        yield FeatureBatch(
            ids=None if columns.id is None else batch.column(columns.id),
            labels_N=labels_of(batch, data) if labelled else None,
            features_NF=scaled(read_features(batch, columns, width), data.scale),
        )


def write_predictions(
    path: Path, batches: Iterable[PredictionBatch], target: Target, id_column: str | None = None
) -> int:
    """Write predictions to a Parquet, Arrow or CSV file, depending on the path's ending; return their number.

    Columns: ``id_column`` where the batches carry ids, then those of the target, numbers in float32. The file appears
    complete, replacing an older one, or not at all. Raises ``Invalid`` for an unknown ending.
    """
    stream = iter(batches)
    first = next(stream, None)
    schema = _schema(first, target, id_column)
    return write_answers(path, schema, (_answers(batch, target, schema) for batch in _again(first, stream)))


def write_answers(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write answers in Arrow's form to a file, as ``write_predictions`` does; return their number."""
    check_ending(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    points = 0
    try:
        ending = path.suffix.lower()
        written = _without_lists(schema) if ending == ".csv" else schema
        with _open(ending, partial, written) as writer:
            for batch in batches:
                writer.write_batch(batch if written is schema else _joined(batch, written))
                points += batch.num_rows
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return points


def predictions_table(batches: Iterable[PredictionBatch], target: Target, id_column: str | None = None) -> pa.Table:
    """Return the predictions as one table in memory, with the columns of ``write_predictions``."""
    answers = list(batches)
    schema = _schema(answers[0] if answers else None, target, id_column)
    return pa.Table.from_batches([_answers(batch, target, schema) for batch in answers], schema=schema)


def check_ending(path: Path) -> None:
    """Raise ``Invalid`` when predictions cannot be written to a file with this name; call it before any work."""
    if path.suffix.lower() not in {".parquet", ".pq", ".arrow", ".feather", ".ipc", ".csv"}:
        raise Invalid("predictions cannot be written: the ending is unknown", "Use .parquet, .arrow or .csv.")
    if not path.parent.is_dir():
        raise Invalid("predictions cannot be written: the folder does not exist", "Create it.", folder=str(path.parent))


_TYPES: Mapping[ColumnKind, pa.DataType] = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "number": pa.float32(),
    "index": pa.int32(),
}
_SEPARATOR = "|"
"""Between texts in a CSV file, which has no lists."""


def _schema(first: PredictionBatch | None, target: Target, id_column: str | None) -> pa.Schema:
    fields = [pa.field(name, _TYPES[kind]) for name, kind in target.columns]
    if id_column is not None and first is not None and first.ids is not None:
        if id_column in {field.name for field in fields}:
            raise Invalid("the id column has the same name as a column of predictions", "Rename it.", column=id_column)
        fields.insert(0, pa.field(id_column, first.ids.type))
    return pa.schema(fields)


def _answers(batch: PredictionBatch, target: Target, schema: pa.Schema) -> pa.RecordBatch:
    values = zip(target.values(batch.scores_NS), target.columns, strict=True)
    columns = [pa.array(value, _TYPES[kind]) for value, (_, kind) in values]
    if len(schema) > len(columns):
        columns.insert(0, batch.ids)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _again(first: PredictionBatch | None, others: Iterator[PredictionBatch]) -> Iterator[PredictionBatch]:
    if first is not None:
        yield first
        yield from others


def _without_lists(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(each.name, pa.string()) if pa.types.is_list(each.type) else each for each in schema])


def _joined(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.array([_SEPARATOR.join(texts) for texts in column.to_pylist()]) if pa.types.is_list(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _open(ending: str, path: Path, schema: pa.Schema) -> AbstractContextManager[_Writer]:
    writer: AbstractContextManager[_Writer]
    if ending == ".csv":
        writer = pacsv.CSVWriter(path, schema)
    elif ending in {".parquet", ".pq"}:
        writer = pq.ParquetWriter(path, schema)
    else:
        writer = pa.ipc.new_file(path, schema)
    return writer
