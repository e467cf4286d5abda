"""A profile of data that has no specification yet: what its columns could be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.data.columns import label_codes
from shards.data.encoding.cells import plain_label
from shards.data.encoding.image_forms import ImageForms, may_be_images
from shards.data.readers import Wanted
from shards.data.sources import Batch, Source, is_list, is_text, plain_array, plain_type
from storage.errors import Invalid

MOST_DISTINCT = 1000
"""Distinct values counted per column; a column with more counts as having many."""

NULL_TEXTS: Final = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?", "-")
"""How tools write that there is no value."""

_BATCH_POINTS = 4096
_RUN_POINTS = 20
"""A column is a row counter when its runs of consecutive numbers have at least this length on average."""
_EMAIL = r"^[^@\s]+@[^@\s]+\.[^@\s]+$"
_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?$"
_MOST_ODD_TEXTS = 5
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDescription:
    """One column of a source."""

    name: str
    type: str
    """Arrow's name of the type; for CSV a guess from the first lines."""
    kind: str
    """``text``, ``integer``, ``number``, ``boolean``, ``list`` (of numbers), ``nested`` (of lists), ``image``
    (bytes) or ``other``."""
    nulls: int
    distinct: int | None
    """Number of distinct values; None when there are more than ``MOST_DISTINCT``, or for ``list`` and ``other``."""
    values: tuple[str, ...]
    """The distinct values as labels (see ``shards.data.columns.read_labels``), in natural order; empty when they cannot
    be labels. They are data: show them to the user, never put them into the store."""
    largest: float | None = None
    """The largest absolute value of a column of single numbers; None for others."""
    unusable: int = 0
    """Data points whose value cannot be used for training: NaN, infinite as float32, an empty list, or a list with such
    a value."""
    repeats: bool = True
    """Whether any value occurs twice. Only text and whole numbers are compared; True for other columns."""
    counts: bool = False
    """Whether whole numbers count the rows: each is the previous one plus one, or restarts the count."""
    span: int | None = None
    """For whole numbers: the largest minus the smallest, plus one."""
    is_email: bool = False
    """Whether every text looks like an e-mail address."""
    lengths: tuple[int, int] | None = None
    """For a ``list``: the shortest and the longest length."""
    mean: float | None = None
    """Mean of the finite numbers in a column of single numbers, or of the numbers among texts; None without any."""
    deviation: float | None = None
    """Standard deviation of the same numbers."""
    odd_texts: tuple[str, ...] | None = None
    """For ``text`` of which most cells are numbers: the distinct other texts, if they are few."""
    is_date: bool = False
    """Whether every text is a date in ISO 8601."""
    words: float = 0.0
    """For ``text``: how many words a cell has on average."""
    blank: int = 0
    """Cells without a value: nulls, empty texts, and texts such as ``NA``."""
    most_frequent: tuple[str, int] | None = None
    """Where there are ``values``: the most frequent one, and how often it occurs."""
    images: ImageForms | None = None
    """The first images, if the column holds images or the names of image files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDescription:
    """The contents of a source."""

    files: tuple[str, ...]
    points: int
    columns: tuple[ColumnDescription, ...]
    """The columns, in the order of the first file."""


def describe_source(source: Source) -> SourceDescription:
    """Return columns, types, counts, and distinct values up to ``MOST_DISTINCT`` per column, in one streamed pass.

    The columns are those of the first file. Raises ``Invalid`` when a file cannot be read or lacks one of them.
    """
    schema = source.files[0].schema()
    _refuse_repeated(schema.names, source.files[0].name)
    for file in source.files[1:]:
        if missing := set(schema.names) - set(file.schema().names):
            raise Invalid(f"there is no column {min(missing)!r}", "Give all files the same columns.", file=file.name)
    kinds = {field_.name: _kind(field_.type) for field_ in schema}
    while True:
        try:
            return _described(source, schema, kinds)
        except Invalid as error:
            # A column of a CSV file: its kind was a guess from the first lines.
            column = error.context.get("column")
            if not isinstance(column, str) or kinds.get(column) not in {"integer", "number", "boolean"}:
                raise
            kinds[column] = "text"


def _described(source: Source, schema: pa.Schema, kinds: Mapping[str, str]) -> SourceDescription:
    tallies = [_Tally(name=field_.name, type=str(field_.type), kind=kinds[field_.name]) for field_ in schema]
    points = 0
    for batch in source.batches(_everything(tallies), _BATCH_POINTS):
        points += batch.columns.num_rows
        for tally in tallies:
            tally.add(batch)
    return SourceDescription(
        files=tuple(file.name for file in source.files),
        points=points,
        columns=tuple(tally.description() for tally in tallies),
    )


def _refuse_repeated(names: Sequence[str], file: str) -> None:
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        remedy = "Rename one of them. If the file has no header line, name its columns: 'sisa init --add-ids --header'."
        raise Invalid("two columns have the same name", remedy, file=file, column=repeated[0])


@dataclass(slots=True)
class _Unique:
    """Whether values repeat, by 64-bit hashes: 8 bytes per value, and none after the first repetition in a batch."""

    hashes: list[npt.NDArray[np.int64]] | None = field(default_factory=list)

    def add(self, present: pa.Array) -> None:
        if self.hashes is None:
            return
        values = present.to_pylist()
        if len(set(values)) < len(values):
            self.hashes = None
        else:
            self.hashes.append(np.array([hash(str(value)) for value in values], dtype=np.int64))

    def repeats(self) -> bool:
        if self.hashes is None:
            return True
        joined = np.concatenate([np.empty(0, dtype=np.int64), *self.hashes])
        return len(np.unique(joined)) < len(joined)


@dataclass(slots=True)
class _Numbers:
    """The order of whole numbers, file by file."""

    points: int = 0
    runs: int = 0
    steady: bool = True
    begins: float | None = None
    last: float | None = None
    smallest: float = float("inf")
    largest: float = float("-inf")

    def add(self, numbers_N: npt.NDArray[np.float64], *, is_first: bool) -> None:
        if not len(numbers_N):
            return
        self.smallest = min(self.smallest, float(numbers_N.min()))
        self.largest = max(self.largest, float(numbers_N.max()))
        self.points += len(numbers_N)
        if self.begins is None:
            self.begins = float(numbers_N[0])
        before = np.nan if is_first or self.last is None else self.last
        self.last = float(numbers_N[-1])
        if not self.steady:
            return
        breaks = np.diff(numbers_N, prepend=before) != 1
        self.runs += int(breaks.sum())
        # A file may continue the count of the file before.
        again = numbers_N[breaks][1:] if is_first else numbers_N[breaks]
        self.steady = bool((again == self.begins).all())

    @property
    def counts(self) -> bool:
        return self.steady and self.points >= _RUN_POINTS * max(1, self.runs)

    @property
    def span(self) -> int | None:
        return int(self.largest - self.smallest) + 1 if self.points else None


@dataclass(slots=True)
class _Moments:
    """Count, mean and squared deviations of numbers, batch by batch."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, numbers: pa.Array) -> None:
        values_N = np.frombuffer(numbers.buffers()[1] or b"", dtype=np.float64)[numbers.offset :][: len(numbers)]
        values_N = values_N[np.abs(values_N) <= _LARGEST_FLOAT32]
        if not len(values_N):
            return
        mean, squares, count = float(values_N.mean()), float(np.square(values_N - values_N.mean()).sum()), len(values_N)
        both, apart = self.count + count, mean - self.mean
        self.squares += squares + apart * apart * self.count * count / both
        self.mean += apart * count / both
        self.count = both

    def described(self) -> tuple[float | None, float | None]:
        return (self.mean, (self.squares / self.count) ** 0.5) if self.count else (None, None)


