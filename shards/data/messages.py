"""Data points and answers as messages: untrusted input is checked before it is used.

Bodies come from outside. Nothing in them is executed, no value in them makes this process allocate much more memory
than their own size, and errors quote nothing from them.

Shape legend: N points, F features, S scores.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.data.columns import encoders_of
from shards.data.prediction_files import FeatureBatch, feature_batches
from shards.data.readers import TableReader, Wanted
from shards.data.sources import DataFile, Source, is_list, is_text, plain_array, plain_type
from shards.encoders import Encoder, ImageEncoder
from shards.points import scaled
from shards.specification import DataSettings
from shards.targets import Target
from storage.digests import digest_of
from storage.errors import Corrupt, Invalid

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"
"""The media type of Arrow's IPC stream format."""

_NUMBERS: Final = frozenset({bool, int, float})
_PLAIN: Final = frozenset({*_NUMBERS, str, type(None)})
_SOURCE: Final = "request"
_ENCODED: Final = "encoded:"
"""How the name of a column of encoded features begins, before the digest of how they are encoded."""
_MOST_ENCODED_BYTES: Final = 256 << 20
"""Limit of encoded features in one message: a short text may become thousands of them."""
_RECORD_BATCH: Final = 3
_HEADER_TYPE, _HEADER = 1, 2
_LENGTH, _COMPRESSION = 0, 3
_FEWER: Final = "Send several requests."


class TooManyPoints(Invalid):
    """A message has more data points than are allowed."""


class Unreadable(Invalid):
    """A message does not have the format that it claims."""


NOT_BASE64: Final = "a text is not Base64"
"""The fact about an image that is sent as text and is not Base64."""


def table_of_stream(payload: bytes, most_points: int) -> pa.Table:
    """Return the table in an Arrow IPC stream, after checking every buffer.

    Raises ``TooManyPoints``, ``Unreadable`` when ``payload`` is not such a stream, and ``Invalid`` when it is
    compressed, because its decompressed size is unknown.
    """
    try:
        _refuse_compressed(payload)
        with pa.ipc.open_stream(pa.BufferReader(payload)) as reader:
            _ = reader.schema.names  # raises when a name is not UTF-8, which Arrow does not check
            batches = list(_checked(reader, most_points))
            return pa.Table.from_batches(batches, schema=reader.schema)
    except (pa.ArrowException, OSError, EOFError, struct.error, IndexError, MemoryError, UnicodeError):
        # Not chained: the text of the cause may quote names and values.
        raise Unreadable(
            "the body is not a complete Arrow IPC stream with names in UTF-8",
            f"Send the bytes of pyarrow.ipc.new_stream, uncompressed, as {ARROW_STREAM}.",
        ) from None


def table_of_columns(columns: Mapping[str, Sequence[Any]], most_points: int) -> pa.Table:
    """Return columns of plain values as a table. Raises ``TooManyPoints``, ``Invalid``."""
    _refuse_many(max((len(values) for values in columns.values()), default=0), most_points)
    arrays = {name: _array(name, values) for name, values in columns.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        raise Invalid("the columns have different lengths", "Give every column one value for each data point.")
    return pa.table(arrays)


def table_of_features(features_NF: npt.NDArray[np.float32], names: Sequence[str]) -> pa.Table:
    """Return features as a table for a message: one column per name, or a column of lists if there is a single name."""
    if len(names) == 1 and features_NF.shape[1] > 1:
        values = pa.array(np.ascontiguousarray(features_NF).reshape(-1))
        return pa.table({names[0]: pa.FixedSizeListArray.from_arrays(values, features_NF.shape[1])})
    return pa.table(dict(zip(names, map(pa.array, features_NF.T.copy()), strict=True)))


def table_of_encoded(features_NF: npt.NDArray[np.float32], data: DataSettings) -> pa.Table:
    """Return features that are encoded, but not scaled, as a table for a message to a site with the same encoders."""
    return table_of_features(features_NF, (_encoded_name(data),))


def scores_of_table(table: pa.Table, target: Target, points: int) -> npt.NDArray[np.float32]:
    """Return the scores in an answer for ``points`` data points, shape (N, S), in the target's form.

    Raises ``Corrupt`` when the answer does not fit: wrong columns, wrong number of rows, or impossible scores.
    """
    numbers = [name for name, kind in target.columns if kind == "number"]
    fits = table.column_names == [name for name, _ in target.columns] and table.num_rows == points
    if not fits or any(table.schema.field(name).type != pa.float32() for name in numbers):
        raise _bad_answer("it has other columns, or another number of data points, than were requested")
    columns = [table.column(name).combine_chunks() for name in numbers]
    if any(column.null_count for column in columns):
        raise _bad_answer("a probability is missing" if target.has_classes else "a number is missing")
    scores_NS: npt.NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32, copy=False)
    if (fault := target.fault(scores_NS)) is not None:
        raise _bad_answer(fault)
    return scores_NS


