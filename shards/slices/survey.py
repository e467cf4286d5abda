"""Survey: everything in a source that an ingest would refuse, found in one run instead of one error per run.

The functions that an ingest calls decide what is refused. The survey calls them column by column, and where one raises,
on halves of the batch until the rows are found. Errors name file, column and row, and no values except labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.data.columns import (
    ChosenColumns,
    are_numbers,
    check_written,
    choose_columns,
    encoders_of,
    missing_column,
    read_features,
    read_labels,
    read_numeric_labels,
    read_texts,
)
from shards.data.readers import NOT_A_NUMBER, Wanted, number_remedy
from shards.data.sources import Batch, DataFile, Source, csv_form_of
from shards.learner_kinds.admissible import ANYTHING, Admissible
from shards.routing import Naming, PartitionKey, digests_of_all
from shards.slices.admitted import refuse_features, refuse_labels
from shards.slices.ingest import check_scale, refuse_mixed
from shards.specification import DataSettings
from shards.targets import MultiLabel
from storage.errors import Invalid

MOST_ROWS: Final = 100
"""Rows with a bad value to find per file and column. Missing values are all counted."""

KeptOut = Callable[[Batch], npt.NDArray[np.bool_]]
"""Takes the columns of ids and subjects; returns which data points an ingest leaves out because they were erased."""

_NO_KEY: Final = PartitionKey(bytes(16))
"""Names are only checked for their form; the digests are discarded."""
_BATCH_BYTES: Final = 8 << 20
_BATCH_IDS: Final = 65_536
_DECIMAL_COMMA: Final = r"^[+-]?[0-9]*,[0-9]+$"
_TRUTHS: Final = r"^(1|true|True|TRUE|0|false|False|FALSE)$"
"""The texts that a CSV reader takes for a boolean. Around a number it ignores spaces and tabs, but no other white
space."""
_HASHED_POINTS: Final = 32 << 20
"""Ids compared in one pass, 8 bytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFault:
    """Something in a source that an ingest would refuse."""

    fact: str
    remedy: str
    file: str
    column: str = ""
    row: int | None = None
    """The first affected row, from 1 and without a CSV's header; None when it does not concern single data points."""
    points: int = 1
    """Number of affected data points."""
    is_more: bool = False
    """Whether there may be more, because the search stopped."""

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        column = f", column {self.column!r}" if self.column else ""
        more = " or more" if self.is_more else ""
        many = f" ({self.points:,}{more} data points)" if self.points > 1 else ""
        return f"{self.file}{column}{row}: {self.fact}{many}"


