"""From a file's columns to ids, labels and features; refuses everything that training could not use.

Shape legend: N points, F features.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.data.encoding.apply import encode_into
from shards.data.encoding.cells import (
    MISSING_REMEDY,
    BadCell,
    BadColumn,
    Surroundings,
    mask_of,
    numbers_of,
    plain_label,
)
from shards.data.encoding.cells import first as _first
from shards.data.readers import Wanted
from shards.data.sources import Batch, DataFile, Source, glob_like, is_list, is_text, plain_array, plain_type
from shards.encoders import Encoder
from shards.encoding import Encoding
from shards.specification import DataSettings
from shards.subjects import through_floats
from shards.targets import LabelArray, MultiLabel
from storage.errors import Invalid, InvariantBroken

Features = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

_MOST_POINTS = 65_536
_GUESSED_LIST_WIDTH = 4096
_ID_BYTES = 128
_MOST_UNKNOWN_LABELS = 20
_LABEL = "a label"
_CORRECT = "Correct it or leave the data point out."
_NUMBER_TEXT = r"^([+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?)?$"
_FLOAT_TEXT = r"^\s*[+-]?[0-9]+(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)\s*$"


class MissingName(Invalid):
    """A data point has no id, or no subject."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenColumns:
    """The columns of a source, by their role."""

    id: str | None
    subject: str | None
    labels: tuple[str, ...]
    """The columns of labels; empty when no labels are read."""
    features: tuple[str, ...]
    """The feature columns in order: one for each feature, or a single column of lists."""
    dtype: str
    """``uint8`` when every feature column of every file is uint8 or bool, else ``float32``."""
    point_bytes: int
    """Approximate memory per data point while it is read."""
    untyped: frozenset[str] = frozenset()
    """The files without types, if there are several files. Their values can be judged only by their text."""
    further: tuple[str, ...] = ()
    """The columns of further subjects."""
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    """The encoders of those feature columns that have one."""
    decimal: str = "."
    """The decimal mark of numbers in texts."""
    numeric_labels: bool = False
    """Whether the labels are numbers, and not names of classes."""

    @property
    def wanted(self) -> Wanted:
        """The columns to read; a column with two roles is read once."""
        numeric = tuple(dict.fromkeys(self.labels)) if self.numeric_labels else ()
        texts = tuple(name for name in self.features if name in self.encoders and self.encoders[name].wants_text)
        numbers = tuple(name for name in self.features if name not in texts) if texts else self.features
        return Wanted(texts=self.names + texts, numbers=numbers + numeric, labels=numeric)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read as text: of ids, subjects and classes."""
        roles = (self.id, self.subject, *self.further, *(() if self.numeric_labels else self.labels))
        return tuple(dict.fromkeys(name for name in roles if name is not None))

    def width_of(self, name: str) -> int:
        """Return how many features a column becomes, if it is not a column of lists."""
        return self.encoders[name].width if name in self.encoders else 1

    def points_within(self, batch_bytes: int) -> int:
        """Return how many data points fit in a batch of about ``batch_bytes``."""
        return max(1, min(_MOST_POINTS, batch_bytes // self.point_bytes))


def choose_columns(
    source: Source, data: DataSettings, *, identified: bool = True, labelled: bool = True
) -> ChosenColumns:
    """Return the columns that ``data`` declares, checked against every file of the source.

    With ``identified``, id and subject are required; otherwise the id is optional. With ``labelled``, the label is
    required. Raises ``Invalid`` for a missing column, a pattern without a match, or files with different columns.
    """
    chosen: ChosenColumns | None = None
    kinds = dict[str, str]()
    bytes_only = True
    for file in source.files:
        table = _Table.of(file)
        features = table.features(data)
        if chosen is None:
            chosen = _chosen(table, features, data, identified=identified, labelled=labelled)
        for name in dict.fromkeys((*chosen.names, *chosen.labels)):
            table.require(name)
        if different := set(features) ^ set(chosen.features):
            raise _different_features(table, source, min(different))
        if table.typed:
            _compare_types(table, kinds, chosen)
        bytes_only = bytes_only and table.bytes_only(features, chosen.encoders)
    if chosen is None:
        raise InvariantBroken("a source has no files")
    untyped = [file.name for file in source.files if not file.reader.typed] if len(source.files) > 1 else ()
    return replace(chosen, dtype="uint8" if bytes_only else "float32", untyped=frozenset(untyped))


def encoders_of(data: DataSettings, features: Sequence[str]) -> dict[str, Encoder]:
    """Return the encoders that are declared for feature columns, by column."""
    declared = data.encoders
    return {name: encoder for name in features if (encoder := declared.of(name)) is not None}


def count_missing(source: Source, column: str) -> int:
    """Return how many data points have no value in the column, or an empty one; reads only that column."""
    missing = 0
    for batch in source.batches(Wanted(texts=(column,), numbers=()), _MOST_POINTS):
        array = batch.column(column)
        missing += array.null_count
        if is_text(array.type):
            missing += int(pc.sum(pc.equal(array, "")).as_py() or 0)
    return missing


def read_texts(batch: Batch, column: str, *, optional: bool = False) -> list[str]:
    """Return a column of ids or subjects as text: strings unchanged, integers in decimal.

    Raises ``Invalid`` for other types, and ``MissingName`` for a null or an empty string; with ``optional`` both become
    an empty string.
    """
    array = batch.column(column)
    if optional and (pa.types.is_null(array.type) or pa.types.is_integer(array.type) or is_text(array.type)):
        return ["" if value is None else str(value) for value in array.to_pylist()]
    if array.null_count and not optional:
        raise _missing_name("has no value (null)", batch, column, _first(array.is_null()))
    if pa.types.is_integer(array.type):
        return [str(number) for number in array.to_pylist()]
    if not is_text(array.type):
        raise _bad_type(f"must hold strings or integers, its type is {array.type}", batch, column)
    texts: list[str] = array.to_pylist()
    if "" in texts:
        raise _missing_name("is an empty string", batch, column, texts.index(""))
    return texts


def read_distinct(batch: Batch, column: str, *, optional: bool = False) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the distinct texts of a column, and for each data point the position of its own, shape (N,).

    The texts are those of ``read_texts``, which raises the same errors; a null and an empty string become one text.
    """
    array = batch.column(column)
    is_name = pa.types.is_integer(array.type) or is_text(array.type)
    if (array.null_count and not (optional and is_name)) or not is_name:
        texts = read_texts(batch, column, optional=optional)  # raises, unless all are missing
        return list(dict.fromkeys(texts)), np.zeros(len(texts), dtype=np.int64)
    encoded = array.dictionary_encode()
    # Not fill_null(), which imports pandas if it is installed: 50 MB.
    codes_N = np.where(mask_of(array), len(encoded.dictionary), numbers_of(encoded.indices).astype(np.int64))
    distinct = [str(value) for value in encoded.dictionary.to_pylist()]
    if "" in distinct and not optional:
        raise _missing_name("is an empty string", batch, column, _first(codes_N == distinct.index("")))
    return ([*distinct, ""] if array.null_count else distinct), codes_N