def points_of_table(table: pa.Table, data: DataSettings, width: int) -> Iterator[FeatureBatch]:
    """Yield the data points of a message as they would be used in training; refuses what ``feature_batches`` refuses.

    ``data.features`` are the names of columns, without patterns. With encoders, columns hold unencoded values, or there
    is the single column of ``table_of_encoded``.
    """
    if data.encode and (encoded := [name for name in table.column_names if name.startswith(_ENCODED)]):
        return _encoded_points(table.select(encoded[:1]), data, width)
    if missing := [name for name in data.features if name not in table.column_names]:
        raise Invalid(f"there is no column {missing[0]!r}", "Send all features, named as in the training data.")
    if not table.num_rows:
        return iter(())
    wanted = {data.id, *data.features}
    known = [name for name in table.column_names if name in wanted]
    if len(set(known)) < len(known):
        twice = next(name for name in known if known.count(name) > 1)
        raise Invalid("two columns have the same name", "Rename one of them.", column=twice)
    table = table.select(known)  # other columns are dropped, because nothing here can rely on their types
    if data.id in known:
        _refuse_names(table.column(data.id).type, data.id)
    encoders = encoders_of(data, data.features)
    if encoders and table.num_rows * width * 4 > _MOST_ENCODED_BYTES:
        most = max(1, _MOST_ENCODED_BYTES // (4 * width))
        raise TooManyPoints(
            f"the request has more than {most:,} data points, each encoded as {width:,} features", _FEWER
        )
    for name in data.features:
        if encoder := encoders.get(name):
            table = _for_encoder(table, name, encoder)
            continue
        _refuse_types(table.column(name).type, name)
        _refuse_lists(table.column(name), name, width)
    source = Source(location=_SOURCE, files=(DataFile(name=_SOURCE, path=None, reader=TableReader(table)),))
    return feature_batches(source, data, width)


def points_of_lists(lists: Sequence[Sequence[Any]], data: DataSettings, width: int) -> npt.NDArray[np.float32]:
    """Return features given in order, one list per data point, as used in training: shape (N, F).

    Raises ``Invalid`` for a wrong number of features, and for values that are not finite numbers (in float32).
    """
    if not lists:
        return np.empty((0, width), dtype=np.float32)
    for number, values in enumerate(lists):
        if len(values) != width:
            raise _bad_point(f"has {len(values)} features, expected {width}", number)
        # Checked before numpy, which allocates for every value the size of the longest string.
        if not _NUMBERS.issuperset(map(type, values)):
            raise _bad_point("has a feature that is not a number", number)
    try:
        features_NF = np.asarray(lists)
    except (ValueError, OverflowError):
        features_NF = np.empty(0, dtype=np.object_)
    if features_NF.dtype.kind not in "biuf" or features_NF.ndim != 2:
        raise _bad_point("has a feature that is not a number", _first_strange(lists))
    with np.errstate(over="ignore"):
        found_NF = np.ascontiguousarray(features_NF, dtype=np.float32)
    if not np.isfinite(found_NF).all():
        number, _ = np.argwhere(~np.isfinite(found_NF))[0].tolist()
        raise _bad_point("has a feature that is NaN or infinite (as float32)", number)
    return scaled(found_NF, data.scale)


def ids_of(values: Sequence[str | int | None]) -> pa.Array:
    """Return ids as a column: of integers if all are integers, else of strings. Raises ``Invalid`` for lone surrogates.

    >>> ids_of([1, None]).to_pylist(), ids_of([1, "b"]).to_pylist()
    ([1, None], ['1', 'b'])
    """
    try:
        if all(value is None or isinstance(value, int) for value in values):
            with suppress(OverflowError):
                return pa.array(values, pa.int64())
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    except UnicodeEncodeError:
        raise Invalid("an id cannot be encoded in UTF-8", "Send ids without lone surrogates.") from None


def stream_of(table: pa.Table, facts: Mapping[str, int | str] | None = None) -> bytes:
    """Return a table as an Arrow IPC stream, with ``facts`` in its schema's metadata."""
    metadata = {name: str(value) for name, value in (facts or {}).items()}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata(metadata or None)) as writer:
        writer.write_table(table)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def with_bytes(table: pa.Table, name: str, payloads: Sequence[bytes | None]) -> pa.Table:
    """Return the table with a column of bytes in place of the one of this name."""
    return table.set_column(table.schema.get_field_index(name), name, pa.array(payloads, pa.large_binary()))


