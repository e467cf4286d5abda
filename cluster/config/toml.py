"""Tables of a TOML file read into settings classes: every problem with its line and what was expected.

Pydantic checks the types of the plain dataclasses in strict mode (1 counts as a number, "20" and true do not); the
classes themselves check the ranges.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from datetime import date, time
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from cluster.config.file import no_specification
from storage.errors import Invalid

TOP = ""
"""Name of the settings above all tables."""

_SECRETS = frozenset({("partition", "key")})
"""Settings whose value no error may show."""

_STAND_INS: Mapping[str, Any] = {
    "text": "x",
    "a whole number": 1,
    "a number": 1.0,
    "a list of texts": ["x"],
    "text or a list of texts": "x",
    "a list of texts or whole numbers": ["0", "1"],
}
"""Valid stand-ins for missing or wrong settings, so that the ranges of the other settings are checked."""


class Problems:
    """Problems of one file, or of settings that no file holds (``text`` None), to be raised as one error."""

    def __init__(self, path: Path, text: str | None) -> None:
        self._path = path
        self._text = text
        self._found: list[tuple[tuple[str, ...], str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, table: str, setting: str, text: str, within: str = "") -> None:
        """Note a problem of ``setting`` in ``table``; an empty ``setting`` means the table itself.

        ``within`` names an entry of a setting that is a table of its own.
        """
        path = tuple(name for name in (table, setting, within) if name)
        self._found.append((path, f"[{table}] {text}" if table else text))

    def raise_if_any(self) -> None:
        """Raise ``Invalid`` with all problems noted, in the order of their lines."""
        if not self._found:
            return
        lines = _setting_lines(self._text or "")
        placed = sorted((_line_of(path, lines), text) for path, text in self._found)
        problems = [f"line {line}: {text}" if line else text for line, text in placed]
        many = f"{len(problems)} problem{'s' * (len(problems) > 1)}:"
        if self._text is None:
            raise Invalid("\n  ".join([f"the settings have {many}", *problems]), "Correct them and try again.")
        heading = f"{self._path.name} has {many}"
        remedy = f"Correct {self._path.name} and try again."
        raise Invalid("\n  ".join([heading, *problems]), remedy, file=str(self._path))


def parse_file(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the file's text and what it says. Raises ``Invalid`` when it is missing, not UTF-8 or not TOML."""
    text = _read(path)
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        place = re.search(r"at line (\d+), column (\d+)", reason)
        where = (
            f"line {place[1]}, column {place[2]}" if place else f"line {text.count(chr(10)) + 1}, the end of the file"
        )
        # Nothing more of the parser's own message is quoted: the line that it points at may hold the partition key.
        twice = "overwrite" in reason or "twice" in reason
        fact = "gives a setting or table twice" if twice else "is not readable TOML"
        remedy = "Keep one of the two." if twice else 'Write settings as name = value, text in "double quotes".'
        raise Invalid(f"{path.name} {fact} at {where}", remedy) from error


def _read(path: Path) -> str:
    try:
        payload = path.read_bytes()
        if payload.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise Invalid(f"{path.name} is UTF-16 text", "Save the file as UTF-8.", file=str(path))
        return payload.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError:
        raise no_specification(path) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fact = f"{path.name} is not UTF-8 text at line {line}"
        raise Invalid(fact, "Save the file as UTF-8.", file=str(path)) from error
    except OSError as error:
        fact = f"{path.name} cannot be read as a file"
        raise Invalid(fact, "Name a readable file with --config.", file=str(path)) from error


def _line_of(path: tuple[str, ...], lines: Mapping[tuple[str, ...], int]) -> int:
    """Return the line of the innermost element of the path that has one; 0: no element has one."""
    return next((lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in lines), 0)


def _setting_lines(text: str) -> Mapping[tuple[str, ...], int]:
    """Return the line where each table and setting begins, found by parsing ever longer beginnings of the text."""
    lines = text.split("\n")
    found: dict[tuple[str, ...], int] = {}
    begin = 0
    for end in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a value that spans lines
        for name, value in document.items():
            found.setdefault((name,), begin + 1)
            for setting, inner in value.items() if isinstance(value, dict) else ():
                found.setdefault((name, setting), begin + 1)
                for within in inner if isinstance(inner, dict) else ():
                    found.setdefault((name, setting, within), begin + 1)
        begin = end
    return found


def read_table(tables: Mapping[str, type], name: str, values: object, problems: Problems) -> Any:
    """Return the settings of table ``name`` from ``values``; with any problem, note them all and return None."""
    settings, before = tables[name], len(problems)
    if not isinstance(values, dict):
        problems.add(name, "", f"must be a table, got {_got(values)}")
        return None
    expected = _expected(settings)
    for setting in values.keys() - expected.keys():
        problems.add(name, setting, _unknown(tables, name, setting, values[setting]))
    known = {setting: _plain(setting, values[setting]) for setting in values if setting in expected}
    required = _required(settings)
    for setting in required - known.keys():
        problems.add(name, "", f"{setting} is missing: {expected[setting]} is needed")
    wrong = _wrong(settings, known)
    for setting in wrong:
        got = _kind(values[setting]) if (name, setting) in _SECRETS else _got(values[setting])
        problems.add(name, setting, f"{setting} must be {expected[setting]}, got {got}")
    if wrong <= required:
        replaced = {setting: _STAND_INS[expected[setting]] for setting in wrong | (required - known.keys())}
        made = _checked(settings, name, known | replaced, problems)
        return made if len(problems) == before else None
    return None  # settings that depend on each other cannot be judged


