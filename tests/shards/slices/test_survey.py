"""A survey finds everything that an ingest would refuse, in one run; if it finds nothing, ingest takes the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from shards.csv_form import CsvForm
from shards.data.prediction_files import feature_batches
from shards.data.readers import Wanted
from shards.data.sources import Batch, in_csv_form, open_source, table_source
from shards.learner_kinds.admissible import Admissible, Range
from shards.routing import Naming
from shards.slices.ingest import IngestTask, ingest
from shards.slices.survey import MOST_ROWS, DataFault, find_faults, remedy_of
from shards.specification import DataSettings
from shards.tombstones import NOTHING
from storage.errors import Invalid
from tests.shards.people import KEY, PARTITION, fresh_names, fresh_store, people, replaced, settings, write
from tests.volume import examples

TRIMMED = Naming(form="trimmed", by_skeleton=True)


def faults(table: pa.Table, naming: Naming = TRIMMED, **changes: object) -> tuple[DataFault, ...]:
    """Return the faults of a table."""
    return find_faults(table_source(table), settings(**changes), naming)


def with_cells(table: pa.Table, column: str, cells: dict[int, object], kind: pa.DataType | None = None) -> pa.Table:
    """Return the table with some cells replaced, by row number from 1."""
    values = table[column].to_pylist()
    for row, value in cells.items():
        values[row - 1] = value
    return table.set_column(table.schema.get_field_index(column), column, pa.array(values, kind or table[column].type))


def test_nothing_is_found_in_good_data(tmp_path: Path) -> None:
    """Data that ingest accepts have no faults, as table, Parquet and CSV."""
    assert faults(people(100)) == ()
    for name in ("a.parquet", "a.csv"):
        write(people(100), tmp_path / name)
        assert find_faults(open_source(name, tmp_path), settings(), TRIMMED) == ()


def test_everything_is_found_at_once() -> None:
    """Missing values, unknown labels, missing and repeated names and invalid numbers are reported together."""
    table = people(60, dtype="float32")
    table = with_cells(table, "x0", {7: None, 9: None, 30: None})
    table = with_cells(table, "x1", {8: float("nan"), 40: float("inf")})
    table = with_cells(table, "label", {3: "perhaps", 4: None, 50: "perhaps"})
    table = with_cells(table, "person", {5: None, 6: ""})
    table = with_cells(table, "id", {2: "point-0", 20: "point-9", 21: "point-9"})
    found = faults(table)
    reported = {(each.column, each.row, each.points, each.fact.split(":")[0]) for each in found}
    assert reported == {
        ("x0", 7, 3, "a data point has no value (null)"),
        ("x1", 8, 2, "a data point has a feature that is NaN or infinite (as float32)"),
        ("label", 3, 2, "the label 'perhaps' is not in [data] classes"),
        ("label", 4, 1, "a data point has no label (null)"),
        ("person", 5, 1, "a data point has no value (null)"),
        ("person", 6, 1, "a data point is an empty string"),
        ("id", 2, 3, "a data point has the same id as an earlier one"),
    }
    assert remedy_of(found).startswith(
        "Correct it, leave the data point out, or declare what stands for it: missing in ["
    )
    assert remedy_of(found).count("Correct it or leave the data point out.") == 1
    assert str(found[0]) == "table, column 'x0', row 7: a data point has no value (null) (3 data points)"


def test_all_columns_that_are_missing_or_of_a_wrong_type_are_named() -> None:
    """Each missing or wrong column is a fault, and the remaining columns are still checked."""
    table = people(20).drop_columns(["person", "x1"]).append_column("day", pa.array([0] * 20, pa.date32()))
    table = with_cells(table, "x0", {4: None})
    found = faults(table, features=("x0", "x1", "z*", "day"))
    assert [(each.column, each.fact) for each in found] == [
        ("", "there is no column 'person'"),
        ("", "there is no column 'x1'"),
        ("", "[data] features: no column matches 'z*'"),
        ("x0", "a data point has no value (null)"),
        ("day", "the column must hold numbers to be a feature, its type is date32[day]"),
    ]


def test_cells_of_a_csv_file_are_all_found(tmp_path: Path) -> None:
    """Cells that are not numbers are found in all columns, although the reader stops at the first one."""
    write(people(30), tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    for row, cell in ((3, "?"), (5, "n/a"), (29, "")):
        fields = lines[row].split(",")
        lines[row] = ",".join([*fields[:3], cell, *fields[4:]])
    lines[7] = lines[7].rpartition(",")[0] + ",oops"
    (tmp_path / "a.csv").write_text("\n".join([*lines, ""]))
    found = find_faults(open_source("a.csv", tmp_path), settings(), TRIMMED)
    with pytest.raises(Invalid, match="the cell is not a number or truth value") as refused:
        list(open_source("a.csv", tmp_path).batches(Wanted(texts=(), numbers=("x0",)), 100))
    assert refused.value.fact in {each.fact for each in found}
    first, last = people(1).column_names[3], people(1).column_names[-1]
    assert [(each.column, each.row, each.points) for each in found] == [(first, 29, 1), (first, 3, 2), (last, 7, 1)]


@pytest.mark.volume
@trials(max_examples=examples(200, few=80))
@given(st.sampled_from(["1.5", "true"]), st.text("01.,+-eE naifTRUEtrue\t\v\u00a0\u2009", min_size=1, max_size=6))
def test_a_cell_is_a_number_if_the_reader_parses_it_as_one(first: str, cell: str) -> None:
    """White space around numbers and spellings of booleans are treated as by the reader."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "a.csv").write_text(f'id,person,label,x0\n1,a,no,{first}\n2,b,yes,"{cell}"\n')
        source = open_source("a.csv", Path(folder))
        try:
            list(feature_batches(source, settings(), 1))
        except Invalid:
            taken = False
        else:
            taken = True
        assert (find_faults(source, settings(), TRIMMED) == ()) == taken