def tables_of(source: Source, points: int) -> Iterator[pa.Table]:
    """Yield a source's data points as tables for messages: all columns, at most ``points`` rows at a time.

    Raises ``Invalid`` when a file cannot be read.
    """
    schema = source.files[0].schema()
    kinds = {name: plain_type(schema.field(name).type) for name in schema.names}
    texts = tuple(name for name, kind in kinds.items() if is_text(kind))
    numbers = tuple(name for name in kinds if name not in texts)
    for batch in source.batches(Wanted(texts=texts, numbers=numbers), points):
        yield pa.table({name: batch.column(name) for name in kinds})


def facts_of(table: pa.Table) -> dict[str, int]:
    """Return those facts given to ``stream_of`` that are whole numbers, 0 or more."""
    return {name: int(value) for name, value in metadata_texts(table).items() if value.isdecimal() and value.isascii()}


def metadata_texts(table: pa.Table) -> dict[str, str]:
    """Return the facts given to ``stream_of``, as text."""
    return {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}


def _checked(reader: Any, most_points: int) -> Iterator[pa.RecordBatch]:
    points = 0
    for batch in reader:
        points += batch.num_rows
        _refuse_many(points, most_points)  # before the buffers: a batch without buffers may claim any number
        batch.validate(full=True)
        yield batch


def _refuse_many(points: int, most: int) -> None:
    if points > most:
        raise TooManyPoints(
            f"the request has more than {most:,} data points",
            "Send several requests, or raise [serve] max_points.",
        )


def _refuse_compressed(payload: bytes) -> None:
    """Check the headers of the messages, which are Flatbuffers that Arrow has verified."""
    messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(payload))
    for message in messages:
        head = bytes(message.metadata)
        root = struct.unpack_from("<I", head)[0]
        kind = _field(head, root, _HEADER_TYPE)
        if message.type == "dictionary" or (kind and head[kind] == _RECORD_BATCH and _is_compressed(head, root)):
            raise Invalid(
                "the body has compressed or dictionary-encoded columns",
                "Write the stream uncompressed, and decode dictionaries.",
            )


def _is_compressed(head: bytes, root: int) -> bool:
    place = _field(head, root, _HEADER)
    batch = place + struct.unpack_from("<I", head, place)[0]
    return bool(_field(head, batch, _COMPRESSION))


def _field(head: bytes, table: int, number: int) -> int:
    """Return the position of a field in a Flatbuffers table; 0 when the table does not have it."""
    names = table - struct.unpack_from("<i", head, table)[0]
    entry = 4 + 2 * number
    if entry + 2 > struct.unpack_from("<H", head, names)[0]:
        return 0
    offset: int = struct.unpack_from("<H", head, names + entry)[0]
    return table + offset if offset else 0


def _refuse_names(data_type: pa.DataType, column: str) -> None:
    types = pa.types
    if not (types.is_string(data_type) or types.is_large_string(data_type) or types.is_integer(data_type)):
        # The message does not name the type: a nested type would contain names from the sender.
        raise Invalid(
            "the id column must hold strings or whole numbers", "Convert the column, or leave it out.", column=column
        )


def _refuse_types(data_type: pa.DataType, column: str) -> None:
    """Refuse columns that do not hold numbers or lists of numbers, without naming the type: see ``_refuse_names``."""
    types, found = pa.types, plain_type(data_type)
    if is_list(found):
        found = plain_type(found.value_type)
    is_number = types.is_integer(found) or types.is_floating(found) or types.is_boolean(found)
    if not (is_number or types.is_decimal(found) or types.is_null(found)):
        raise Invalid("a feature column must hold numbers", "Convert the column.", column=column)


