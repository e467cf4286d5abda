"""Slice files: how data points are stored.

A slice is a tuple of Parquet objects, its parts. A part has one entry per data point: keyed digests of id and subject,
the position of the class, and the features as raw little-endian bytes of fixed length (measured: 200 times faster to
read than a list column). Format 2 also has the keyed digests of further subjects. In formats 3 and 4, without and with
further subjects, a label is one or several float32 numbers, stored as features are. Every part is written from newly
copied arrays, without dictionary and statistics, because a view of a larger Arrow buffer would include erased points,
and the minimum and maximum in a footer are values of data points.
Shape legend: N points, F features, K further subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from shards.points import PointBlock, ShardPoints, scaled
from shards.routing import DIGEST_BYTES, PointDigest, SliceId
from shards.slices.contents import NUMBER, PartDigests, plain_labels
from shards.targets import LabelArray
from shards.tombstones import NOTHING, DigestSet, count_similar, sortable, sorted_digests
from storage.digests import Sha256, sha256
from storage.errors import Corrupt, InvariantBroken, ObjectMissing, OutcomeUnknown
from storage.objects import NewName, ObjectKey, ObjectStore, object_key

_FORMAT = b"sisa/part/1"
_FORMAT_FURTHER = b"sisa/part/2"
_FORMAT_NUMBERS = b"sisa/part/3"
_FORMAT_NUMBERS_FURTHER = b"sisa/part/4"
_MORE_COLUMNS: dict[bytes, tuple[str, ...]] = {
    _FORMAT: (),
    _FORMAT_FURTHER: ("further",),
    _FORMAT_NUMBERS: (),
    _FORMAT_NUMBERS_FURTHER: ("further",),
}
"""Additional columns of each format, which hold the digests of further subjects."""
_DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype("u1"), "float32": np.dtype("<f4")}
_MOST_POINTS_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """One object of a slice."""

    key: ObjectKey
    sha256: Sha256
    points: int
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRecord:
    """The content of a slice.

    Both digests depend only on which points there are, not on their order or the division into parts.
    """

    parts: tuple[PartRecord, ...]
    points: int
    """Number of data points."""
    points_digest: Sha256
    """SHA-256 over the sorted digests of the points' ids."""
    content_digest: Sha256
    """SHA-256 over the sorted digests of the points' content: id, subjects, label, features as float32."""
    similar: int = 0
    """Subjects of this slice whose names differ only in spelling; 0 without routing by skeleton."""


EMPTY_SLICE = SliceRecord(parts=(), points=0, points_digest=sha256(b""), content_digest=sha256(b""))
"""The slice without data points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRewrite:
    """The result of erasing points from a slice."""

    record: SliceRecord
    removed: int
    """Number of data points removed."""
    superseded: tuple[ObjectKey, ...]
    """Objects that still hold removed points: to be purged once ``record`` is committed."""
    names: DigestSet
    """The members of ``erased`` that had points in this slice."""


def encode_part(block: PointBlock) -> bytes:
    """Return ``block`` as the bytes of a part. The columns are copied before they are written."""
    features = np.ascontiguousarray(block.features_NF)
    if features.dtype.name not in _DTYPES:
        raise InvariantBroken(f"a part holds uint8 or float32 features, not {features.dtype.name}")
    little = features.astype(_DTYPES[features.dtype.name], copy=False)
    columns = {
        "point": _column(block.points_N, pa.binary(DIGEST_BYTES)),
        "subject": _column(block.subjects_N, pa.binary(DIGEST_BYTES)),
        "label": _label_column(block.labels_N),
        "features": _column(little, pa.binary(little.shape[1] * little.dtype.itemsize)),
    }
    if further := block.further_NK.shape[1]:
        columns["further"] = _column(block.further_NK, pa.binary(DIGEST_BYTES * further))
    form = (
        (_FORMAT_FURTHER if further else _FORMAT)
        if block.labels_N.ndim == 1
        else (_FORMAT_NUMBERS_FURTHER if further else _FORMAT_NUMBERS)
    )
    metadata = {b"format": form, b"dtype": features.dtype.name.encode(), b"width": b"%d" % features.shape[1]}
    schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in columns.items()], metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(list(columns.values()), schema=schema),
        sink,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
    )
    return cast("bytes", sink.getvalue().to_pybytes())


def decode_part(payload: bytes) -> PointBlock:
    """Return the data points of a part. Raises ``Corrupt`` for bytes that ``encode_part`` did not write."""
    table, dtype, width = _read_columns(payload, ("point", "subject", "label", "features"))
    features = _raw(table, "features", width * dtype.itemsize).view(dtype).reshape(table.num_rows, width)
    return PointBlock(
        points_N=_digests(table, "point"),
        subjects_N=_digests(table, "subject"),
        labels_N=_labels(table),
        features_NF=features.astype(dtype.newbyteorder("="), copy=False),
        further_NK=_further(table),
    )


def write_part(store: ObjectStore, block: PointBlock, slice_id: SliceId, new_name: NewName) -> PartRecord:
    """Store ``block`` as a new object of the slice and return its record.

    ``new_name`` returns a name that no object has. A write whose outcome is unknown is read back.
    """
    payload = encode_part(block)
    key = object_key(f"shards/{slice_id.shard:04d}/slices/{slice_id.slice:04d}/{new_name()}.parquet")
    try:
        store.put_if_absent(key, payload)
    except OutcomeUnknown:
        # The name is new, so an object with it is the result of this write.
        if not _landed(store, key, payload):
            raise
    return PartRecord(key=key, sha256=sha256(payload), points=len(block), payload_bytes=len(payload))


def read_part(store: ObjectStore, record: PartRecord) -> PointBlock:
    """Return a part's data points. Raises ``Corrupt`` when the object is missing or differs from its record."""
    block = decode_part(_fetch(store, record))
    _check_points(record, len(block))
    return block


