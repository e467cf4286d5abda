"""Arrays, frames and labels in memory, as an estimator takes them, in columns. Shape legend: N points, F features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.data.columns import label_codes
from shards.data.frames import is_dataset, table_of
from shards.data.sources import Batch
from storage.errors import Invalid

_FRAMES: Final = ("__arrow_c_stream__", "to_arrow", "__dataframe__")
"""Attributes of which a frame of any library has one."""

MATRIX: Final = "x"
"""Column of the features when they are given as an array."""


def features_of(X: Any) -> tuple[pa.Table, tuple[str, ...]]:
    """Return the features as a table, and the names of its columns."""
    if isinstance(X, str | Path):
        raise Invalid(
            "X is the name of a file, not data",
            "Pass the data themselves, or use sisa.launch with a specification that names the file.",
        )
    is_array = isinstance(X, list | tuple | np.ndarray)
    is_frame = isinstance(X, pa.Table | pa.RecordBatch) or any(hasattr(X, each) for each in _FRAMES)
    has_names = isinstance(X, np.ndarray) and X.dtype.names is not None
    if is_dataset(X) or has_names or (is_frame and not is_array):
        # The index of a pandas frame names data points, and is not a feature, even where it has a name.
        without_index = getattr(X, "reset_index", None)
        table = table_of(X if without_index is None else without_index(drop=True))
        return table, tuple(table.column_names)
    if hasattr(X, "toarray"):
        raise Invalid("X is a sparse matrix", "Convert it with X.toarray(): features are stored densely.")
    try:
        X_NF = np.asarray(X)
        if X_NF.dtype == object or X_NF.dtype.kind in "USO":
            X_NF = X_NF.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise Invalid("X holds values that are not numbers", "Encode them as numbers first.") from error
    if X_NF.ndim < 2:
        raise Invalid(
            f"X has the shape {X_NF.shape}, and needs one row for each data point",
            "Reshape your data: X.reshape(-1, 1) if it is one feature, X.reshape(1, -1) if it is one data point.",
        )
    if X_NF.dtype.kind == "c":
        raise Invalid(
            "Complex data not supported: X holds complex numbers", "Pass real and imaginary parts as features."
        )
    if X_NF.dtype.kind not in "fiub":
        raise Invalid(f"X holds {X_NF.dtype}, which are not numbers", "Encode them as numbers first.")
    if not X_NF.size:
        missing = "sample" if not len(X_NF) else "feature"
        raise Invalid(
            f"X has 0 {missing}(s) (shape={X_NF.shape}) while a minimum of 1 is required", "Check what is passed."
        )
    flat = np.ascontiguousarray(X_NF.reshape(len(X_NF), -1))
    width = flat.shape[1]
    rows = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), width)
    return pa.table({MATRIX: rows}), (MATRIX,)


def width_of(features: pa.Table) -> int:
    """Return the number of features in all columns."""
    return sum(each.type.list_size if pa.types.is_fixed_size_list(each.type) else 1 for each in features.schema)


def column_of(values: Any, what: str, points: int) -> pa.Array:
    """Return a column of labels, ids or subjects with one value for each data point."""
    try:
        found = pa.array(values if isinstance(values, list | tuple) else np.asarray(values), from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise Invalid(
            f"{what} cannot be read as a column: {type(error).__name__}", "Give values of one type."
        ) from error
    if len(found) != points:
        raise Invalid(f"{what} has {len(found)} values for {points} data points", "Give one for each row of X.")
    return found


def class_labels_of(y: Any, points: int) -> pa.Array:
    """Return the labels as a column. Raises ``Invalid`` for numbers that are measurements, and nulls."""
    if y is None:
        raise Invalid(
            "a classifier requires y to be passed, but the target y is None", "Pass a label for each row of X."
        )
    array = np.asarray(y)
    labels = column_of(array.reshape(-1) if array.shape[1:] == (1,) else y, "y", points)
    if labels.null_count:
        raise Invalid("y contains nulls or NaN", "Leave out data points without a label.", points=labels.null_count)
    if pa.types.is_floating(labels.type) and not pc.all(pc.equal(labels, pc.floor(labels))).as_py():
        raise Invalid(
            "Unknown label type: y is continuous",
            "Pass classes (integers, truth values or texts), or use sisa.Regressor.",
        )
    return labels


def numbers_of_labels(y: Any, points: int) -> list[pa.Array]:
    """Return numbers to be predicted, shape (N,) or (N, W), as a column for each of the W."""
    if y is None:
        raise Invalid(
            "a regressor requires y to be passed, but the target y is None", "Pass a number for each row of X."
        )
    try:
        y_NW = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise Invalid("y holds values that are not numbers", "Pass numbers, or use sisa.Classifier.") from error
    if y_NW.ndim not in {1, 2} or len(y_NW) != points or not y_NW.size:
        raise Invalid(f"y has the shape {y_NW.shape} for {points} data points", "Give one value, or one row, for each.")
    if not np.isfinite(y_NW).all():
        raise Invalid("y contains infinity or NaN", "Leave out data points without a number.")
    return [pa.array(column) for column in y_NW.reshape(points, -1).T.copy()]


def default_ids(X: Any, points: int) -> pa.Array:
    """Return a pandas frame's index, where it is unique and has one level, or row numbers."""
    index = getattr(X, "index", None)
    if index is not None and not callable(index) and getattr(index, "nlevels", 0) == 1 and index.is_unique:
        return column_of(index.to_numpy(), "the frame's index", points)
    return pa.array(range(points), pa.int64())


def are_row_numbers(ids: pa.Array) -> bool:
    """Return whether the ids count the rows from 0, so that other data points may have them in another frame."""
    return bool(ids.equals(pa.array(range(len(ids)), pa.int64())))


def label_texts(labels: pa.Array) -> list[str]:
    """Return labels as ``[data] classes`` names them."""
    batch = Batch(file="y", first=1, columns=pa.RecordBatch.from_arrays([labels], names=["y"]))
    codes, texts = label_codes(batch, "y")
    return [texts[code] for code in codes]


def distinct_labels(labels: pa.Array) -> tuple[str, ...]:
    """Return the labels that occur, in order, as ``[data] classes`` names them."""
    distinct = labels.unique()
    if len(distinct) < 2:
        raise Invalid("y holds 1 class, and a classifier needs two or more", "Name them all with classes=[...].")
    return tuple(label_texts(distinct.take(pc.sort_indices(distinct))))


def class_values(classes: Sequence[str], labels: pa.Array | None) -> npt.NDArray[Any]:
    """Return the classes as values of the type that ``labels`` have; without them integers, truth values or texts."""
    if labels is not None:
        distinct = labels.unique()
        known = dict(zip(label_texts(distinct), distinct.to_pylist(), strict=True))
        kinds = {type(value) for value in known.values()}
        if len(kinds) == 1 and known.keys() <= set(classes):
            kind = kinds.pop()
            return np.array([known[name] if name in known else _typed(kind, name) for name in classes])
    if all(name.lstrip("-").isdecimal() for name in classes):
        return np.array([int(name) for name in classes])
    if set(classes) <= {"true", "false"}:
        return np.array([name == "true" for name in classes])
    return np.array(classes)


def _typed(kind: type, name: str) -> Any:
    return name == "true" if kind is bool else kind(name)
