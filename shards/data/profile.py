"""A look at data nobody has described yet: what its columns could be."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from shards.data.columns import label_codes, plain_label
from shards.data.readers import Wanted
from shards.data.sources import Batch, Source, is_list, is_text, plain_type
from storage.errors import Invalid

MOST_DISTINCT = 1000
"""Distinct values counted per column; beyond it a column counts as having many."""

_BATCH_POINTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDescription:
    """One column of a source."""

    name: str
    type: str
    """Arrow's name of the type; for CSV as guessed from the first lines."""
    kind: str
    """``text``, ``integer``, ``number``, ``boolean``, ``list`` (of numbers) or ``other``."""
    nulls: int
    distinct: int | None
    """Number of distinct values; None when there are more than ``MOST_DISTINCT``, or for ``list`` and ``other``."""
    values: tuple[str, ...]
    """The distinct values as labels read (see ``shards.data.columns.read_labels``), in natural order; empty when they
    cannot be labels. They are data: for the user's own eyes, never for the store."""
    largest: float | None = None
    """The largest absolute value of a column of single numbers; None for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDescription:
    """What a source holds."""

    files: tuple[str, ...]
    points: int
    columns: tuple[ColumnDescription, ...]
    """In the first file's order."""


def describe(source: Source) -> SourceDescription:
    """Return columns, types, counts, and distinct values up to ``MOST_DISTINCT`` per column, in one streamed pass.

    Columns are those of the first file. Raises ``Invalid`` when a file cannot be read or lacks one of them.
    """
    schema = source.files[0].schema()
    tallies = [_Tally(name=field_.name, type=str(field_.type), kind=_kind(field_.type)) for field_ in schema]
    for file in source.files[1:]:
        if missing := set(schema.names) - set(file.schema().names):
            raise Invalid(f"there is no column {min(missing)!r}", "Give all files the same columns.", file=file.name)
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


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What has been seen of one column; counts as many values as ``MOST_DISTINCT`` and one more."""

    name: str
    type: str
    kind: str
    nulls: int = 0
    seen: set[str] = field(default_factory=set)
    whole: bool = True
    largest: float | None = None

    def add(self, batch: Batch) -> None:
        array = batch.column(self.name)
        self.nulls += array.null_count
        if self.kind in {"integer", "number"}:
            found = pc.max(pc.abs(array.cast(pa.float64()))).as_py()
            self.largest = max(found or 0.0, self.largest or 0.0)
        if self.kind in {"list", "other"} or len(self.seen) > MOST_DISTINCT:
            return
        present = array.drop_null()
        self.seen.update(self._texts(batch, present))

    def _texts(self, batch: Batch, present: pa.Array) -> list[str]:
        if self.kind != "number":
            column = pa.RecordBatch.from_arrays([present], names=[self.name])
            texts = label_codes(Batch(file=batch.file, first=batch.first, columns=column), self.name)[1]
            # CSV spells truth values in several ways, and labels are compared by one of them.
            return [plain_label(text) for text in texts] if self.kind == "boolean" else texts
        values = pc.unique(present.cast(pa.float64())).to_pylist()
        self.whole = self.whole and all(value.is_integer() for value in values)
        return [str(int(value)) if value.is_integer() else repr(value) for value in values]

    def description(self) -> ColumnDescription:
        few = len(self.seen) <= MOST_DISTINCT and self.kind not in {"list", "other"}
        return ColumnDescription(
            name=self.name,
            type=self.type,
            kind=self.kind,
            nulls=self.nulls,
            distinct=len(self.seen) if few else None,
            values=tuple(sorted(self.seen, key=_natural)) if few and self.whole else (),
            largest=self.largest,
        )


def _everything(tallies: list[_Tally]) -> Wanted:
    numbers = tuple(tally.name for tally in tallies if tally.kind == "number")
    return Wanted(texts=tuple(tally.name for tally in tallies if tally.kind != "number"), numbers=numbers)


def _kind(data_type: pa.DataType) -> str:
    data_type, types = plain_type(data_type), pa.types
    if is_text(data_type):
        return "text"
    if is_list(data_type):
        return "list"
    if types.is_boolean(data_type):
        return "boolean"
    if types.is_integer(data_type):
        return "integer"
    return "number" if types.is_floating(data_type) else "other"


def _natural(text: str) -> tuple[int, int, str]:
    """Sort whole numbers by value, before everything else by text."""
    digits = text.removeprefix("-")
    return (0, int(text), "") if digits.isdecimal() and digits.isascii() else (1, 0, text)
