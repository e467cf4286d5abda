"""Unencoded columns for every kind of encoder, and their features."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.data.columns import choose_columns, read_features
from shards.data.sources import table_source
from shards.encoders import Encoder
from shards.encoding import encoding_of
from tests.shards.people import settings

DECLARED: dict[str, dict[str, Any]] = {
    "age": {"missing": 0.0, "shift": 40.0, "scale": 15.0, "flag_missing": True},
    "plan": {"categories": ["free", "pro", "team"], "other": True},
    "level": {"categories": [1, 2, 3], "missing": True, "as": "index"},
    "city": {"hash": 16, "missing": True},
    "street": {"hash": 1000, "missing": True, "as": "index"},
    "since": {"date": "days", "since": "2020-01-01", "cycle": ["week", "year"], "scale": 100.0, "missing": -1.0},
    "active": {"true": ["Yes", "Y"], "false": ["No"], "missing": 0.5, "flag_missing": True},
    "note": {"words": 32, "ngrams": 2, "missing": True},
    "title": {"tokens": 4, "vocabulary": 50, "missing": True},
}
"""An encoder of every kind but images."""


def encoder(**options: Any) -> Encoder:
    """Return the encoder that the options declare."""
    encoders, problems = encoding_of({"c": {name.rstrip("_"): value for name, value in options.items()}})
    assert problems == []
    return encoders.encoders["c"]


def encoded(values: Any, kind: pa.DataType | None = None, **options: Any) -> list[list[float]]:
    """Return the features of a column with such an encoder, one list per data point."""
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)
    declared = {"c": {name.rstrip("_"): value for name, value in options.items()}}
    features: list[list[float]] = matrix(pa.table({"c": array}), declared).tolist()
    return features


def matrix(table: pa.Table, declared: dict[str, dict[str, Any]], **changes: Any) -> npt.NDArray[Any]:
    """Return the features of all declared columns of a table."""
    data = settings(features=tuple(declared), encode=declared, **changes)
    source = table_source(table)
    columns = choose_columns(source, data, identified=False, labelled=False)
    parts = [read_features(batch, columns, None) for batch in source.batches(columns.wanted, 1 << 20)]
    return np.concatenate(parts)


def rows(cells: list[dict[str, Any]]) -> pa.Table:
    """Return rows with a cell for each column of ``DECLARED`` as a table."""
    kinds = {"age": pa.float32(), "level": pa.int64(), "since": pa.timestamp("s")}
    return pa.table({name: pa.array([row[name] for row in cells], kinds.get(name, pa.string())) for name in DECLARED})


FIRST_DAY = dt.datetime(1990, 1, 1)  # noqa: DTZ001  naive: read as UTC