def record_slice(store: ObjectStore, parts: Sequence[PartRecord]) -> SliceRecord:
    """Return the record of the slice that consists of ``parts``, reading one part at a time."""
    return record_of(tuple(parts), [PartDigests.of(read_part(store, part)) for part in parts])


def load_shard(
    store: ObjectStore, slices: Sequence[SliceRecord], width: int, scale: float | tuple[float, ...]
) -> ShardPoints:
    """Return all data points of a shard in canonical order, features divided by ``scale`` in float32.

    Needs memory for the result, one part, and one slice while it is sorted.
    """
    total = sum(record.points for record in slices)
    features_NF, keys_N = np.empty((total, width), dtype=np.float32), np.empty(total, dtype=np.uint64)
    subjects_N = np.empty_like(keys_N)
    ends = tuple(np.cumsum([record.points for record in slices], dtype=np.int64).tolist())
    labels: list[npt.NDArray[Any]] = []
    for end, record in zip(ends, slices, strict=True):
        place = slice(end - record.points, end)
        if record.points:
            labels.append(_load_slice(store, record, (features_NF[place], keys_N[place], subjects_N[place]), scale))
    return ShardPoints(
        features_NF=features_NF,
        labels_N=np.concatenate(labels) if labels else np.empty(0, dtype=np.int64),
        keys_N=keys_N,
        subjects_N=subjects_N,
        ends=ends,
    )


def rewrite_slice(
    store: ObjectStore,
    record: SliceRecord,
    erased: DigestSet,
    slice_id: SliceId,
    new_name: NewName,
    added: PointBlock | None = None,
) -> SliceRewrite:
    """Write the slice without the ``erased`` data points; parts without any of them are kept unchanged.

    The data points in ``added`` are put into the slice, as a part of their own.
    Deletes nothing: ``superseded`` names the objects to purge. With nothing to change, ``record`` is returned as it is.
    """
    parts, digests, superseded, found = [], [], [], []
    for part in record.parts:
        block = read_part(store, part)
        gone = erased.contains(block)
        survivors = block.take(~gone) if gone.any() else block
        digests.append(PartDigests.of(survivors))
        if not gone.any():
            parts.append(part)
            continue
        superseded.append(part.key)
        found.append(erased.among(block))
        if len(survivors):
            parts.append(write_part(store, survivors, slice_id, new_name))
    removed = record.points - sum(len(each.points_N) for each in digests)
    if added is not None and len(added):
        parts.append(write_part(store, added, slice_id, new_name))
        digests.append(PartDigests.of(added))
    elif not superseded:
        return SliceRewrite(record=record, removed=0, superseded=(), names=NOTHING)
    return SliceRewrite(
        record=record_of(tuple(parts), digests),
        removed=removed,
        superseded=tuple(superseded),
        names=reduce(DigestSet.union, found, NOTHING),
    )


def count_erased(store: ObjectStore, record: SliceRecord, erased: DigestSet) -> int:
    """Return how many data points of the slice are in ``erased``; writes nothing."""
    return sum(int(erased.contains(block).sum()) for block in identities(store, record))


