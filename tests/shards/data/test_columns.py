"""From columns to ids, labels and features; every refusal names file, column and row."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.data.columns import ChosenColumns, choose_columns, read_features, read_labels, read_texts
from shards.data.sources import Batch, open_source, table_source
from storage.errors import Invalid
from tests.shards.people import people, replaced, settings, write


def _batch(values: object, kind: pa.DataType | None = None, first: int = 1) -> Batch:
    array = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return Batch(file="a.parquet", first=first, columns=pa.RecordBatch.from_arrays([array], names=["c"]))


def _features(values: object, kind: pa.DataType | None = None, dtype: str = "float32") -> list[list[float]]:
    columns = ChosenColumns(id=None, subject=None, labels=(), features=("c",), dtype=dtype, point_bytes=1)
    features = read_features(_batch(values, kind), columns, None)
    assert features.dtype == dtype
    assert features.flags.c_contiguous
    return features.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64(), pa.string(), pa.large_string(), pa.string_view()])
def test_ids_of_every_accepted_type_are_the_same_text(kind: pa.DataType) -> None:
    """Integers of any width give the same text as the id written as a string."""
    values = ["7", "100"] if "string" in str(kind) else [7, 100]
    assert read_texts(_batch(values, kind), "c") == ["7", "100"]
    assert read_texts(
        _batch(pa.array(values, kind if kind != pa.string_view() else pa.string()).dictionary_encode()), "c"
    )


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.0, 2.0], pa.float64()),
        ([True, False], pa.bool_()),
        ([b"a", b"b"], pa.binary()),
        ([Decimal(1), Decimal(2)], pa.decimal128(5)),
        ([0, 1], pa.timestamp("s")),
    ],
)
def test_ids_of_other_types_are_refused(values: list[object], kind: pa.DataType) -> None:
    """Types without a unique text are refused with column and row."""
    with pytest.raises(Invalid, match=r"must hold strings or integers, its type is .*column=c row=4.*Convert"):
        read_texts(_batch(values, kind, first=4), "c")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["a", None, "c"], pa.string(), r"has no value \(null\) \[file=a\.parquet column=c row=12\]"),
        ([1, 2, None], pa.int64(), r"has no value \(null\) \[file=a\.parquet column=c row=13\]"),
        ([None, None], pa.null(), r"has no value \(null\) \[file=a\.parquet column=c row=11\]"),
        (["a", "b", ""], pa.string(), r"is an empty string \[file=a\.parquet column=c row=13\]"),
    ],
)
def test_absent_ids_are_refused(values: list[object], kind: pa.DataType, expected: str) -> None:
    """Null and empty ids are refused with their row."""
    with pytest.raises(Invalid, match=expected):
        read_texts(_batch(values, kind, first=11), "c")


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["no", "yes", "no"], pa.string(), ("no", "yes")),
        (["no", "yes", "no"], pa.string_view(), ("no", "yes")),
        ([-3, 5, -3], pa.int16(), ("-3", "5")),
        ([0.0, 1.0, 0.0], pa.float32(), ("0", "1")),
        ([0.0, 1.0, 0.0], pa.float16(), ("0", "1")),
        ([False, True, False], pa.bool_(), ("false", "true")),
    ],
)
def test_labels_are_compared_by_text(values: list[object], kind: pa.DataType, classes: tuple[str, ...]) -> None:
    """Strings, integers, whole floats and bools find their class."""
    assert read_labels(_batch(values, kind), "c", classes).tolist() == [0, 1, 0]
    assert read_labels(_batch(values, kind), "c", ("other", *classes)).tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    ("texts", "classes"),
    [
        (["0.0", "1.0", "0"], ("0", "1")),
        (["-3.", "5e0", "-3"], ("-3", "5")),
        (["False", "TRUE", "false"], ("false", "true")),
        (["1.0", "1", "1.0"], ("1.0", "1")),
        (["False", "false", "False"], ("False", "false")),
    ],
)
def test_numbers_and_truth_values_written_as_text_are_labels(texts: list[str], classes: tuple[str, ...]) -> None:
    """A text that is a class stands for itself; any other text for the number or boolean that it spells."""
    assert read_labels(_batch(texts, pa.string()), "c", classes).tolist() == [0, 1, 0]


@pytest.mark.parametrize("text", ["1.5", "1_0", "nan", "inf", "1e999", " 1.0", "\u0661", "yes"])
def test_other_texts_are_not_numbers(text: str) -> None:
    """A text that a CSV reader would not read as a whole number stays text, and the error quotes it unchanged."""
    with pytest.raises(Invalid, match=r"the label .* is not in \[data\] classes") as raised:
        read_labels(_batch(["1.0", text], pa.string()), "c", ("1", "10", "true"))
    assert repr(text) in raised.value.fact


def test_dictionary_labels_are_compared_by_text() -> None:
    """A dictionary-encoded label column is read like a plain one, even if its dictionary has repeats."""
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int8()), pa.array(["no", "yes", "no"]))
    assert read_labels(_batch(array), "c", ("no", "yes")).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["no", None], pa.string(), r"has no label \(null\).*column=c row=6"),
        ([1.0, float("nan")], pa.float64(), r"has no label \(null\).*column=c row=6"),
        ([1.0, 1.5], pa.float64(), r"not a whole number.*column=c row=6"),
        ([1.0, float("inf")], pa.float64(), r"not a whole number.*column=c row=6"),
        ([b"no"], pa.binary(), r"cannot hold labels, its type is binary.*column=c row=5"),
        (["no", "maybe"], pa.string(), r"label 'maybe' is not in \[data\] classes .*column=c row=6.*Add .*'maybe'; or"),
    ],
)
def test_bad_labels_are_refused(values: list[object], kind: pa.DataType, expected: str) -> None:
    """A label that is absent, fractional, of another type or not declared is refused with its row."""
    with pytest.raises(Invalid, match=expected):
        read_labels(_batch(values, kind, first=5), "c", ("no", "yes", "1"))


def test_a_column_that_is_not_the_label_is_not_printed() -> None:
    """With more than 20 unknown values the error assumes that the wrong column was named, and shows no value."""
    with pytest.raises(Invalid, match=r"has 21 labels that \[data\] classes does not name: .*row=1\]\. Set") as raised:
        read_labels(_batch([f"secret-{number}" for number in range(21)]), "c", ("no", "yes"))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], pa.int64()),
        ([1, 2], pa.uint8()),
        ([1, 2], pa.float16()),
        ([1, 2], pa.float64()),
        ([Decimal(1), Decimal(2)], pa.decimal128(9, 2)),
    ],
)
def test_numbers_of_every_type_are_features(values: list[object], kind: pa.DataType) -> None:
    """Integers, floats and decimals become float32."""
    assert _features(pa.array(values).cast(kind) if kind == pa.float16() else values, kind) == [[1.0], [2.0]]


def test_bytes_and_bools_stay_bytes() -> None:
    """uint8 and bool features are kept as uint8."""
    assert _features([1, 255], pa.uint8(), "uint8") == [[1], [255]]
    assert _features([True, False], pa.bool_(), "uint8") == [[1], [0]]


@pytest.mark.parametrize("kind", [pa.list_(pa.uint8(), 2), pa.list_(pa.uint8()), pa.large_list(pa.uint8())])
def test_a_list_column_is_all_features(kind: pa.DataType) -> None:
    """A list of numbers per data point gives one feature per element, also in a slice of a longer column."""
    array = pa.array([[9, 9], [1, 2], [3, 4]], kind)[1:]
    assert _features(array, dtype="uint8") == [[1, 2], [3, 4]]


def test_a_tensor_column_is_all_features() -> None:
    """Arrow's fixed-shape tensors count as lists."""
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[1, 2], [3, 4]], dtype=np.uint8))
    assert _features(tensors, dtype="uint8") == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None], pa.int64(), r"has no value \(null\).*column=c row=2"),
        ([1.0, float("nan")], pa.float64(), r"NaN or infinite.*column=c row=2"),
        ([1.0, float("-inf")], pa.float32(), r"NaN or infinite.*column=c row=2"),
        ([1.0, 1e300], pa.float64(), r"NaN or infinite \(as float32\).*column=c row=2"),
        (["1", "2"], pa.string(), r"must hold numbers to be a feature, its type is string.*column=c"),
        ([0, 1], pa.date32(), r"must hold numbers to be a feature, its type is date32"),
        ([[1.0], None], pa.list_(pa.float64()), r"has no value \(null\).*column=c row=2"),
        ([[1.0, 2.0], [1.0, None]], pa.list_(pa.float64(), 2), r"feature without value \(null\).*column=c row=2"),
        ([[1.0, 2.0], [1.0]], pa.list_(pa.float64()), r"a different number of features than the first.*column=c row=2"),
        ([[1.0, 2.0], [1.0, float("nan")]], pa.list_(pa.float64()), r"NaN or infinite.*column=c row=2"),
        ([[], []], pa.list_(pa.float32()), r"has no features: its list is empty.*column=c row=1"),
        ([[], []], pa.list_(pa.float32(), 0), r"has no features: its list is empty.*column=c row=1"),
        ([["1"], ["2"]], pa.list_(pa.string()), r"must hold numbers to be a feature, its type is string"),
    ],
)
def test_bad_features_are_refused(values: list[object], kind: pa.DataType, expected: str) -> None:
    """A feature that is absent, not finite or not a number is refused with its row."""
    with pytest.raises(Invalid, match=expected):
        _features(values, kind)


