"""Retrain plans: which shards to train again, from which slice, at what cost. Pure (SISA section IV)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coordinator.requests import Cost
from coordinator.state import FederationState
from shards.cost import replay_point_epochs, training_point_epochs
from shards.lineage import Base, CheckpointRecord
from shards.routing import SliceId
from shards.schedule import slice_epochs
from shards.specification import ShardId, SliceIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRetrain:
    """Train ``shard`` again from ``from_slice`` on."""

    shard: ShardId
    from_slice: SliceIndex
    point_epochs: int
    """Data points seen, counted once per epoch."""
    seconds: float
    """How long training on these slices took last time; 0 when unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainPlan:
    """The cost of an erasure, before anything is done."""

    shards: tuple[ShardRetrain, ...]
    points: int
    """Data points to erase, or to correct."""
    held_out: int = 0
    """Those of them that are hold-out points, which cost no training."""
    point_epochs: int
    full_point_epochs: int
    """Cost of a full retrain of the whole federation: the yardstick."""

    @property
    def fraction(self) -> float:
        """Cost as a share of a full retrain."""
        return self.point_epochs / self.full_point_epochs if self.full_point_epochs else 0.0

    @property
    def expected(self) -> Cost:
        """Expected cost as a request keeps it, for comparison with the actual cost."""
        return total(self.shards)


def total(retrains: Iterable[ShardRetrain]) -> Cost:
    """Return the cost of these together."""
    return sum((Cost(point_epochs=each.point_epochs, seconds=each.seconds) for each in retrains), Cost())


def trained_epochs(state: FederationState) -> int | None:
    """Return e', the epochs of the last requested training; None before the first."""
    if state.is_whole:
        return 1
    epochs = state.settings.get("training", {}).get("epochs")
    return epochs if isinstance(epochs, int) else None


def checkpoint_cost(state: FederationState, shard: ShardId, checkpoint: CheckpointRecord) -> Cost:
    """Return the cost of training this checkpoint's portion: the points up to it, once per epoch (SISA §IV).

    Where all slices are learned at once, a learner's steps are the points that it looked at.
    """
    if state.is_whole:
        return Cost(point_epochs=checkpoint.steps, seconds=checkpoint.seconds)
    epochs = trained_epochs(state)
    if epochs is None:
        return Cost(seconds=checkpoint.seconds)
    own_epochs = slice_epochs(epochs, state.full_chain(shard))[checkpoint.slice - 1]
    return Cost(point_epochs=state.seen(shard, checkpoint.slice) * own_epochs, seconds=checkpoint.seconds)


def affected_slices(slice_ids: Iterable[SliceId]) -> Mapping[ShardId, SliceIndex]:
    """Return the earliest affected slice of every affected shard; no other shard is touched (SISA section III)."""
    earliest: dict[ShardId, SliceIndex] = {}
    for slice_id in slice_ids:
        earliest[slice_id.shard] = min(slice_id.slice, earliest.get(slice_id.shard, slice_id.slice))
    return dict(sorted(earliest.items()))


def plan_retrain(
    state: FederationState, erased: Mapping[SliceId, int], epochs: int, *, stay: bool = False
) -> RetrainPlan:
    """Return the plan for erasing ``erased`` data points (counts by slice) under e' = ``epochs``.

    Costs count only the remaining points: erased points are not trained on again. With ``stay`` all remain, because
    the points are corrected.
    """
    schedule = slice_epochs(epochs, state.full_chain(ShardId(0)))
    held_out = sum(count for place, count in erased.items() if place.shard == state.shard_of_holdout)
    affected = affected_slices(
        place for place, count in erased.items() if count and place.shard != state.shard_of_holdout
    )
    gone: Mapping[SliceId, int] = {} if stay else erased
    retrains = []
    for shard, from_slice in affected.items():
        if state.is_whole:
            changes = sum(count for place, count in erased.items() if place.shard == shard) * (2 if stay else 1)
            retrains.append(changed(state, shard, from_slice, changes, sum(_survivors(state, shard, gone))))
            continue
        redone = state.shards[shard].chain[from_slice - 1 :]
        retrains.append(
            ShardRetrain(
                shard=shard,
                from_slice=from_slice,
                point_epochs=replay_point_epochs(_survivors(state, shard, gone), schedule, from_slice),
                seconds=round(sum(checkpoint.seconds for checkpoint in redone), 3),
            )
        )
    every = (_survivors(state, ShardId(number), gone) for number in range(len(state.shards)))
    return RetrainPlan(
        shards=tuple(retrains),
        points=sum(erased.values()),
        held_out=held_out,
        point_epochs=sum(retrain.point_epochs for retrain in retrains),
        full_point_epochs=sum(training_point_epochs(points, schedule) for points in every),
    )


def learned_chain(state: FederationState, shard: ShardId) -> tuple[CheckpointRecord, ...]:
    """Return the shard's checkpoints if they were learned from nothing: only they say at what pace a shard is trained.

    A checkpoint from which points were taken out directly has these as its steps, and not all of the shard's points.
    """
    chain = state.shards[shard].chain
    is_direct = state.is_whole and any(each.steps != state.seen(shard, 1) for each in chain)
    return () if is_direct else chain


def changed(state: FederationState, shard: ShardId, from_slice: SliceIndex, changes: int, left: int) -> ShardRetrain:
    """Return the cost of a constituent of a learner that may take points out directly, or in and out.

    It looks at no other point then. Where it is learned again, because that is cheaper, or may have to be, it looks at
    all that are ``left``. Little of the time of the last direct change depends on how many points changed. Without one,
    the pace of learning is what is known.
    """
    is_direct = state.configuration is not None and state.configuration.goes_directly(changes, left)
    own, points, seconds = state.shards[shard], changes if is_direct else left, 0.0
    base = own.base or (Base(slices=own.slices, checkpoint=own.chain[0]) if own.chain else None)
    if base is not None and (last := base.checkpoint).steps:
        is_learned = last.steps == sum(record.points for record in base.slices)
        times = points / last.steps
        if not is_learned:  # it says nothing of the pace of learning
            times = max(1.0, times) if is_direct else 1.0
        seconds = round(last.seconds * times, 3)
    return ShardRetrain(shard=shard, from_slice=from_slice, point_epochs=points, seconds=seconds)


def _survivors(state: FederationState, shard: ShardId, erased: Mapping[SliceId, int]) -> tuple[int, ...]:
    return state.portions(
        [
            record.points - erased.get(SliceId(shard, SliceIndex(number)), 0)
            for number, record in enumerate(state.shards[shard].slices, start=1)
        ]
    )
