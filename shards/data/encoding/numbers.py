"""Numbers, dates and truth values.

Shape legend: N points, F features.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.data.encoding.cells import (
    BadCell,
    BadColumn,
    EncodedRows,
    Surroundings,
    first,
    mask_of,
    names_of,
    numbers_of,
    parsed_by,
    plain_label,
    refuse_missing,
    without_null_texts,
)
from shards.data.sources import is_text
from shards.encoders import UNITS, DateEncoder, NumberEncoder, TruthEncoder

_NUMBER: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_ZONED: Final = r":[0-9]{2}.*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
"""How a moment ends that says its time zone."""
_SECOND: Final = 1_000_000
_DAY: Final = 86_400 * _SECOND
_MONDAY: Final = 3 * _DAY
"""The first day of 1970 was a Thursday."""
_UNDECLARED: Final = "Name it in true or false of [data.encode], or correct the data."


def encode_numbers(encoder: NumberEncoder, array: pa.Array, around: Surroundings, out_FN: EncodedRows) -> None:
    """Write the numbers, shifted and scaled, and which of them are missing."""
    values_N, missing_N = _numbers(without_null_texts(array, encoder.null), around)
    _write(encoder, values_N, missing_N, out_FN)


def encode_dates(encoder: DateEncoder, array: pa.Array, around: Surroundings, out_FN: EncodedRows) -> None:
    """Write the times since the declared moment, and their places in the cycles."""
    del around
    moments = _moments(encoder, without_null_texts(array, encoder.null))
    missing_N = mask_of(moments)
    micros_N = numbers_of(moments.cast(pa.int64()).fill_null(0)).astype(np.int64)
    units_N = (micros_N - encoder.since_seconds * _SECOND) / (UNITS[encoder.date] * _SECOND)
    _write(encoder, units_N, missing_N, out_FN)
    for number, cycle in enumerate(encoder.cycle):
        angle_N = 2 * np.pi * _phase(cycle, micros_N)
        at = 1 + encoder.flag_missing + 2 * number
        out_FN[at] = np.where(missing_N, 0, np.sin(angle_N))
        out_FN[at + 1] = np.where(missing_N, 0, np.cos(angle_N))


def encode_truths(encoder: TruthEncoder, array: pa.Array, around: Surroundings, out_FN: EncodedRows) -> None:
    """Write 1 for what is declared true, 0 for what is declared false."""
    names = names_of(array)
    known = {**dict.fromkeys(encoder.true, 1), **dict.fromkeys(encoder.false, 0)}
    none, unknown = -1, -2
    values = [
        known.get(text, known.get(plain_label(text, around.decimal), none if text in encoder.null else unknown))
        for text in names.texts
    ]
    values_N = names.mapped(values, none)
    if (values_N == unknown).any():
        raise BadCell("has a value that is declared neither true nor false", first(values_N == unknown), _UNDECLARED)
    missing_N = values_N == none
    if encoder.missing is None:
        refuse_missing(missing_N)
    out_FN[0] = np.where(missing_N, 0 if encoder.missing is None else encoder.missing, values_N)
    if encoder.flag_missing:
        out_FN[1] = missing_N


def _write(
    encoder: NumberEncoder | DateEncoder,
    values_N: npt.NDArray[np.float64],
    missing_N: npt.NDArray[np.bool_],
    out_FN: EncodedRows,
) -> None:
    with np.errstate(over="ignore"):  # a value that overflows float32 becomes infinite and is reported
        if (encoder.shift, encoder.scale) == (0.0, 1.0):
            out_FN[0] = values_N
        else:
            out_FN[0] = (values_N - encoder.shift) / encoder.scale
    if missing_N.any():
        if encoder.missing is None:
            refuse_missing(missing_N)
        out_FN[0][missing_N] = encoder.missing
        if encoder.flag_missing:
            out_FN[1] = missing_N
    if not np.isfinite(out_FN[0]).all():
        raise BadCell("has a feature that is infinite (as float32)", first(~np.isfinite(out_FN[0])))


def _numbers(array: pa.Array, around: Surroundings) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the numbers in float32, and a mask of the missing ones, whose values have no meaning.

    Rounded to float32 first: a number has one meaning, whether its file holds float32, float64 or text.
    """
    types = pa.types
    if types.is_null(array.type):
        return np.zeros(len(array)), np.ones(len(array), dtype=np.bool_)
    if is_text(array.type):
        array = _parsed_numbers(array, around.decimal)
    if types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if not (types.is_integer(array.type) or types.is_floating(array.type) or types.is_boolean(array.type)):
        raise BadColumn(f"must hold numbers, its type is {array.type}")
    missing_N = mask_of(array)
    if array.null_count:
        array = array.fill_null(False if types.is_boolean(array.type) else 0)
    with np.errstate(over="ignore"):
        values_N = numbers_of(array).astype(np.float32).astype(np.float64)
    if types.is_floating(array.type):
        missing_N = missing_N | np.isnan(values_N)
    return values_N, missing_N


