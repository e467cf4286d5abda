"""Tables in memory from other libraries: pandas, polars, Hugging Face datasets, and what supports Arrow's protocols.

The libraries are not imported here: a frame exports its own data, through the Arrow PyCapsule interface or the
dataframe interchange protocol, and a ``datasets.Dataset`` in its format ``arrow``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow.interchange import from_dataframe

from shards.data.sources import plain_array
from storage.errors import Invalid

_ROW_NUMBERS = re.compile(r"__index_level_\d+__")
"""Names of the columns in which pandas exports row numbers."""


def table_of(data: Any) -> pa.Table:
    """Return a table in memory as a ``pyarrow.Table``. Raises ``Invalid`` when it is not a table."""
    if isinstance(data, pa.Table):
        return _changed(data, _without_views)
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    rows: Any = data  # its type is not narrowed: below it is a frame
    if isinstance(rows, np.ndarray) and rows.dtype.names:
        return _table_of_records(rows)
    if isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows):
        return _table_of_rows(rows)
    try:
        if is_dataset(data):
            return _changed(data.with_format("arrow")[:], _without_views)  # its own selection and order of rows
        if hasattr(data, "__arrow_c_stream__"):
            return _without_row_numbers(pa.table(data))
        if hasattr(data, "to_arrow"):
            return _without_row_numbers(pa.table(data.to_arrow()))
        if hasattr(data, "__dataframe__"):
            return _without_row_numbers(from_dataframe(data))
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise Invalid(
            f"the {_called(data)} cannot be converted to an Arrow table: {type(error).__name__}",
            "Give every column one type and a name of its own, or convert it to a pyarrow.Table.",
        ) from error
    raise Invalid(f"{_called(data)} is not a table", _remedy(data))


def is_dataset(data: Any) -> bool:
    """Return whether it is a ``datasets.Dataset``, whose rows can be counted and selected."""
    return _is_of_datasets(data) and hasattr(data, "__len__") and not isinstance(data, Mapping)


def frame_like(data: Any, table: pa.Table) -> Any:
    """Return the table as a frame of the library that ``data`` comes from, in pandas with the same index.

    What comes from neither pandas nor polars is answered with the table itself.
    """
    library = type(data).__module__.partition(".")[0]
    if library == "pandas":
        return table.to_pandas().set_axis(data.index)
    return type(data)(table) if library == "polars" else table


def plain_table(table: pa.Table) -> pa.Table:
    """Return the table without dictionaries, extension types and string views, as messages need it."""
    return _changed(table, lambda array: plain_array(_without_views(array)))


def _without_row_numbers(table: pa.Table) -> pa.Table:
    kept = [position for position, name in enumerate(table.column_names) if not _ROW_NUMBERS.fullmatch(name)]
    return _changed(table.select(kept), _without_views)


def _table_of_rows(rows: list[Mapping[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            # Not chained: the text of the cause quotes values.
            raise Invalid(
                "the values of a column are not of one kind", "Give them one type.", column=str(name)
            ) from None
    return pa.table(columns)


def _changed(table: pa.Table, change: Callable[[pa.Array], pa.Array]) -> pa.Table:
    columns = [
        pa.chunked_array([change(chunk) for chunk in column.chunks or [pa.array([], column.type)]])
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def _without_views(array: pa.Array) -> pa.Array:
    """Return the array with plain strings in its dictionary, if it has one: pyarrow cannot decode string views."""
    if pa.types.is_dictionary(array.type) and pa.types.is_string_view(array.type.value_type):
        return pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(pa.string()))
    return array


def _table_of_records(records: npt.NDArray[Any]) -> pa.Table:
    """Return the fields of a structured array as columns; one that holds several numbers a row becomes lists."""
    columns = {}
    for name in records.dtype.names or ():
        values = np.ascontiguousarray(records[name])
        flat = pa.array(values.reshape(-1))
        width = math.prod(values.shape[1:])
        columns[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.table(columns)


def _is_of_datasets(data: Any) -> bool:
    return hasattr(data, "with_format") and hasattr(data, "column_names")


def _remedy(data: Any) -> str:
    if isinstance(data, Mapping) and any(map(_is_of_datasets, data.values())):
        return f"It holds several datasets: pass one of them, such as data[{next(iter(data))!r}]."
    if _is_of_datasets(data):
        return "It is a stream: pass a datasets.Dataset, such as datasets.Dataset.from_list(list(data))."
    if isinstance(data, np.ndarray):
        return "Its columns have no names: use a structured array or a frame, or sisa.Classifier and sisa.Regressor."
    return "Pass a pandas or polars frame, a pyarrow.Table, a list of dictionaries, or the path of a file."


def _called(data: object) -> str:
    return f"{type(data).__module__}.{type(data).__qualname__}"