def find_faults(
    source: Source,
    data: DataSettings,
    naming: Naming,
    *,
    admitted: Admissible = ANYTHING,
    kept_out: KeptOut | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[DataFault, ...]:
    """Return everything that an ingest of the source would refuse; empty when it would refuse nothing.

    Reads every data point once and the ids once more. If reading a file fails, the rest of the file is skipped. Data
    points that are ``kept_out`` may share ids. ``progress`` is called with the number of data points read so far.
    """
    survey = _Survey(source=source, data=data, naming=naming, admitted=admitted)
    columns = survey.choose()
    for file in source.files:
        survey.check_file(file, columns, progress)
    survey.compare_files(columns)
    if survey.readable.issuperset((data.id, *data.subject_columns)):
        survey.compare_ids(kept_out)
    if not survey.points and not survey.faults:
        remedy = "Set [data] train to files that hold some."
        return (DataFault(fact="the data set has no data points", remedy=remedy, file=source.location),)
    return tuple(survey.faults.values())


def remedy_of(faults: Sequence[DataFault]) -> str:
    """Return the remedies, without repetition."""
    remedies = dict.fromkeys(fault.remedy for fault in faults if fault.remedy)
    return " ".join(remedies)


_Check = Callable[[Batch], object]


@dataclass(slots=True, kw_only=True)
class _Survey:
    """The faults found so far, and the data that later checks need."""

    source: Source
    data: DataSettings
    naming: Naming
    admitted: Admissible
    faults: dict[tuple[str, str, str], DataFault] = field(default_factory=dict)
    """Faults by file, column and fact."""
    points: int = 0
    width: int | None = None
    readable: set[str] = field(default_factory=set)
    """Columns of names and labels that exist in every file."""
    numbers: dict[tuple[str, str], bool] = field(default_factory=dict)
    given_up: set[tuple[str, str]] = field(default_factory=set)
    """File and column in which the search for bad rows has ended."""

    def choose(self) -> ChosenColumns:
        """Return the columns to check, and record each missing column of each file as a fault."""
        names = dict.fromkeys((self.data.id, *self.data.subject_columns, *self.data.label_columns))
        self.readable = set(names)
        features: dict[str, None] | None = None
        for file in self.source.files:
            try:
                present = file.schema().names
            except Invalid as error:
                self._record(error, file.name)
                continue
            for name in names:
                if name not in present:
                    self.readable.discard(name)
                    self._record(missing_column(name, present, file.name), file.name)
            here = dict.fromkeys(self._features(file))
            features = here if features is None else {name: None for name in features if name in here}
        if not self.faults:
            try:
                return choose_columns(self.source, self.data)
            except Invalid as error:  # the files do not fit together
                self._record(error, str(error.context.get("file", self.source.location)))
        encoders = encoders_of(self.data, tuple(features or ()))
        return ChosenColumns(
            id=self.data.id,
            subject=self.data.subject_column,
            further=self.data.further_subjects,
            labels=self.data.label_columns,
            numeric_labels=not self.data.predicted.has_classes,
            features=tuple(features or ()),
            dtype="float32",
            point_bytes=1024 + 16 * len(features or ()) + 16 * sum(each.width for each in encoders.values()),
            encoders=encoders,
            decimal=self.data.decimal,
        )

    def _features(self, file: DataFile) -> Iterator[str]:
        """Yield the feature columns of one file, pattern by pattern."""
        alone = replace(self.source, files=(file,))
        for pattern in self.data.features:
            settings = replace(self.data, features=(pattern,), encode={})
            try:
                yield from choose_columns(alone, settings, identified=False, labelled=False).features
            except Invalid as error:
                self._record(error, file.name)

    def check_file(self, file: DataFile, columns: ChosenColumns, progress: Callable[[int], None]) -> None:
        """Record the faults in the rows of one file."""
        numeric = columns.labels if columns.numeric_labels else ()
        names = [name for name in (*columns.names, *numeric) if name in self.readable]
        texts = tuple(name for name in columns.wanted.texts if name in columns.features)
        numbers = tuple(name for name in columns.wanted.numbers if name not in numeric or name in self.readable)
        wanted = Wanted(texts=(*(name for name in names if name not in numeric), *texts), numbers=numbers)
        if not file.reader.typed:  # read as text, because a parsing reader reports only the first bad cell
            wanted = Wanted(texts=tuple(dict.fromkeys(wanted.names)), numbers=())
        if not wanted.names:
            return
        try:
            checks = self._checks(file, names, columns)
            for batch in replace(self.source, files=(file,)).batches(wanted, columns.points_within(_BATCH_BYTES)):
                self.points += batch.columns.num_rows
                is_fine = file.reader.typed and self._is_fine(batch, columns)
                for name, check in checks.items():
                    if not (is_fine and name in columns.features):
                        self._check_column(batch, name, check)
                progress(self.points)
        except Invalid as error:
            self._record(error, file.name, is_more=True)

    def _checks(self, file: DataFile, names: Sequence[str], columns: ChosenColumns) -> dict[str, _Check]:
        """Return the check for each column."""
        truths, decimal = (
            {each.name for each in file.schema() if pa.types.is_boolean(each.type)},
            csv_form_of(file).decimal,
        )
        checks: dict[str, _Check] = {}
        place = 0
        for name in columns.features:
            scale = _scale_from(self.data.scale, place, columns.width_of(name), alone=len(columns.features) == 1)
            place += columns.width_of(name)
            is_read = file.reader.typed or name in columns.wanted.texts
            cells = "" if is_read else "bool" if name in truths else "double"
            checks[name] = partial(self._check_features, replace(columns, features=(name,)), cells, decimal, scale)
        for name in names:
            if name in self.data.label_columns and self.data.predicted.has_classes:
                checks[name] = partial(read_labels, column=name, classes=self.data.classes, decimal=self.data.decimal)
            elif name in self.data.label_columns:
                cells = "" if file.reader.typed else "bool" if name in truths else "double"
                checks[name] = partial(self._check_numeric_label, name, cells, decimal)
            else:
                checks[name] = partial(self._check_names, columns, name)
        return checks

    def _check_column(self, batch: Batch, column: str, check: _Check) -> None:
        """Record the bad rows: all rows without a value, and up to ``MOST_ROWS`` others."""
        if (batch.file, column) in self.given_up or not batch.columns.num_rows:
            return
        try:
            check(batch)
            return
        except Invalid:
            is_null = np.asarray(batch.column(column).is_null())
        for where, most in ((np.flatnonzero(is_null), 1), (np.flatnonzero(~is_null), MOST_ROWS)):
            found = list(islice(_bad_rows(check, _taken(batch, where)), most))
            points = len(where) if most == 1 else 1
            is_more = len(found) == MOST_ROWS
            for position, error in found:
                file, row = (batch.file, None) if position is None else batch.place(int(where[position]))
                self._record(error, file, column, row=row, points=points, is_more=is_more)
            if is_more or any(position is None for position, _ in found):
                self.given_up.add((batch.file, column))

    def _is_fine(self, batch: Batch, columns: ChosenColumns) -> bool:
        """Return whether all columns of numbers pass, in one call: most do, and there may be many."""
        if len(columns.features) < 2 or not batch.columns.num_rows:
            return False
        try:
            features = read_features(batch, columns, None)
            if self.admitted.features is not None:
                check_scale(self.data.scale, int(features.shape[1]))
                refuse_features(batch, columns, features, self.data.scale, self.admitted.features)
        except Invalid:
            return False
        return True

    def _check_names(self, columns: ChosenColumns, column: str, batch: Batch) -> None:
        """Raise what an ingest would raise for the names in a column."""
        names = read_texts(batch, column, optional=column in self.data.further_subjects)
        if not any(names):
            return
        check_written(batch, column)
        if column in self.data.subject_columns:
            digests_of_all(_NO_KEY, names, self.naming)
        place = (batch.file, column)
        if columns.untyped and self.numbers.get(place, True):
            self.numbers[place] = are_numbers(batch, column)

    def _check_numeric_label(self, column: str, cells: str, decimal: str, batch: Batch) -> None:
        """Raise what an ingest would raise for one column of labels that are numbers."""
        if cells:
            batch = replace(batch, columns=_parsed(batch.columns, column, cells, decimal, is_label=True))
        labels_N1 = read_numeric_labels(batch, (column,), flags=self.data.target == MultiLabel.kind)
        names = self.data.label_columns
        place = names.index(column)  # a column may have its own shift and scale
        learned_N1 = self.data.predicted.learned(np.repeat(labels_N1, len(names), axis=1))[:, place : place + 1]
        refuse_labels(batch, (column,), learned_N1.astype(np.float32), self.admitted.labels)

    def _check_features(
        self,
        columns: ChosenColumns,
        cells: str,
        decimal: str,
        scale: float | tuple[float, ...] | None,
        batch: Batch,
    ) -> None:
        """Raise what an ingest would raise for one feature column. The text of a CSV column is parsed first."""
        (column,) = columns.features
        if cells:
            batch = replace(batch, columns=_parsed(batch.columns, column, cells, decimal))
        if columns.encoders.get(column) is not None:
            features = read_features(batch, columns, None)
            if scale is not None:
                refuse_features(batch, columns, features, scale, self.admitted.features)
            return
        features = read_features(batch, columns, self.width)
        if scale is not None and not (isinstance(scale, tuple) and len(scale) != features.shape[1]):
            refuse_features(batch, columns, features, scale, self.admitted.features)
        width = int(features.shape[1])
        if width == 0:
            raise Invalid("a data point has no features: its list is empty", "Give every data point the same features.")
        self.width = width

    def compare_files(self, columns: ChosenColumns) -> None:
        """Record faults between files, and between the data and the settings."""
        width: int | None = sum(columns.width_of(name) for name in columns.features)
        if len(columns.features) == 1 and not columns.encoders:
            width = self.width
        for check in (partial(refuse_mixed, self.numbers), partial(check_scale, self.data.scale, width or 0)):
            try:
                if width:
                    check()
            except Invalid as error:
                self._record(error, self.source.location, str(error.context.get("column", "")))

    def compare_ids(self, kept_out: KeptOut | None) -> None:
        """Record repeated ids: the number of data points with an earlier id, and the rows of the first two."""
        passes, suspects = 1 + self.points // _HASHED_POINTS, set[int]()
        for turn in range(passes):
            hashes = [np.array([hash(id_) for _, id_ in rows], dtype=np.int64) for _, rows in self._ids(kept_out)]
            joined = np.concatenate([np.empty(0, dtype=np.int64), *hashes])
            sorted_ = np.sort(joined[joined % passes == turn])
            suspects.update(sorted_[1:][sorted_[1:] == sorted_[:-1]].tolist())
        first: dict[str, tuple[str, int]] = {}
        again: list[tuple[str, str, int]] = []
        for file, rows in self._ids(kept_out) if suspects else ():
            for row, id_ in rows:
                if hash(id_) in suspects and first.setdefault(id_, (file, row)) != (file, row):
                    again.append((id_, file, row))
        if again:
            (id_, file, row), (other_file, other_row) = again[0], first[again[0][0]]
            fact = f"a data point has the same id as an earlier one: the one in row {other_row} of {other_file}"
            remedy = "Leave one of them out, or set [data] id to another column: ids must be unique."
            error = Invalid(fact, remedy)
            self._record(error, file, self.data.id, row=row, points=len(again))

    def _ids(self, kept_out: KeptOut | None) -> Iterator[tuple[str, list[tuple[int, str]]]]:
        """Yield each file with its rows and their ids, as far as files can be read."""
        names = tuple(dict.fromkeys((self.data.id, *(self.data.subject_columns if kept_out else ()))))
        for file in self.source.files:
            try:
                for batch in replace(self.source, files=(file,)).batches(Wanted(texts=names, numbers=()), _BATCH_IDS):
                    out_N = kept_out(batch) if kept_out else np.zeros(batch.columns.num_rows, dtype=np.bool_)
                    ids = zip(batch.column(self.data.id).to_pylist(), out_N.tolist(), strict=True)
                    rows = enumerate(ids, start=batch.first)
                    yield file.name, [(row, str(id_)) for row, (id_, is_out) in rows if id_ is not None and not is_out]
            except Invalid:
                continue  # recorded already

    def _record(
        self,
        error: Invalid,
        file: str,
        column: str = "",
        *,
        row: int | None = None,
        points: int = 1,
        is_more: bool = False,
    ) -> None:
        column = column or str(error.context.get("column", ""))
        if row is None and isinstance(found := error.context.get("row"), int) and not error.fact.startswith(_ALL):
            row = found
        fault = DataFault(
            fact=error.fact, remedy=error.remedy, file=file, column=column, row=row, points=points, is_more=is_more
        )
        known = self.faults.setdefault((file, column, error.fact), fault)
        if known is not fault:
            self.faults[file, column, error.fact] = replace(
                known, points=known.points + points, is_more=known.is_more or is_more
            )


_ALL: Final = "the column "
"""How a fact about a column as a whole begins."""


def _bad_rows(check: _Check, batch: Batch, start: int = 0) -> Iterator[tuple[int | None, Invalid]]:
    """Yield the position and error of each row that fails the check; None when the column as a whole fails."""
    if not batch.columns.num_rows:
        return
    try:
        check(batch)
        return
    except Invalid as error:
        if error.fact.startswith(_ALL) or batch.columns.num_rows == 1:
            yield None if error.fact.startswith(_ALL) else start, error
            return
    half = batch.columns.num_rows // 2
    yield from _bad_rows(check, replace(batch, columns=batch.columns.slice(0, half)), start)
    yield from _bad_rows(check, replace(batch, columns=batch.columns.slice(half)), start + half)


def _scale_from(
    scale: float | tuple[float, ...], place: int, width: int, *, alone: bool
) -> float | tuple[float, ...] | None:
    """Return the constants of one column's features; None where there are too few, which is another fault."""
    if alone or not isinstance(scale, tuple):
        return scale
    own = scale[place : place + width]
    return own if len(own) == width else None


def _taken(batch: Batch, where_N: npt.NDArray[np.intp]) -> Batch:
    return replace(batch, columns=batch.columns.take(pa.array(where_N)))


def _parsed(columns: pa.RecordBatch, name: str, cells: str, decimal: str, *, is_label: bool = False) -> pa.RecordBatch:
    """Return the column alone, with its texts parsed like the cells of a CSV file."""
    array = columns.column(name)
    if cells == "bool":
        array = pc.if_else(pc.match_substring_regex(array, _TRUTHS), array, "?")
    else:
        array = pc.utf8_trim(array, " \t")
    if decimal != ".":  # a point is then invalid: replace it by a character that no number has
        array = pc.replace_substring(pc.replace_substring(array, ".", "?"), decimal, ".")
    try:
        parsed = pc.cast(array, pa.bool_() if cells == "bool" else pa.float64())
    except pa.ArrowInvalid:
        has_comma = decimal == "." and pc.any(pc.match_substring_regex(array, _DECIMAL_COMMA)).as_py()
        raise Invalid(NOT_A_NUMBER, number_remedy(is_label=is_label, has_comma=bool(has_comma))) from None
    return pa.RecordBatch.from_arrays([parsed], names=[name])