def identities(store: ObjectStore, record: SliceRecord) -> Iterator[PointBlock]:
    """Yield each part's digests, without labels and features."""
    return identities_of(store, record.parts)


def identities_of(store: ObjectStore, parts: Sequence[PartRecord]) -> Iterator[PointBlock]:
    """Yield the digests of each of the parts, without labels and features."""
    for part in parts:
        table, _, _ = _read_columns(_fetch(store, part), ("point", "subject"))
        _check_points(part, table.num_rows)
        yield PointBlock(
            points_N=_digests(table, "point"),
            subjects_N=_digests(table, "subject"),
            labels_N=np.zeros(table.num_rows, dtype=np.int32),
            features_NF=np.empty((table.num_rows, 0), dtype=np.uint8),
            further_NK=_further(table),
        )


def repeated_point(
    store: ObjectStore, slices: Sequence[SliceRecord], most_points: int = _MOST_POINTS_AT_ONCE
) -> PointDigest | None:
    """Return the digest of a data point that occurs twice in the slices, or None.

    Holds about ``most_points`` digests in memory, and reads all parts once for each such range of digests.
    """
    total = sum(record.points for record in slices)
    parts = [part for record in slices for part in record.parts]
    return repeat_among(lambda: (block.points_N for block in identities_of(store, parts)), total, most_points)