def test_numbers_with_a_decimal_comma_are_numbers(tmp_path: Path) -> None:
    """Cells are parsed in the declared form: with a decimal comma, and then not with a point."""
    (tmp_path / "a.csv").write_text("id;person;label;x0;x1\n1;a;no;0,5;1\n2;b;yes;1,5;2\n3;c;no;2.5;3\n")
    source = in_csv_form(open_source("a.csv", tmp_path), CsvForm(delimiter=";", decimal=","))
    (found,) = find_faults(source, settings(), TRIMMED)
    assert (found.column, found.row, found.points) == ("x0", 3, 1)
    (found,) = find_faults(in_csv_form(source, CsvForm(delimiter=";")), settings(), TRIMMED)
    assert (found.column, found.row, found.points) == ("x0", 1, 2)
    assert 'decimal = ","' in found.remedy


def test_cells_are_numbers_in_the_declared_form(tmp_path: Path) -> None:
    """With a decimal comma, a decimal point is a fault, in features and labels."""
    (tmp_path / "a.csv").write_text("id;person;label;x0\np1;a;1,0;0,5\np2;a;0;1.5\np3;b;0.5;2\n")
    data = settings(train="a.csv", classes=("0", "1"), delimiter=";", decimal=",")
    found = find_faults(open_source("a.csv", tmp_path, csv=data.csv), data, TRIMMED)
    assert [(each.column, each.row, each.points) for each in found] == [("x0", 2, 1), ("label", 3, 1)]


