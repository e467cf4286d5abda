"""Frames of other libraries are read through protocols, without importing the libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shards.data.frames import plain_table, table_of
from shards.data.messages import stream_of, table_of_stream
from storage.errors import Invalid
from tests.shards.people import people


class Capsule:
    """A frame that exports Arrow's C stream, as pandas and polars do."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class Interchange:
    """A frame that supports only the interchange protocol, as older pandas does."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> Any:  # noqa: FBT002
        return self._table.__dataframe__(nan_as_null, allow_copy)


class Convertible:
    """A frame with its own method for conversion, as in older polars."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def to_arrow(self) -> pa.Table:
        """Return the table."""
        return self._table


@pytest.mark.parametrize("kind", [Capsule, Interchange, Convertible])
def test_a_frame_is_the_table_it_stands_for(kind: type[Any]) -> None:
    """Every protocol gives the columns and values of the frame."""
    assert table_of(kind(people(9))).to_pydict() == people(9).to_pydict()


def test_tables_and_batches_are_taken() -> None:
    """A table is returned as it is, a record batch as a table."""
    assert table_of(people(3)) is not None
    assert table_of(people(3).to_batches()[0]).equals(people(3))


def test_row_numbers_are_not_a_column() -> None:
    """The index that pandas exports for a filtered frame is dropped."""
    table = people(3).append_column("__index_level_0__", pa.array([4, 7, 9]))
    assert table_of(Capsule(table)).column_names == people(3).column_names


def test_views_and_dictionaries_become_plain_for_messages() -> None:
    """A server accepts neither, but polars exports strings as views and categories as dictionaries of views."""
    views = pa.array(["a", "b", "a"]).cast(pa.string_view())
    categories = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 0], pa.uint32()), pa.array(["u", "v"]).cast(pa.string_view())
    )
    table = pa.table({"id": views, "city": categories, "x": [1.0, 2.0, 3.0]})
    sent = table_of_stream(stream_of(plain_table(table_of(Capsule(table)))), 10)
    assert sent.to_pydict() == {"id": ["a", "b", "a"], "city": ["u", "v", "u"], "x": [1.0, 2.0, 3.0]}
    assert plain_table(table.slice(0, 0)).num_rows == 0


@pytest.mark.parametrize("data", [3, {"a": [1]}, object()])
def test_other_objects_are_refused(data: object) -> None:
    """The error names the type and the accepted ones, never a value."""
    with pytest.raises(Invalid, match=r"builtins\.\w+ is not a table\. Pass a pandas or polars frame"):
        table_of(data)


def test_a_frame_that_cannot_be_converted_is_refused() -> None:
    """An error of the other library, such as for a column of mixed types, becomes a clear message."""

    class Mixed:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise pa.ArrowInvalid("a value of somebody")

    with pytest.raises(Invalid, match=r"Mixed cannot be converted to an Arrow table: ArrowInvalid") as caught:
        table_of(Mixed())
    assert "somebody" not in str(caught.value)


def test_real_frames_where_they_are_installed() -> None:
    """A filtered frame of pandas, and one of polars."""
    table = people(9)
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    frame = pandas.DataFrame(table.to_pydict())
    assert table_of(frame[frame["x0"] >= 0].iloc[::2]).to_pydict() == table.take([0, 2, 4, 6, 8]).to_pydict()
    assert plain_table(table_of(polars.from_arrow(table))).to_pydict() == table.to_pydict()


def test_no_library_of_frames_is_imported() -> None:
    """Neither pandas nor polars is needed: reading frames imports neither."""
    script = "import sys, cluster.client, shards.data.frames; print({'pandas', 'polars'} & set(sys.modules))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
