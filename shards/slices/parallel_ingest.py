"""Gathering: ingest by many, for data that outgrows one machine.

Each fragment of the source is gathered by whoever is free, then each slice is sealed. The same slices come of it as of
``shards.slices.ingest.ingest``, however the source is divided and in whatever order it is read. Data points go from the
files to the store and nowhere else: what comes back says only where they were written.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from shards.data.columns import Columns, MissingName, choose_columns
from shards.data.fragments import Fragment, divide, payload_bytes
from shards.routing import Naming, PartitionKey, Placement, PointDigest
from shards.slices.duplicate_ids import DigestRun, DigestWriter, Ranges, find_repeat
from shards.slices.files import PartRecord, SliceRecord, record_slice
from shards.slices.ingest import (
    Gathered,
    Ingested,
    IngestTask,
    Intake,
    LeftOut,
    buffer_within,
    counted,
    feature_width,
    gather,
    ingested_of,
    places_of,
    repeated_id,
)
from shards.specification import DataSettings, PartitionSettings
from shards.tombstones import DigestSet
from storage.objects import ObjectStore

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")
_Shared = ParamSpec("_Shared")

Names = Callable[[], str]


class Crew(Protocol):
    """Does the same to many things, side by side, in other processes."""

    def __call__(
        self,
        act: Callable[Concatenate[_Thing, str, _Shared], _Result],
        things: Sequence[_Thing],
        names: Names,
        told: Callable[[_Result], None],
        /,
        *shared: _Shared.args,
        **more: _Shared.kwargs,
    ) -> list[_Result]:
        """Return what ``act`` makes of each thing, in their order; ``told`` hears of each as it comes.

        ``act`` is a function of a module. It is given a thing, a name drawn from ``names`` that no other attempt has,
        and what is shared. An attempt that dies is repeated; it may have left things behind under its name.

        Raises what ``act`` raised for the first of the things for which it does: those before it are done then, those
        after it are given up.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the work on every fragment takes, besides the partition key; crosses to other processes."""

    store: ObjectStore
    columns: Columns
    data: DataSettings
    partition: PartitionSettings
    """Without its key: an order may be large, and who carries it might keep what is large on a disk."""
    naming: Naming
    tombstones: Callable[[], DigestSet]
    width: int
    buffer_bytes: int
    ranges: Ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """What was written of a fragment, or of several."""

    gathered: Gathered
    runs: tuple[DigestRun, ...]


def gather_fragment(fragment: Fragment, name: str, order: Order, key: PartitionKey) -> Harvest:
    """Write a fragment's data points as parts of their slices, under names that begin with ``name``.

    Raises ``Invalid`` for any data point that cannot be trained on; then, and whatever else is raised, no object of
    this fragment is left.
    """
    intake = Intake(
        columns=order.columns,
        data=order.data,
        partition=order.partition,
        key=key,
        naming=order.naming,
        tombstones=order.tombstones(),
        buffer_bytes=order.buffer_bytes,
        width=order.width,
        # Each begins elsewhere: writers at the same shard's ring of keys are in each other's way.
        first_shard=zlib.crc32(name.encode()) % order.partition.shards,
    )
    numbers = count(1)

    def names() -> str:
        return f"{name}-{next(numbers)}"

    with ExitStack() as undo:
        digests = DigestWriter(store=order.store, ranges=order.ranges.count, shards=order.partition.shards, names=names)
        undo.callback(digests.discard)
        batches = fragment.numbered(intake.read(fragment.source))
        gathered = gather(batches, intake, order.store, names, noted=digests.add)
        undo.pop_all()
    return Harvest(gathered=gathered, runs=tuple(digests.runs))


def merge(harvests: Sequence[Harvest]) -> Harvest:
    """Return the harvests as one: parts in the order of the harvests, whoever of them had been merged before."""
    each = [harvest.gathered for harvest in harvests]
    parts: dict[Placement, list[PartRecord]] = {}
    for one in each:
        for placement, own in one.parts.items():
            parts.setdefault(placement, []).extend(own)
    gathered = Gathered(
        parts={placement: tuple(own) for placement, own in parts.items()},
        points=sum(one.points for one in each),
        left_out=sum((one.left_out for one in each), LeftOut()),
        numbers=_agreed(each),
        width=next((one.width for one in each if one.width is not None), None),
    )
    return Harvest(gathered=gathered, runs=tuple(run for harvest in harvests for run in harvest.runs))


def _agreed(each: Sequence[Gathered]) -> dict[tuple[str, str], bool]:
    """Return of each file's columns of names whether all names in all of its fragments are numbers."""
    agreed: dict[tuple[str, str], bool] = {}
    for one in each:
        for place, are_all in one.numbers.items():
            agreed[place] = agreed.get(place, True) and are_all
    return agreed


