"""Encoders: how a column becomes features, as the table ``[data.encode]`` declares it.

Everything is declared and nothing is learned from data (E6): an encoder has no means of looking at data, so it cannot
remember anybody. ``shards.encoding`` reads the table, ``shards.data.encoding`` applies encoders to columns.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import ClassVar, Final, TypeAlias

from storage.digests import Json

UNITS: Final[Mapping[str, int]] = {
    "seconds": 1,
    "minutes": 60,
    "hours": 3600,
    "days": 86_400,
    "weeks": 604_800,
}
"""Seconds in each unit of a date."""
CYCLES: Final = ("day", "week", "year")
_EXACT: Final = 1 << 24
"""Whole numbers up to here are exact in float32, the type of features."""
_MOST_COLUMNS: Final = 1 << 20


class _Declared:
    """The common base of all encoders."""

    __slots__ = ()
    key: ClassVar[str]
    """The option that distinguishes this kind of encoder from the others."""

    def record(self) -> dict[str, Json]:
        """Return the options that are not at their defaults (E16)."""
        return {
            each.name.rstrip("_"): list(value) if isinstance(value, tuple) else value
            for each in fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
            if (value := getattr(self, each.name)) != each.default
        }

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the options."""
        yield from ()

    @property
    def width(self) -> int:
        """How many features the column becomes."""
        return 1

    @property
    def in_bytes(self) -> bool:
        """Whether all its features are whole numbers from 0 to 255."""
        return True

    @property
    def wants_text(self) -> bool:
        """Whether the cells of a CSV file are read as text; otherwise they are read as numbers."""
        return True