def test_the_bad_one_of_several_columns_is_named() -> None:
    """Among many columns, the one with the bad value is named."""
    table = replaced(people(9, dtype="float64"), "x2", [0.0] * 7 + [float("nan"), 0.0])
    source = table_source(table)
    columns = choose_columns(source, settings())
    (batch,) = source.batches(columns.wanted, 99)
    with pytest.raises(Invalid, match=r"file=table column=x2 row=8"):
        read_features(batch, columns, 4)


def test_another_number_of_features_is_refused() -> None:
    """Data points with more or fewer features than earlier ones are refused."""
    columns = ChosenColumns(id=None, subject=None, labels=(), features=("c",), dtype="float32", point_bytes=1)
    with pytest.raises(Invalid, match=r"expected 3, got 2.*file=a\.parquet row=1"):
        read_features(_batch([[1.0, 2.0]], pa.list_(pa.float64())), columns, 3)


def test_globs_take_columns_in_the_files_order_and_literals_in_their_own() -> None:
    """A glob never picks up id, subject or label; a column matched twice is taken once."""
    table = people(3).select(["x2", "id", "x0", "label", "person", "x3", "x1"])
    cases = {("x*",): ("x2", "x0", "x3", "x1"), ("*",): ("x2", "x0", "x3", "x1"), ("x1", "x0"): ("x1", "x0")}
    cases[("x3", "x?")] = ("x3", "x2", "x0", "x1")
    for patterns, expected in cases.items():
        assert expected == choose_columns(table_source(table), settings(features=patterns)).features