def repeat_among(
    read: Callable[[], Iterable[npt.NDArray[Any]]], total: int, most_points: int = _MOST_POINTS_AT_ONCE
) -> PointDigest | None:
    """Return the least of ``total`` digests that occurs twice, or None; ``read`` yields them all, in any order.

    Calls ``read`` once for every ``most_points`` digests, and holds about as many in memory.
    """
    passes = -(-total // most_points)
    for index in range(passes):
        low, high = (position * 2**32 // passes for position in (index, index + 1))
        found = _repeat_in_range(read(), low, high)
        if found is not None:
            return found
    return None


def point_keys(points_N: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Return the first 8 bytes of each digest as a big-endian number."""
    halves = np.ascontiguousarray(points_N).view(">u8").reshape(-1, 2)
    return halves[:, 0].astype(np.uint64)


def _repeat_in_range(read: Iterable[npt.NDArray[Any]], low: int, high: int) -> PointDigest | None:
    chosen = []
    for points_N in read:
        leading = point_keys(points_N) >> np.uint64(32)
        chosen.append(sortable(points_N)[(leading >= low) & (leading < high)])
    digests = np.concatenate(chosen) if chosen else np.empty(0, dtype=f"S{DIGEST_BYTES}")
    del chosen
    ordered = sorted_digests(digests)
    repeats = np.flatnonzero(ordered[1:] == ordered[:-1])
    return PointDigest(ordered[repeats[:1]].tobytes()) if len(repeats) else None


def _load_slice(
    store: ObjectStore,
    record: SliceRecord,
    arrays: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint64], npt.NDArray[np.uint64]],
    scale: float | tuple[float, ...],
) -> npt.NDArray[Any]:
    """Put the slice's features, keys and subjects into these arrays, and return its labels."""
    features, keys, subjects = arrays
    found: list[npt.NDArray[Any]] = []
    digests, start = np.empty(record.points, dtype=f"S{DIGEST_BYTES}"), 0
    for part in record.parts:
        block, end = read_part(store, part), start + part.points
        if end > record.points or block.features_NF.shape[1] != features.shape[1]:
            raise _other_shape(part, block, features.shape[1])
        scaled(block.features_NF, scale, out=features[start:end])
        found.append(block.labels_N)
        keys[start:end] = point_keys(block.points_N)
        subjects[start:end] = point_keys(block.subjects_N)
        digests[start:end] = sortable(block.points_N)
        start = end
    if start != record.points:
        raise InvariantBroken(f"a slice's parts hold {start} data points, its record says {record.points}")
    labels = np.concatenate(found)
    order = np.argsort(digests, kind="stable")
    if (order[1:] < order[:-1]).any():
        features[:], labels, keys[:], subjects[:] = features[order], labels[order], keys[order], subjects[order]
    return labels.astype(np.int64) if labels.ndim == 1 else labels.astype(np.float32, copy=False)


def _other_shape(part: PartRecord, block: PointBlock, width: int) -> Corrupt:
    return Corrupt(
        f"a slice file does not fit its slice: expected {width} features, got {block.features_NF.shape[1]}",
        "Run 'sisa train' with the specification that the store was made with. The object was not used.",
        key=part.key,
        points=len(block),
    )


def record_of(parts: tuple[PartRecord, ...], digests: Sequence[PartDigests]) -> SliceRecord:
    """Return the record of the slice that consists of ``parts``, whose data points have these digests."""
    if not parts:
        return EMPTY_SLICE
    points = sorted_digests(np.concatenate([each.points_N for each in digests]))
    contents = sorted_digests(np.concatenate([each.contents_N for each in digests]))
    return SliceRecord(
        parts=parts,
        points=len(points),
        points_digest=sha256(points.tobytes()),
        content_digest=sha256(contents.tobytes()),
        similar=count_similar(b"".join(each.subjects for each in digests)),
    )


def _landed(store: ObjectStore, key: ObjectKey, payload: bytes) -> bool:
    try:
        return store.get_durable(key).payload == payload
    except ObjectMissing:
        return False


def _fetch(store: ObjectStore, record: PartRecord) -> bytes:
    try:
        payload = store.get(record.key).payload
    except ObjectMissing as error:
        raise _damaged("a slice file is missing", record, "nothing") from error
    if (found := sha256(payload)) != record.sha256:
        raise _damaged("a slice file differs from its record", record, f"sha256:{found}")
    return payload


def _damaged(fact: str, record: PartRecord, got: str) -> Corrupt:
    return Corrupt(
        f"{fact}: expected sha256:{record.sha256}, got {got}",
        "Run 'sisa train' to read the source again, or restore the store from a copy. The object was not used.",
        key=record.key,
    )


def _check_points(record: PartRecord, points: int) -> None:
    if points != record.points:
        raise InvariantBroken(f"a part holds {points} data points, its record says {record.points}", key=record.key)


def _read_columns(payload: bytes, names: tuple[str, ...]) -> tuple[pa.Table, np.dtype[Any], int]:
    try:
        file = pq.ParquetFile(pa.BufferReader(payload))
        metadata = file.schema_arrow.metadata or {}
        more = _MORE_COLUMNS[metadata[b"format"]]
        dtype, width = _DTYPES[metadata[b"dtype"].decode()], int(metadata[b"width"])
        return file.read(columns=[*names, *more], use_threads=False).combine_chunks(), dtype, width
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _unreadable(payload) from error


def _unreadable(payload: bytes) -> Corrupt:
    return Corrupt(
        "a slice file is not one of this format",
        "Run 'sisa train' to read the source again, or restore the store from a copy. The object was not used.",
        payload_bytes=len(payload),
        sha256=sha256(payload),
    )


def _column(values: npt.NDArray[Any], data_type: pa.DataType) -> pa.Array:
    # Not pa.array(), which imports pandas if it is installed: 50 MB.
    return pa.Array.from_buffers(data_type, len(values), [None, pa.py_buffer(values.tobytes())])


def _label_column(labels_N: LabelArray) -> pa.Array:
    values = plain_labels(labels_N)
    return _column(values, pa.int32() if labels_N.ndim == 1 else pa.binary(values.dtype.itemsize))


def _labels(table: pa.Table) -> LabelArray:
    kind = table.schema.field("label").type
    if pa.types.is_int32(kind):
        return _raw(table, "label", 4).view("<i4").astype(np.int32, copy=False)
    numbers = _raw(table, "label", kind.byte_width).view(NUMBER).astype(np.float32, copy=False)
    return numbers.reshape(table.num_rows, kind.byte_width // NUMBER.itemsize)


def _raw(table: pa.Table, name: str, width: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of a column of fixed width, shape (N * width,); no copy."""
    column = table.column(name)
    if not column.num_chunks:
        return np.empty(0, dtype=np.uint8)
    array = column.chunk(0)
    raw = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    return raw[array.offset * width : (array.offset + len(array)) * width]


def _digests(table: pa.Table, name: str) -> npt.NDArray[np.void]:
    return _raw(table, name, DIGEST_BYTES).view(f"V{DIGEST_BYTES}")


def _further(table: pa.Table) -> npt.NDArray[np.void]:
    """Return the digests of further subjects, shape (N, K)."""
    if "further" not in table.column_names:
        return np.empty((table.num_rows, 0), dtype=f"V{DIGEST_BYTES}")
    width = table.schema.field("further").type.byte_width
    digests = _raw(table, "further", width).view(f"V{DIGEST_BYTES}")
    return digests.reshape(table.num_rows, width // DIGEST_BYTES)