def check_written(batch: Batch, column: str) -> None:
    """Raise ``Invalid`` when a name is a number that was stored as a float and may have been rounded."""
    array = batch.column(column)
    if not is_text(array.type):
        return
    suspects = pc.indices_nonzero(pc.match_substring_regex(array, _FLOAT_TEXT))
    for position in suspects.to_pylist():
        if through_floats(array[position].as_py()):
            raise Invalid(
                "a name is a number that was stored as a float, from 2**53 on: it may have been rounded",
                "Write the column again from its original source, as whole numbers or text.",
                file=batch.file,
                column=column,
                row=batch.first + position,
            )


def are_numbers(batch: Batch, column: str) -> bool:
    """Return whether the text of every name in the column is a number; missing names are ignored."""
    array = batch.column(column)
    return not is_text(array.type) or bool(pc.all(pc.match_substring_regex(array, _NUMBER_TEXT)).as_py())


def labels_of(batch: Batch, data: DataSettings) -> LabelArray:
    """Return the labels of a batch in the target's form: see ``read_labels`` and ``read_numeric_labels``.

    Zeros where the target has no labels.
    """
    if not data.predicted.has_labels:
        return np.zeros(batch.columns.num_rows, dtype=np.int32)
    if data.predicted.has_classes:
        return read_labels(batch, data.label_columns[0], data.classes, data.decimal)
    numbers_NW = read_numeric_labels(batch, data.label_columns, flags=data.target == MultiLabel.kind)
    return data.predicted.learned(numbers_NW)