def seal_slice(parts: tuple[PartRecord, ...], _name: str, store: ObjectStore) -> SliceRecord:
    """Return the record of the slice that ``parts`` make up."""
    return record_slice(store, parts)


def repeat_in(runs: Sequence[DigestRun], _name: str, order: Order) -> PointDigest | None:
    """Return a digest that occurs twice in the runs of a range, or None; see ``duplicate_ids.find_repeat``."""
    return find_repeat(order.store, runs, order.ranges)


def places_in(
    fragment: Fragment, _name: str, order: Order, key: PartitionKey, repeat: PointDigest
) -> list[tuple[str, int]]:
    """Return file and row of the first two data points of this digest in the fragment."""
    found = places_of(fragment.source, order.data.id, key, repeat)
    return [(file, row + fragment.skipped) for file, row in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """Ingest by a crew. Calling it is as calling ``shards.slices.ingest.ingest``."""

    crew: Crew
    fragment_bytes: int
    """About how much is read at a time, where files can be divided; changes no result."""
    buffer_bytes: int | None = None
    """What each of the crew may hold before it is written; default: a share of ``data.ingest_memory_mb``."""

    def __call__(self, task: IngestTask) -> Ingested:
        """Return the slices that the source's data points were written to.

        Raises as ``ingest`` does; then no object is left but what somebody writes who is cut off from here.
        """
        order = self._order(task)
        drawn: set[str] = set()

        def draw() -> str:
            drawn.add(name := task.names())
            return name

        with ExitStack() as undo:
            undo.callback(_take_back, task.store, drawn)
            fragments = divide(task.source, self.fragment_bytes)
            told = _Total(task.progress)
            try:
                harvest = merge(self.crew(gather_fragment, fragments, draw, told.add, order, task.key))
            except MissingName as error:
                raise counted(error, task.source) from None
            self._refuse_repeats(fragments, harvest.runs, draw, order, task.key)
            slices = self._sealed(harvest.gathered, draw, task.store)
            ingested = ingested_of(task.source, order.columns, harvest.gathered, slices)
            task.store.delete_all(run.key for run in harvest.runs)
            undo.pop_all()
        return ingested

    def _order(self, task: IngestTask) -> Order:
        columns = choose_columns(task.source, task.data)
        width = feature_width(task.source, task.data, columns)
        buffer_bytes = self.buffer_bytes or buffer_within(task.data.ingest_memory_mb, task.source)
        return Order(
            store=task.store,
            columns=columns,
            data=task.data,
            partition=replace(task.partition, key=None),
            naming=task.naming,
            tombstones=task.tombstones,
            width=width,
            buffer_bytes=buffer_bytes,
            ranges=Ranges.within(buffer_bytes, payload_bytes(task.source) // width),  # about a byte a feature
        )

    def _refuse_repeats(
        self, fragments: Sequence[Fragment], runs: Sequence[DigestRun], names: Names, order: Order, key: PartitionKey
    ) -> None:
        """Raise ``Invalid`` for an id that occurs twice, naming the same one as ``ingest`` would."""
        ranges: dict[int, list[DigestRun]] = {}
        for run in sorted(runs, key=lambda run: run.range):
            ranges.setdefault(run.range, []).append(run)
        found = self.crew(repeat_in, list(ranges.values()), names, _nobody, order)
        repeats = [repeat for repeat in found if repeat is not None]
        if repeats:
            places = self.crew(places_in, fragments, names, _nobody, order, key, repeats[0])
            raise repeated_id(order.data.id, list(chain.from_iterable(places)))

    def _sealed(self, gathered: Gathered, names: Names, store: ObjectStore) -> dict[Placement, SliceRecord]:
        placements = sorted(gathered.parts)
        parts = [gathered.parts[placement] for placement in placements]
        return dict(zip(placements, self.crew(seal_slice, parts, names, _nobody, store), strict=True))


@dataclass(slots=True)
class _Total:
    """How many data points are read so far."""

    progress: Callable[[int], None]
    points: int = 0

    def add(self, harvest: Harvest) -> None:
        """Tell of more."""
        self.points += harvest.gathered.points
        self.progress(self.points)


def _nobody(_: object) -> None:
    """Hear nothing."""


def _take_back(store: ObjectStore, drawn: set[str]) -> None:
    """Delete the objects whose names begin with one of those drawn."""
    own = [info.key for info in store.list("shards/") if info.key.rpartition("/")[2].rpartition("-")[0] in drawn]
    store.delete_all(own)
