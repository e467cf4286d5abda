"""The table ``[data.encode]``: read, checked, and looked up by column."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from shards.encoders import (
    CategoryEncoder,
    DateEncoder,
    Encoder,
    HashEncoder,
    ImageEncoder,
    NumberEncoder,
    TokensEncoder,
    TruthEncoder,
    WordsEncoder,
)
from storage.digests import Json
from storage.errors import Invalid

_KINDS: Final[tuple[type[Encoder], ...]] = (
    CategoryEncoder,
    HashEncoder,
    DateEncoder,
    TruthEncoder,
    WordsEncoder,
    TokensEncoder,
    ImageEncoder,
)
"""All kinds but numbers, which have no option of their own."""


class InputShape(NamedTuple):
    """The form of a model's input for each data point."""

    shape: tuple[int, ...]
    ids: int = 0
    """If it receives whole numbers, such as tokens: one more than the largest. 0: it receives numbers."""

    @property
    def width(self) -> int:
        """The number of features."""
        return math.prod(self.shape)

    @property
    def argument(self) -> int | tuple[int, ...]:
        """The argument ``inputs`` of a model's factory: the number of features, or the shape of an image."""
        return self.shape[0] if len(self.shape) == 1 else self.shape


@dataclass(frozen=True, slots=True)
class Encoding:
    """The table ``[data.encode]``: encoders by column or by pattern of columns."""

    encoders: Mapping[str, Encoder] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.encoders)

    def of(self, column: str) -> Encoder | None:
        """Return the column's encoder: by its name, or else by the pattern that matches; None: none is declared.

        >>> some = Encoding({"x*": NumberEncoder(scale=2.0), "x1": NumberEncoder()})
        >>> [some.of(name) and some.of(name).scale for name in ("x1", "x2", "y")]
        [1.0, 2.0, None]
        """
        names = self._names(column)
        return self.encoders[names[0]] if names else None

    def widths(self, columns: Sequence[str]) -> list[int]:
        """Return how many features each column becomes."""
        return [1 if (encoder := self.of(column)) is None else encoder.width for column in columns]

    def check(self, columns: Sequence[str]) -> None:
        """Raise ``Invalid`` when an encoder concerns none of the feature columns, or two concern the same one."""
        used = {column: self._names(column) for column in columns}
        for name in self.encoders:
            if not any(name in names for names in used.values()):
                raise Invalid(
                    f"[data.encode] names {name!r}, which is not a feature column",
                    "Name it in [data] features, or remove it from [data.encode].",
                )
        for column, names in used.items():
            if len(names) > 1 and names[0] != column:
                raise Invalid(
                    f"two patterns of [data.encode] match the same column: {names[0]!r} and {names[1]!r}",
                    "Name the column itself in [data.encode], or change a pattern.",
                    column=column,
                )

    def _names(self, column: str) -> list[str]:
        own = [column] if column in self.encoders else []
        return own + [name for name in self.encoders if name != column and fnmatchcase(column, name)]

    def shape(self, features: Sequence[str]) -> InputShape | None:
        """Return the form of a model's input if it is not simply a row of numbers: one image, or whole numbers only.

        ``features`` are names as [data] features declares them, without looking at any file.
        """
        found = [self.of(name) for name in features]
        if len(found) == 1 and isinstance(found[0], ImageEncoder):
            return InputShape(found[0].image)
        ids = [0 if each is None else _ids(each) for each in found]
        return InputShape((sum(self.widths(features)),), max(ids)) if ids and all(ids) else None

    def record(self) -> dict[str, Json]:
        """Return the declared options, for the federation's record; options at their defaults are left out."""
        return {name: encoder.record() for name, encoder in self.encoders.items()}


NO_ENCODING: Final = Encoding()


def encoding_of(table: Mapping[str, Mapping[str, Any]]) -> tuple[Encoding, list[str]]:
    """Return the encoders that the table ``[data.encode]`` declares, and all problems with it, as sentences."""
    encoders: dict[str, Encoder] = {}
    problems: list[str] = []
    for column, options in table.items():
        found = _encoder_of(options)
        if isinstance(found, list):
            problems += [f"encode {column}: {problem}" for problem in found]
        else:
            encoders[column] = found
    return Encoding(encoders), problems


def _encoder_of(options: object) -> Encoder | list[str]:
    """Return the encoder that a column's options declare, or what is wrong with them."""
    if not isinstance(options, Mapping):
        return ["must be a table, such as { missing = 0.0 }"]
    kinds: list[type[Encoder]] = [kind for kind in _KINDS if kind.key in options]
    if "false" in options and TruthEncoder not in kinds:
        kinds.append(TruthEncoder)
    if len(kinds) > 1:
        return [f"{' and '.join(kind.key for kind in kinds)} exclude each other: keep one of them"]
    return _made(kinds[0] if kinds else NumberEncoder, options)


def _made(kind: type[Encoder], options: Mapping[str, Any]) -> Encoder | list[str]:
    known = {each.name.rstrip("_"): each for each in fields(kind)}
    problems, values = [], {}
    for name, value in options.items():
        if name not in known:
            problems.append(_unknown(kind, name))
            continue
        hint = str(known[name].type)
        expected, read = _OPTIONS[hint]
        values[known[name].name] = read(value)
        if values[known[name].name] is None:
            problems.append(f"{name} must be {expected}")
    for name, each in known.items():
        if each.default is MISSING and name not in options:
            problems.append(f"{name} is missing beside {kind.key}")
    if problems:
        return problems
    made: Encoder = kind(**values)
    return [*made.problems()] or made


def _unknown(kind: type[Encoder], name: str) -> str:
    """Return the problem of an option that this kind of encoder does not have."""
    own = [each.name.rstrip("_") for each in fields(kind)]
    what = f"beside {kind.key}" if kind.key else "of numbers"
    every = [*own, *(kind.key for kind in _KINDS)] if not kind.key else own
    near = get_close_matches(name.lower(), every, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(every)}"
    return f"{name} is not a known option {what}; {hint}"


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...] | None:
    """Return the texts of a list, or of a single one; whole numbers and booleans as texts name them."""
    items = value if isinstance(value, list | tuple) else [value]
    texts = [str(item).lower() if isinstance(item, bool) else str(item) for item in items]
    return tuple(texts) if all(isinstance(item, str | int) for item in items) else None


def _wholes(value: object) -> tuple[int, ...] | None:
    is_list = isinstance(value, list | tuple) and all(type(item) is int for item in value)
    return tuple(value) if is_list else None  # type: ignore[arg-type]


_OPTIONS: Final[Mapping[str, tuple[str, Callable[[object], Any]]]] = {
    "float": ("a finite number", _number),
    "float | None": ("a finite number", _number),
    "int": ("a whole number", _whole),
    "bool": ("true or false", _truth),
    "str": ("a text", _text),
    "str | None": ("a text", _text),
    "tuple[str, ...]": ("a list of texts or whole numbers", _texts),
    "tuple[int, ...]": ("a list of whole numbers", _wholes),
}
"""By the type of the option: its permitted values, and how they are read; None: not permitted."""


def _ids(encoder: Encoder) -> int:
    """Return one more than the largest number, if the column becomes numbers that stand for something; otherwise 0."""
    if isinstance(encoder, TokensEncoder):
        return encoder.vocabulary + 1
    is_index = isinstance(encoder, CategoryEncoder | HashEncoder) and encoder.as_ == "index"
    return encoder.count if is_index else 0  # type: ignore[union-attr]
