"""Batches: which requests share a retrain, from which slices, at what cost, and when it may start. Pure.

Quarantine never waits. Retraining may wait, so that requests which arrive close together, or before the earliest of
them is due, cost each shard only one retrain from its earliest affected slice (SISA section IV).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from coordinator.decisions.lifecycle import is_training
from coordinator.decisions.plan import ShardRetrain, affected_slices, changed, learned_chain, total, trained_epochs
from coordinator.requests import Cost, ErasureRequest, RequestState
from coordinator.settings import ErasureSettings
from coordinator.state import FederationState
from shards.cost import replay_point_epochs, training_point_epochs
from shards.routing import SliceId
from shards.schedule import slice_epochs
from shards.specification import ShardId

AT_ONCE: Final = datetime.min.replace(tzinfo=UTC)
"""A moment that is always past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBatch:
    """Requests that share a retrain: their points are removed, their retrained constituents are not published yet."""

    requests: tuple[str, ...]
    """Their ids, in the order of arrival."""
    shards: tuple[ShardRetrain, ...]
    """The shards that held their data points, each from its earliest affected slice."""

    @property
    def expected(self) -> Cost:
        """Cost of the whole retrain, including the part that is already trained."""
        return total(self.shards)


def plan_batch(state: FederationState, epochs: int) -> RequestBatch:
    """Return the batch that waits for its retrain or is being retrained, under e' = ``epochs``; it may be empty.

    Never costs more than separate batches for its requests, because each shard is retrained once.
    """
    batch = tuple(filter(is_training, state.requests))
    schedule = slice_epochs(epochs, state.full_chain(ShardId(0)))
    pace = _seconds_per_point_epoch(state, batch, schedule)
    affected = affected_slices(
        SliceId(shard, first) for request in batch for shard, first in request.found.from_slices.items()
    )
    retrains = []
    for shard, from_slice in affected.items():
        if (base := state.shards[shard].base) is not None:
            left = state.shards[shard].points
            gone = sum(record.points for record in base.slices) - left
            retrains.append(changed(state, shard, from_slice, max(1, abs(gone)), left))
            continue
        work = replay_point_epochs(_points(state, shard), schedule, state.portion_of(from_slice))
        seconds = round(pace * work, 3)
        retrains.append(ShardRetrain(shard=shard, from_slice=from_slice, point_epochs=work, seconds=seconds))
    return RequestBatch(requests=tuple(request.request_id for request in batch), shards=tuple(retrains))


def retrain_start(state: FederationState, settings: ErasureSettings) -> datetime | None:
    """Return the moment from which retraining may start; None when there is nothing to train.

    It is ``AT_ONCE`` when training is needed for another reason than erasures (a first training, other settings or
    data, a lost checkpoint), when points are taken out directly, which costs little, and when a retrain has begun: then
    arriving requests join it (D7). It is never later than the earliest due date.
    """
    untrained = set(state.untrained())
    if state.data is None or state.configuration is None or not untrained:
        return None
    batch = tuple(filter(is_training, state.requests))
    if state.at_once or state.is_whole:
        return AT_ONCE
    if not untrained <= {shard for request in batch for shard in request.found.from_slices}:
        return AT_ONCE
    if any(request.state is RequestState.RETRAINING for request in batch):
        return AT_ONCE
    due = min(datetime.fromisoformat(request.due_at) for request in batch)
    if settings.batch == "window":
        start = min(map(_arrival, batch)) + timedelta(seconds=settings.batch_window_seconds)
    else:
        start = due - timedelta(days=settings.lead_days, seconds=_expected_seconds(state))
    return min(start, due)


def _arrival(request: ErasureRequest) -> datetime:
    """Return the time at which the request began to wait for others: its arrival, or the end of its pause."""
    return datetime.fromisoformat(request.holds[-1].released_at if request.holds else request.received_at)


def _expected_seconds(state: FederationState) -> float:
    """Return the longest time that the batch can take: one worker trains all its shards, one after another."""
    epochs = trained_epochs(state)
    return 0.0 if epochs is None else plan_batch(state, epochs).expected.seconds


def _points(state: FederationState, shard: ShardId) -> tuple[int, ...]:
    return state.portions([record.points for record in state.shards[shard].slices])


def _seconds_per_point_epoch(state: FederationState, batch: Sequence[ErasureRequest], schedule: Sequence[int]) -> float:
    """Return the pace of the remaining checkpoints; if there are none, the pace that requests expected; otherwise 0."""
    known = Cost()
    for shard in map(ShardId, range(len(state.shards))):
        chain = learned_chain(state, shard)
        work = training_point_epochs(_points(state, shard)[: len(chain)], schedule[: len(chain)])
        known += Cost(point_epochs=work, seconds=sum(checkpoint.seconds for checkpoint in chain))
    if not known.point_epochs:
        known = sum((request.found.expected or Cost() for request in batch), Cost())
    return known.seconds / known.point_epochs if known.point_epochs else 0.0
