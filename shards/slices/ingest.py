"""Ingest: from the user's files to slice files, with bounded memory.

The result depends only on the data points, not on their order, the format or division of files, or the memory limit.
Only the names of objects and the division of slices into parts vary. Data can therefore also be gathered fragment by
fragment, by many processes (``shards.slices.parallel_ingest``). Shape legend: N points, F features, K further subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from shards.data.columns import (
    ChosenColumns,
    Features,
    MissingName,
    are_numbers,
    check_written,
    choose_columns,
    count_missing,
    labels_of,
    read_distinct,
    read_features,
    read_texts,
)
from shards.data.inventory import SourceFile, inventory
from shards.data.readers import Wanted
from shards.data.sources import Batch, Source
from shards.learner_kinds.admissible import ANYTHING, Admissible
from shards.points import PointBlock, PointBlocks, points_within
from shards.routing import (
    AS_GIVEN,
    DIGEST_BYTES,
    KnownSubjects,
    Naming,
    PartitionKey,
    PointDigest,
    SliceId,
    point_digest,
    point_digests,
    slice_numbers,
)
from shards.slices.admitted import refuse_features, refuse_labels
from shards.slices.files import EMPTY_SLICE, PartRecord, SliceRecord, write_part
from shards.slices.kept_digests import DigestKeeper, repeat_in_slices
from shards.specification import DataSettings, PartitionSettings, ShardId, SliceIndex
from shards.subjects import in_form
from shards.targets import Class, LabelArray
from shards.tombstones import DigestSet
from storage.digests import Json
from storage.errors import Invalid, InvariantBroken
from storage.objects import NewName, ObjectStore

_MEBIBYTE = 1 << 20
_BASELINE_MB = 150
"""Interpreter, libraries, and pages, buffers and footer of a Parquet file with many columns while it is read."""
_REMOTE_MB = 80
"""Additional memory for files in a bucket: the client library, and the held part of a file."""
_LEAST_BUFFER_MB = 8
_MOST_BATCH_BYTES = 8 * _MEBIBYTE
_ID_BATCH_POINTS = 65_536
_PARTS_PER_BUFFER = 4
"""A part is at most the buffer divided by this number, because it is copied while it is written."""
_NAMES_PER_BUFFER = 8
"""The same for names of subjects and their digests."""
_KEPT_PER_BUFFER = 4
"""Digests in memory take at most the buffer's bytes divided by this number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureLayout:
    """Number, type and columns of a data set's features."""

    width: int
    """F."""
    dtype: str
    """``uint8`` or ``float32``: how they are stored; training sees float32."""
    features: tuple[str, ...]
    """Their columns, in order; predictions read the same columns by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """How many data points an ingest left out, or took in with a warning, because of tombstones."""

    refused: int = 0
    """Data points left out because they, or their subjects, are tombstoned."""
    by_id: int = 0
    """Data points left out although their subject, as the source names it now, is not tombstoned."""
    respelt: int = 0
    """Data points taken in whose subject differs from an erased one only in spelling; 0 without routing by skeleton."""

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(
            refused=self.refused + other.refused,
            by_id=self.by_id + other.by_id,
            respelt=self.respelt + other.respelt,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestResult:
    """The result of an ingest, as written to the store."""

    slices: Mapping[SliceId, SliceRecord]
    """The slices that have data points; all others are empty."""
    layout: FeatureLayout
    inventory: tuple[SourceFile, ...]
    """The files that were read."""
    points: int
    """Data points in the slices."""
    left_out: LeftOut

    def shard(self, shard: ShardId, slices: int) -> tuple[SliceRecord, ...]:
        """Return the records of slices 1..R of a shard."""
        places = (SliceId(shard, SliceIndex(index)) for index in range(1, slices + 1))
        return tuple(self.slices.get(slice_id, EMPTY_SLICE) for slice_id in places)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestTask:
    """Write the data points of ``source`` as slices into ``store``."""

    source: Source
    data: DataSettings
    partition: PartitionSettings
    key: PartitionKey = field(repr=False)
    naming: Naming = AS_GIVEN
    store: ObjectStore
    """May be sent to other processes, as may ``tombstones``."""
    tombstones: Callable[[], DigestSet]
    new_name: NewName
    """Returns a new name at every call; the name of every object written is, or begins with, such a name."""
    held_out: float = 0.0
    """The share of subjects whose data points are held out; 1: those of all, because the source has nothing else."""
    admitted: Admissible = ANYTHING
    """The features and labels that the learner accepts."""
    progress: Callable[[int], None] = lambda _: None
    """Called now and then with the number of data points read so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The input for gathering data points, in one process or in many."""

    columns: ChosenColumns
    data: DataSettings
    partition: PartitionSettings
    key: PartitionKey = field(repr=False)
    naming: Naming = AS_GIVEN
    tombstones: DigestSet
    buffer_bytes: int
    """Bytes that may be held before they are written; does not change the result."""
    width: int | None = None
    """F, if it is known already; None: take it from the first data point."""
    held_out: float = 0.0
    """As in ``IngestTask``."""
    admitted: Admissible = ANYTHING
    """As in ``IngestTask``."""
    first_shard: int = 0
    """The shard whose parts are written first; does not change the result."""

    def read(self, source: Source) -> Iterator[Batch]:
        """Yield the source's data points, in batches that fit into the buffer."""
        points = self.columns.points_within(min(_MOST_BATCH_BYTES, self.buffer_bytes))
        return source.batches(self.columns.wanted, points)

    def split(self, subjects_N: npt.NDArray[np.void]) -> Iterator[tuple[SliceId, npt.NDArray[np.intp]]]:
        """Yield each placement that occurs, starting with ``first_shard``, and the positions of its data points."""
        shards, slices = self.partition.shards, self.partition.slices
        numbers = slice_numbers(subjects_N, shards, slices, self.naming, self.held_out)
        turned = (numbers - self.first_shard * slices) % ((shards + bool(self.held_out)) * slices)
        order = np.argsort(turned, kind="stable")
        starts = np.flatnonzero(np.diff(turned[order], prepend=-1))
        for indices in np.split(order, starts[1:]) if len(order) else ():
            shard, slice_ = divmod(int(numbers[indices[0]]), slices)
            yield SliceId(ShardId(shard), SliceIndex(slice_ + 1)), indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The parts written for some data points. Contains nothing about a single data point."""

    parts: Mapping[SliceId, tuple[PartRecord, ...]]
    points: int
    """Data points read."""
    left_out: LeftOut
    numbers: Mapping[tuple[str, str], bool]
    """If a file has no types: for each file and column of names, whether all names are numbers."""
    width: int | None
    """F; None when there were no data points."""


def ingest(task: IngestTask, buffer_bytes: int | None = None) -> IngestResult:
    """Return the slices that the source's data points were written to.

    ``buffer_bytes`` may be held before they are written; default: a share of ``data.ingest_memory_mb``.
    Raises ``Invalid`` for any data point that cannot be trained on and for an id that occurs twice. After any error, no
    object of this ingest is left.
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
        held_out=task.held_out,
        admitted=task.admitted,
        buffer_bytes=buffer_bytes or buffer_within(data.ingest_memory_mb, source),
    )
    kept = keeper_of(intake, store, task.new_name)
    with ExitStack() as undo:
        undo.callback(kept.discard)
        try:
            gathered = gather(intake.read(source), intake, store, task.new_name, progress=task.progress, kept=kept)
        except MissingName as error:
            raise counted(error, source) from None
        undo.callback(store.delete_all, [part.key for parts in gathered.parts.values() for part in parts])
        sources = kept.sources(gathered.parts)
        slices = {slice_id: each.record(store) for slice_id, each in sources.items()}
        repeat = repeat_in_slices(store, tuple(sources.values()), max(1024, intake.buffer_bytes // (4 * DIGEST_BYTES)))
        if repeat is not None:
            raise repeated_id(data.id, places_of(source, data.id, task.key, repeat))
        ingested = ingested_of(source, columns, gathered, slices)
        kept.discard()
        undo.pop_all()
    return ingested


def gather(
    batches: Iterable[Batch],
    intake: Intake,
    store: ObjectStore,
    new_name: NewName,
    *,
    progress: Callable[[int], None] = lambda _: None,
    noted: Callable[[npt.NDArray[np.void]], None] = lambda _: None,
    seen: Callable[[Batch, PointBlock], None] = lambda _batch, _block: None,
    kept: DigestKeeper | None = None,
) -> Gathered:
    """Write the batches' data points as parts of their slices, and return what was written.

    The digests of each part go to ``kept``.
    ``noted`` is called with the digests of the data points written, some at a time, and ``seen`` with each batch and
    all of its data points before they are written.
    Raises ``Invalid`` for any data point that cannot be trained on. After any error, no part is left.
    """
    with ExitStack() as undo:
        writer = _SliceWriter(intake=intake, store=store, new_name=new_name, noted=noted, kept=kept)
        undo.callback(writer.discard)
        reading = _Reading(intake=intake, width=intake.width)
        for batch in batches:
            every = reading.all_of(batch)
            seen(batch, every)
            writer.add(reading.kept(every))
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


def keeper_of(intake: Intake, store: ObjectStore, new_name: NewName) -> DigestKeeper:
    """Return the keeper of the digests of parts that this process will write, within a share of its memory."""
    return DigestKeeper(store=store, new_name=new_name, most_bytes=intake.buffer_bytes // _KEPT_PER_BUFFER)


def blocks_of(batches: Iterable[Batch], intake: Intake) -> Iterator[tuple[Batch, PointBlock]]:
    """Yield each batch with all of its data points, those with tombstones included. Raises ``Invalid`` as ``gather``.

    Also raises it, at the end, when names are numbers in one file and text in another.
    """
    reading = _Reading(intake=intake, width=intake.width)
    for batch in batches:
        yield batch, reading.all_of(batch)
    refuse_mixed(reading.numbers)


def ingested_of(
    source: Source, columns: ChosenColumns, gathered: Gathered, slices: Mapping[SliceId, SliceRecord]
) -> IngestResult:
    """Return what an ingest has written to the store.

    Raises ``Invalid`` when the source has no data points, or names are numbers in one file and text in another.
    """
    if gathered.width is None:
        raise _no_points(source)
    refuse_mixed(gathered.numbers)
    return IngestResult(
        slices=slices,
        layout=FeatureLayout(width=gathered.width, dtype=columns.dtype, features=columns.features),
        inventory=inventory(source),
        points=gathered.points - gathered.left_out.refused,
        left_out=gathered.left_out,
    )


def counted(error: MissingName, source: Source) -> Invalid:
    """Return the error for a data point without a name, including the number of such data points in the source."""
    column = str(error.context["column"])
    count = count_missing(source, column)
    many = f"{count} data points here have no name" if count > 1 else "it is the only one"
    return MissingName(f"{error.fact}; {many}", error.remedy, **error.context)


def refuse_mixed(numbers: Mapping[tuple[str, str], bool]) -> None:
    """Raise ``Invalid`` when a column's names are numbers in one file and text in another; see ``Gathered.numbers``."""
    first: dict[tuple[str, bool], str] = {}
    for (file, column), are_all in sorted(numbers.items()):
        first.setdefault((column, are_all), file)
        if (column, not are_all) in first:
            files = {kind: first[column, kind] for kind in (True, False)}
            raise Invalid(
                "a column of names has only numbers in one file and text in another",
                "Write it the same way in all files; otherwise one person would have two names.",
                column=column,
                numbers=files[True],
                text=files[False],
            )


def places_of(source: Source, column: str, key: PartitionKey, repeat: PointDigest) -> list[tuple[str, int]]:
    """Return file and row of the first two data points with this digest; reads the source's ids once more."""
    found = (
        (batch.file, batch.first + position)
        for batch in source.batches(Wanted(texts=(column,), numbers=()), _ID_BATCH_POINTS)
        for position, text in enumerate(read_texts(batch, column))
        if point_digest(key, text) == repeat
    )
    return list(islice(found, 2))


def repeated_id(column: str, places: Sequence[tuple[str, int]]) -> Exception:
    """Return the error for an id that occurs at these two places."""
    if len(places) < 2:
        return InvariantBroken("a data point was stored twice, yet its id occurs once in the source")
    (file, row), (other_file, other_row), *_ = places
    return Invalid(
        "two data points have the same id",
        "Leave one of them out, or set [data] id to another column: ids must be unique.",
        column=column,
        file=file,
        row=row,
        other_file=other_file,
        other_row=other_row,
    )


@dataclass(slots=True, kw_only=True)
class _Reading:
    """Reads batches, and counts what has been read so far."""

    intake: Intake
    width: int | None
    points: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    numbers: dict[tuple[str, str], bool] = field(default_factory=dict)
    _known: KnownSubjects = field(init=False)

    def __post_init__(self) -> None:
        intake = self.intake
        most_bytes = intake.buffer_bytes // _NAMES_PER_BUFFER
        self._known = KnownSubjects(key=intake.key, naming=intake.naming, most_bytes=most_bytes)

    def kept(self, block: PointBlock) -> PointBlock:
        """Count the data points of a batch, and return them without tombstoned ones."""
        self.points += len(block)
        tombstones = self.intake.tombstones
        if not len(tombstones):
            return block
        gone, named = tombstones.contains(block), tombstones.contains_subjects(block)
        alike = tombstones.resembles(block) & ~gone if self.intake.naming.by_skeleton else gone & ~gone
        self.left_out += LeftOut(refused=int(gone.sum()), by_id=int((gone & ~named).sum()), respelt=int(alike.sum()))
        return block.take(~gone) if gone.any() else block

    def all_of(self, batch: Batch) -> PointBlock:
        """Return the data points of a batch, with tombstoned ones; does not count them."""
        data = self.intake.data
        ids = read_texts(batch, data.id)
        subject = data.subject_column
        subjects = read_distinct(batch, subject)
        for column in dict.fromkeys((data.id, subject)):
            self._check_names(batch, column)
        return PointBlock(
            points_N=point_digests(self.intake.key, ids),
            subjects_N=self._subjects(batch, subject, *subjects),
            labels_N=self._labels(batch),
            features_NF=self._features(batch),
            further_NK=self._further(batch, len(ids)),
        )

    def _further(self, batch: Batch, points: int) -> npt.NDArray[np.void]:
        columns = self.intake.data.further_subjects
        further_NK = np.empty((points, len(columns)), dtype=f"V{DIGEST_BYTES}")
        for position, column in enumerate(columns):
            distinct, codes_N = read_distinct(batch, column, optional=True)
            if any(distinct):
                self._check_names(batch, column)
            further_NK[:, position] = self._subjects(batch, column, distinct, codes_N)
        return further_NK

    def _check_names(self, batch: Batch, column: str) -> None:
        """Record whether the names are numbers, unless all files have types; refuse names rounded by a float."""
        check_written(batch, column)
        place = (batch.file, column)
        if self.intake.columns.untyped and self.numbers.get(place, True):
            self.numbers[place] = are_numbers(batch, column)

    def _subjects(
        self, batch: Batch, column: str, distinct: list[str], codes_N: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.void]:
        try:
            return self._known.digests(distinct)[codes_N]
        except Invalid:
            for position, code in enumerate(codes_N.tolist()):
                if not distinct[code]:
                    continue
                try:
                    in_form(distinct[code], self.intake.naming.form)
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
        refuse_features(batch, self.intake.columns, features, self.intake.data.scale, self.intake.admitted.features)
        return features

    def _labels(self, batch: Batch) -> LabelArray:
        data = self.intake.data
        labels = labels_of(batch, data)
        if data.label_columns and not data.predicted.has_classes:
            refuse_labels(batch, data.label_columns, labels.astype(np.float32), self.intake.admitted.labels)
        return labels


@dataclass(slots=True, kw_only=True)
class _SliceWriter:
    """Collects data points up to a fixed number and then writes them as parts of their slices."""

    intake: Intake
    store: ObjectStore
    new_name: NewName
    noted: Callable[[npt.NDArray[np.void]], None]
    kept: DigestKeeper | None
    _blocks: list[PointBlock] = field(default_factory=list)
    _held: int = 0
    _most: int = 0
    """How many data points may be held; 0: not known yet."""
    _parts: dict[SliceId, list[PartRecord]] = field(default_factory=dict)

    def add(self, block: PointBlock) -> None:
        """Hold the data points; before they are too many, write parts."""
        self._most = self._most or points_within(block, self.intake.buffer_bytes)
        for start in range(0, len(block), self._most):
            piece = block.between(start, start + self._most) if len(block) > self._most else block
            if self._held + len(piece) > self._most:
                self._flush()
            self._blocks.append(piece)
            self._held += len(piece)

    def finish(self) -> dict[SliceId, tuple[PartRecord, ...]]:
        """Write what is held and return the parts of all slices that have data points."""
        self._flush()
        return {slice_id: tuple(parts) for slice_id, parts in self._parts.items()}

    def discard(self) -> None:
        """Delete every object written."""
        self.store.delete_all(part.key for parts in self._parts.values() for part in parts)

    def _flush(self) -> None:
        blocks, self._blocks = PointBlocks.of(self._blocks), []
        self._held = 0
        if not len(blocks):
            return
        self.noted(blocks.points_N)
        # A part is copied while it is encoded, so only a share of what is held is written at a time.
        most = -(-self._most // _PARTS_PER_BUFFER)
        for slice_id, indices in self.intake.split(blocks.subjects_N):
            for start in range(0, len(indices), most):
                block = blocks.take(indices[start : start + most])
                record = write_part(self.store, block, slice_id, self.new_name)
                self._parts.setdefault(slice_id, []).append(record)
                if self.kept is not None:
                    self.kept.add(slice_id, record, block)


def feature_width(source: Source, data: DataSettings, columns: ChosenColumns | None = None) -> int:
    """Return the number of features of the source, from its first data point.

    Raises ``Invalid`` for columns that are missing or have the wrong type, and for a source without data points.
    """
    columns = columns or choose_columns(source, data)
    for batch in source.batches(columns.wanted, points=1):
        width = int(read_features(batch, columns, None).shape[1])
        check_scale(data.scale, width)
        return width
    raise _no_points(source)


def taken_from(data: DataSettings) -> dict[str, Json]:
    """Return the settings that define what the stored data points mean; with other settings they would mean others."""
    label: Json = list(data.label) if isinstance(data.label, tuple) else data.label
    taken: dict[str, Json] = {
        **({} if label is None else {"label": label}),
        "features": list(data.features),
        "classes": list(data.classes),
    }
    if data.target != Class.kind:
        taken["target"] = data.target
    taken |= data.label_record
    if data.holdout is not None:
        taken["holdout"] = "files" if isinstance(data.holdout, str) else data.holdout
    return taken | {"encode": data.encoders.record()} if data.encode else taken


def check_scale(scale: float | tuple[float, ...], width: int) -> None:
    """Raise ``Invalid`` when ``scale`` is a list whose length is not the number of features."""
    if isinstance(scale, tuple) and len(scale) != width:
        raise Invalid(
            f"[data] scale has {len(scale)} constants for {width} features", "Give one for all, or one per feature."
        )


def buffer_within(memory_mb: int, source: Source) -> int:
    """Return how many bytes may be held before they are written, so that a process stays within ``memory_mb`` MiB."""
    baseline_mb = _BASELINE_MB + (_REMOTE_MB if source.is_remote else 0)
    return max(_LEAST_BUFFER_MB, (memory_mb - baseline_mb) // 8) * _MEBIBYTE


def _no_points(source: Source) -> Invalid:
    return Invalid(
        "the data set has no data points", "Set [data] train to files that hold some.", source=source.location
    )
