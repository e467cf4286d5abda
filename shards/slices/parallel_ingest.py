"""Parallel ingest: many processes read one source, for data that is too large for one machine.

Any free process gathers the next fragment of the source; then the parts of each slice are joined. The slices are the
same as those of ``shards.slices.ingest.ingest``, regardless of how the source is divided and in which order it is read.
Data points go from the files to the store only: the processes return just where they have written them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from shards.data.columns import ChosenColumns, MissingName, choose_columns
from shards.data.fragments import Fragment, divide, payload_bytes
from shards.learner_kinds.admissible import ANYTHING, Admissible
from shards.routing import Naming, PartitionKey, PointDigest, SliceId
from shards.slices.duplicate_ids import DigestRun, DigestWriter, Ranges, find_repeat
from shards.slices.files import SliceRecord
from shards.slices.ingest import (
    Gathered,
    IngestResult,
    IngestTask,
    Intake,
    LeftOut,
    buffer_within,
    counted,
    feature_width,
    gather,
    ingested_of,
    keeper_of,
    places_of,
    repeated_id,
)
from shards.slices.kept_digests import DigestsObject, SliceSource, slice_source
from shards.specification import DataSettings, PartitionSettings
from shards.tombstones import DigestSet
from storage.objects import NewName, ObjectStore

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")
_Shared = ParamSpec("_Shared")


class TaskPool(Protocol):
    """Applies a function to many items, concurrently, in other processes."""

    def __call__(
        self,
        act: Callable[Concatenate[_Thing, str, _Shared], _Result],
        things: Sequence[_Thing],
        new_name: NewName,
        on_result: Callable[[_Result], None],
        /,
        *shared: _Shared.args,
        **more: _Shared.kwargs,
    ) -> list[_Result]:
        """Return the results of ``act`` in the order of ``things``; call ``on_result`` with each as it arrives.

        ``act`` is a function of a module. It receives a thing, a name of ``new_name`` unique to the attempt, and
        the shared arguments. An attempt that dies is repeated; it may have left objects behind under its name.

        If ``act`` fails, raises the error for the first of the failing things: everything before it is done then, and
        everything after it is abandoned.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestContext:
    """The context of all fragments, without the partition key; is sent to other processes."""

    store: ObjectStore
    columns: ChosenColumns
    data: DataSettings
    partition: PartitionSettings
    """Settings without the partition key, because the task pool may write large contexts to disk."""
    naming: Naming
    tombstones: Callable[[], DigestSet]
    width: int
    buffer_bytes: int
    ranges: Ranges
    held_out: float = 0.0
    """See ``IngestTask``, also for ``admitted``."""
    admitted: Admissible = ANYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class FragmentResult:
    """The parts written for one fragment, or for several."""

    gathered: Gathered
    runs: tuple[DigestRun, ...]
    digests: Mapping[SliceId, tuple[DigestsObject, ...]]
    """Objects with the digests of some of the parts."""


def gather_fragment(fragment: Fragment, name: str, context: IngestContext, key: PartitionKey) -> FragmentResult:
    """Write a fragment's data points as parts of their slices, under names that begin with ``name``.

    Raises ``Invalid`` for any data point that cannot be trained on. After any error, no object of this fragment is
    left.
    """
    intake = Intake(
        columns=context.columns,
        data=context.data,
        partition=context.partition,
        key=key,
        naming=context.naming,
        tombstones=context.tombstones(),
        buffer_bytes=context.buffer_bytes,
        width=context.width,
        held_out=context.held_out,
        admitted=context.admitted,
        # Different for each process: writers that all need the same shard's key ring would slow each other down.
        first_shard=zlib.crc32(name.encode()) % context.partition.shards,
    )
    numbers = count(1)

    def new_name() -> str:
        return f"{name}-{next(numbers)}"

    with ExitStack() as undo:
        digests = DigestWriter(
            store=context.store, ranges=context.ranges.count, shards=context.partition.shards, new_name=new_name
        )
        undo.callback(digests.discard)
        kept = keeper_of(intake, context.store, new_name)
        undo.callback(kept.discard)
        batches = fragment.numbered(intake.read(fragment.source))
        gathered = gather(batches, intake, context.store, new_name, noted=digests.add, kept=kept)
        undo.callback(context.store.delete_all, [part.key for own in gathered.parts.values() for part in own])
        objects = kept.write()
        undo.pop_all()
    return FragmentResult(gathered=gathered, runs=tuple(digests.runs), digests=objects)


def merge(results: Sequence[FragmentResult]) -> FragmentResult:
    """Return the results as one, with parts in the order of the results; merging is associative."""
    each = [result.gathered for result in results]
    gathered = Gathered(
        parts=_together([one.parts for one in each]),
        points=sum(one.points for one in each),
        left_out=sum((one.left_out for one in each), LeftOut()),
        numbers=_agreed(each),
        width=next((one.width for one in each if one.width is not None), None),
    )
    return FragmentResult(
        gathered=gathered,
        runs=tuple(run for result in results for run in result.runs),
        digests=_together([result.digests for result in results]),
    )


def _together(each: Sequence[Mapping[SliceId, tuple[_Thing, ...]]]) -> dict[SliceId, tuple[_Thing, ...]]:
    """Return, for each slice, all items that belong to it, in order."""
    found: dict[SliceId, list[_Thing]] = {}
    for one in each:
        for slice_id, own in one.items():
            found.setdefault(slice_id, []).extend(own)
    return {slice_id: tuple(own) for slice_id, own in found.items()}