def test_one_bad_file_does_not_hide_the_next(tmp_path: Path) -> None:
    """A file that cannot be read to its end is a fault, and later files are still checked."""
    write(people(10), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open("a") as stream:
        stream.write("1,2\n")
    write(with_cells(people(10), "label", {4: "maybe"}), tmp_path / "b.csv")
    found = find_faults(open_source("*.csv", tmp_path), settings(), TRIMMED)
    assert [(each.file, each.row) for each in found] == [("a.csv", 11), ("b.csv", 4)]


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    """Names that are numbers in one file and text in another are a fault of the whole source."""
    write(people(6), tmp_path / "a.csv")
    other = replaced(people(6), "person", [str(number) for number in range(6)])
    write(replaced(other, "id", [f"q{number}" for number in range(6)]), tmp_path / "b.csv")
    (found,) = find_faults(open_source("*.csv", tmp_path), settings(), TRIMMED)
    assert found.fact == "a column of names has only numbers in one file and text in another"


def test_forms_and_scales_are_checked() -> None:
    """Names that do not have the declared form, and a scale of the wrong length, are found."""
    found = faults(people(9), Naming(form="integer", by_skeleton=True), scale=(1.0, 2.0))
    assert [each.column for each in found] == ["person", ""]
    assert found[0].points == 9
    assert "[data] scale has 2 constants for" in found[1].fact


def test_lists_of_different_lengths_and_of_none() -> None:
    """Every list that differs from the first one is counted."""
    table = people(8).drop_columns([name for name in people(1).column_names if name.startswith("x")])
    lists = [[1.0, 2.0]] * 8
    lists[4], lists[6] = [1.0], []
    found = faults(table.append_column("x", pa.array(lists)))
    assert [(each.column, each.row) for each in found] == [("x", 5), ("x", 7)]
    (found_one,) = faults(table.append_column("x", pa.array([[]] * 8, pa.list_(pa.float32()))))
    assert (found_one.row, found_one.points) == (1, 8)
    assert "its list is empty" in found_one.fact


def test_the_search_for_bad_rows_is_limited() -> None:
    """The count says that there may be more; missing values are all counted."""
    table = with_cells(people(1000, dtype="float32"), "x0", {row: float("nan") for row in range(1, 900)})
    (found,) = faults(with_cells(table, "x0", dict.fromkeys(range(900, 990))))[1:]
    assert (found.points, found.is_more) == (MOST_ROWS, True)
    assert str(found).endswith(f"({MOST_ROWS} or more data points)")


def test_data_points_that_are_kept_out_may_share_ids() -> None:
    """An ingest drops erased data points before it compares ids, and so does the survey."""
    table = with_cells(people(12), "id", {2: "point-0"})

    def kept_out(batch: Batch) -> npt.NDArray[np.bool_]:
        rows = np.arange(batch.first, batch.first + batch.columns.num_rows)
        assert set(batch.columns.schema.names) == {"id", "person"}
        found: npt.NDArray[np.bool_] = rows == 2
        return found

    assert len(faults(table)) == 1
    assert find_faults(table_source(table), settings(), TRIMMED, kept_out=kept_out) == ()


def test_no_data_points_are_a_fault() -> None:
    """An empty table is a fault, because ingest refuses it."""
    assert [each.fact for each in faults(people(0))] == ["the data set has no data points"]


cells = st.sampled_from(
    [("id", None), ("id", "point-1"), ("person", None), ("person", ""), ("label", None), ("label", "x"), ("x0", None)]
)


@pytest.mark.volume
@trials(deadline=None, max_examples=examples(60, few=25))
@given(st.lists(st.tuples(cells, st.integers(1, 20)), max_size=3))
def test_a_survey_agrees_with_ingest(changes: list[tuple[tuple[str, object], int]]) -> None:
    """There are faults if and only if ingest refuses the data, and the error of ingest is among them."""
    table = people(20)
    for (column, value), row in changes:
        table = with_cells(table, column, {row: value})
    found, data = faults(table), settings()
    refused = _refused(table, data)
    assert bool(found) == (refused is not None)
    if refused is not None and "same id" not in refused.fact:
        facts = {each.fact for each in found}
        assert refused.fact.split(";")[0] in facts


def _refused(table: pa.Table, data: DataSettings) -> Invalid | None:
    task = IngestTask(
        source=table_source(table),
        data=data,
        partition=PARTITION,
        key=KEY,
        naming=TRIMMED,
        store=fresh_store(),
        tombstones=lambda: NOTHING,
        new_name=fresh_names(),
    )
    try:
        ingest(task)
    except Invalid as error:
        return error
    return None


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_columns_of_bytes_and_floats_pass(dtype: str) -> None:
    """Bytes and floats pass."""
    assert faults(people(50, dtype=dtype)) == ()


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("scale", [2.0, (4.0, 1.0, 2.0, 8.0)])
def test_what_a_learner_does_not_take_is_refused_and_found(
    tmp_path: Path, ending: str, scale: float | tuple[float, ...]
) -> None:
    """A feature is compared as it is scaled, with file, row and column; another learner takes the same data."""
    limit = Range(least=-300.0, most=300.0, remedy="Scale it.")
    constants = scale if isinstance(scale, tuple) else (scale,) * 4
    table = people(30, dtype="float32")
    fine = {f"x{n}": 299.0 * constant for n, constant in enumerate(constants)}
    for name, value in fine.items():
        table = with_cells(table, name, {3: value, 4: -value})
    table = with_cells(table, "x2", {7: 301.0 * constants[2], 12: -301.0 * constants[2]})
    write(table, tmp_path / f"a.{ending}")
    source, data = open_source(f"a.{ending}", tmp_path), settings(scale=scale)
    assert find_faults(source, data, TRIMMED) == ()
    found = find_faults(source, data, TRIMMED, admitted=Admissible(features=limit))
    assert [(each.column, each.row, each.points, each.remedy) for each in found] == [("x2", 7, 2, "Scale it.")]
    store = fresh_store()
    task = IngestTask(
        source=source,
        data=data,
        partition=PARTITION,
        key=KEY,
        store=store,
        tombstones=lambda: NOTHING,
        new_name=fresh_names(),
        admitted=Admissible(features=limit),
    )
    with pytest.raises(Invalid, match="has a feature outside -300 .. 300, as scaled") as caught:
        ingest(task)
    assert (caught.value.context["column"], caught.value.context["row"]) == ("x2", 7)
    assert list(store.list("")) == []
    with pytest.raises(Invalid, match="outside the whole numbers 0 .. 1"):
        ingest(replace(task, admitted=Admissible(features=Range(least=0, most=1, is_whole=True, remedy="Encode it."))))