@dataclass(slots=True)
class _Texts:
    """The look of a column's texts."""

    count: int = 0
    numbers: int = 0
    words: int = 0
    blank: int = 0
    is_date: bool = True
    odd: set[str] = field(default_factory=set)
    moments: _Moments = field(default_factory=_Moments)

    def add(self, present: pa.Array) -> None:
        self.blank += pc.is_in(pc.utf8_trim_whitespace(present), pa.array(["", *NULL_TEXTS], present.type)).true_count
        present = present.filter(pc.not_equal(present, ""))
        if not len(present):
            return
        self.count += len(present)
        self.is_date = self.is_date and bool(pc.all(pc.match_substring_regex(present, _DATE)).as_py())
        self.words += pc.sum(pc.count_substring_regex(present, r"\S+")).as_py()
        are_numbers = pc.match_substring_regex(present, _NUMBER)
        self.numbers += are_numbers.true_count
        self.moments.add(pc.cast(pc.utf8_trim_whitespace(present.filter(are_numbers)), pa.float64()))
        if len(self.odd) <= _MOST_ODD_TEXTS:
            self.odd.update(pc.unique(present.filter(pc.invert(are_numbers))).to_pylist())


@dataclass(slots=True, kw_only=True)
class _Tally:
    """A summary of the part of a column read so far; keeps up to ``MOST_DISTINCT`` + 1 distinct values."""

    name: str
    type: str
    kind: str
    nulls: int = 0
    unusable: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    whole: bool = True
    largest: float | None = None
    lengths: tuple[int, int] | None = None
    is_email: bool = True
    unique: _Unique = field(default_factory=_Unique)
    numbers: _Numbers = field(default_factory=_Numbers)
    moments: _Moments = field(default_factory=_Moments)
    texts: _Texts = field(default_factory=_Texts)
    images: ImageForms = field(default_factory=ImageForms)

    def add(self, batch: Batch) -> None:
        array = batch.column(self.name)
        self.nulls += array.null_count
        if self.kind in {"image", "text"}:
            self.images.add(array, batch.folder)
        if self.kind == "list":
            self._add_lists(array.drop_null())
        if self.kind in {"list", "nested", "image", "other"}:
            return
        present = array.drop_null()
        if self.kind == "integer":
            self._add_integers(batch, present)
        if self.kind == "number":
            self._add_numbers(present)
        if self.kind == "text":
            self.texts.add(present)
            self.is_email = self.is_email and bool(
                pc.all(pc.match_substring_regex(present, _EMAIL), min_count=0).as_py()
            )
        if self.kind in {"text", "integer"}:
            self.unique.add(present)
        if len(self.seen) <= MOST_DISTINCT:
            self.seen.update(self._texts(batch, present))

    def _add_integers(self, batch: Batch, present: pa.Array) -> None:
        numbers = _floats(batch, self.name, present)
        self._enlarge(numbers)
        values = np.frombuffer(numbers.buffers()[1] or b"", dtype=np.float64)
        self.numbers.add(values[numbers.offset : numbers.offset + len(numbers)], is_first=batch.first == 1)

    def _add_numbers(self, present: pa.Array) -> None:
        numbers = pc.cast(present, pa.float64(), safe=False)
        usable = pc.less_equal(pc.abs(numbers), _LARGEST_FLOAT32)  # false for NaN
        self.unusable += len(numbers) - usable.true_count
        self._enlarge(numbers)

    def _enlarge(self, numbers: pa.Array) -> None:
        self.moments.add(numbers)
        found = pc.max(pc.abs(numbers)).as_py()
        self.largest = max(found or 0.0, self.largest or 0.0)

    def _add_lists(self, lists: pa.Array) -> None:
        lengths = pc.list_value_length(lists)
        if len(lists):
            found = pc.min_max(lengths).as_py()
            known = self.lengths or (found["min"], found["max"])
            self.lengths = (min(known[0], found["min"]), max(known[1], found["max"]))
        values = pc.cast(plain_array(lists.flatten()), pa.float64(), safe=False)
        usable = pc.fill_null(pc.less_equal(pc.abs(values), _LARGEST_FLOAT32), fill_value=False)
        of_lists = pc.list_parent_indices(lists).filter(pc.invert(usable))
        self.unusable += len(pc.unique(of_lists)) + pc.equal(lengths, 0).true_count

    def _texts(self, batch: Batch, present: pa.Array) -> Counter[str]:
        """Return the distinct values as texts, and how often each occurs."""
        if self.kind != "number":
            column = pa.RecordBatch.from_arrays([present], names=[self.name])
            codes_N, texts = label_codes(Batch(file=batch.file, first=batch.first, columns=column), self.name)
            counts = np.bincount(codes_N, minlength=len(texts)).tolist()
            # CSV files spell booleans in several ways; labels are compared in one spelling.
            texts = _truths(batch, self.name, texts) if self.kind == "boolean" else texts
        else:
            found = pc.value_counts(present.cast(pa.float64()))
            values, counts = found.field("values").to_pylist(), found.field("counts").to_pylist()
            self.whole = self.whole and all(value.is_integer() for value in values)
            texts = [str(int(value)) if value.is_integer() else repr(value) for value in values]
        tally = Counter[str]()
        for text, count in zip(texts, counts, strict=True):  # two spellings may be one text
            tally[text] += count
        return tally

    def description(self) -> ColumnDescription:
        are_numbers = self.texts.count < 2 * self.texts.numbers and len(self.texts.odd) <= _MOST_ODD_TEXTS
        mean, deviation = (self.texts.moments if self.kind == "text" else self.moments).described()
        few = len(self.seen) <= MOST_DISTINCT and self.kind not in {"list", "nested", "image", "other"}
        values = tuple(sorted(self.seen, key=_natural)) if few and self.whole else ()
        return ColumnDescription(
            name=self.name,
            type=self.type,
            kind=self.kind,
            nulls=self.nulls,
            distinct=len(self.seen) if few else None,
            values=values,
            largest=self.largest,
            unusable=self.unusable,
            repeats=self.kind not in {"text", "integer"} or self.unique.repeats(),
            counts=self.numbers.counts,
            span=self.numbers.span,
            is_email=self.kind == "text" and self.is_email and bool(self.seen),
            lengths=self.lengths,
            mean=mean,
            deviation=deviation,
            odd_texts=tuple(sorted(self.texts.odd)) if are_numbers else None,
            is_date=self.texts.is_date and self.texts.count > 0,
            words=self.texts.words / max(1, self.texts.count),
            blank=self.nulls + self.texts.blank,
            most_frequent=max(self.seen.items(), key=lambda each: each[1]) if values else None,
            images=self.images if self.images.are_names and (self.images.seen or self.images.problem) else None,
        )