def test_a_name_with_glob_characters_is_taken_literally_where_it_exists() -> None:
    """A column called x[0] can be named."""
    table = people(3).rename_columns(["id", "person", "label", "x[0]", "x1", "x2", "x3"])
    assert choose_columns(table_source(table), settings(features=("x[0]",))).features == ("x[0]",)


@pytest.mark.parametrize("features", [("emb", "x0"), ("x0", "emb"), ("*",)])
def test_a_list_column_stands_alone(features: tuple[str, ...]) -> None:
    """A list column must hold all features: together with another feature column it is refused."""
    table = people(3).append_column("emb", [[[1.0, 2.0]] * 3])
    with pytest.raises(Invalid, match=r"list column and other columns .*column=emb\]\. Name one list column, or col"):
        choose_columns(table_source(table), settings(features=features))
    assert choose_columns(table_source(table), settings(features=("emb",))).features == ("emb",)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.list_(pa.uint8())), pa.list_(pa.list_(pa.uint8(), 1), 2), pa.large_list(pa.list_(pa.uint8()))]
)
def test_lists_of_lists_are_refused_before_anything_is_read(kind: pa.DataType) -> None:
    """A column of images as rows is refused with a remedy, because it is not known how to flatten them."""
    table = people(3).append_column("image", pa.array([[[1], [2]]] * 3, kind))
    with pytest.raises(Invalid, match=r"lists of lists.*column=image\]\. Write each data point as one list of numbers"):
        choose_columns(table_source(table), settings(features=("image",)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": "idd"}, r"there is no column 'idd' \[file=table\]\. Did you mean 'id'\?"),
        ({"subject": "persn"}, r"there is no column 'persn' .*Did you mean 'person'\?"),
        (
            {"label": "quite-else"},
            r"there is no column 'quite-else' \[file=table\]\. Choose one of its columns: 'id', 'person'",
        ),
        ({"features": ("x0", "xx1")}, r"there is no column 'xx1' .*Did you mean 'x1'\?"),
        ({"features": ("pixel*",)}, r"no column matches 'pixel\*' \[file=table\]\. Choose one of its columns: "),
        ({"features": ("x*", "label")}, r"features names 'label', which is the id, subject or label column"),
    ],
)
def test_columns_that_are_not_there_are_named(changes: dict[str, object], expected: str) -> None:
    """A missing or misspelt column is named, with the nearest existing one."""
    with pytest.raises(Invalid, match=expected):
        choose_columns(table_source(people(3)), settings(**changes))