def read_numeric_labels(batch: Batch, columns: Sequence[str], *, flags: bool) -> npt.NDArray[np.float32]:
    """Return labels that are numbers, shape (N, W), a column for each; with ``flags`` all of them are 0 or 1.

    Raises ``Invalid`` for a null, NaN, infinite value (in float32), another number, and a type that is not a number.
    """
    labels_NW = np.empty((batch.columns.num_rows, len(columns)), dtype=np.float32)
    for position, name in enumerate(columns):
        array = batch.column(name)
        if array.null_count:
            raise _bad_cell("has no label (null)", batch, name, _first(array.is_null()))
        with np.errstate(over="ignore"):
            labels_NW[:, position] = _numbers(batch, name, array, _LABEL)
        values_N = labels_NW[:, position]
        if not np.isfinite(values_N).all():
            raise _bad_cell(
                "has a label that is NaN or infinite (as float32)", batch, name, _first(~np.isfinite(values_N))
            )
        if flags and (strange_N := (values_N != 0) & (values_N != 1)).any():
            raise _bad_cell("has a label that is neither 0 nor 1, false nor true", batch, name, _first(strange_N))
    return labels_NW


def read_labels(batch: Batch, column: str, classes: Sequence[str], decimal: str = ".") -> npt.NDArray[np.int32]:
    """Return the position of each data point's label in ``classes``, shape (N,).

    Labels are compared as text: integers and integral floats in decimal, booleans as ``true`` or ``false``. A text that
    is not a class is also tried in that form (``1.0`` as ``1``, ``True`` as ``true``), since a CSV file has only text.
    Raises ``Invalid`` for a null, another type, or a label that is not declared.
    """
    codes, texts = label_codes(batch, column)
    known = {name: position for position, name in enumerate(classes)}
    # Computed once per distinct label; there are few.
    positions = np.array([known.get(text, known.get(plain_label(text, decimal), -1)) for text in texts], dtype=np.int32)
    labels: npt.NDArray[np.int32] = positions[codes] if len(codes) else np.empty(0, dtype=np.int32)
    if (labels < 0).any():
        unknown = [text for text, position in zip(texts, positions, strict=True) if position < 0]
        raise _unknown_label(batch, column, _first(labels < 0), texts[codes[_first(labels < 0)]], unknown)
    return labels


