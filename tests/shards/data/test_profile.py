"""The profile of data without a specification."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from shards.data.profile import ColumnDescription, describe_source
from shards.data.sources import open_source, table_source
from storage.errors import Invalid
from tests.shards.people import people, replaced, write


def _column(table: pa.Table, name: str) -> ColumnDescription:
    return next(column for column in describe_source(table_source(table)).columns if column.name == name)


def test_a_description_counts_and_names_everything(tmp_path: Path) -> None:
    """The description has files, points, columns in order, kinds and distinct values."""
    write(people(40), tmp_path / "a.parquet")
    write(people(20), tmp_path / "b.parquet")
    found = describe_source(open_source("*.parquet", tmp_path))
    assert found.files == ("a.parquet", "b.parquet")
    assert found.points == 60
    assert [column.name for column in found.columns] == people(1).column_names
    assert [column.kind for column in found.columns] == ["text"] * 3 + ["integer"] * 4
    assert [column.distinct for column in found.columns[:3]] == [40, 14, 2]
    assert found.columns[2].values == ("no", "yes")


def test_values_read_as_labels_do_in_natural_order() -> None:
    """Whole numbers are sorted by value, and integral floats are written without a point."""
    assert _column(pa.table({"c": [10, 9, -1]}), "c").values == ("-1", "9", "10")
    assert _column(pa.table({"c": [10.0, 9.0, None]}), "c") == ColumnDescription(
        name="c",
        type="double",
        kind="number",
        nulls=1,
        distinct=2,
        values=("9", "10"),
        largest=10.0,
        mean=9.5,
        deviation=0.5,
        most_frequent=("10", 1),
        blank=1,
    )
    assert _column(pa.table({"c": [True, False]}), "c").values == ("false", "true")


def test_fractions_are_counted_but_are_not_labels() -> None:
    """A column with a fraction offers no classes."""
    found = _column(pa.table({"c": [0.5, 1.0, float("nan")]}), "c")
    assert (found.distinct, found.values) == (3, ())


def test_many_values_are_not_kept() -> None:
    """Beyond a thousand distinct values a column counts as having many."""
    assert _column(pa.table({"c": list(range(1000))}), "c").distinct == 1000
    assert _column(pa.table({"c": list(range(1001))}), "c").distinct is None
    assert _column(pa.table({"c": list(range(5000))}), "c").values == ()


def test_lists_and_other_types_are_named() -> None:
    """Lists of numbers are recognised as features; unsupported types are called other."""
    assert _column(pa.table({"c": pa.array([[1, 2]], pa.list_(pa.uint8(), 2))}), "c").kind == "list"
    assert _column(pa.table({"c": pa.array([0], pa.date32())}), "c").kind == "other"
    assert _column(pa.table({"c": pa.array(["a"]).dictionary_encode()}), "c").kind == "text"


def test_csv_types_are_guessed_and_values_stay_text(tmp_path: Path) -> None:
    """An integer-like CSV column is called integer, and its values keep their spelling."""
    (tmp_path / "a.csv").write_text("id,label,x\n007,a,0.5\n008,b,1.5\n")
    found = describe_source(open_source("a.csv", tmp_path))
    assert [column.kind for column in found.columns] == ["integer", "text", "number"]
    assert found.columns[0].values == ("007", "008")


def test_csv_truth_values_read_as_labels_do(tmp_path: Path) -> None:
    """Booleans of a CSV file, in any spelling, are reported like those of a Parquet file."""
    (tmp_path / "a.csv").write_text("id,label\n1,True\n2,false\n3,FALSE\n")
    found = describe_source(open_source("a.csv", tmp_path)).columns[1]
    assert (found.kind, found.distinct, found.values) == ("boolean", 2, ("false", "true"))


def test_an_empty_table_is_described() -> None:
    """A table without points has columns with no values."""
    assert _column(people(0), "x0").distinct == 0


def test_a_file_without_a_column_is_named(tmp_path: Path) -> None:
    """Files with other columns than the first are refused by name."""
    write(people(5), tmp_path / "a.parquet")
    write(replaced(people(5), "x1", [1] * 5).drop_columns(["x1"]), tmp_path / "b.parquet")
    with pytest.raises(Invalid, match=r"there is no column 'x1' \[file=b\.parquet\]"):
        describe_source(open_source("*.parquet", tmp_path))


def test_only_number_columns_have_a_largest_value() -> None:
    """Whole and fractional columns report their largest absolute value; text columns have none."""
    assert _column(pa.table({"c": [0.5, -12.0, None]}), "c").largest == 12.0
    assert _column(pa.table({"c": [3, -700]}), "c").largest == 700.0
    assert _column(pa.table({"c": ["700"]}), "c").largest is None
