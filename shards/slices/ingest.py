"""Ingest: from the user's files to slice files, with bounded memory.

The result depends on the data points alone: not on their order, the files' formats or division, or the memory given.
Only the objects' names and the division of slices into parts do. So data may also be gathered fragment by fragment, by
many processes (``shards.data.fragments``). Shape legend: N points, F features, K further subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.data.columns import (
    Columns,
    Features,
    MissingName,
    are_numbers,
    check_written,
    choose_columns,
    count_missing,
    read_features,
    read_labels,
    read_texts,
)
from shards.data.readers import Wanted
from shards.data.sources import Batch, Source, SourceFile, inventory
from shards.points import PointBlock
from shards.routing import (
    AS_GIVEN,
    DIGEST_BYTES,
    Naming,
    PartitionKey,
    Placement,
    PointDigest,
    digests_of_all,
    point_digest,
    slice_numbers,
)
from shards.slices.files import EMPTY_SLICE, PartRecord, SliceRecord, record_slice, repeated_point, write_part
from shards.specification import DataSettings, PartitionSettings, ShardId, SliceIndex
from shards.subjects import in_form
from shards.tombstones import DigestSet
from storage.digests import Json
from storage.errors import Invalid, InvariantBroken
from storage.objects import ObjectStore

_MEBIBYTE = 1 << 20
_BASELINE_MB = 150
"""Interpreter, libraries, and a Parquet file of many columns while it is read: pages, buffers, footer."""
_REMOTE_MB = 80
"""More for files in a bucket: the client's library, and what is held of a file."""
_LEAST_BUFFER_MB = 8
_MOST_BATCH_BYTES = 8 * _MEBIBYTE
_ID_BATCH_POINTS = 65_536
_PARTS_PER_STAGE = 4
"""A part has at most this share of the stage: it is copied while it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureLayout:
    """What the features of a data set look like."""

    width: int
    """F."""
    dtype: str
    """``uint8`` or ``float32``: how they are stored; training sees float32."""
    features: tuple[str, ...]
    """The columns they came from, in order; a prediction takes the same ones by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What an ingest makes of data points that tombstones are about."""

    refused: int = 0
    """Data points left out because they, or their subjects, are tombstoned."""
    by_id: int = 0
    """Those of them whose subject, as the source names it now, is not tombstoned."""
    respelt: int = 0
    """Data points taken in whose subject differs from an erased one in spelling alone; 0 where no skeleton routes."""

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(
            refused=self.refused + other.refused,
            by_id=self.by_id + other.by_id,
            respelt=self.respelt + other.respelt,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What an ingest put into the store."""

    slices: Mapping[Placement, SliceRecord]
    """The slices that hold data points; all others are empty."""
    layout: FeatureLayout
    inventory: tuple[SourceFile, ...]
    """The files that were read."""
    points: int
    """Data points in the slices."""
    left_out: LeftOut

    def shard(self, shard: ShardId, slices: int) -> tuple[SliceRecord, ...]:
        """Return the records of slices 1..R of a shard."""
        places = (Placement(shard, SliceIndex(index)) for index in range(1, slices + 1))
        return tuple(self.slices.get(placement, EMPTY_SLICE) for placement in places)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestTask:
    """Write the data points of ``source`` as slices into ``store``."""

    source: Source
    data: DataSettings
    partition: PartitionSettings
    key: PartitionKey = field(repr=False)
    naming: Naming = AS_GIVEN
    store: ObjectStore
    """May cross to other processes, as ``tombstones`` may."""
    tombstones: Callable[[], DigestSet]
    names: Callable[[], str]
    """Returns a fresh name each time: the name of every object written is one of them, or begins with one."""
    progress: Callable[[int], None] = lambda _: None
    """Is told the number of data points read so far, now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What gathering data points takes, wherever it is done."""

    columns: Columns
    data: DataSettings
    partition: PartitionSettings
    key: PartitionKey = field(repr=False)
    naming: Naming = AS_GIVEN
    tombstones: DigestSet
    buffer_bytes: int
    """What may be held before it is written; changes no result."""
    width: int | None = None
    """F, where it is known already; None: the first data point's."""
    first_shard: int = 0
    """Which shard's parts are written first; changes no result."""

    def read(self, source: Source) -> Iterator[Batch]:
        """Yield the source's data points, as many at a time as fit."""
        points = self.columns.points_within(min(_MOST_BATCH_BYTES, self.buffer_bytes))
        return source.batches(self.columns.wanted, points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What data points were written to. Says nothing of any of them."""

    parts: Mapping[Placement, tuple[PartRecord, ...]]
    points: int
    """Data points read."""
    left_out: LeftOut
    numbers: Mapping[tuple[str, str], bool]
    """Where a file has no types, of all files, by file and column of names, whether all names are numbers."""
    width: int | None
    """F; None when there were no data points."""


def ingest(task: IngestTask, buffer_bytes: int | None = None) -> Ingested:
    """Return the slices that the source's data points were written to.

    ``buffer_bytes`` is what may be held before it is written; default: a share of ``data.ingest_memory_mb``.
    Raises ``Invalid`` for any data point that cannot be trained on and for an id that occurs twice; then, and whatever
    else is raised, no object of this ingest is left.
    """
    source, data, store = task.source, task.data, task.store
    columns = choose_columns(source, data)
    intake = Intake(
        columns=columns,
        data=data,
        partition=task.partition,
        key=task.key,
        naming=task.naming,
        tombstones=task.tombstones(),
        buffer_bytes=buffer_bytes or buffer_within(data.ingest_memory_mb, source),
    )
    with ExitStack() as undo:
        try:
            gathered = gather(intake.read(source), intake, store, task.names, progress=task.progress)
        except MissingName as error:
            raise counted(error, source) from None
        undo.callback(store.delete_all, [part.key for parts in gathered.parts.values() for part in parts])
        slices = {placement: record_slice(store, parts) for placement, parts in sorted(gathered.parts.items())}
        repeat = repeated_point(store, tuple(slices.values()), max(1024, intake.buffer_bytes // (4 * DIGEST_BYTES)))
        if repeat is not None:
            raise repeated_id(data.id, places_of(source, data.id, task.key, repeat))
        ingested = ingested_of(source, columns, gathered, slices)
        undo.pop_all()
    return ingested


def gather(
    batches: Iterable[Batch],
    intake: Intake,
    store: ObjectStore,
    names: Callable[[], str],
    *,
    progress: Callable[[int], None] = lambda _: None,
    noted: Callable[[npt.NDArray[np.void]], None] = lambda _: None,
) -> Gathered:
    """Write the batches' data points as parts of their slices, and return what was written.

    ``noted`` is told the digests of all data points written, some at a time. Raises ``Invalid`` for any data point that
    cannot be trained on; then, and whatever else is raised, none of the parts is left.
    """
    router = _Router(key=intake.key, naming=intake.naming, partition=intake.partition, first_shard=intake.first_shard)
    with ExitStack() as undo:
        writer = _SliceWriter(store=store, names=names, router=router, stage_bytes=intake.buffer_bytes, noted=noted)
        undo.callback(writer.discard)
        reading = _Reading(intake=intake, router=router, width=intake.width)
        for batch in batches:
            writer.add(reading.block(batch))
            progress(reading.points)
        parts = writer.finish()
        undo.pop_all()
    return Gathered(
        parts=parts,
        points=reading.points,
        left_out=reading.left_out,
        numbers=reading.numbers,
        width=reading.width,
    )


def ingested_of(
    source: Source, columns: Columns, gathered: Gathered, slices: Mapping[Placement, SliceRecord]
) -> Ingested:
    """Return what an ingest has put into the store.

    Raises ``Invalid`` when the source has no data points, or names are numbers in one file and text in another.
    """
    if gathered.width is None:
        raise _no_points(source)
    refuse_mixed(gathered.numbers)
    return Ingested(
        slices=slices,
        layout=FeatureLayout(width=gathered.width, dtype=columns.dtype, features=columns.features),
        inventory=inventory(source),
        points=gathered.points - gathered.left_out.refused,
        left_out=gathered.left_out,
    )


def counted(error: MissingName, source: Source) -> Invalid:
    """Return the error for a data point without a name, with the number of all of them in the source."""
    column = str(error.context["column"])
    count = count_missing(source, column)
    many = f"{count} data points have none here" if count > 1 else "it is the only one"
    return MissingName(f"{error.fact}; {many}", error.remedy, **error.context)


def refuse_mixed(numbers: Mapping[tuple[str, str], bool]) -> None:
    """Raise ``Invalid`` when a column's names are numbers in one file and text in another; see ``Gathered.numbers``."""
    first: dict[tuple[str, bool], str] = {}
    for (file, column), are_all in sorted(numbers.items()):
        first.setdefault((column, are_all), file)
        if (column, not are_all) in first:
            files = {kind: first[column, kind] for kind in (True, False)}
            raise Invalid(
                "a column of names holds numbers alone in one file and text in another",
                "Write it the same way in all files: one person would have two names.",
                column=column,
                numbers=files[True],
                text=files[False],
            )


def places_of(source: Source, column: str, key: PartitionKey, repeat: PointDigest) -> list[tuple[str, int]]:
    """Return file and row of the first two data points of this digest, reading the source's ids once more."""
    found = (
        (batch.file, batch.first + position)
        for batch in source.batches(Wanted(texts=(column,), numbers=()), _ID_BATCH_POINTS)
        for position, text in enumerate(read_texts(batch, column))
        if point_digest(key, text) == repeat
    )
    return list(islice(found, 2))


def repeated_id(column: str, places: Sequence[tuple[str, int]]) -> Exception:
    """Return the error for an id that stands at these two places."""
    if len(places) < 2:
        return InvariantBroken("a data point was stored twice, yet its id occurs once in the source")
    (file, row), (other_file, other_row), *_ = places
    return Invalid(
        "two data points have the same id",
        "Ids must be unique: leave one of them out, or set [data] id to another column.",
        column=column,
        file=file,
        row=row,
        other_file=other_file,
        other_row=other_row,
    )


@dataclass(slots=True, kw_only=True)
class _Router:
    """From ids and subjects to digests and placements."""

    key: PartitionKey
    naming: Naming
    partition: PartitionSettings
    first_shard: int

    def points(self, ids: Sequence[str]) -> npt.NDArray[np.void]:
        joined = b"".join([point_digest(self.key, text) for text in ids])
        return np.frombuffer(joined, dtype=f"V{DIGEST_BYTES}")

    def subjects(self, subjects: Sequence[str]) -> npt.NDArray[np.void]:
        joined = b"".join(digests_of_all(self.key, subjects, self.naming))
        return np.frombuffer(joined, dtype=f"V{DIGEST_BYTES}")

    def split(self, subjects_N: npt.NDArray[np.void]) -> Iterator[tuple[Placement, npt.NDArray[np.intp]]]:
        """Yield each placement that occurs, those of the first shard first, with the positions of its data points."""
        shards, slices = self.partition.shards, self.partition.slices
        numbers = slice_numbers(subjects_N, shards, slices, self.naming)
        turned = (numbers - self.first_shard * slices) % (shards * slices)
        order = np.argsort(turned, kind="stable")
        starts = np.flatnonzero(np.diff(turned[order], prepend=-1))
        for indices in np.split(order, starts[1:]) if len(order) else ():
            shard, slice_ = divmod(int(numbers[indices[0]]), slices)
            yield Placement(ShardId(shard), SliceIndex(slice_ + 1)), indices


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What has been read so far."""

    intake: Intake
    router: _Router
    width: int | None
    points: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    numbers: dict[tuple[str, str], bool] = field(default_factory=dict)

    def block(self, batch: Batch) -> PointBlock:
        """Return a batch's data points without the tombstoned ones."""
        block = self._typed(batch)
        self.points += len(block)
        tombstones = self.intake.tombstones
        if not len(tombstones):
            return block
        gone, named = tombstones.contains(block), tombstones.contains_subjects(block)
        alike = tombstones.resembles(block) & ~gone if self.intake.naming.by_skeleton else gone & ~gone
        self.left_out += LeftOut(refused=int(gone.sum()), by_id=int((gone & ~named).sum()), respelt=int(alike.sum()))
        return block.take(~gone) if gone.any() else block

    def _typed(self, batch: Batch) -> PointBlock:
        data = self.intake.data
        ids = read_texts(batch, data.id)
        subject = data.subject_column
        subjects = ids if subject == data.id else read_texts(batch, subject)
        for column in dict.fromkeys((data.id, subject)):
            self._look_at(batch, column)
        return PointBlock(
            points_N=self.router.points(ids),
            subjects_N=self._subjects(batch, subject, subjects),
            labels_N=read_labels(batch, data.label, data.classes, data.decimal),
            features_NF=self._features(batch),
            further_NK=self._further(batch, len(ids)),
        )

    def _further(self, batch: Batch, points: int) -> npt.NDArray[np.void]:
        columns = self.intake.data.further_subjects
        further_NK = np.empty((points, len(columns)), dtype=f"V{DIGEST_BYTES}")
        for position, column in enumerate(columns):
            names = read_texts(batch, column, optional=True)
            if any(names):
                self._look_at(batch, column)
            further_NK[:, position] = self._subjects(batch, column, names)
        return further_NK

    def _look_at(self, batch: Batch, column: str) -> None:
        """Note whether the names are numbers, unless types say so of all files; refuse what a float made of them."""
        check_written(batch, column)
        place = (batch.file, column)
        if self.intake.columns.untyped and self.numbers.get(place, True):
            self.numbers[place] = are_numbers(batch, column)

    def _subjects(self, batch: Batch, column: str, subjects: Sequence[str]) -> npt.NDArray[np.void]:
        try:
            return self.router.subjects(subjects)
        except Invalid:
            for position, name in enumerate(subjects):
                if not name:
                    continue
                try:
                    in_form(name, self.intake.naming.form)
                except Invalid as error:
                    raise Invalid(
                        error.fact,
                        error.remedy,
                        file=batch.file,
                        column=column,
                        row=batch.first + position,
                    ) from None
            raise

    def _features(self, batch: Batch) -> Features:
        features = read_features(batch, self.intake.columns, self.width)
        if self.width is None:
            width: int = features.shape[1]
            self.width = width
            check_scale(self.intake.data.scale, width)
        return features


@dataclass(slots=True, kw_only=True)
class _SliceWriter:
    """Stages data points in arrays of fixed size; when they are full, writes what they hold as parts of the slices."""

    store: ObjectStore
    names: Callable[[], str]
    router: _Router
    stage_bytes: int
    noted: Callable[[npt.NDArray[np.void]], None]
    _stage: PointBlock | None = None
    _staged: int = 0
    _parts: dict[Placement, list[PartRecord]] = field(default_factory=dict)

    def add(self, block: PointBlock) -> None:
        """Stage the data points, writing parts as the stage fills."""
        if self._stage is None:
            self._stage = _stage_for(block, self.stage_bytes)
        start = 0
        while start < len(block):
            end = min(len(block), start + len(self._stage) - self._staged)
            _copy(block, slice(start, end), self._stage, self._staged)
            self._staged += end - start
            start = end
            if self._staged == len(self._stage):
                self._flush()

    def finish(self) -> dict[Placement, tuple[PartRecord, ...]]:
        """Write what is left and return the parts of the slices that hold data points."""
        self._flush()
        self._stage = None
        return {placement: tuple(parts) for placement, parts in self._parts.items()}

    def discard(self) -> None:
        """Delete every object written."""
        self.store.delete_all(part.key for parts in self._parts.values() for part in parts)

    def _flush(self) -> None:
        if self._stage is None or not self._staged:
            return
        self.noted(self._stage.points_N[: self._staged])
        # A part is copied while it is encoded: a share of the stage at a time.
        most = -(-len(self._stage) // _PARTS_PER_STAGE)
        for placement, indices in self.router.split(self._stage.subjects_N[: self._staged]):
            for start in range(0, len(indices), most):
                block = self._stage.take(indices[start : start + most])
                record = write_part(self.store, block, placement, self.names)
                self._parts.setdefault(placement, []).append(record)
        self._staged = 0


def feature_width(source: Source, data: DataSettings, columns: Columns | None = None) -> int:
    """Return the number of features of the source, read off its first data points.

    Raises ``Invalid`` for columns that are missing or of the wrong type, and for a source without any data point.
    """
    columns = columns or choose_columns(source, data)
    for batch in source.batches(columns.wanted, points=1):
        width = int(read_features(batch, columns, None).shape[1])
        check_scale(data.scale, width)
        return width
    raise _no_points(source)


def taken_from(data: DataSettings) -> dict[str, Json]:
    """Return the settings that say what the stored data points are: under others, the same objects mean others."""
    return {"label": data.label, "features": list(data.features), "classes": list(data.classes)}


def check_scale(scale: float | tuple[float, ...], width: int) -> None:
    """Raise ``Invalid`` when ``scale`` is a list of another length than there are features."""
    if isinstance(scale, tuple) and len(scale) != width:
        raise Invalid(
            f"[data] scale has {len(scale)} constants for {width} features", "Give one for all, or one per feature."
        )


def buffer_within(memory_mb: int, source: Source) -> int:
    """Return how many bytes may be held before they are written, for a process to stay within ``memory_mb`` MiB."""
    baseline_mb = _BASELINE_MB + (_REMOTE_MB if source.is_remote else 0)
    return max(_LEAST_BUFFER_MB, (memory_mb - baseline_mb) // 8) * _MEBIBYTE


def _no_points(source: Source) -> Invalid:
    return Invalid(
        "the data set has no data points", "Set [data] train to files that hold some.", source=source.location
    )


def _stage_for(block: PointBlock, stage_bytes: int) -> PointBlock:
    width, further = block.features_NF.shape[1], block.further_NK.shape[1]
    dtype: np.dtype[Any] = block.features_NF.dtype
    points = max(1, stage_bytes // ((2 + further) * DIGEST_BYTES + 4 + width * dtype.itemsize))
    return PointBlock(
        points_N=np.empty(points, dtype=f"V{DIGEST_BYTES}"),
        subjects_N=np.empty(points, dtype=f"V{DIGEST_BYTES}"),
        labels_N=np.empty(points, dtype=np.int32),
        features_NF=np.empty((points, width), dtype=dtype),
        further_NK=np.empty((points, further), dtype=f"V{DIGEST_BYTES}"),
    )


def _copy(block: PointBlock, chosen: slice, stage: PointBlock, start: int) -> None:
    target = slice(start, start + chosen.stop - chosen.start)
    stage.points_N[target] = block.points_N[chosen]
    stage.subjects_N[target] = block.subjects_N[chosen]
    stage.labels_N[target] = block.labels_N[chosen]
    stage.features_NF[target] = block.features_NF[chosen]
    stage.further_NK[target] = block.further_NK[chosen]