def label_codes(batch: Batch, column: str) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return for each data point the position of its label among the distinct labels, and those labels as text."""
    array = batch.column(column)
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    missing = array.is_null(nan_is_null=True)
    if missing.true_count:
        raise _bad_cell("has no label (null)", batch, column, _first(missing))
    encoded = array.dictionary_encode()
    codes = numbers_of(encoded.indices).astype(np.int64)
    distinct = encoded.dictionary.to_pylist()
    if pa.types.is_floating(array.type):
        fractions = np.array([not value.is_integer() for value in distinct], dtype=np.bool_)
        if fractions.any():
            raise _bad_cell("has a label that is not a whole number", batch, column, _first(fractions[codes]))
        return codes, [str(int(value)) for value in distinct]
    if pa.types.is_boolean(array.type):
        return codes, [str(value).lower() for value in distinct]
    if pa.types.is_integer(array.type) or is_text(array.type):
        return codes, [str(value) for value in distinct]
    raise _bad_type(f"cannot hold labels, its type is {array.type}", batch, column)


def read_features(batch: Batch, columns: ChosenColumns, width: int | None) -> Features:
    """Return the features, not scaled, C-contiguous, shape (N, F), of ``columns.dtype``.

    ``width`` is the number of features of earlier batches, None for the first. Raises ``Invalid`` for a null, NaN or
    infinite value (in float32), for a type that is not a number, and for a different number of features.
    """
    dtype = np.dtype(columns.dtype)
    single = batch.column(columns.features[0])
    with np.errstate(over="ignore"):  # values that overflow float32 become infinite and are reported below
        if is_list(single.type):
            features = _from_lists(batch, columns.features[0], single, dtype)
        else:
            features = _from_columns(batch, columns, dtype)
    if width is not None and features.shape[1] != width:
        raise Invalid(
            f"the number of features differs: expected {width}, got {features.shape[1]}",
            "Give every data point the same features.",
            file=batch.file,
            row=batch.first,
        )
    if dtype.kind == "f" and not np.isfinite(features).all():
        row, position = np.argwhere(~np.isfinite(features))[0].tolist()
        names = [name for name in columns.features for _ in range(columns.width_of(name))]
        name = names[position if len(names) > 1 else 0]
        fact = "has a feature that is NaN or infinite (as float32)"
        raise _bad_cell(fact, batch, name, row, _remedy_of(features[row, position].item()))
    return features


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Facts about one file before its rows are read."""

    file: str
    typed: bool
    schema: pa.Schema
    names: tuple[str, ...]
    repeated: frozenset[str]

    @classmethod
    def of(cls, file: DataFile) -> Self:
        # Once per file: parsing a Parquet footer with many columns and row groups takes tens of megabytes.
        schema = file.schema()
        repeated = frozenset(name for name, times in Counter(schema.names).items() if times > 1)
        return cls(file=file.name, typed=file.reader.typed, schema=schema, names=tuple(schema.names), repeated=repeated)

    def features(self, data: DataSettings) -> tuple[str, ...]:
        """Return the columns that [data] features names, in order."""
        reserved = {data.id, *data.subject_columns, *data.label_columns}
        known, chosen = set(self.names), dict[str, None]()
        for pattern in data.features:
            if pattern in reserved:
                raise Invalid(
                    f"[data] features names {pattern!r}, which is the id, subject or label column",
                    "Remove it: a model would learn whose data it is, or the answer itself.",
                )
            literal = pattern in known or not glob_like(pattern)
            matches = [pattern] if literal else fnmatch.filter(self.names, pattern)
            matches = [name for name in matches if name not in reserved]
            if not matches:
                raise Invalid(
                    f"[data] features: no column matches {pattern!r}",
                    f"Choose one of its columns: {_some(self.names)}.",
                    file=self.file,
                )
            chosen.update(dict.fromkeys(matches))
        for name in chosen:
            if name not in known or name in self.repeated:
                self.require(name)
        encoding = data.encoders
        encoding.check(tuple(chosen))
        self._refuse_lists(tuple(chosen), encoding)
        return tuple(chosen)

    def _refuse_lists(self, features: Sequence[str], encoding: Encoding) -> None:
        lists = [name for name in features if is_list(self.type(name))]
        if encoded := [name for name in lists if encoding.of(name) is not None]:
            raise Invalid(
                "[data.encode] names a column of lists: encoders take single values",
                "Remove it from [data.encode], or write the lists' values as columns of their own.",
                file=self.file,
                column=encoded[0],
            )
        if nested := [name for name in lists if is_list(plain_type(self.type(name).value_type))]:
            raise Invalid(
                "[data] features names a column of lists of lists, such as images as rows of pixels",
                "Write each data point as one list of numbers: with numpy, images.reshape(len(images), -1).",
                file=self.file,
                column=nested[0],
            )
        if lists and len(features) > 1:
            raise Invalid(
                "[data] features names a list column and other columns",
                "Name one list column, or columns of numbers.",
                file=self.file,
                column=lists[0],
            )

    def require(self, name: str) -> None:
        """Raise ``Invalid`` unless exactly one column has this name."""
        if name in self.repeated:
            raise Invalid("two columns have the same name", "Rename one of them.", file=self.file, column=name)
        if name not in self.names:
            raise missing_column(name, self.names, self.file)

    def type(self, name: str) -> pa.DataType:
        """Return the column's type, without dictionary or extension type."""
        return plain_type(self.schema.field(name).type)

    def bytes_only(self, features: Sequence[str], encoders: Mapping[str, Encoder]) -> bool:
        """Return whether all features are uint8 or bool, or become so."""
        types = [_element(self.type(name)) for name in features if name not in encoders]
        are_plain = not types or self.typed
        return are_plain and all(
            [
                *(pa.types.is_uint8(found) or pa.types.is_boolean(found) for found in types),
                *(encoder.in_bytes for encoder in encoders.values()),
            ]
        )


