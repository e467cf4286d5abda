"""Encoders are functions of single cells: format, order and neighbours change nothing."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.data.columns import choose_columns, read_features
from shards.data.sources import open_source
from tests.shards.data.encoding.columns import DECLARED, FIRST_DAY, matrix, rows
from tests.shards.people import settings as data_settings
from tests.shards.people import write
from tests.volume import examples

_WORDS = st.text(alphabet="abc Éß,.", max_size=12).filter(lambda text: text == "" or bool(text.strip()))


@st.composite
def cells(draw: st.DrawFn) -> dict[str, Any]:
    """Return a row that the declared encoders accept, as a typed file holds it."""
    return {
        "age": draw(st.none() | st.floats(-200, 200, width=32)),
        "plan": draw(st.none() | st.sampled_from(["free", "pro", "team", "gold"])),
        "level": draw(st.none() | st.sampled_from([1, 2, 3])),
        "city": draw(st.none() | st.sampled_from(["Lyon", "Łódź", "7", "true"])),
        "street": draw(st.none() | st.sampled_from(["A", "B", "C"])),
        "since": draw(st.none() | st.integers(0, 20_000).map(lambda hours: FIRST_DAY + dt.timedelta(hours=hours))),
        "active": draw(st.none() | st.sampled_from(["Yes", "Y", "No"])),
        "note": draw(st.none() | _WORDS.filter(bool)),
        "title": draw(st.none() | _WORDS.filter(bool)),
    }


_TABLES = st.lists(cells(), min_size=1, max_size=12)


@pytest.mark.volume
@settings(max_examples=examples(40, few=15))
@given(_TABLES, st.sampled_from([".parquet", ".feather", ".arrow", ".csv", ".csv.gz"]))
def test_the_format_of_a_file_changes_no_feature(table: list[dict[str, Any]], ending: str) -> None:
    """The same cells give the same bits as a table in memory and as a file in any format."""
    expected = matrix(rows(table), DECLARED)
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(str(write(rows(table), Path(folder) / f"a{ending}")), Path(folder))
        data = data_settings(features=tuple(DECLARED), encode=DECLARED)
        columns = choose_columns(source, data, identified=False, labelled=False)
        found = [read_features(batch, columns, None) for batch in source.batches(columns.wanted, 5)]
    assert expected.tobytes() == np.concatenate(found).tobytes()


@pytest.mark.volume
@settings(max_examples=examples(20, few=10))
@given(_TABLES, st.randoms(use_true_random=False))
def test_a_row_has_the_same_features_in_any_company(table: list[dict[str, Any]], random: Any) -> None:
    """Encoding all rows, in any order, gives what encoding each row alone gives: nothing is learned from the others."""
    order = list(range(len(table)))
    random.shuffle(order)
    together = matrix(rows([table[number] for number in order]), DECLARED)
    for place, number in enumerate(order):
        assert matrix(rows([table[number]]), DECLARED).tobytes() == together[place : place + 1].tobytes()


@pytest.mark.volume
@settings(max_examples=examples(20, few=10))
@given(_TABLES)
def test_the_width_is_what_is_declared(table: list[dict[str, Any]]) -> None:
    """The number of features follows from the declaration alone, and all of them are finite."""
    columns = data_settings(features=tuple(DECLARED), encode=DECLARED).encoders.widths(tuple(DECLARED))
    features = matrix(rows(table), DECLARED)
    assert columns == [2, 4, 1, 17, 1, 5, 2, 32, 4]
    assert features.shape == (len(table), sum(columns))
    assert np.isfinite(features).all()


@given(st.lists(st.none() | st.floats(-(2.0**60), 2.0**60, width=32)))
def test_numbers_are_those_of_a_formula(values: list[float | None]) -> None:
    """A number is shifted and scaled in float64 and rounded to float32 once; one that is missing is flagged."""
    declared = {"c": {"missing": 0.25, "shift": 3.0, "scale": 0.5, "flag_missing": True}}
    expected = [
        [0.25, 1.0] if value is None else [float(np.float32((float(value) - 3.0) / 0.5)), 0.0] for value in values
    ]
    table = pa.table({"c": pa.array(values, pa.float32())})
    found = matrix(table, declared).tolist() if values else []
    assert expected == found


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1))
def test_categories_are_those_of_a_look_up(values: list[str | None]) -> None:
    """Each cell has exactly one 1: its category's, that of the others, or that of no value."""
    declared = {"c": {"categories": ["a", "b"], "other": True, "missing": True}}
    places = [{"a": 0, "b": 1, None: 3}.get(value, 2) for value in values]
    expected = [[float(place == column) for column in range(4)] for place in places]
    assert expected == matrix(pa.table({"c": pa.array(values, pa.string())}), declared).tolist()


@given(st.lists(st.lists(st.sampled_from(["x", "y", "zé"]), max_size=6), min_size=1), st.integers(1, 3))
def test_words_are_counted_as_by_hand(texts: list[list[str]], ngrams: int) -> None:
    """A text of n words has n words and n - 1 pairs of them, wherever they fall, and capitals make no difference."""
    declared = {"c": {"words": 64, "ngrams": ngrams}}
    joined = [" ".join(words) for words in texts]
    found = matrix(pa.table({"c": joined}), declared)
    assert [sum(max(0, len(words) - n) for n in range(ngrams)) for words in texts] == found.sum(axis=1).tolist()
    shouted = matrix(pa.table({"c": [f"...{'! '.join(words).upper()}" for words in texts]}), declared)
    assert found.tobytes() == shouted.tobytes()