def test_two_columns_of_one_name_are_refused() -> None:
    """An ambiguous name is refused."""
    table = people(3).rename_columns(["id", "person", "label", "x0", "x1", "x1", "x3"])
    with pytest.raises(Invalid, match=r"two columns have the same name \[file=table column=x1\]"):
        choose_columns(table_source(table), settings())


def test_many_columns_are_not_all_listed() -> None:
    """A remedy lists ten columns and the number of the remaining ones."""
    table = pa.table({f"c{position}": [1] for position in range(50)})
    with pytest.raises(Invalid, match=r"'c9' and 40 more\."):
        choose_columns(table_source(table), settings())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("x3", [1.5] * 6), r"different types in two files: uint8 before, double here \[file=b\.parquet column=x3\]"),
        (
            ("id", list(range(6))),
            r"different types in two files: text before, integer here \[file=b\.parquet column=id",
        ),
    ],
)
def test_files_of_different_types_are_refused(tmp_path: Path, change: tuple[str, list[object]], expected: str) -> None:
    """Files of one source must agree on the types that matter."""
    write(people(6), tmp_path / "a.parquet")
    write(replaced(people(6), *change), tmp_path / "b.parquet")
    with pytest.raises(Invalid, match=expected):
        choose_columns(open_source("*.parquet", tmp_path), settings())


def test_files_of_different_columns_are_refused(tmp_path: Path) -> None:
    """A feature or id column that only some files have is named."""
    write(people(6), tmp_path / "a.parquet")
    write(people(6).append_column("x9", [[1] * 6]), tmp_path / "b.parquet")
    with pytest.raises(Invalid, match=r"only one of them has 'x9' \[file=b\.parquet other=a\.parquet\]"):
        choose_columns(open_source("*.parquet", tmp_path), settings())
    write(people(6).drop_columns(["person"]), tmp_path / "b.parquet")
    with pytest.raises(Invalid, match=r"there is no column 'person' \[file=b\.parquet\]"):
        choose_columns(open_source("*.parquet", tmp_path), settings())


def test_bytes_are_kept_only_if_every_file_has_them(tmp_path: Path) -> None:
    """uint8 is chosen if all files are typed and hold bytes or bools, otherwise float32."""
    write(replaced(people(6), "x1", [True] * 6), tmp_path / "a.parquet")
    assert choose_columns(open_source("a.parquet", tmp_path), settings()).dtype == "uint8"
    write(people(6), tmp_path / "b.csv")
    assert choose_columns(open_source("b.csv", tmp_path), settings()).dtype == "float32"


@given(st.integers(1, 10_000), st.integers(1, 1 << 26))
def test_batches_shrink_as_points_grow(point_bytes: int, budget: int) -> None:
    """A batch has at least one point and otherwise stays within its budget."""
    columns = ChosenColumns(id=None, subject=None, labels=(), features=("c",), dtype="uint8", point_bytes=point_bytes)
    points = columns.points_within(budget)
    assert points == 1 or points * point_bytes <= budget