def _chosen(
    table: _Table, features: tuple[str, ...], data: DataSettings, *, identified: bool, labelled: bool
) -> ChosenColumns:
    encoders = encoders_of(data, features)
    widths = (encoders[name].width if name in encoders else _width(table.type(name)) for name in features)
    return ChosenColumns(
        id=data.id if identified or data.id in table.names else None,
        subject=data.subject_column if identified else None,
        further=data.further_subjects if identified else (),
        labels=data.label_columns if labelled else (),
        numeric_labels=not data.predicted.has_classes,
        features=features,
        dtype="float32",
        # 8 bytes per feature, even for uint8: Parquet decodes it as int32 first.
        point_bytes=(2 + len(data.further_subjects) + len(data.label_columns) + len(encoders)) * _ID_BYTES
        + 8 * sum(widths),
        encoders=encoders,
        decimal=data.decimal,
    )


def _compare_types(table: _Table, known: dict[str, str], columns: ChosenColumns) -> None:
    # Encoders read several types alike, and refuse those that they do not.
    kinds = {name: str(table.type(name)) for name in columns.features if name not in columns.encoders}
    kinds |= {name: _name_kind(table.type(name)) for name in columns.names}
    kinds = {name: kind for name, kind in kinds.items() if kind != "null" or name not in columns.further}
    for name, kind in kinds.items():
        if known.setdefault(name, kind) != kind:
            raise Invalid(
                f"a column has different types in two files: {known[name]} before, {kind} here",
                "Write all files of [data] train with the same types.",
                file=table.file,
                column=name,
            )