class _Counted(_Declared):
    """A numbered place: a feature for each place, or one feature with its number."""

    __slots__ = ()
    as_: str

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of places."""

    @property
    def width(self) -> int:
        """See ``_Declared.width``."""
        return self.count if self.as_ == "columns" else 1

    @property
    def in_bytes(self) -> bool:
        """See ``_Declared.in_bytes``."""
        return self.as_ == "columns" or self.count <= 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberEncoder(_Declared):
    """A number, shifted and scaled: ``(value - shift) / scale``."""

    key: ClassVar[str] = ""

    missing: float | None = None
    """The feature of a missing value, after shift and scale: 0.0 means ``shift``. Default: missing values are
    refused."""
    shift: float = 0.0
    scale: float = 1.0
    flag_missing: bool = False
    """Whether a second feature is 1 for a missing value, and 0 otherwise."""
    null: tuple[str, ...] = ("",)
    """Texts that stand for no value, such as ``NA``."""

    def problems(self) -> Iterator[str]:
        """See ``_Declared.problems``."""
        if self.scale == 0:
            yield "scale must not be zero"
        if self.flag_missing and self.missing is None:
            yield "flag_missing needs missing: the feature where there is no value"

    @property
    def width(self) -> int:
        """See ``_Declared.width``."""
        return 1 + self.flag_missing

    @property
    def in_bytes(self) -> bool:
        """See ``_Declared.in_bytes``."""
        return False

    @property
    def wants_text(self) -> bool:
        """See ``_Declared.wants_text``."""
        return self.null != ("",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryEncoder(_Counted):
    """One of some declared texts: a feature for each of them, or their position."""

    key: ClassVar[str] = "categories"

    categories: tuple[str, ...]
    other: bool = False
    """Whether any other text is accepted; it counts as one more category, the one after those declared."""
    missing: bool = False
    """Whether a missing value is accepted; it counts as one more category, the last one. With ``other`` alone it counts
    as another text."""
    as_: str = "columns"
    """``columns``: one feature per category, 1 or 0; ``index``: one feature, the category's position from 0, for
    models that look it up in an embedding."""
    null: tuple[str, ...] = ("",)
    """Texts that stand for no value."""

    def problems(self) -> Iterator[str]:
        """See ``_Declared.problems``."""
        if not self.categories:
            yield "categories is empty: name the values"
        if twice := _repeated(self.categories):
            yield f"categories names {twice} more than once"
        yield from _bad_form(self.as_)

    @property
    def count(self) -> int:
        """The number of categories, including those for other texts and for missing values."""
        return len(self.categories) + self.other + self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class HashEncoder(_Counted):
    """Any text, as one of a number of buckets by a public hash: needs no list of values, and contains none."""

    key: ClassVar[str] = "hash"

    hash: int
    """Number of buckets."""
    missing: bool = False
    """Whether no value is accepted; it counts as one more bucket, the last one."""
    as_: str = "columns"
    """As for categories."""
    null: tuple[str, ...] = ("",)
    """Texts that stand for no value."""

    def problems(self) -> Iterator[str]:
        """See ``_Declared.problems``."""
        most = _MOST_COLUMNS if self.as_ == "columns" else _EXACT
        yield from _out_of_range("hash", self.hash, 2, most - 1)
        yield from _bad_form(self.as_)

    @property
    def count(self) -> int:
        """The number of buckets, with the one for no value."""
        return self.hash + self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class DateEncoder(_Declared):
    """A date or a moment, as the time since another one, and its place in cycles. Without a time zone: UTC."""

    key: ClassVar[str] = "date"

    date: str
    """The unit: ``seconds``, ``minutes``, ``hours``, ``days`` or ``weeks``."""
    since: str = "1970-01-01"
    """The moment that counts as 0, as ``YYYY-MM-DD`` or ``YYYY-MM-DDThh:mm:ss``, in UTC."""
    cycle: tuple[str, ...] = ()
    """``day``, ``week`` (from Monday) or ``year``: two more features for each, sine and cosine of the place in it."""
    format: str | None = None
    """The format of dates in texts, as for strptime, such as ``%d.%m.%Y``; default: ISO 8601."""
    missing: float | None = None
    """As for numbers; the features of cycles are 0 for a missing value."""
    shift: float = 0.0
    scale: float = 1.0
    """The time is shifted and scaled as numbers are."""
    flag_missing: bool = False
    """As for numbers."""
    null: tuple[str, ...] = ("",)
    """Texts that stand for no value."""

    def problems(self) -> Iterator[str]:
        """See ``_Declared.problems``."""
        if self.date not in UNITS:
            yield f"date must be one of {', '.join(UNITS)}, got {self.date!r}"
        if _moment(self.since) is None:
            yield f"since must be a date such as 2020-01-01, got {self.since!r}"
        if strange := [each for each in self.cycle if each not in CYCLES]:
            yield f"cycle must be among {', '.join(CYCLES)}, got {strange[0]!r}"
        if twice := _repeated(self.cycle):
            yield f"cycle names {twice} more than once"
        if self.format is not None and "%" not in self.format:
            yield f"format must be one for strptime, such as %d.%m.%Y, got {self.format!r}"
        if self.format is not None and "%z" in self.format.lower():
            yield "format must not have a time zone (%z): texts with one are read where they are ISO 8601"
        if self.scale == 0:
            yield "scale must not be zero"
        if self.flag_missing and self.missing is None:
            yield "flag_missing needs missing: the feature where there is no value"

    @property
    def since_seconds(self) -> int:
        """``since``, in seconds since 1970."""
        moment = _moment(self.since)
        assert moment is not None
        return int(moment.timestamp())

    @property
    def width(self) -> int:
        """See ``_Declared.width``."""
        return 1 + 2 * len(self.cycle) + self.flag_missing

    @property
    def in_bytes(self) -> bool:
        """See ``_Declared.in_bytes``."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthEncoder(_Declared):
    """Yes or no: 1 or 0."""

    key: ClassVar[str] = "true"

    true: tuple[str, ...]
    """Texts that stand for 1. Booleans read as ``true`` and ``false``, whole numbers as their digits."""
    false: tuple[str, ...]
    """Texts that stand for 0."""
    missing: float | None = None
    """The feature of a missing value. Default: missing values are refused."""
    flag_missing: bool = False
    """As for numbers."""
    null: tuple[str, ...] = ("",)
    """Texts that stand for no value."""

    def problems(self) -> Iterator[str]:
        """See ``_Declared.problems``."""
        for name, texts in (("true", self.true), ("false", self.false)):
            if not texts:
                yield f"{name} is empty: name the values"
        if twice := _repeated((*self.true, *self.false)):
            yield f"true and false name {twice} more than once"
        if self.flag_missing and self.missing is None:
            yield "flag_missing needs missing: the feature where there is no value"

    @property
    def width(self) -> int:
        """See ``_Declared.width``."""
        return 1 + self.flag_missing

    @property
    def in_bytes(self) -> bool:
        """See ``_Declared.in_bytes``."""
        return self.missing is None or (self.missing.is_integer() and 0 <= self.missing <= 255)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsEncoder(_Declared):
    """A text, as counts of its words in each of a number of buckets by a public hash; counts of 255 at most."""

    key: ClassVar[str] = "words"

    words: int
    """Number of buckets."""
    ngrams: int = 1
    """Also count sequences of words, up to this length."""
    missing: bool = False
    """Whether no value is accepted; it counts as a text without words."""
    null: tuple[str, ...] = ()
    """Texts that stand for no value. An empty text is a text without words."""

    def problems(self) -> Iterator[str]:
        """See ``_Declared.problems``."""
        yield from _out_of_range("words", self.words, 2, _MOST_COLUMNS)
        yield from _out_of_range("ngrams", self.ngrams, 1, 8)

    @property
    def width(self) -> int:
        """See ``_Declared.width``."""
        return self.words


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensEncoder(_Declared):
    """A text, as the numbers of its first words, for models with an embedding: 0 means no word."""

    key: ClassVar[str] = "tokens"

    tokens: int
    """Number of words, and of features; further words are left out."""
    vocabulary: int = 32_768
    """Words are numbered from 1 to this by a public hash."""
    missing: bool = False
    """Whether no value is accepted; it counts as a text without words."""
    null: tuple[str, ...] = ()
    """Texts that stand for no value. An empty text is a text without words."""

    def problems(self) -> Iterator[str]:
        """See ``_Declared.problems``."""
        yield from _out_of_range("tokens", self.tokens, 1, _MOST_COLUMNS)
        yield from _out_of_range("vocabulary", self.vocabulary, 2, _EXACT - 1)

    @property
    def width(self) -> int:
        """See ``_Declared.width``."""
        return self.tokens

    @property
    def in_bytes(self) -> bool:
        """See ``_Declared.in_bytes``."""
        return self.vocabulary <= 255


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEncoder(_Declared):
    """An image, from its bytes (PNG, JPEG, ...) or from a file: its pixels, 0 to 255, channel by channel."""

    key: ClassVar[str] = "image"

    image: tuple[int, ...]
    """Channels (1: grey, 3: RGB, 4: RGBA), height and width."""
    resize: bool = False
    """Whether an image of another size is brought to this one, without regard to its proportions. Default: refuse."""
    shift: float = 0.0
    scale: float = 1.0
    """Pixels are shifted and scaled as numbers are. ``[data] scale = 255.0`` does the same if all features are images,
    and takes a quarter of the store."""

    def problems(self) -> Iterator[str]:
        """See ``_Declared.problems``."""
        if len(self.image) != 3 or self.image[0] not in {1, 3, 4} or min(self.image) < 1:
            yield f"image must be [channels, height, width] with 1, 3 or 4 channels, got {list(self.image)}"
        elif self.width > _EXACT:
            yield f"image must have at most {_EXACT:,} values, got {self.width:,}"
        if self.scale == 0:
            yield "scale must not be zero"

    @property
    def width(self) -> int:
        """See ``_Declared.width``."""
        return math.prod(self.image)

    @property
    def in_bytes(self) -> bool:
        """See ``_Declared.in_bytes``."""
        return (self.shift, self.scale) == (0.0, 1.0)


Encoder: TypeAlias = (
    NumberEncoder
    | CategoryEncoder
    | HashEncoder
    | DateEncoder
    | TruthEncoder
    | WordsEncoder
    | TokensEncoder
    | ImageEncoder
)


def _repeated(texts: tuple[str, ...]) -> str:
    return ", ".join(repr(text) for text in sorted({text for text in texts if texts.count(text) > 1}))


def _bad_form(as_: str) -> Iterator[str]:
    if as_ not in {"columns", "index"}:
        yield f"as must be columns or index, got {as_!r}"


def _out_of_range(name: str, value: int, least: int, most: int) -> Iterator[str]:
    if not least <= value <= most:
        yield f"{name} must be {least} .. {most:,}, got {value:,}"


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
