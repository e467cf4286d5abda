"""What single cells become, and what is refused, with row, column and remedy."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.errors import Invalid
from tests.shards.data.encoding.columns import encoded, matrix

NULL = ["NA", ""]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([40, None, 55], pa.int32()),
        ([40.0, None, 55.0], pa.float64()),
        ([40.0, math.nan, 55.0], pa.float32()),
        ([Decimal(40), None, Decimal(55)], pa.decimal128(4, 1)),
        (["40", "NA", " 5.5e1 "], pa.string()),
        (["40.0", "", "+55"], pa.large_string()),
    ],
)
def test_numbers_of_every_type(values: list[object], kind: pa.DataType) -> None:
    """A number, one that is missing, another one: in any type."""
    found = encoded(values, kind, missing=0.0, shift=40, scale=15, flag_missing=True, null=NULL)
    assert found == [[0, 0], [0, 1], [1, 0]]


def test_a_column_without_any_value_is_missing_throughout() -> None:
    """A column of nulls has no type, and every encoder that takes no value takes it."""
    nothing = [None, None]
    assert encoded(nothing, missing=1.0) == [[1], [1]]
    assert encoded(nothing, categories=["a"], missing=True) == [[0, 1], [0, 1]]
    assert encoded(nothing, hash=3, missing=True) == [[0, 0, 0, 1]] * 2
    assert encoded(nothing, date="days", missing=2.0, cycle="day") == [[2, 0, 0]] * 2
    assert encoded(nothing, true=["a"], false=["b"], missing=0.5) == [[0.5], [0.5]]
    assert encoded(nothing, words=2, missing=True) == [[0, 0]] * 2
    assert encoded(nothing, tokens=2, missing=True) == [[0, 0]] * 2


def test_a_decimal_comma_is_the_files() -> None:
    """Texts of numbers have the decimal mark of [data] decimal."""
    declared = {"c": {"null": ["-"], "missing": 0.0}}
    assert matrix(pa.table({"c": ["1,5", "-"]}), declared, decimal=",").tolist() == [[1.5], [0]]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2", "1.0"], pa.string()),
        ([1, 2, 1], pa.int8()),
        ([1.0, 2.0, 1.0], pa.float32()),
        (pa.array(["1", "2", "1"]).dictionary_encode(), None),
    ],
)
def test_categories_of_every_type(values: Any, kind: pa.DataType | None) -> None:
    """Numbers name a category as text does, as labels name a class."""
    assert encoded(values, kind, categories=[1, 2]) == [[1, 0], [0, 1], [1, 0]]
    assert encoded(values, kind, categories=[1, 2], as_="index") == [[0], [1], [0]]


def test_an_empty_text_is_a_category_where_it_is_declared() -> None:
    """What is declared comes before what stands for no value."""
    assert encoded(["", "a"], categories=["a", ""]) == [[0, 1], [1, 0]]


def test_hashes_are_the_same_for_ever() -> None:
    """Buckets are of a public hash, which no release may change: models depend on it."""
    assert encoded(["Lyon", "Łódź", "7"], hash=1000, as_="index") == [[899], [540], [700]]
    assert encoded([7.0], pa.float64(), hash=1000, as_="index") == [[700]]
    assert encoded(["Hello world, hello"], tokens=4, vocabulary=1000) == [[773, 850, 773, 0]]
    (words,) = encoded(["a b a"], words=1000, ngrams=3)
    assert {at: count for at, count in enumerate(words) if count} == {164: 1, 514: 1, 593: 1, 645: 1, 676: 2}


@pytest.mark.parametrize(
    "values",
    [
        ["2020-01-02", "2020-01-01T12:00:00", "2020-01-01 23:00:00-01:00"],
        ["2020-01-02T00:00:00Z", "2020-01-01 12:00", "2020-01-02T01:00:00+01:00"],
        pa.array([dt.datetime(2020, 1, 2), dt.datetime(2020, 1, 1, 12), dt.datetime(2020, 1, 2)]),  # noqa: DTZ001
        pa.array([1_577_923_200_000, 1_577_880_000_000, 1_577_923_200_000], pa.timestamp("ms", "Europe/Paris")),
        pa.array([1_577_923_200 * 10**9, 1_577_880_000 * 10**9, 1_577_923_200 * 10**9], pa.timestamp("ns")),
    ],
)
def test_dates_of_every_type(values: Any) -> None:
    """A moment is the same with any time zone and in any type; without one it is in UTC."""
    assert encoded(values, date="hours", since="2020-01-01") == [[24], [12], [24]]
    assert encoded(values, date="days", since="2020-01-02", scale=0.5) == [[0], [-1], [0]]


def test_dates_have_places_in_cycles() -> None:
    """Sine and cosine of the place in the day, the week from Monday, the year."""
    noon_of_a_monday = ["2024-01-01T12:00"]
    (found,) = encoded(noon_of_a_monday, date="days", since="2024-01-01", cycle=["day", "week", "year"])
    turns = [0.5, 0.5 / 7, 0.5 / 366]
    expected = [0.5, *(wave(2 * np.pi * turn) for turn in turns for wave in (np.sin, np.cos))]
    assert np.allclose(expected, found, atol=1e-7)


def test_dates_in_a_declared_format() -> None:
    """Texts are read in the declared format, with leading zeros or without."""
    assert encoded(["03.01.2020", "4.1.2020"], date="days", since="2020-01-01", format="%d.%m.%Y") == [[2], [3]]


def test_truths_are_what_is_declared() -> None:
    """Texts, booleans and numbers that are declared to be true or false."""
    assert encoded(["Y", "No"], true=["Yes", "Y"], false=["No"]) == [[1], [0]]
    assert encoded([True, False], true=["true"], false=["false"]) == [[1], [0]]
    assert encoded([1, 0], true=[1], false=[0]) == [[1], [0]]


def test_tokens_are_cut_off_and_filled_up() -> None:
    """A long text loses its end, a short one is followed by zeros."""
    long, short, none = encoded(["a b c d", "b", "?!"], tokens=3)
    assert short == [long[1], 0, 0]
    assert none == [0, 0, 0]
    assert 0 not in long


def test_features_in_bytes_are_stored_as_bytes() -> None:
    """Where all features are whole numbers from 0 to 255 they take a byte each."""
    table = pa.table({"c": ["a"], "d": ["x y"]})
    assert matrix(table, {"c": {"categories": ["a", "b"]}, "d": {"words": 4}}).dtype == np.uint8
    assert matrix(table, {"c": {"categories": ["a", "b"]}, "d": {"tokens": 4}}).dtype == np.float32


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1.0, None], {}, r"has no value \(null\).*column=c row=2\].*missing in \[data\.encode\]"),
        ([1.0, math.nan], {}, r"has no value \(null\).*row=2"),
        ([1.0, math.inf], {"missing": 0.0}, r"infinite \(as float32\).*row=2"),
        ([1.0, 1e39], {}, r"infinite \(as float32\).*row=2"),
        (["1", "NA", "x"], {"missing": 0.0}, r"has a text that is not a number.*row=2\].*name the text in null"),
        (["1", "inf"], {}, r"has a text that is not a number.*row=2"),
        ([b"1"], {}, r"the column must hold numbers, its type is binary"),
        (["a", "x"], {"categories": ["a"]}, r"is not a declared category.*row=2\].*Add it to categories"),
        (["a", None], {"categories": ["a"]}, r"has no value \(null\).*row=2"),
        (["a", ""], {"categories": ["a"]}, r"has no value \(null\).*row=2"),
        ([1.0, 1.5], {"categories": [1]}, r"a number with a fraction.*row=2"),
        ([b"a"], {"categories": ["a"]}, r"must hold texts, whole numbers or booleans, its type is binary"),
        (["a", None], {"hash": 4}, r"has no value \(null\).*row=2"),
        (["2020-01-01", "2020-02-30"], {"date": "days"}, r"not a date in ISO 8601.*row=2"),
        (["2020-01-01", None], {"date": "days"}, r"has no value \(null\).*row=2"),
        (["01.02.2020", "31.02.2020"], {"date": "days", "format": "%d.%m.%Y"}, r"in the declared format.*row=2"),
        ([1], {"date": "days"}, r"must hold dates, timestamps, or texts that say them, its type is int64"),
        (["y", "z"], {"true": ["y"], "false": ["n"]}, r"declared neither true nor false.*row=2\].*Name it in true"),
        (["y", None], {"true": ["y"], "false": ["n"]}, r"has no value \(null\).*row=2"),
        (["y", None], {"words": 2}, r"has no value \(null\).*row=2"),
        ([1], {"words": 2}, r"must hold texts, its type is int64"),
        (["y", None], {"tokens": 2}, r"has no value \(null\).*row=2"),
    ],
)
def test_what_is_not_declared_is_refused(values: list[object], options: dict[str, Any], message: str) -> None:
    """The error names file, column and row, says what to do, and never shows the value."""
    with pytest.raises(Invalid, match=message) as caught:
        encoded(values, **options)
    assert caught.value.context["column"] == "c"
    assert not any(f"'{value}'" in str(caught.value) for value in values)
