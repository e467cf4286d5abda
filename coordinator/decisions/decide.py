"""The coordinator's heart: decide(state, event) -> (state, effects). Pure.

The effects depend only on the state: after a crash, ``outstanding`` of the last committed state returns the remaining
work, and doing it again is harmless (D5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import assert_never

from coordinator.decisions.chains import (
    hasten_if_changed,
    serving_up_to,
    truncate,
    with_holdout,
    with_slices,
    with_valid_chains,
    withdraw_if_cut,
    without_bases,
)
from coordinator.decisions.corrections import with_values
from coordinator.decisions.ended import is_owed_statement, without_ended
from coordinator.decisions.events import (
    AttemptFailed,
    CheckpointLost,
    CheckpointWritten,
    ConstituentRefuted,
    DueExtended,
    Effect,
    EndedKept,
    ErasureAccepted,
    Event,
    HistoryKept,
    HoldoutMeasured,
    Ingested,
    InterventionEvent,
    IssueReceipt,
    NothingToErase,
    PointsRemoved,
    Purge,
    Purged,
    ReceiptIssued,
    RemovePoints,
    RequestCancelled,
    RequestEvent,
    RequestHeld,
    RequestReleased,
    SubjectsReadmitted,
    Train,
    TrainingConfigured,
    ValuesKept,
)
from coordinator.decisions.history import forgotten, with_history
from coordinator.decisions.lifecycle import (
    accept,
    advance,
    cancel,
    change,
    close_names,
    each_request,
    extend_due,
    hold,
    is_ready,
    is_training,
    lacks_measure,
    mark_failed,
    release,
)
from coordinator.decisions.plan import affected_slices, checkpoint_cost
from coordinator.effects import ErasureEffect
from coordinator.requests import (
    Cost,
    ErasureRequest,
    Found,
    ObjectRef,
    Readmission,
    Refutation,
    RequestState,
    Segment,
)
from coordinator.state import FederationState
from shards.routing import SliceId
from shards.slices.files import SliceRecord
from shards.specification import ShardId, SliceIndex
from storage.errors import InvariantBroken


def decide(state: FederationState, event: Event) -> tuple[FederationState, tuple[Effect, ...]]:
    """Return the state after ``event`` and the remaining work."""
    after = next_state(state, event)
    return after, outstanding(after)


def next_state(state: FederationState, event: Event) -> FederationState:
    """Return the state after ``event``. It depends only on the two, so that a journal of events can be replayed."""
    after = withdraw_if_cut(state, _apply(state, event))
    if not isinstance(event, PointsRemoved):
        after = hasten_if_changed(state, after)
    at: str = getattr(event, "at", "")
    return with_history(state, _publish_if_trained(after, at), at)


def outstanding(state: FederationState, stuck: Collection[str] = ()) -> tuple[Effect, ...]:
    """Return the remaining work, in order, without requests that are ``stuck`` before their points are removed.

    Points are removed first, so that requests which arrive together share a retrain and training never uses erased
    points; ``coordinator.decisions.batching`` decides when retraining may start. Purging waits for the new
    constituents, so that nothing is left when a request ends. Statements come before training, which may take long;
    nothing waits for them.
    """
    ready = tuple(each for each in state.requests if is_ready(each) and each.request_id not in stuck)
    if ready:
        return tuple(RemovePoints(request_id=request.request_id) for request in ready)
    return (*_statements_owed(state), *_owed_by_models(state))


def _owed_by_models(state: FederationState) -> tuple[Effect, ...]:
    if not _is_trainable(state):
        return ()
    if untrained := state.untrained():
        return (Train(shards=untrained),)
    if state.condemned or any(request.state is RequestState.PUBLISHED for request in state.requests):
        return (Purge(),)
    purged = (request for request in state.requests if request.state is RequestState.PURGED)
    return tuple(IssueReceipt(request_id=request.request_id) for request in purged if request.receipt is None)


def _apply(state: FederationState, event: Event) -> FederationState:
    match event:
        case Ingested():
            return _ingested(state, event)
        case TrainingConfigured():
            return _configured(state, event)
        case CheckpointWritten():
            return _extend(state, event)
        case CheckpointLost():
            return truncate(state, event.shard, event.slice)
        case ConstituentRefuted():
            return _refuted(state, event.refutation)
        case Purged():
            return _purged(state, event.at)
        case HistoryKept():
            return forgotten(state, event.through)
        case EndedKept():
            return without_ended(state, event.request_ids, event.buckets)
        case ValuesKept():
            return with_values(state, event.corrected, event.drafts)
        case _:
            return _apply_to_request(state, event)


def _configured(state: FederationState, event: TrainingConfigured) -> FederationState:
    after = replace(state, settings=event.settings, configuration=event.configuration)
    return with_valid_chains(after if event.configuration == state.configuration else without_bases(after))


def _apply_to_request(state: FederationState, event: RequestEvent) -> FederationState:
    match event:
        case ErasureAccepted():
            return accept(state, event.request) if event.looked == state.ended.count else state
        case PointsRemoved():
            return _quarantine(state, event)
        case NothingToErase():
            return _refuse(state, event)
        case ReceiptIssued():
            return _receipted(state, event)
        case SubjectsReadmitted():
            return _readmit(state, event)
        case HoldoutMeasured():
            return _measured(state, event)
        case _:
            return _intervene(state, event)


def _intervene(state: FederationState, event: InterventionEvent) -> FederationState:
    match event:
        case DueExtended():
            return extend_due(state, event.request_id, event.due_at, event.reason, event.at)
        case RequestHeld():
            return hold(state, event.request_id, event.reason, event.at)
        case RequestReleased():
            return release(state, event.request_id, event.at)
        case RequestCancelled():
            return cancel(state, event.request_id, event.reason, event.at)
        case AttemptFailed():
            return mark_failed(state, event.request_ids, event.reason, event.at)
        case _:
            assert_never(event)


def _is_trainable(state: FederationState) -> bool:
    return state.data is not None and state.configuration is not None


def _ingested(state: FederationState, event: Ingested) -> FederationState:
    changed = {
        place: record
        for place, record in event.slices.items()
        if place in event.lost or record.content_digest != state.slice(place).content_digest
    }
    holdout = tuple(
        old if old is not None and old.content_digest == record.content_digest and place not in event.lost else record
        for place, old, record in _holdout_places(state, event)
    )
    after = replace(with_holdout(with_slices(state, changed), holdout), data=event.data)
    if state.data is not None and state.data.layout.width != event.data.layout.width:
        # A checkpoint that has seen only empty slices has the same lineage for every width, but fits only one.
        for number in range(len(after.shards)):
            after = truncate(after, ShardId(number), SliceIndex(1))
        after = without_bases(after)
    return after


def _holdout_places(
    state: FederationState, event: Ingested
) -> Iterator[tuple[SliceId, SliceRecord | None, SliceRecord]]:
    """Yield each hold-out slice that was read, with its place and its old record, if there is one."""
    for index, (record, old) in enumerate(zip_longest(event.holdout, state.holdout), start=1):
        if record is not None:
            yield SliceId(state.shard_of_holdout, SliceIndex(index)), old, record


def _quarantine(state: FederationState, event: PointsRemoved) -> FederationState:
    """Take the points out and cut the chains, in one step (E10)."""
    request = state.request(event.request_id)
    if request is None or not is_ready(request):
        return state  # an earlier attempt removed the points, or the request was paused or withdrawn since
    after = _with_tombstones(with_slices(state, event.slices), event.tombstones, event.segments or ())
    if event.holdout is not None:
        after = with_holdout(after, event.holdout)
    affected = affected_slices(place for place, count in event.removed.items() if count)
    if request.correction is not None and after.data is not None:
        after = replace(after, data=replace(after.data, inventory=()))  # the source is compared with the new values
    return close_names(
        after,
        request,
        RequestState.QUARANTINED,
        event.at,
        before=event.before,
        effect=ErasureEffect(before=state.measure) if state.holdout else None,
        found=Found(
            from_slices=affected,
            points=sum(event.removed.values()) + event.held_out,
            held_out=event.held_out,
            unknown=event.unknown,
            missing=event.missing,
            similar=event.similar,
            expected=event.expected,
        ),
    )


def _refuse(state: FederationState, event: NothingToErase) -> FederationState:
    request = state.request(event.request_id)
    if request is None or not is_ready(request):
        return state
    return close_names(
        state,
        request,
        RequestState.REFUSED,
        event.at,
        reason=event.reason,
        found=Found(unknown=event.unknown, similar=event.similar),
    )


def _with_tombstones(
    state: FederationState, tombstones: ObjectRef | None, segments: tuple[Segment, ...]
) -> FederationState:
    """Return the state with these tombstones; tombstone objects that it no longer names are condemned."""
    after = replace(state, tombstones=tombstones, segments=segments)
    kept = {ref.key for ref in after.tombstone_objects()}
    gone = tuple(ref.key for ref in state.tombstone_objects() if ref.key not in kept)
    return replace(after, condemned=(*after.condemned, *gone))


def _readmit(state: FederationState, event: SubjectsReadmitted) -> FederationState:
    request_id = event.readmission.request_id
    if state.readmission(request_id) is not None or state.request(request_id) is not None:
        return state  # a repetition, or the id of an erasure
    if event.looked != state.ended.count:
        return state  # the id may belong to a request that has left since
    after = _with_tombstones(state, event.tombstones, event.segments)
    # The source may have had new data points of theirs for a long time: it is read again, even if unchanged.
    data = replace(after.data, inventory=()) if after.data is not None else None
    return replace(after, data=data, readmissions=(*after.readmissions, event.readmission))


def _refuted(state: FederationState, refutation: Refutation) -> FederationState:
    """Take the constituent out of service, unless its checkpoint was replaced since the refutation.

    If it is already the base of the next constituent, that one is learned from nothing.
    """
    chain, base = state.shards[refutation.shard].chain, state.shards[refutation.shard].base
    if base is not None and base.checkpoint.key == refutation.checkpoint:
        return without_bases(state, refutation.shard)
    if len(chain) < refutation.slice or chain[refutation.slice - 1].key != refutation.checkpoint:
        return state
    after = truncate(state, refutation.shard, refutation.slice)
    return replace(after, refuted=(*after.refuted, refutation))


def _statements_owed(state: FederationState) -> Iterator[IssueReceipt]:
    """Yield the statements to sign about requests that erase nothing: nothing found, or subjects readmitted."""
    for request in state.requests:
        if is_owed_statement(request):
            yield IssueReceipt(request_id=request.request_id)
    others: tuple[Readmission | Refutation, ...] = (*state.readmissions, *state.refuted)
    for each in others:
        if each.receipt is None:
            yield IssueReceipt(request_id=each.request_id)


def _extend(state: FederationState, event: CheckpointWritten) -> FederationState:
    """Append the checkpoint if it is the next one needed; a repeated or superseded one changes nothing (D5, D7)."""
    shard = state.shards[event.shard]
    lineages = state.lineages(event.shard)
    done = len(shard.chain)
    if done == len(lineages) or event.checkpoint.lineage != lineages[done].digest():
        return state
    if event.checkpoint.key in state.condemned:
        return (
            state  # settings or points changed and were changed back: the lineage is needed again, but not this object
        )
    if event.checkpoint.slice != done + 1:
        raise InvariantBroken("a checkpoint's slice is not the one of its lineage", shard=event.shard)
    longer = replace(shard, chain=(*shard.chain, event.checkpoint), base=None)
    after = replace(state, shards=(*state.shards[: event.shard], longer, *state.shards[event.shard + 1 :]))
    if not any(event.shard in request.found.from_slices for request in state.requests):
        return after  # as for almost every checkpoint of a first training
    cost = checkpoint_cost(state, event.shard, event.checkpoint)

    def retrained(request: ErasureRequest) -> ErasureRequest:
        first = request.found.from_slices.get(event.shard)
        if first is None or not is_training(request):
            return request
        own = cost if state.portion_of(first) <= event.checkpoint.slice else Cost()
        return advance(request, RequestState.RETRAINING, event.at, spent=request.spent + own)

    return each_request(after, retrained)


def _publish_if_trained(state: FederationState, at: str) -> FederationState:
    if not _is_trainable(state) or (state.published and not any(map(is_training, state.requests))):
        return state
    if not state.is_all_trained:
        return state

    def published(request: ErasureRequest) -> ErasureRequest:
        return advance(request, RequestState.PUBLISHED, at) if is_training(request) else request

    if state.published:
        # Corrections that cancel each other out, and erasures of hold-out points only, need no retraining.
        return each_request(state, published)
    shards = tuple(serving_up_to(shard, len(shard.chain)) for shard in state.shards)
    generation = state.generation + 1
    after = replace(state, shards=shards, generation=generation, published=True, at_once=False, is_measured=False)
    return each_request(after, published)


def _purged(state: FederationState, at: str) -> FederationState:
    def purged(request: ErasureRequest) -> ErasureRequest:
        if request.state is RequestState.PUBLISHED:
            return advance(request, RequestState.PURGED, at)
        if request.state is RequestState.PURGED and request.receipt is not None:
            return advance(request, RequestState.COMPLETE, at)
        return request

    return each_request(replace(state, condemned=()), purged)


def is_measure_due(state: FederationState) -> bool:
    """Return whether the ensemble is to be measured: it is published, and it or a request has no measure yet."""
    if not (state.published and state.held_out and any(shard.points for shard in state.shards)):
        return False
    return not state.is_measured or any(map(lacks_measure, state.requests))


def _measured(state: FederationState, event: HoldoutMeasured) -> FederationState:
    if not is_measure_due(state) or event.measure.generation != state.generation:
        return state

    def measured(request: ErasureRequest) -> ErasureRequest:
        if request.effect is None or not lacks_measure(request):
            return request
        return replace(request, effect=replace(request.effect, after=event.measure, margin=event.margin))

    return each_request(replace(state, measure=event.measure, is_measured=True), measured)


def _receipted(state: FederationState, event: ReceiptIssued) -> FederationState:
    """Condemn the state kept for the receipt unless others need it; the request is complete once it is purged."""
    readmission = state.readmission(event.request_id)
    if readmission is not None:
        stated = replace(readmission, receipt=event.index)
        return replace(
            state, readmissions=tuple(stated if each is readmission else each for each in state.readmissions)
        )
    refutation = state.refutation(event.request_id)
    if refutation is not None:
        known = replace(refutation, receipt=event.index)
        return replace(state, refuted=tuple(known if each is refutation else each for each in state.refuted))
    request = state.request(event.request_id)
    if request is not None and request.state is RequestState.REFUSED:
        return change(state, request, replace(request, receipt=event.index))
    if request is None or request.state is not RequestState.PURGED or request.before is None:
        return state  # a repetition
    issued = replace(request, receipt=event.index, before=None, failure=None)
    after = change(state, request, issued)
    if any(each.before == request.before for each in after.requests):
        return after
    return replace(after, condemned=(*after.condemned, request.before.key))
