"""Samples of a source: data points at regular intervals, as a source in memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa

from shards.data.columns import choose_columns, read_texts
from shards.data.readers import TableReader, Wanted
from shards.data.sources import DataFile, Source
from shards.specification import DataSettings
from storage.errors import Invalid

_BATCH_BYTES: Final = 16 * 2**20
_BATCH_POINTS: Final = 65_536


def sampled(source: Source, data: DataSettings, most: int, points: int) -> Source:
    """Return at most ``most`` data points from all places of a source that has ``points``, with their own order.

    They are in memory. Raises as ``choose_columns`` does.
    """
    columns = choose_columns(source, data)
    every, first = max(1, math.ceil(points / most)), 0
    files = []
    for file in source.files:
        kept = []
        for batch in file.reader.batches(columns.wanted, columns.points_within(_BATCH_BYTES)):
            places = np.arange(-first % every, batch.num_rows, every)
            kept.append(batch.take(pa.array(places)))
            first += batch.num_rows
        if any(batch.num_rows for batch in kept):
            reader = TableReader(pa.Table.from_batches(kept))
            files.append(DataFile(name=file.name, path=None, reader=reader, tree=file.folder))
    if not files:
        raise Invalid("there are no data points", "Check what [data] train names.", source=source.location)
    return replace(source, files=tuple(files))


def count_points(source: Source, data: DataSettings) -> tuple[int, int]:
    """Return how many data points a source has, and how many subjects, by the column that decides the slice.

    Raises ``Invalid`` when the column is missing or has values that are not names.
    """
    wanted = Wanted(texts=(data.subject_column,), numbers=())
    points, subjects = 0, set[int]()
    for batch in source.batches(wanted, _BATCH_POINTS):
        points += batch.columns.num_rows
        subjects.update(map(hash, read_texts(batch, data.subject_column)))  # hashes: names would take far more room
    return points, len(subjects)
