"""The coordinator's heart: decide(state, event) -> (state, effects). Pure.

The effects are always a function of the state alone: after a crash ``outstanding`` of the last committed state says
what is left to do, and doing it again is harmless (D5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never

from coordinator.requests import ErasureRequest, ObjectRef, RequestState
from coordinator.state import DataState, FederationState
from shards.dataset import SliceRecord
from shards.lineage import CheckpointRecord, Configuration, valid_prefix
from shards.routing import Placement
from shards.specification import ShardId, SliceIndex
from storage.errors import InvariantBroken

# Events: what has happened.


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """The source was read; ``slices`` is what it holds now, placement by placement."""

    data: DataState
    slices: Mapping[Placement, SliceRecord]
    lost: frozenset[Placement] = frozenset()
    """Slices whose old objects are damaged: replaced even where their content is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfigured:
    """Training is asked for under these settings."""

    settings: Mapping[str, Any]
    configuration: Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureAccepted:
    """A request has arrived; its names are durable."""

    request: ErasureRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsRemoved:
    """The request's data points were found and written out of their slices."""

    request_id: str
    removed: Mapping[Placement, int]
    slices: Mapping[Placement, SliceRecord]
    """The slices without them."""
    tombstones: ObjectRef
    """All tombstones, this request's included."""
    before: ObjectRef
    """This state as it was, kept for the receipt."""
    unknown: int = 0
    """Names of the request that have no data point; no tombstone is set for them."""
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToErase:
    """No data point of the request is in the federation."""

    request_id: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten:
    """A worker has learned a slice and stored its checkpoint."""

    shard: ShardId
    checkpoint: CheckpointRecord
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLost:
    """A committed checkpoint is missing or corrupt: it and those after it cannot be used."""

    shard: ShardId
    slice: SliceIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """Nothing but the current state's objects is left in the store; a re-scan has shown it."""

    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptIssued:
    """The request's receipt is signed and in the log."""

    request_id: str
    index: int


Event = (
    Ingested
    | TrainingConfigured
    | ErasureAccepted
    | PointsRemoved
    | NothingToErase
    | CheckpointWritten
    | CheckpointLost
    | Purged
    | ReceiptIssued
)

