"""The table [data.encode]: mistakes are named with their lines, and the record says what is declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.specification import bit_settings, settings_record
from tests.cluster.config.test_specification import GOOD, changed, file, read, refusal

__all__ = ["file"]

ENCODED = """classes  = ["0", "1"]

[data.encode]
age  = { missing = 0, shift = 40, scale = 15.0, flag_missing = true }
plan = { categories = ["free", "pro"], other = true }
"x*" = { hash = 64 }
"""


def encoded(old: str, new: str) -> str:
    """Return a good text with encoders and one thing in them replaced."""
    text = changed('classes  = ["0", "1"]', ENCODED)
    assert text.count(old) == 1
    return text.replace(old, new)


MISTAKES = [
    (
        changed('["0", "1"]', '["0", "1"]\nscale = 2.0\nencode = { x = { shift = 1 } }'),
        "line 10: [data] scale together with encode",
    ),
    (
        changed('["0", "1"]', '["0", "1"]\nencode = 3'),
        "line 10: [data] encode must be a table of tables, got the whole",
    ),
    (
        changed('["0", "1"]', '["0", "1"]\nencode = { x = 3 }'),
        "line 10: [data] encode must be a table of tables, got a",
    ),
    (encoded("hash = 64", "hash = 1"), "line 14: [data] encode x*: hash must be 2 .. 1,048,575, got 1"),
    (encoded("hash = 64", "hash = 64, tokens = 3"), "line 14: [data] encode x*: hash and tokens exclude each other"),
    (
        encoded("hash = 64", 'hash = 64, as = "row"'),
        "line 14: [data] encode x*: as must be columns or index, got 'row'",
    ),
    (encoded("hash = 64", 'hash = "64"'), "line 14: [data] encode x*: hash must be a whole number"),
    (encoded('"pro"]', '"free"]'), "line 13: [data] encode plan: categories names 'free' more than once"),
    (encoded('["free", "pro"]', "[]"), "line 13: [data] encode plan: categories is empty: name the values"),
    (encoded("other = true", "othr = true"), "line 13: [data] encode plan: othr is not a known option beside"),
    (
        encoded("categories", "categorys"),
        "encode plan: categorys is not a known option of numbers; did you mean categories?",
    ),
    (encoded("scale = 15.0", "scale = 0"), "line 12: [data] encode age: scale must not be zero"),
    (encoded("missing = 0, ", ""), "line 12: [data] encode age: flag_missing needs missing"),
    (encoded("age ", "id "), "line 12: [data] encode id: it is the id, subject or label column"),
    (encoded("hash = 64", 'date = "day"'), "encode x*: date must be one of seconds, minutes, hours, days, weeks, got"),
    (encoded("hash = 64", 'date = "days", since = "5th"'), "encode x*: since must be a date such as 2020-01-01, got"),
    (encoded("hash = 64", 'date = "days", cycle = "moon"'), "encode x*: cycle must be among day, week, year, got"),
    (encoded("hash = 64", 'date = "days", format = "dmy"'), "encode x*: format must be one for strptime"),
    (encoded("hash = 64", 'date = "days", format = "%d %z"'), "encode x*: format must not have a time zone"),
    (encoded("hash = 64", 'true = ["a"]'), "encode x*: false is missing beside true"),
    (encoded("hash = 64", 'true = ["a"], false = ["a"]'), "encode x*: true and false name 'a' more than once"),
    (encoded("hash = 64", "image = [2, 8, 8]"), "encode x*: image must be [channels, height, width] with 1, 3 or 4"),
    (encoded("hash = 64", "words = 9, ngrams = 9"), "line 14: [data] encode x*: ngrams must be 1 .. 8, got 9"),
    (encoded("hash = 64", "missing = inf"), "encode must be a table of tables, got a table with a date, a time or"),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES, ids=[expected[:60] for _, expected in MISTAKES])
def test_mistakes_are_named(file: Path, text: str, expected: str) -> None:
    """The error names line, table and column, what was expected and what was got."""
    assert expected in refusal(file, text)


def test_options_of_encoders_at_their_defaults_are_left_out(file: Path) -> None:
    """The record says what is declared, in one spelling, and only what is not at its default (E16)."""
    spelt = "x = { categories = [1], other = false, as = 'columns', null = [''] }, y = { shift = 1 }"
    other = "y = { shift = 1.0, flag_missing = false }, x = { categories = ['1'] }"
    records = [
        settings_record(read(file, changed('["0", "1"]', f'["0", "1"]\nencode = {{ {each} }}')))
        for each in (spelt, other)
    ]
    assert records[0]["data"]["encode"] == {"x": {"categories": ["1"]}, "y": {"shift": 1.0}}
    assert records[0] == records[1]
    assert bit_settings(records[0]) != bit_settings(settings_record(read(file, GOOD)))
    assert "encode" not in settings_record(read(file, GOOD))["data"]