def _encoded_name(data: DataSettings) -> str:
    return f"{_ENCODED}{digest_of(data.encoders.record())}"


def _encoded_points(table: pa.Table, data: DataSettings, width: int) -> Iterator[FeatureBatch]:
    """Yield the data points of a table with the single column of encoded features."""
    name = table.column_names[0]
    if name != _encoded_name(data):
        raise Invalid(
            "the features are encoded otherwise than this federation's: [data.encode] differs",
            "Give both the same specification.",
        )
    if not table.num_rows:
        return iter(())
    _refuse_types(table.column(name).type, name)
    _refuse_lists(table.column(name), name, width)
    source = Source(location=_SOURCE, files=(DataFile(name=_SOURCE, path=None, reader=TableReader(table)),))
    return feature_batches(source, replace(data, features=(name,), encode={}), width)


def _for_encoder(table: pa.Table, name: str, encoder: Encoder) -> pa.Table:
    """Return the table with a column as its encoder takes it; refuses other types, without naming them."""
    types, found = pa.types, plain_type(table.column(name).type)
    is_image = isinstance(encoder, ImageEncoder)
    if is_image and is_text(found):
        return table.set_column(table.column_names.index(name), name, _bytes_of(table.column(name), name))
    is_value = types.is_integer(found) or types.is_floating(found) or types.is_boolean(found) or types.is_decimal(found)
    is_value = is_value or is_text(found) or types.is_temporal(found)
    is_binary = types.is_binary(found) or types.is_large_binary(found)
    if not (types.is_null(found) or (is_binary if is_image else is_value)):
        raise Invalid("a column has a type that its encoder does not take", "Convert the column.", column=name)
    return table


def _bytes_of(column: pa.ChunkedArray, name: str) -> pa.Array:
    """Return images that JSON holds as Base64. A text in a message is never a path: files here are not the sender's."""
    texts = column.to_pylist()
    found: list[bytes | None] = []
    for position, text in enumerate(texts):
        try:
            found.append(None if text is None else base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            remedy = "Send the image's bytes as Base64, or as binary in an Arrow stream."
            raise Invalid(NOT_BASE64, remedy, column=name, row=position + 1) from None
    return pa.array(found, pa.binary())


def _refuse_lists(column: pa.ChunkedArray, name: str, width: int) -> None:
    """Refuse lists of the wrong length before they are unpacked, because eight bits become 32 bytes."""
    found = plain_type(column.type)
    if pa.types.is_fixed_size_list(found):
        strange = found.list_size != width
    elif is_list(found):
        strange = any((np.diff(np.asarray(plain_array(chunk).offsets)) != width).any() for chunk in column.chunks)
    else:
        return
    if strange:
        raise Invalid(f"the number of features differs: expected {width}", "Send lists of that length.", column=name)


def _array(name: str, values: Sequence[Any]) -> pa.Array:
    if not _PLAIN.issuperset(_types(values)):  # Arrow would allocate in each object space for the names in all others
        raise Invalid(
            "a column holds an object, or lists within lists",
            "Send numbers, texts, or lists of numbers.",
            column=name,
        )
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        # Not chained: the text of the cause quotes values.
        raise Invalid(
            "a column's values are not of one kind", "Send numbers, texts, or lists of numbers.", column=name
        ) from None


def _types(values: Sequence[Any]) -> set[type]:
    """Return the types of values, and of the items of lists among them."""
    found = set(map(type, values))
    if list in found:
        found.remove(list)
        found.update(*(map(type, value) for value in values if isinstance(value, list)))
    return found


def _first_strange(lists: Sequence[Sequence[Any]]) -> int:
    return next(
        (
            number
            for number, values in enumerate(lists)
            if any(not isinstance(value, bool | int | float) or abs(value) > 1e308 for value in values)
        ),
        0,
    )


def _bad_answer(fact: str) -> Corrupt:
    return Corrupt(f"invalid answer: {fact}", "Check the server that sent it. The answer was not used.")


def _bad_point(fact: str, number: int) -> Invalid:
    return Invalid(f"a data point {fact}", "Correct it or leave the data point out.", point=number)
