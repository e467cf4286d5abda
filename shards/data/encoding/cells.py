"""Cells of a column: as texts, as numbers, and what is wrong with one of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.data.sources import is_text

_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
MISSING_REMEDY: Final = "Correct it, leave the data point out, or declare what stands for it: missing in [data.encode]."
_Parsed = TypeVar("_Parsed")


class BadCell(Exception):  # becomes an ``Invalid`` with file, column and row
    """A cell that does not fit what is declared. Never leaves ``shards.data``."""

    def __init__(self, fact: str, position: int, remedy: str = "Correct it or leave the data point out.") -> None:
        super().__init__(fact)
        self.fact = fact
        self.position = position
        self.remedy = remedy


class BadColumn(Exception):  # becomes an ``Invalid`` with file and column
    """A column whose type does not fit what is declared. Never leaves ``shards.data``."""

    def __init__(self, fact: str) -> None:
        super().__init__(fact)
        self.fact = fact


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Context, besides the encoder, that the meaning of cells depends on."""

    decimal: str = "."
    """The decimal mark of numbers written as text."""
    folder: Path | None = None
    """Where paths of images begin; None: there may be no paths."""


EncodedRows = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""Where features are written: one row per feature, one column per data point, filled with zeros."""


def numbers_of(array: pa.Array) -> npt.NDArray[np.generic]:
    """Return an array of numbers or bools without nulls; numbers are not copied."""
    # Not to_numpy(), which imports pandas if it is installed: 50 MB.
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    kind = "f" if pa.types.is_floating(array.type) else "iu"[pa.types.is_unsigned_integer(array.type)]
    dtype = np.dtype(f"{kind}{array.type.bit_width // 8}")
    values: npt.NDArray[np.generic] = np.frombuffer(array.buffers()[1] or b"", dtype=dtype)
    return values[array.offset : array.offset + len(array)]


def plain_label(text: str, decimal: str = ".") -> str:
    """Return the label that a typed file would have for a number or boolean written as ``text``.

    ``decimal`` is the decimal mark.

    >>> [plain_label(text) for text in ("1.0", "2e3", "True", "1.5", "yes")]
    ['1', '2000', 'true', '1.5', 'yes']
    """
    if (lower := text.lower()) in {"true", "false"}:
        return lower
    number = text.replace(decimal, ".")
    if not _NUMBER.fullmatch(number):
        return text
    value = float(number)
    return str(int(value)) if value.is_integer() else text


def first(mask: pa.Array | npt.NDArray[np.bool_]) -> int:
    """Return the position of the first true value."""
    return int(np.argmax(np.asarray(mask)))


def without_null_texts(array: pa.Array, null: tuple[str, ...]) -> pa.Array:
    """Return the array with nulls in place of texts that mean "no value"."""
    if not null or not is_text(array.type):
        return array
    stands_for_none = pc.is_in(array, pa.array(null, array.type))
    return pc.if_else(stands_for_none, pa.scalar(None, array.type), array)


def refuse_missing(missing_N: npt.NDArray[np.bool_], remedy: str = MISSING_REMEDY) -> None:
    """Raise ``BadCell`` for the first data point without a value."""
    if missing_N.any():
        raise BadCell("has no value (null)", first(missing_N), remedy)


def mask_of(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Return a mask of the cells without a value."""
    if not array.null_count:
        return np.zeros(len(array), dtype=np.bool_)
    return np.asarray(numbers_of(array.is_null()), dtype=np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """A column of cells that name something: each distinct text once."""

    texts: list[str]
    codes_N: npt.NDArray[np.int64]
    """Position of each data point's text; -1 for a data point without a value."""

    def mapped(self, values: list[int], missing: int) -> npt.NDArray[np.int64]:
        """Return, for each data point, the value of its text, or ``missing`` if it has no text."""
        return np.array([*values, missing], dtype=np.int64)[self.codes_N]


def names_of(array: pa.Array) -> Names:
    """Return the cells as texts: whole numbers in decimal, booleans as ``true`` or ``false``. NaN counts as missing.

    Raises ``BadCell`` for a number with a fraction, ``BadColumn`` for another type.
    """
    types = pa.types
    if types.is_null(array.type):
        return Names([], np.full(len(array), -1, dtype=np.int64))
    if types.is_float16(array.type):
        array = array.cast(pa.float32())
    if types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    is_number = types.is_integer(array.type) or types.is_boolean(array.type) or types.is_floating(array.type)
    if not is_number and not is_text(array.type):
        raise BadColumn(f"must hold texts, whole numbers or booleans, its type is {array.type}")
    encoded = array.dictionary_encode()
    codes_N = numbers_of(encoded.indices.fill_null(-1)).astype(np.int64)
    distinct = encoded.dictionary.to_pylist()
    if types.is_floating(array.type):
        fractions = np.array([*(not value.is_integer() for value in distinct), False], dtype=np.bool_)[codes_N]
        if fractions.any():
            raise BadCell("has a number with a fraction, where whole numbers or texts are expected", first(fractions))
        return Names([str(int(value)) for value in distinct], codes_N)
    if types.is_boolean(array.type):
        return Names([str(value).lower() for value in distinct], codes_N)
    return Names([str(value) for value in distinct], codes_N)


def texts_of(array: pa.Array) -> pa.Array:
    """Return a column of texts; raises ``BadColumn`` for another type."""
    if pa.types.is_null(array.type):
        return array.cast(pa.string())
    if not is_text(array.type):
        raise BadColumn(f"must hold texts, its type is {array.type}")
    return array


def parsed_by(parse: Callable[[pa.Array], _Parsed], array: pa.Array, fact: str) -> _Parsed:
    """Return the array as ``parse`` reads it; raises ``BadCell`` for the first cell at which it fails."""
    try:
        return parse(array)
    except pa.ArrowException:
        start, stop = 0, len(array)
        while stop - start > 1:
            middle = (start + stop) // 2
            start, stop = (start, middle) if _fails(parse, array.slice(start, middle - start)) else (middle, stop)
        # Not chained: the cause quotes the cell.
        raise BadCell(fact, start) from None


def _fails(parse: Callable[[pa.Array], object], array: pa.Array) -> bool:
    try:
        parse(array)
    except pa.ArrowException:
        return True
    return False
