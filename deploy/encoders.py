"""Encoders drafted for columns that are not plain numbers, with the reason for each.

A draft is a proposal to a person. The categories and rounded constants that it takes from the data become a published
choice of the person who trains with it; nothing in a specification can look at data.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from shards.data.encoding.image_forms import ImageForms
from shards.data.profile import ColumnDescription, stands_for_none

MOST_CATEGORIES: Final = 20
"""If there are more different texts, they are hashed: listing them all would be a vocabulary, and may name people."""

_TRUTHS: Final = ({"yes", "y", "true", "t", "1", "on"}, {"no", "n", "false", "f", "0", "off"})
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SMALL_IMAGE: Final = 64
"""Larger images are drafted to be resized: a first model needs no more pixels on a side."""
_SENTENCE_WORDS: Final = 3
_REPEATED: Final = 20
"""Texts of several words that occur this often on average are names of something, not sentences."""
_FLAT: Final = 0.05
_SMALL_ENOUGH: Final = 10.0
_LARGEST: Final = 3.4e38
"""Just below the largest float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftedEncoder:
    """The options of one column in [data.encode]."""

    column: str
    options: Mapping[str, Any]
    reason: str

    def line(self) -> str:
        """Return the line of the specification."""
        name = self.column if _BARE_KEY.fullmatch(self.column) else _toml(self.column)
        options = ", ".join(f"{option} = {_toml(value)}" for option, value in self.options.items())
        return f"{name} = {{ {options} }}  # {_toml(self.reason)[1:-1]}"


def draft_encoder(column: ColumnDescription, points: int) -> DraftedEncoder | None:
    """Return an encoder for a column that cannot be a feature without one; None: no encoder fits."""
    if column.images is not None:
        return _images(column.name, column.images)
    missing = _missing(column.blank, points)
    if column.nulls == points or not column.name:
        return None
    if column.kind in {"integer", "number"}:
        if column.unusable and not (column.largest or 0.0) <= _LARGEST:  # infinite, which no encoder takes
            return None
        return _number(column, points, column.blank + column.unusable, ())
    if column.kind == "boolean":
        return DraftedEncoder(
            column=column.name,
            options={"missing": 0.0, "flag_missing": True},
            reason=f"true or false{missing}",
        )
    if column.kind == "other" and column.type.startswith(("date", "timestamp")):
        return _date(column, missing)
    if column.kind == "text":
        return _text(column, points)
    return None