def missing_column(name: str, names: Sequence[str], file: str) -> Invalid:
    """Return the error for a column that a file does not have."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Choose one of its columns: {_some(names)}."
    return Invalid(f"there is no column {name!r}", remedy, file=file)


def _different_features(table: _Table, source: Source, name: str) -> Invalid:
    return Invalid(
        f"two files have different feature columns: only one of them has {name!r}",
        "Give all files of [data] train the same columns.",
        file=table.file,
        other=source.files[0].name,
    )


def _name_kind(data_type: pa.DataType) -> str:
    if is_text(data_type):
        return "text"
    return "integer" if pa.types.is_integer(data_type) else str(data_type)


def _some(names: Collection[str]) -> str:
    shown = ", ".join(map(repr, list(names)[:10]))
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _element(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if is_list(data_type) else data_type


def _width(data_type: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(data_type):
        return int(data_type.list_size)
    return _GUESSED_LIST_WIDTH if is_list(data_type) else 1


def _from_columns(batch: Batch, columns: ChosenColumns, dtype: np.dtype[Any]) -> Features:
    widths = [columns.width_of(name) for name in columns.features]
    # Written column by column, then transposed: several times faster than strided writes. Encoders expect zeros.
    transposed_FN = (np.zeros if columns.encoders else np.empty)((sum(widths), batch.columns.num_rows), dtype=dtype)
    start = 0
    for name, width in zip(columns.features, widths, strict=True):
        array, end = batch.column(name), start + width
        if encoder := columns.encoders.get(name):
            _encode(
                batch,
                name,
                encoder,
                Surroundings(decimal=columns.decimal, folder=batch.folder),
                transposed_FN[start:end],
            )
        else:
            if array.null_count:
                raise _bad_cell("has no value (null)", batch, name, _first(array.is_null()), MISSING_REMEDY)
            transposed_FN[start] = _numbers(batch, name, array)
        start = end
    return np.ascontiguousarray(transposed_FN.T)


def _encode(batch: Batch, name: str, encoder: Encoder, around: Surroundings, out_FN: Any) -> None:
    try:
        encode_into(out_FN, encoder, batch.column(name), around)
    except BadCell as error:
        file, row = batch.place(error.position)
        raise Invalid(f"a data point {error.fact}", error.remedy, file=file, column=name, row=row) from None
    except BadColumn as error:
        remedy = "Convert the column, or change its encoder in [data.encode]."
        raise _bad_type(error.fact, batch, name, remedy) from None


def _from_lists(batch: Batch, name: str, lists: pa.Array, dtype: np.dtype[Any]) -> Features:
    if lists.null_count:
        raise _bad_cell("has no value (null)", batch, name, _first(lists.is_null()))
    lengths = numbers_of(lists.value_lengths())
    if (lengths != lengths[0]).any():
        raise _bad_cell(
            "has a different number of features than the first one", batch, name, _first(lengths != lengths[0])
        )
    width = int(lengths[0])
    if not width:
        raise _bad_cell("has no features: its list is empty", batch, name, 0)
    values = plain_array(lists.flatten())
    if values.null_count:
        raise _bad_cell("has a feature without value (null)", batch, name, _first(values.is_null()) // width)
    return np.ascontiguousarray(_numbers(batch, name, values).astype(dtype).reshape(len(lists), width))


def _numbers(batch: Batch, name: str, array: pa.Array, role: str = "a feature") -> npt.NDArray[np.generic]:
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type)):
        fact = f"must hold numbers to be {role}, its type is {array.type}"
        remedy = "Convert the column, declare its encoder in [data.encode], or name another one in [data]."
        if role == _LABEL:
            remedy = "Convert the column to numbers, or name another one in [data] label."
        raise _bad_type(fact, batch, name, remedy)
    return numbers_of(array)


def _remedy_of(value: float) -> str:
    return MISSING_REMEDY if np.isnan(value) else _CORRECT


def _bad_cell(fact: str, batch: Batch, column: str, position: int, remedy: str = _CORRECT) -> Invalid:
    file, row = batch.place(position)
    return Invalid(f"a data point {fact}", remedy, file=file, column=column, row=row)


def _missing_name(fact: str, batch: Batch, column: str, position: int) -> MissingName:
    return MissingName(
        f"a data point {fact}",
        "Correct it or leave the data point out.",
        file=batch.file,
        column=column,
        row=batch.first + position,
    )


def _bad_type(
    fact: str, batch: Batch, column: str, remedy: str = "Convert the column, or name another one in [data]."
) -> Invalid:
    return Invalid(
        f"the column {fact}",
        remedy,
        file=batch.file,
        column=column,
        row=batch.first,
    )


def _unknown_label(batch: Batch, column: str, position: int, label: str, unknown: Sequence[str]) -> Invalid:
    file, row = batch.place(position)
    place: dict[str, str | int] = {"file": file, "column": column, "row": row}
    if len(unknown) > _MOST_UNKNOWN_LABELS:
        return Invalid(
            f"the column has {len(unknown)} labels that [data] classes does not name: it is probably not the label",
            "Set [data] label to the column of the class.",
            **place,
        )
    return Invalid(
        f"the label {label!r} is not in [data] classes",
        f"Add to [data] classes: {', '.join(map(repr, sorted(unknown)))}; or correct the data.",
        **place,
    )
