"""Retrain plans: which shards to train again, from which slice, at what cost. Pure (SISA section IV)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from coordinator.requests import Cost
from coordinator.state import FederationState
from shards.cost import training_point_epochs
from shards.lineage import Base, CheckpointRecord
from shards.routing import SliceId
from shards.schedule import slice_epochs
from shards.specification import ShardId, SliceIndex

_Number = TypeVar("_Number", int, float)


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
    """How many of them are hold-out points, which cost no training."""
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

    If all slices are learned at once, a learner's steps are the points that it has seen.
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
    return RetrainPlanner(state, epochs).plan(erased, stay=stay)


class RetrainPlanner:
    """Plans erasures on one state, under e' = ``epochs``, each as if it were the only one.

    What does not depend on the erasure is computed once: an erasure in m slices costs O(m), regardless of S and R.
    """

    def __init__(self, state: FederationState, epochs: int) -> None:
        """Prepare; shards are looked at when an erasure affects them."""
        self._state = state
        self._schedule = slice_epochs(epochs, state.full_chain(ShardId(0)))
        self._epochs_from = _sums_from(self._schedule)
        """Epochs of portions r..R, from r = 1 on: how often training from r sees a point of an earlier portion."""
        self._costs: dict[ShardId, tuple[tuple[int, ...], tuple[float, ...]]] = {}
        self._full: int | None = None

    def plan(self, erased: Mapping[SliceId, int], *, stay: bool = False) -> RetrainPlan:
        """Return the plan for erasing ``erased`` data points, as ``plan_retrain`` does."""
        retrains = self.retrains(erased, stay=stay)
        return RetrainPlan(
            shards=retrains,
            points=sum(erased.values()),
            held_out=sum(count for place, count in erased.items() if place.shard == self._state.shard_of_holdout),
            point_epochs=sum(retrain.point_epochs for retrain in retrains),
            full_point_epochs=self._full_point_epochs() - (0 if stay else self._saved(erased)),
        )

    def retrains(self, erased: Mapping[SliceId, int], *, stay: bool = False) -> tuple[ShardRetrain, ...]:
        """Return the shards to train again, and the cost of each."""
        holdout = self._state.shard_of_holdout
        affected = affected_slices(place for place, count in erased.items() if count and place.shard != holdout)
        own: dict[ShardId, dict[SliceId, int]] = {shard: {} for shard in affected}
        for place, count in erased.items():
            if place.shard in own:
                own[place.shard][place] = count
        plan = self._changed if self._state.is_whole else self._retrained
        return tuple(plan(shard, from_slice, own[shard], stay=stay) for shard, from_slice in affected.items())

    def _retrained(
        self, shard: ShardId, from_slice: SliceIndex, erased: Mapping[SliceId, int], *, stay: bool
    ) -> ShardRetrain:
        """Return what the shard's own ``erased`` points cost it."""
        work, seconds = self._costs.get(shard) or self._cost_of(shard)
        gone = 0 if stay else self._saved(erased)
        return ShardRetrain(
            shard=shard,
            from_slice=from_slice,
            # No erased point is before ``from_slice``, so all of the saving is in the slices that are retrained.
            point_epochs=work[from_slice - 1] - gone,
            seconds=round(seconds[from_slice - 1], 3) if from_slice <= len(seconds) else 0.0,
        )

    def _cost_of(self, shard: ShardId) -> tuple[tuple[int, ...], tuple[float, ...]]:
        own = self._state.shards[shard]
        seen = accumulate(record.points for record in own.slices)
        work = _sums_from([points * epochs for points, epochs in zip(seen, self._schedule, strict=True)])
        found = self._costs[shard] = (work, _sums_from([checkpoint.seconds for checkpoint in own.chain]))
        return found

    def _changed(
        self, shard: ShardId, from_slice: SliceIndex, erased: Mapping[SliceId, int], *, stay: bool
    ) -> ShardRetrain:
        """Return the same where all slices are learned at once."""
        changes = sum(erased.values())
        left = self._state.shards[shard].points - (0 if stay else changes)
        return changed(self._state, shard, from_slice, changes * (2 if stay else 1), left)

    def _saved(self, erased: Mapping[SliceId, int]) -> int:
        """Return how many point-epochs of a full training the erased points were."""
        state = self._state
        return sum(
            count * self._epochs_from[state.portion_of(place.slice) - 1]
            for place, count in erased.items()
            if place.shard != state.shard_of_holdout
        )

    def _full_point_epochs(self) -> int:
        if self._full is None:
            every = (self._state.portions([record.points for record in shard.slices]) for shard in self._state.shards)
            self._full = sum(training_point_epochs(points, self._schedule) for points in every)
        return self._full


def _sums_from(values: Sequence[_Number]) -> tuple[_Number, ...]:
    """Return the sum of the values from each one on, to the end.

    >>> _sums_from([1, 2, 3])
    (6, 5, 3)
    """
    return tuple(reversed(list(accumulate(reversed(values)))))


def learned_chain(state: FederationState, shard: ShardId) -> tuple[CheckpointRecord, ...]:
    """Return the shard's checkpoints if they were learned from nothing: only they show the pace of training a shard.

    The steps of a checkpoint from which points were taken out directly are those points, not all points of the shard.
    """
    chain = state.shards[shard].chain
    is_direct = state.is_whole and any(each.steps != state.seen(shard, 1) for each in chain)
    return () if is_direct else chain


def changed(state: FederationState, shard: ShardId, from_slice: SliceIndex, changes: int, left: int) -> ShardRetrain:
    """Return the cost of a constituent of a learner that may take points out directly, or in and out.

    A direct change touches no other point. If it is retrained, because that is cheaper or may be necessary, all points
    in ``left`` count. The time of the last direct change hardly depends on how many points changed. Without one, only
    the pace of learning is known.
    """
    is_direct = state.configuration is not None and state.configuration.goes_directly(changes, left)
    own, points, seconds = state.shards[shard], changes if is_direct else left, 0.0
    base = own.base or (Base(slices=own.slices, checkpoint=own.chain[0]) if own.chain else None)
    if base is not None and (last := base.checkpoint).steps:
        is_learned = last.steps == sum(record.points for record in base.slices)
        times = points / last.steps
        if not is_learned:  # it does not show the pace of learning
            times = max(1.0, times) if is_direct else 1.0
        seconds = round(last.seconds * times, 3)
    return ShardRetrain(shard=shard, from_slice=from_slice, point_epochs=points, seconds=seconds)
