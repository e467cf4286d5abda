"""Frames of other libraries are read through protocols, without importing the libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from shards.data.frames import frame_like, plain_table, table_of
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


class Saved:
    """A ``datasets.Dataset``: rows in the order of a selection, which its format ``arrow`` knows."""

    def __init__(self, table: pa.Table, rows: list[int]) -> None:
        self.column_names = table.column_names
        self._table, self._rows = table, rows

    def with_format(self, name: str) -> Any:
        """Return what gives its rows in this format."""
        assert name == "arrow"
        return self

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice) -> pa.Table:
        return self._table.take(self._rows[rows])


class Stream:
    """A ``datasets.IterableDataset``: has no length."""

    column_names = ("x0",)

    def with_format(self, name: str) -> Any:
        """Return itself."""
        raise NotImplementedError(name)


@pytest.mark.parametrize("kind", [Capsule, Interchange, Convertible])
def test_a_frame_is_the_table_it_stands_for(kind: type[Any]) -> None:
    """Every protocol gives the columns and values of the frame."""
    assert table_of(kind(people(9))).to_pydict() == people(9).to_pydict()


def test_tables_and_batches_are_taken() -> None:
    """A table is returned as it is, a record batch as a table."""
    assert table_of(people(3)) is not None
    assert table_of(people(3).to_batches()[0]).equals(people(3))


def test_a_dataset_is_taken_with_its_selection() -> None:
    """The underlying table is not read: it may hold rows that were filtered out."""
    assert table_of(Saved(people(5), [3, 1])).equals(people(5).take([3, 1]))


def test_several_datasets_and_streams_are_refused() -> None:
    """The error says what to pass instead."""
    with pytest.raises(Invalid, match=r"dict is not a table\. It holds several datasets: .*, such as data\['train'\]"):
        table_of({"train": Saved(people(2), [0]), "test": Saved(people(2), [1])})
    with pytest.raises(Invalid, match=r"Stream is not a table\. It is a stream: pass a datasets\.Dataset"):
        table_of(Stream())


def test_a_structured_array_is_a_table() -> None:
    """Its fields are columns, also where it is a view with gaps; numbers in a row are a list."""
    rows = np.array([("a", [1, 2], 7.0), ("b", [3, 4], 8.0)], dtype=[("id", "U3"), ("x", "f4", (2,)), ("y", "f8")])
    assert table_of(rows).to_pydict() == {"id": ["a", "b"], "x": [[1.0, 2.0], [3.0, 4.0]], "y": [7.0, 8.0]}
    assert table_of(rows[["id", "y"]][::-1]).to_pydict() == {"id": ["b", "a"], "y": [8.0, 7.0]}
    with pytest.raises(Invalid, match=r"ndarray is not a table\. Its columns have no names: .* sisa\.Classifier"):
        table_of(np.zeros((2, 2)))


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


def test_real_frames() -> None:
    """A filtered frame of pandas, and one of polars."""
    table, polars = people(9), pytest.importorskip("polars")
    frame = pd.DataFrame(table.to_pydict())
    assert table_of(frame[frame["x0"] >= 0].iloc[::2]).to_pydict() == table.take([0, 2, 4, 6, 8]).to_pydict()
    assert plain_table(table_of(polars.from_arrow(table))).to_pydict() == table.to_pydict()


def test_an_index_with_a_name_is_a_column() -> None:
    """Such as the ids of data points; a column of the frame goes before an index of its name."""
    frame = pd.DataFrame({"id": ["a", "b"], "x": [1.0, 2.0]})
    assert table_of(frame.set_index("id")).to_pydict() == {"x": [1.0, 2.0], "id": ["a", "b"]}
    assert table_of(frame.set_index(pd.Index(["u", "v"], name="id"))).to_pydict() == frame.to_dict("list")


def test_answers_are_a_frame_like_the_data() -> None:
    """They are a pandas frame with the index of the data, a polars frame, or otherwise a table."""
    answers = pa.table({"id": ["a", "b"], "prediction": ["yes", "no"]})
    frame = frame_like(pd.DataFrame({"x": [1, 2]}, index=[7, 9]), answers)
    assert frame.equals(pd.DataFrame(answers.to_pydict(), index=[7, 9]))
    assert frame_like("people.csv", answers) is answers
    assert frame_like(answers, answers) is answers
    polars = pytest.importorskip("polars")
    assert frame_like(polars.DataFrame({"x": [1, 2]}), answers).equals(polars.DataFrame(answers.to_pydict()))


def test_no_library_of_frames_is_imported() -> None:
    """Neither pandas nor polars is needed: reading frames imports neither."""
    script = "import sys, cluster.client, shards.data.frames; print({'pandas', 'polars'} & set(sys.modules))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
