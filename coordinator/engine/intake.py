"""Reads a federation's sources: the one to train on and, if it is another one, that of the hold-out points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice

from coordinator.engine.lookup import load_tombstones
from coordinator.ports import Ingestion
from coordinator.state import FederationState
from shards.data.sources import Source, named_by
from shards.routing import SliceId
from shards.slices.files import EMPTY_SLICE, SliceRecord, repeated_point, rewrite_slice
from shards.slices.ingest import IngestResult, IngestTask, places_of, repeated_id
from shards.specification import PartitionSettings, ShardId, SliceIndex
from storage.errors import Invalid
from storage.objects import NewName, ObjectStore


def read_sources(ingest: Ingestion, task: IngestTask, holdout: Source | None) -> IngestResult:
    """Return what was written for the task's source and, all of it as hold-out points, for ``holdout``.

    Raises what ``ingest`` raises, and ``Invalid`` when the two have other features or share a file or an id. After an
    error, objects of the source that was read first may be left.
    """
    if holdout is None:
        result = ingest(task)
        _refuse_everybody(result, task)
        return result
    _refuse_shared_files(task.source, holdout)
    trained = ingest(task)
    with named_by("[data] holdout"):
        held_out = ingest(
            replace(
                task,
                source=holdout,
                held_out=1.0,
                progress=lambda points: task.progress(trained.points + trained.left_out.refused + points),
            )
        )
    if trained.layout.features != held_out.layout.features or trained.layout.width != held_out.layout.width:
        raise Invalid(
            f"the hold-out files have other features than those to train on: {held_out.layout.width} in"
            f" {len(held_out.layout.features)} columns, {trained.layout.width} in {len(trained.layout.features)}",
            "Give both the same columns, or name the columns one by one in [data] features.",
            source=holdout.location,
        )
    _refuse_shared_ids(task, holdout, (*trained.slices.values(), *held_out.slices.values()))
    return IngestResult(
        slices={**trained.slices, **held_out.slices},
        layout=trained.layout,
        inventory=(*trained.inventory, *held_out.inventory),
        points=trained.points + held_out.points,
        left_out=trained.left_out + held_out.left_out,
    )


def every_slice(result: IngestResult, partition: PartitionSettings) -> dict[SliceId, SliceRecord]:
    """Return all slices of the partition, those without data points among them, in the order of shards and slices."""
    places = (
        SliceId(ShardId(shard), SliceIndex(slice_))
        for shard in range(partition.shards)
        for slice_ in range(1, partition.slices + 1)
    )
    return {place: result.slices.get(place, EMPTY_SLICE) for place in places}


def holdout_of(result: IngestResult, task: IngestTask) -> tuple[SliceRecord, ...]:
    """Return the slices of hold-out points; without any where the settings hold out nothing."""
    if task.data.holdout is None:
        return ()
    return result.shard(ShardId(task.partition.shards), task.partition.slices)


def _refuse_everybody(result: IngestResult, task: IngestTask) -> None:
    """Raise ``Invalid`` if the share holds everybody out, unless others were only erased."""
    held_out = result.shard(ShardId(task.partition.shards), task.partition.slices)
    if result.points and not result.left_out.refused and result.points == sum(each.points for each in held_out):
        raise Invalid(
            f"[data] holdout = {task.data.holdout} holds out everybody: of {result.points:,} data points, none is left"
            " to train on",
            "Set a smaller share, or name files of their own in [data] holdout.",
            source=task.source.location,
        )


def _refuse_shared_files(source: Source, holdout: Source) -> None:
    """Raise ``Invalid`` if a file is in both sources; the error for its first data point would be harder to read."""
    trained = {file.path.resolve() for file in source.files if file.path is not None}
    for file in holdout.files:
        if file.path is not None and file.path.resolve() in trained:
            raise Invalid(
                "a file is named both to train on and as hold-out points",
                "Name other files in [data] holdout, or a share such as 0.1, which is taken out of [data] train.",
                file=file.name,
            )


def _refuse_shared_ids(task: IngestTask, holdout: Source, slices: tuple[SliceRecord, ...]) -> None:
    """Raise ``Invalid`` if a data point is in both sources: it would be measured on what it was trained on."""
    repeat = repeated_point(task.store, tuple(record for record in slices if record != EMPTY_SLICE))
    if repeat is not None:
        places = (
            place for source in (task.source, holdout) for place in places_of(source, task.data.id, task.key, repeat)
        )
        raise repeated_id(task.data.id, list(islice(places, 2)))


def without_erased(
    store: ObjectStore, state: FederationState, slices: Mapping[SliceId, SliceRecord], new_name: NewName
) -> dict[SliceId, SliceRecord]:
    """Return the slices without data points that have tombstones in the state; changed slices are written again."""
    gone = load_tombstones(store, state.tombstone_objects())
    return {place: rewrite_slice(store, record, gone, place, new_name).record for place, record in slices.items()}


def holdout_without_erased(
    store: ObjectStore, state: FederationState, holdout: tuple[SliceRecord, ...], new_name: NewName
) -> tuple[SliceRecord, ...]:
    """Return the slices of hold-out points, as ``without_erased`` does."""
    return tuple(without_erased(store, state, by_slice(state, holdout), new_name).values())


def by_slice(state: FederationState, holdout: tuple[SliceRecord, ...]) -> dict[SliceId, SliceRecord]:
    """Return slices of hold-out points by the names that they have among all slices, in their order."""
    return {SliceId(state.shard_of_holdout, SliceIndex(index)): record for index, record in enumerate(holdout, start=1)}