def _agreed(each: Sequence[Gathered]) -> dict[tuple[str, str], bool]:
    """Return for each file and column of names whether the names in all fragments are numbers."""
    agreed: dict[tuple[str, str], bool] = {}
    for one in each:
        for place, are_all in one.numbers.items():
            agreed[place] = agreed.get(place, True) and are_all
    return agreed


def join_parts(source: SliceSource, _name: str, store: ObjectStore) -> SliceRecord:
    """Return the record of the slice that consists of the parts of ``source``."""
    return source.record(store)


def repeat_in(runs: Sequence[DigestRun], _name: str, context: IngestContext) -> PointDigest | None:
    """Return a digest that occurs twice in the runs of one range, or None; see ``duplicate_ids.find_repeat``."""
    return find_repeat(context.store, runs, context.ranges)


def places_in(
    fragment: Fragment, _name: str, context: IngestContext, key: PartitionKey, repeat: PointDigest
) -> list[tuple[str, int]]:
    """Return file and row of the first two data points with this digest in the fragment."""
    found = places_of(fragment.source, context.data.id, key, repeat)
    return [(file, row + fragment.skipped) for file, row in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelIngest:
    """Ingest with a task pool. Calling an instance has the same effect as ``shards.slices.ingest.ingest``."""

    pool: TaskPool
    fragment_bytes: int
    """Approximate size of a fragment, if files can be divided; does not change the result."""
    buffer_bytes: int | None = None
    """Bytes that each process may hold before it writes them; default: a share of ``data.ingest_memory_mb``."""

    def __call__(self, task: IngestTask) -> IngestResult:
        """Return the slices that the source's data points were written to.

        Raises what ``ingest`` raises. After an error no object is left, except those of a process that has lost its
        connection to this one.
        """
        context = self._context(task)
        drawn: set[str] = set()

        def draw() -> str:
            drawn.add(name := task.new_name())
            return name

        with ExitStack() as undo:
            undo.callback(_delete_written, task.store, drawn)
            fragments = divide(task.source, self.fragment_bytes)
            total = _Total(task.progress)
            try:
                result = merge(self.pool(gather_fragment, fragments, draw, total.add, context, task.key))
            except MissingName as error:
                raise counted(error, task.source) from None
            self._refuse_repeats(fragments, result.runs, draw, context, task.key)
            slices = self._joined(result, draw, task.store)
            ingested = ingested_of(task.source, context.columns, result.gathered, slices)
            objects = chain.from_iterable(result.digests.values())
            task.store.delete_all([*(run.key for run in result.runs), *(each.key for each in objects)])
            undo.pop_all()
        return ingested

    def _context(self, task: IngestTask) -> IngestContext:
        columns = choose_columns(task.source, task.data)
        width = feature_width(task.source, task.data, columns)
        buffer_bytes = self.buffer_bytes or buffer_within(task.data.ingest_memory_mb, task.source)
        return IngestContext(
            store=task.store,
            columns=columns,
            data=task.data,
            partition=replace(task.partition, key=None),
            naming=task.naming,
            tombstones=task.tombstones,
            held_out=task.held_out,
            admitted=task.admitted,
            width=width,
            buffer_bytes=buffer_bytes,
            ranges=Ranges.within(buffer_bytes, payload_bytes(task.source) // width),  # about one byte per feature
        )

    def _refuse_repeats(
        self,
        fragments: Sequence[Fragment],
        runs: Sequence[DigestRun],
        new_name: NewName,
        context: IngestContext,
        key: PartitionKey,
    ) -> None:
        """Raise ``Invalid`` if an id occurs twice; the error names the same id as that of ``ingest`` would."""
        ranges: dict[int, list[DigestRun]] = {}
        for run in sorted(runs, key=lambda run: run.range):
            ranges.setdefault(run.range, []).append(run)
        found = self.pool(repeat_in, list(ranges.values()), new_name, _ignore, context)
        repeats = [repeat for repeat in found if repeat is not None]
        if repeats:
            places = self.pool(places_in, fragments, new_name, _ignore, context, key, repeats[0])
            raise repeated_id(context.data.id, list(chain.from_iterable(places)))

    def _joined(self, result: FragmentResult, new_name: NewName, store: ObjectStore) -> dict[SliceId, SliceRecord]:
        parts = result.gathered.parts
        slice_ids = sorted(parts)
        sources = [slice_source(parts[each], result.digests.get(each, ())) for each in slice_ids]
        return dict(zip(slice_ids, self.pool(join_parts, sources, new_name, _ignore, store), strict=True))


@dataclass(slots=True)
class _Total:
    """Counts the data points read so far."""

    progress: Callable[[int], None]
    points: int = 0

    def add(self, result: FragmentResult) -> None:
        """Add the fragment's data points and report the total."""
        self.points += result.gathered.points
        self.progress(self.points)


def _ignore(_: object) -> None:
    """Do nothing."""


def _delete_written(store: ObjectStore, drawn: set[str]) -> None:
    """Delete the objects whose names begin with one of the names drawn."""
    own = [info.key for info in store.list("shards/") if info.key.rpartition("/")[2].rpartition("-")[0] in drawn]
    store.delete_all(own)