def _wrong(settings: type, values: dict[str, Any]) -> set[str]:
    """Return the settings whose value is of a wrong type."""
    wrong = {
        name
        for name, value in values.items()
        # Numbers inside a table must be finite; for a setting that is itself a number, its class decides.
        if _holds(value, _is_foreign if isinstance(value, dict) else _is_date)
    }
    try:
        _validate(settings, values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        wrong |= {str(detail["loc"][0]) for detail in details if detail["loc"]} & values.keys()
    return wrong


def _checked(settings: type, table: str, values: dict[str, Any], problems: Problems) -> Any:
    """Return the settings; or note each problem that the class finds and return None."""
    try:
        return _validate(settings, values)
    except ValidationError as error:
        prefix = f"[{table}] " if table else ""
        for detail in error.errors(include_url=False, include_input=False):
            assert "ctx" in detail
            refused = detail["ctx"]["error"]
            assert isinstance(refused, Invalid)
            for text in refused.fact.removeprefix(prefix).split(f"; {prefix}"):
                setting = text.split(" ", 1)[0].partition(".")[0]
                entries = values.get(setting)
                within = (
                    name for name in (entries if isinstance(entries, dict) else ()) if f"{setting} {name}:" in text
                )
                problems.add(table, setting, text, next(within, ""))
        return None


def _validate(settings: type, values: dict[str, Any]) -> Any:
    # Through JSON, where pydantic's strict mode accepts lists for tuples and tables for dataclasses. A date becomes an
    # empty table here; ``_wrong`` looks for dates itself.
    return _adapter(settings).validate_json(json.dumps(values, default=lambda _: {}), strict=True)


@cache
def _adapter(settings: type) -> TypeAdapter[Any]:
    return TypeAdapter(settings)


def _plain(setting: str, value: Any) -> Any:
    # Classes may be written as numbers, and still are names. ``type`` leaves out true, which ``isinstance`` would not.
    if setting == "classes" and isinstance(value, list):
        return [str(item) if type(item) is int else item for item in value]
    return value


def _holds(value: object, unwanted: Callable[[object], bool]) -> bool:
    """Return whether ``value``, or anything in it, is unwanted."""
    parts: Iterable[object] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return unwanted(value) or any(_holds(part, unwanted) for part in parts)


def _is_date(value: object) -> bool:
    return isinstance(value, date | time)


def _is_foreign(value: object) -> bool:
    """Return whether canonical JSON cannot express ``value``."""
    return _is_date(value) or _is_unknown(value) or (isinstance(value, float) and not math.isfinite(value))


def _is_unknown(value: object) -> bool:
    """Return whether no file could hold ``value``, which was given in Python."""
    return not any(isinstance(value, kind) for kind, _ in _KINDS)


def _required(settings: type) -> set[str]:
    return {item.name for item in fields(settings) if item.default is MISSING and item.default_factory is MISSING}


def _unknown(tables: Mapping[str, type], table: str, setting: str, value: object) -> str:
    """Return the message for a setting that ``table`` does not have, with the nearest name or the right table."""
    is_table = isinstance(value, dict) and table == TOP
    known = [f"[{name}]" for name in tables if name] if is_table else list(_expected(tables[table]))
    name = f"[{setting}]" if is_table else setting
    homes = [f"to [{home}]" if home else "above all tables" for home in tables if setting in _expected(tables[home])]
    if homes and not is_table:
        hint = f"it belongs {' or '.join(homes)}"
    elif near := get_close_matches(name.lower(), known, n=1):
        hint = f"did you mean {near[0]}?"
    else:
        hint = f"known are {', '.join(known)}"
    return f"{name} is not a known {'table' if is_table else 'setting'}; {hint}"


@cache
def _expected(settings: type) -> Mapping[str, str]:
    """Return a description of each setting's type, by name."""
    hints = get_type_hints(settings)
    words = {item.name: _words(hints[item.name]) for item in fields(settings)}
    if "classes" in words:
        words["classes"] = "a list of texts or whole numbers"
    return words


def _words(hint: Any) -> str:
    simple = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if hint in simple:
        return simple[hint]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    parts = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) is tuple:
        many = {"text": "texts", "a number": "numbers"}[_words(parts[0])]
        return f"a list of {many}" if Ellipsis in parts else f"a list of {len(parts)} {many}"
    if get_origin(hint) is Mapping and get_args(hint)[1] is str:
        return "a table of texts"
    if get_origin(hint) is Mapping and get_origin(get_args(hint)[1]) is Mapping:
        return "a table of tables"
    if get_origin(hint) is Mapping:
        return "a table of texts, finite numbers, booleans, lists and tables"
    return " or ".join(map(_words, parts))


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "boolean"),  # before int: Python's booleans are integers
    (int, "whole number"),
    (float, "number"),
    (str, "text"),
    (list, "list"),
    (dict, "table"),
    ((date, time), "date or time"),
)


def _kind(value: object) -> str:
    # What no file holds, in settings that are given in Python.
    foreign = f"a value of the type {type(value).__module__}.{type(value).__qualname__}"
    return next((f"a {words}" for kind, words in _KINDS if isinstance(value, kind)), foreign)


def _got(value: object) -> str:
    """Return a description of a value in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the {_kind(value).removeprefix('a ')} {value}"
    if isinstance(value, str):
        return f'the text "{value[:40]}"'
    if isinstance(value, list) and value:
        return f"a list of {len(value)}, among them {' and '.join(sorted({_kind(item) for item in value}))}"
    if isinstance(value, dict) and _holds(value, _is_unknown):
        return "a table with something else"
    foreign = isinstance(value, dict) and _holds(value, _is_foreign)
    return "a table with a date, a time or an infinite number" if foreign else _kind(value)