def _images(name: str, found: ImageForms) -> DraftedEncoder | None:
    if not found.sizes:
        return None
    channels, colour = (1, "grey") if found.are_grey else (3, "in colour")
    sizes = sorted(found.sizes)
    height, width = sizes[len(sizes) // 2] if len(sizes) > 1 else sizes[0]
    if len(sizes) == 1 and max(height, width) <= _SMALL_IMAGE:
        seen = f"images {colour}, the first {found.seen} of {height} x {width} pixels"
        return DraftedEncoder(column=name, options={"image": [channels, height, width]}, reason=seen)
    (least_height, most_height), (least_width, most_width) = (
        (min(side), max(side)) for side in zip(*sizes, strict=True)
    )
    shrink = min(1.0, _SMALL_IMAGE / max(height, width))
    form = [max(1, int(rounded(side * shrink))) for side in (height, width)]
    seen = (
        f"images {colour}, the first {found.seen} of {least_height} to {most_height} x {least_width} to {most_width}"
        " pixels; resized to a small size, which is yours to choose"
    )
    return DraftedEncoder(column=name, options={"image": [channels, *form], "resize": True}, reason=seen)


def are_images(drafts: Sequence[DraftedEncoder]) -> bool:
    """Return whether all of them are of images."""
    return all("image" in each.options for each in drafts)


def with_own_scale(draft: DraftedEncoder) -> DraftedEncoder:
    """Return the encoder with pixels from 0 to 1, if it is of images; others are as they were."""
    return replace(draft, options={**draft.options, "scale": 255.0}) if "image" in draft.options else draft


def draft_scaling(column: ColumnDescription) -> DraftedEncoder | None:
    """Return an encoder that brings a column of numbers to about -1 .. 1; None if it is in that range already."""
    is_small = column.largest is None or column.largest <= _SMALL_ENOUGH
    return None if is_small or column.kind not in {"integer", "number"} else _number(column, 0, 0, ())


def is_flat(column: ColumnDescription) -> bool:
    """Return whether numbers scaled to -1 .. 1 by a power of ten would hardly differ, such as years."""
    if column.largest is None or column.deviation is None or not column.largest > _SMALL_ENOUGH:
        return False
    if "uint8" in column.type:  # brightness, most likely: all pixels are brought to 0 .. 1 by one constant
        return False
    return 0 < column.deviation / 10.0 ** math.ceil(math.log10(column.largest)) < _FLAT


def constants_of(column: ColumnDescription) -> tuple[float, float, str]:
    """Return a shift and a scale that bring numbers to about -1 .. 1, rounded, and how they are made."""
    scale = rounded(column.deviation or 1.0) or 1.0
    shift, how = rounded(column.mean or 0.0), "mean and spread, rounded to two digits"
    if abs(shift - (column.mean or 0.0)) > scale / 2:  # such as of years
        place = 10.0 ** math.floor(math.log10(scale))
        shift, how = (
            round((column.mean or 0.0) / place) * place,
            "spread, rounded to two digits, and mean, to its place",
        )
    return shift, scale, how


def _number(column: ColumnDescription, points: int, missing: int, null: tuple[str, ...]) -> DraftedEncoder:
    shift, scale, how = constants_of(column)
    options: dict[str, Any] = {"missing": 0.0} if missing or null else {}
    options |= {"shift": shift, "scale": scale}
    if missing or null:
        options["flag_missing"] = True
    if null:
        options["null"] = [*null, ""]
    return DraftedEncoder(
        column=column.name, options=options, reason=f"numbers: {how}{_missing(missing, points)}{_written(null)}"
    )


def _date(column: ColumnDescription, missing: str) -> DraftedEncoder:
    options: dict[str, Any] = {"date": "days", "since": "2020-01-01", "scale": 1000.0}
    if missing:
        options |= {"missing": 0.0, "flag_missing": True}
    reason = f'dates{missing}; cycle = ["week", "year"] adds their places in these'
    return DraftedEncoder(column=column.name, options=options, reason=reason)


def _text(column: ColumnDescription, points: int) -> DraftedEncoder | None:
    if column.is_date:
        return _date(column, _missing(column.blank, points))
    if column.odd_texts is not None:  # numbers, but for some cells
        are_nothing = all(map(stands_for_none, column.odd_texts))
        return _number(column, points, column.blank, column.odd_texts) if are_nothing else None
    null = [text for text in column.values if stands_for_none(text)]
    values = [text for text in column.values if text and text not in null]
    has_gaps = column.nulls or null or "" in column.values
    gaps: dict[str, Any] = {"null": [*null, ""]} if null else {}
    share, written = _missing(column.blank, points), _written(null)
    are_few = column.distinct is not None and (len(values) <= MOST_CATEGORIES or points >= _REPEATED * column.distinct)
    if column.words >= _SENTENCE_WORDS and not are_few:
        options = {"words": 1024, **({"missing": True} if has_gaps else {}), **gaps}
        return DraftedEncoder(column=column.name, options=options, reason=f"texts of several words{share}{written}")
    if truths := _truths(values):
        options = {**truths, **({"missing": 0.5, "flag_missing": True} if has_gaps else {}), **gaps}
        return DraftedEncoder(column=column.name, options=options, reason=f"yes or no{share}{written}")
    if not column.repeats or (column.distinct == 1 and not has_gaps):
        return None  # all texts differ, or all are the same
    gaps = {**({"missing": True} if has_gaps else {}), **gaps}
    if column.distinct is not None and 0 < len(values) <= MOST_CATEGORIES:
        return DraftedEncoder(
            column=column.name,
            options={"categories": values, "other": True, **gaps},
            reason=f"the {len(values)} texts seen{share}{written}; remove what would name a person: it is published",
        )
    many = f"{len(values)}" if column.distinct is not None else "more than 1000"
    return DraftedEncoder(
        column=column.name, options={"hash": 64, **gaps}, reason=f"{many} different texts{share}{written}"
    )


def _truths(values: list[str]) -> dict[str, Any]:
    for true, false in ((values[:1], values[1:]), (values[1:], values[:1])):
        if len(values) == 2 and true[0].lower() in _TRUTHS[0] and false[0].lower() in _TRUTHS[1]:
            return {"true": true, "false": false}
    return {}


def rounded(value: float) -> float:
    """Return a number rounded to two significant digits.

    >>> [rounded(value) for value in (43.92, 4207.1, 0.01234, -1.96, 0.0)]
    [44.0, 4200.0, 0.012, -2.0, 0.0]
    """
    if value == 0 or not math.isfinite(value):
        return 0.0
    return float(f"{value:.1e}")


def _missing(count: int, points: int) -> str:
    return f", {100 * count / points:.1f} % without a value" if count else ""


def _written(null: Sequence[str]) -> str:
    return f", {', '.join(map(repr, null))} taken for no value" if null else ""


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