def _parsed_numbers(array: pa.Array, decimal: str) -> pa.Array:
    array = pc.utf8_trim(array, " \t")
    if decimal != ".":  # a point is then invalid: replace it by a character that no number has
        array = pc.replace_substring(pc.replace_substring(array, ".", "?"), decimal, ".")
    strange = pc.invert(pc.match_substring_regex(array, _NUMBER)).fill_null(fill_value=False)
    if strange.true_count:
        remedy = "Correct it, or name the text in null of [data.encode] if it stands for no value."
        raise BadCell("has a text that is not a number", first(numbers_of(strange)), remedy)
    return array.cast(pa.float64())


def _moments(encoder: DateEncoder, array: pa.Array) -> pa.Array:
    """Return the times in microseconds since 1970, in UTC; null for a missing one."""
    types, instant = pa.types, pa.timestamp("us")
    if types.is_null(array.type):
        return array.cast(instant)
    if types.is_timestamp(array.type):
        return parsed_by(_utc, array, "has a date that is too far away")
    if types.is_date(array.type):
        return parsed_by(lambda part: part.cast(instant), array, "has a date that is too far away")
    if not is_text(array.type):
        raise BadColumn(f"must hold dates, timestamps, or texts that say them, its type is {array.type}")
    if encoder.format is not None:
        found = pc.strptime(array, format=encoder.format, unit="us", error_is_null=True)
        # strptime takes the 31st of February for the 2nd of March: the text of what it finds is compared.
        same = pc.equal(_bare(pc.strftime(found, format=encoder.format)), _bare(array)).fill_null(fill_value=False)
        strange_N = ~np.asarray(numbers_of(same), dtype=np.bool_) & ~mask_of(array)
        if strange_N.any():
            remedy = "Correct it, or format in [data.encode]."
            raise BadCell("has a text that is not a date in the declared format", first(strange_N), remedy)
        return found
    return parsed_by(_from_iso, array, "has a text that is not a date in ISO 8601, such as 2020-12-31")


def _bare(texts: pa.Array) -> pa.Array:
    """Return texts of dates without leading zeros, white space and capitals."""
    without_spaces = pc.replace_substring_regex(pc.utf8_lower(texts), pattern=r"\s+", replacement="")
    return pc.replace_substring_regex(without_spaces, pattern=r"(^|[^0-9])0+([0-9])", replacement=r"\1\2")


def _utc(array: pa.Array) -> pa.Array:
    if array.type.tz is not None:
        array = array.cast(pa.timestamp(array.type.unit, "UTC")).cast(pa.timestamp(array.type.unit))
    return array.cast(pa.timestamp("us"), safe=array.type.unit != "ns")


def _from_iso(array: pa.Array) -> pa.Array:
    array = pc.utf8_trim_whitespace(array)
    zoned = pc.match_substring_regex(array, _ZONED)
    none = pa.scalar(None, array.type)
    naive = pc.if_else(zoned, none, array).cast(pa.timestamp("us"))
    if not pc.any(zoned, min_count=0).as_py():
        return naive
    return pc.coalesce(naive, _utc(pc.if_else(zoned, array, none).cast(pa.timestamp("us", "UTC"))))


def _phase(cycle: str, micros_N: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the place in the cycle, from 0 to 1.

    >>> noon = np.array(["2024-07-01T12"], dtype="M8[us]").astype(np.int64)  # of a Monday
    >>> [round(float(_phase(cycle, noon)[0]), 3) for cycle in ("day", "week", "year")]
    [0.5, 0.071, 0.499]
    """
    if cycle == "day":
        return (micros_N % _DAY) / _DAY
    if cycle == "week":
        return ((micros_N + _MONDAY) % (7 * _DAY)) / (7 * _DAY)
    years_N = micros_N.astype("M8[us]").astype("M8[Y]")
    begins_N, ends_N = (each.astype("M8[us]").astype(np.int64) for each in (years_N, years_N + 1))
    return (micros_N - begins_N) / (ends_N - begins_N)