# Effects: what is to be done.


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePoints:
    """Find the request's data points and write their slices without them."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Extend the chains of these shards to their last slice."""

    shards: tuple[ShardId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """Delete what nothing refers to any more, and show that it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueReceipt:
    """Sign what was done for the request and put it into the log."""

    request_id: str


Effect = RemovePoints | Train | Purge | IssueReceipt


def decide(state: FederationState, event: Event) -> tuple[FederationState, tuple[Effect, ...]]:
    """Return the state after ``event`` and what is to be done then."""
    after = _withdraw_if_cut(state, _apply(state, event))
    after = _publish_if_trained(after, getattr(event, "at", ""))
    return after, outstanding(after)


def outstanding(state: FederationState) -> tuple[Effect, ...]:
    """Return what is left to do, in the order in which to do it.

    Points are removed first, so that requests which arrive together share one retrain and nothing tainted is trained
    on; purging waits for the new constituents, so that a request ends with nothing of it left.
    """
    if waiting := tuple(request for request in state.requests if request.state is RequestState.ACCEPTED):
        return tuple(RemovePoints(request_id=request.request_id) for request in waiting)
    if state.data is None or state.configuration is None:
        return ()
    if untrained := tuple(ShardId(n) for n, shard in enumerate(state.shards) if not shard.is_trained):
        return (Train(shards=untrained),)
    if state.condemned or any(request.state is RequestState.PUBLISHED for request in state.requests):
        return (Purge(),)
    purged = (request for request in state.requests if request.state is RequestState.PURGED)
    return tuple(IssueReceipt(request_id=request.request_id) for request in purged if request.receipt is None)


def _apply(state: FederationState, event: Event) -> FederationState:
    match event:
        case Ingested():
            changed = {
                place: record
                for place, record in event.slices.items()
                if place in event.lost or record.content_digest != _slice(state, place).content_digest
            }
            return replace(_with_slices(state, changed), data=event.data)
        case TrainingConfigured():
            after = replace(state, settings=event.settings, configuration=event.configuration)
            return _with_valid_chains(after)
        case ErasureAccepted():
            return replace(state, requests=(*state.requests, _accepted(event.request)))
        case PointsRemoved():
            return _quarantine(state, event)
        case NothingToErase():
            return _close_names(state, event.request_id, RequestState.REFUSED, event.at, reason=event.reason)
        case CheckpointWritten():
            return _extend(state, event)
        case CheckpointLost():
            return _truncate(state, event.shard, event.slice)
        case Purged():
            return _purged(state, event.at)
        case ReceiptIssued():
            return _receipted(state, event)
        case _:
            assert_never(event)


def _accepted(request: ErasureRequest) -> ErasureRequest:
    return replace(request, times={RequestState.ACCEPTED.value: request.received_at})


def _slice(state: FederationState, place: Placement) -> SliceRecord:
    return state.shards[place.shard].slices[place.slice - 1]


def _with_slices(state: FederationState, changed: Mapping[Placement, SliceRecord]) -> FederationState:
    """Return the state with these slices in place of the old ones, and no checkpoint that has seen the old ones."""
    shards = list(state.shards)
    for place, record in changed.items():
        slices = list(shards[place.shard].slices)
        slices[place.slice - 1] = record
        shards[place.shard] = replace(shards[place.shard], slices=tuple(slices))
    kept = {part.key for record in changed.values() for part in record.parts}
    gone = [part.key for place in changed for part in _slice(state, place).parts if part.key not in kept]
    return _with_valid_chains(replace(state, shards=tuple(shards), condemned=(*state.condemned, *gone)))


def _with_valid_chains(state: FederationState) -> FederationState:
    """Cut every chain before its first checkpoint whose lineage is not what the slices and settings now demand."""
    for number, shard in enumerate(state.shards):
        valid = valid_prefix(shard.chain, state.lineages(ShardId(number)))
        if len(valid) < len(shard.chain):
            state = _truncate(state, ShardId(number), SliceIndex(len(valid) + 1))
    return state


def _truncate(state: FederationState, number: ShardId, from_slice: SliceIndex) -> FederationState:
    shard = state.shards[number]
    kept, gone = shard.chain[: from_slice - 1], shard.chain[from_slice - 1 :]
    if not gone:
        return state
    shards = (*state.shards[:number], replace(shard, chain=kept), *state.shards[number + 1 :])
    return replace(
        state,
        shards=shards,
        condemned=(*state.condemned, *(checkpoint.key for checkpoint in gone)),
    )


def _quarantine(state: FederationState, event: PointsRemoved) -> FederationState:
    """Take the points out and cut the chains, in one step (E10)."""
    request = state.request(event.request_id)
    if request is None or request.state is not RequestState.ACCEPTED:
        return state  # carried out already, by an earlier attempt
    after = _with_slices(state, event.slices)
    if state.tombstones:
        after = replace(after, condemned=(*after.condemned, state.tombstones.key))
    after = replace(after, tombstones=event.tombstones)
    touched = tuple(sorted({place.shard for place, count in event.removed.items() if count}))
    return _close_names(
        after,
        event.request_id,
        RequestState.QUARANTINED,
        event.at,
        shards=touched,
        points=sum(event.removed.values()),
        unknown=event.unknown,
        before=event.before,
    )


def _extend(state: FederationState, event: CheckpointWritten) -> FederationState:
    """Append the checkpoint if it is the next one wanted; a repeated or superseded one changes nothing (D5, D7)."""
    shard = state.shards[event.shard]
    lineages = state.lineages(event.shard)
    done = len(shard.chain)
    if done == len(lineages) or event.checkpoint.lineage != lineages[done].digest():
        return state
    if event.checkpoint.key in state.condemned:
        return state  # settings or points went and came back: the lineage is wanted again, this object is not
    if event.checkpoint.slice != done + 1:
        raise InvariantBroken("a checkpoint's slice is not the one of its lineage", shard=event.shard)
    longer = replace(shard, chain=(*shard.chain, event.checkpoint))
    after = replace(state, shards=(*state.shards[: event.shard], longer, *state.shards[event.shard + 1 :]))
    for request in after.requests:
        if request.state is RequestState.QUARANTINED and event.shard in request.shards:
            after = _update(after, request.request_id, RequestState.RETRAINING, event.at)
    return after


def _withdraw_if_cut(before: FederationState, after: FederationState) -> FederationState:
    """Start a new generation, and raise the floor to it, if a served checkpoint is no longer part of its chain (E10).

    Each cut shard serves what is left of its chain until the retrained constituent is published.
    """
    if all(shard.serving <= len(shard.chain) for shard in after.shards):
        return after
    shards = tuple(replace(shard, serving=min(shard.serving, len(shard.chain))) for shard in after.shards)
    generation = before.generation + 1
    return replace(after, shards=shards, generation=generation, floor=generation, published=False)


def _publish_if_trained(state: FederationState, at: str) -> FederationState:
    trained = state.configuration is not None and state.data is not None
    if state.published or not trained or not all(shard.is_trained for shard in state.shards):
        return state
    shards = tuple(replace(shard, serving=len(shard.slices)) for shard in state.shards)
    after = replace(state, shards=shards, generation=state.generation + 1, published=True)
    for request in state.requests:
        if request.state in (RequestState.QUARANTINED, RequestState.RETRAINING):
            after = _update(after, request.request_id, RequestState.PUBLISHED, at)
    return after


def _purged(state: FederationState, at: str) -> FederationState:
    after = replace(state, condemned=())
    for request in state.requests:
        if request.state is RequestState.PUBLISHED:
            after = _update(after, request.request_id, RequestState.PURGED, at)
        elif request.state is RequestState.PURGED and request.receipt is not None:
            after = _update(after, request.request_id, RequestState.COMPLETE, at)
    return after


def _receipted(state: FederationState, event: ReceiptIssued) -> FederationState:
    """Condemn what the receipt was written from; with that purged as well, the request is complete."""
    request = state.request(event.request_id)
    if request is None or request.state is not RequestState.PURGED or request.before is None:
        return state  # told twice
    requests = tuple(
        replace(each, receipt=event.index, before=None) if each is request else each for each in state.requests
    )
    return replace(state, requests=requests, condemned=(*state.condemned, request.before.key))


def _close_names(
    state: FederationState, request_id: str, reached: RequestState, at: str, **fields: Any
) -> FederationState:
    """Move the request on and condemn the object with its names: from here on the tombstones have them."""
    request = state.request(request_id)
    gone = (request.names.key,) if request and request.names else ()
    after = replace(state, condemned=(*state.condemned, *gone))
    return _update(after, request_id, reached, at, names=None, **fields)


def _update(state: FederationState, request_id: str, reached: RequestState, at: str, **fields: Any) -> FederationState:
    requests = tuple(
        replace(request, **fields).reach(reached, at) if request.request_id == request_id else request
        for request in state.requests
    )
    return replace(state, requests=requests)