def stands_for_none(text: str) -> bool:
    """Return whether a cell's text is one that tools write for a missing value."""
    return text.strip() in NULL_TEXTS


def _everything(tallies: list[_Tally]) -> Wanted:
    numbers = tuple(tally.name for tally in tallies if tally.kind == "number")
    return Wanted(texts=tuple(tally.name for tally in tallies if tally.kind != "number"), numbers=numbers)


def _truths(batch: Batch, column: str, texts: list[str]) -> list[str]:
    plain_texts = [plain_label(text) for text in texts]
    if not {"true", "false", "0", "1"}.issuperset(plain_texts):
        raise Invalid("the column holds text", "Correct it.", file=batch.file, column=column)
    return plain_texts


def _floats(batch: Batch, column: str, present: pa.Array) -> pa.Array:
    try:
        return pc.cast(present, pa.float64(), safe=False)  # numbers above 2**53 may be rounded
    except pa.ArrowInvalid:  # text in a CSV file; not chained, because the cause quotes it
        raise Invalid("the column holds text", "Correct it.", file=batch.file, column=column) from None


def _kind(data_type: pa.DataType) -> str:
    data_type, types = plain_type(data_type), pa.types
    if is_text(data_type):
        return "text"
    if is_list(data_type):
        return _kind_of_list(plain_type(data_type.value_type))
    if types.is_boolean(data_type):
        return "boolean"
    if types.is_integer(data_type):
        return "integer"
    if types.is_floating(data_type):
        return "number"
    return "image" if may_be_images(data_type) else "other"


def _kind_of_list(of: pa.DataType) -> str:
    types = pa.types
    if is_list(of):
        return "nested"
    return "list" if types.is_integer(of) or types.is_floating(of) or types.is_boolean(of) else "other"


def _natural(text: str) -> tuple[int, int, str]:
    """Return a sort key: whole numbers first, by value; then everything else, as text."""
    digits = text.removeprefix("-")
    return (0, int(text), "") if digits.isdecimal() and digits.isascii() else (1, 0, text)
