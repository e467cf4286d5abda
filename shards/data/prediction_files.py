"""Data points to predict, and the file of predictions.

Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from shards.data.columns import choose_columns, read_features, read_labels
from shards.data.sources import Source
from shards.points import scaled
from shards.specification import DataSettings
from storage.errors import Invalid

_BATCH_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureBatch:
    """Some data points to predict, in their file's order."""

    ids: pa.Array | None
    """The id column as it is in the file; None when there is none."""
    labels_N: npt.NDArray[np.int32] | None
    """Position in ``classes``; None unless labels were requested."""
    features_NF: npt.NDArray[np.float32]
    """Scaled, C-contiguous."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictionBatch:
    """Some predictions."""

    ids: pa.Array | None
    predictions: Sequence[str]
    """Names of the predicted classes, length N."""
    probabilities_NC: npt.NDArray[np.floating]
    """Aggregated probability (or share of votes) per class."""


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
            labels_N=read_labels(batch, data.label, data.classes, data.decimal) if labelled else None,
            features_NF=scaled(read_features(batch, columns, width), data.scale),
        )


def write_predictions(
    path: Path, batches: Iterable[PredictionBatch], classes: Sequence[str], id_column: str | None = None
) -> int:
    """Write predictions to a Parquet, Arrow or CSV file, depending on the path's ending; return their number.

    Columns: ``id_column`` where the batches carry ids, ``prediction``, then ``probability_<class>`` (float32) for each
    class. The file appears complete, replacing an older one, or not at all. Raises ``Invalid`` for an unknown ending.
    """
    check_ending(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    points = 0
    try:
        stream = iter(batches)
        first = next(stream, None)
        schema = _schema(first, classes, id_column)
        with _open(path.suffix.lower(), partial, schema) as writer:
            while first is not None:
                writer.write_batch(_answers(first, schema))
                points += len(first.predictions)
                first = next(stream, None)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return points


def predictions_table(
    batches: Iterable[PredictionBatch], classes: Sequence[str], id_column: str | None = None
) -> pa.Table:
    """Return the predictions as one table in memory, with the columns of ``write_predictions``."""
    answers = list(batches)
    schema = _schema(answers[0] if answers else None, classes, id_column)
    return pa.Table.from_batches([_answers(batch, schema) for batch in answers], schema=schema)


def check_ending(path: Path) -> None:
    """Raise ``Invalid`` when predictions cannot be written to a file with this name; call it before any work."""
    if path.suffix.lower() not in {".parquet", ".pq", ".arrow", ".feather", ".ipc", ".csv"}:
        raise Invalid("predictions cannot be written: the ending is unknown", "Use .parquet, .arrow or .csv.")
    if not path.parent.is_dir():
        raise Invalid("predictions cannot be written: the folder does not exist", "Create it.", folder=str(path.parent))


def _schema(first: PredictionBatch | None, classes: Sequence[str], id_column: str | None) -> pa.Schema:
    names = ["prediction", *(f"probability_{name}" for name in classes)]
    fields = [pa.field("prediction", pa.string()), *(pa.field(name, pa.float32()) for name in names[1:])]
    if id_column is not None and first is not None and first.ids is not None:
        if id_column in names:
            raise Invalid("the id column has the same name as a column of predictions", "Rename it.", column=id_column)
        fields.insert(0, pa.field(id_column, first.ids.type))
    return pa.schema(fields)


def _answers(batch: PredictionBatch, schema: pa.Schema) -> pa.RecordBatch:
    probabilities = batch.probabilities_NC.astype(np.float32)
    columns = [pa.array(batch.predictions, pa.string()), *(pa.array(column) for column in probabilities.T.copy())]
    if len(schema) > len(columns):
        columns.insert(0, batch.ids)
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
