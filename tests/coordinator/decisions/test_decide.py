"""Decisions, one by one: the state after an event, and the remaining work (E8, E10, D5, D7)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.decisions.decide import decide, outstanding
from coordinator.decisions.events import (
    CheckpointLost,
    CheckpointWritten,
    ErasureAccepted,
    Ingested,
    IssueReceipt,
    NothingToErase,
    PointsRemoved,
    Purge,
    Purged,
    ReceiptIssued,
    RemovePoints,
    Train,
    TrainingConfigured,
)
from coordinator.requests import ObjectRef, RequestState
from coordinator.state import FederationState, servable
from shards.routing import SliceId
from shards.slices.files import EMPTY_SLICE
from shards.specification import ShardId, SliceIndex
from storage.errors import InvariantBroken
from tests.coordinator.records import (
    DATA,
    SETTINGS,
    checkpoint_of,
    configuration,
    federation,
    ref,
    request_of,
    slice_of,
)

AT = "2026-01-02T00:00:00+00:00"


def place(shard: int, slice_: int) -> SliceId:
    """Return a placement."""
    return SliceId(ShardId(shard), SliceIndex(slice_))


def configured(state: FederationState, number: int = 0) -> FederationState:
    """Return the state with training asked for."""
    return decide(state, TrainingConfigured(settings=SETTINGS, configuration=configuration(number)))[0]


def learn(state: FederationState, shard: int, slices: int = 1) -> FederationState:
    """Return the state after so many further slices of a shard are learned."""
    for _ in range(slices):
        lineage = state.lineages(ShardId(shard))[len(state.shards[shard].chain)]
        event = CheckpointWritten(shard=ShardId(shard), checkpoint=checkpoint_of(lineage), at=AT)
        state = decide(state, event)[0]
    return state


def learn_all(state: FederationState) -> FederationState:
    """Return the state after all shards are trained."""
    for number, shard in enumerate(state.shards):
        state = learn(state, number, len(shard.slices) - len(shard.chain))
    return state


def trained(*shards: tuple[int, ...]) -> FederationState:
    """Return a trained federation whose shards have slices of these sizes."""
    return learn_all(configured(federation(*shards)))


def accepted(state: FederationState, request_id: str = "er-1") -> FederationState:
    """Return the state with a request."""
    return decide(state, ErasureAccepted(request=request_of(request_id)))[0]


def removal(state: FederationState, *places: SliceId, request_id: str = "er-1") -> PointsRemoved:
    """Return the event that one point of each of these slices is gone."""
    slices = {where: state.shards[where.shard].slices[where.slice - 1] for where in places}
    return PointsRemoved(
        request_id=request_id,
        removed=dict.fromkeys(places, 1),
        slices={
            where: slice_of([1000 * where.shard + 100 * where.slice + n for n in range(record.points - 1)])
            for where, record in slices.items()
        },
        tombstones=ref(),
        before=ref(),
        at=AT,
    )


def test_training_is_published_when_the_last_shard_is_trained() -> None:
    """The first generation begins with the last checkpoint of the last shard, never before."""
    state = configured(federation((2, 2), (2, 2)))
    assert outstanding(state) == (Train(shards=(ShardId(0), ShardId(1))),)
    state = learn(learn(state, 1, 2), 0)
    assert (state.generation, state.published, servable(state)) == (0, False, ())
    assert outstanding(state) == (Train(shards=(ShardId(0),)),)
    state = learn(state, 0)
    assert (state.generation, state.floor, state.published) == (1, 0, True)
    assert [each.checkpoint for each in servable(state)] == [shard.chain[-1] for shard in state.shards]
    assert outstanding(state) == ()


def test_removing_points_quarantines_at_once() -> None:
    """One step removes the points, cuts the chain, raises the floor, and serves the last clean checkpoint (E10)."""
    before = accepted(trained((3, 3, 3), (3, 3, 3)))
    assert outstanding(before) == (RemovePoints(request_id="er-1"),)
    state, effects = decide(before, removal(before, place(1, 2)))
    assert effects == (Train(shards=(ShardId(1),)),)
    assert state.shards[0] == before.shards[0]
    assert state.shards[1].chain == before.shards[1].chain[:1]
    assert [each.checkpoint.slice for each in servable(state)] == [3, 1]
    assert (state.generation, state.floor, state.published) == (2, 2, False)
    request = state.request("er-1")
    assert request is not None
    assert (request.state, request.found.shards, request.found.points, request.names) == (
        RequestState.QUARANTINED,
        (1,),
        1,
        None,
    )


def test_a_cut_at_the_first_slice_makes_the_shard_abstain() -> None:
    """A shard without a clean checkpoint does not answer; the others do."""
    before = accepted(trained((3, 3), (3, 3)))
    state, _ = decide(before, removal(before, place(0, 1)))
    assert [each.shard for each in servable(state)] == [1]


def test_the_retrained_constituent_is_published_with_the_request() -> None:
    """The request passes through retraining to published; then it is purged, gets its receipt, and is complete."""
    state = accepted(trained((3, 3), (3, 3)))
    state, _ = decide(state, removal(state, place(0, 1)))
    state = learn(state, 0)
    assert state.requests[0].state is RequestState.RETRAINING
    assert [each.shard for each in servable(state)] == [1]
    state = learn(state, 0)
    assert state.requests[0].state is RequestState.PUBLISHED
    assert (state.generation, state.floor) == (3, 2)
    assert outstanding(state) == (Purge(),)
    state, effects = decide(state, Purged(at=AT))
    assert effects == (IssueReceipt(request_id="er-1"),)
    assert (state.requests[0].state, state.condemned) == (RequestState.PURGED, ())
    before = state.requests[0].before
    issued = ReceiptIssued(request_id="er-1", index=7)
    state, effects = decide(state, issued)
    assert before is not None
    assert (effects, state.condemned) == ((Purge(),), (before.key,))
    assert (state.requests[0].state, state.requests[0].receipt) == (RequestState.PURGED, 7)
    assert decide(state, issued)[0] == state
    state, effects = decide(state, Purged(at=AT))
    assert (effects, state.condemned, state.requests[0].state) == ((), (), RequestState.COMPLETE)
    assert list(state.requests[0].times) == [
        "accepted", "planned", "quarantined", "retraining", "published", "purged", "complete",
    ]  # fmt: skip


def test_what_is_superseded_is_condemned() -> None:
    """The purge list names the slice file, the checkpoints, the names and the old tombstones, and nothing current."""
    before = accepted(trained((3, 3), (3, 3)))
    first = decide(before, removal(before, place(0, 2)))[0]
    again = accepted(first, "er-2")
    state, _ = decide(again, removal(again, place(0, 1), request_id="er-2"))
    gone = {before.shards[0].slices[0].parts[0].key, before.shards[0].slices[1].parts[0].key}
    gone |= {checkpoint.key for checkpoint in before.shards[0].chain}
    assert first.tombstones is not None
    names = [each.names for each in (before.requests[0], again.requests[1])]
    gone |= {first.tombstones.key} | {each.key for each in names if isinstance(each, ObjectRef)}
    assert set(state.condemned) == gone
    assert not gone & state.referenced()


def test_requests_that_arrive_together_share_one_retrain() -> None:
    """All points are removed before anything is trained."""
    state = accepted(accepted(trained((3, 3), (3, 3))), "er-2")
    assert outstanding(state) == (RemovePoints(request_id="er-1"), RemovePoints(request_id="er-2"))
    state, effects = decide(state, removal(state, place(0, 2)))
    assert effects == (RemovePoints(request_id="er-2"),)
    state, effects = decide(state, removal(state, place(0, 1), request_id="er-2"))
    assert effects == (Train(shards=(ShardId(0),)),)


def test_a_request_into_a_slice_not_yet_reached_costs_nothing() -> None:
    """While a shard retrains, points of a later slice are folded in: nothing learned so far is lost (D7)."""
    state = accepted(trained((3, 3, 3)))
    state, _ = decide(state, removal(state, place(0, 1)))
    state = accepted(learn(state, 0), "er-2")
    after, _ = decide(state, removal(state, place(0, 3), request_id="er-2"))
    assert after.shards[0].chain == state.shards[0].chain
    assert (after.generation, after.floor) == (state.generation, state.floor)
    done = learn_all(after)
    assert [request.state for request in done.requests] == [RequestState.PUBLISHED] * 2


def test_a_deeper_cut_while_retraining_withdraws_again() -> None:
    """Points of an earlier slice than the one that serves raise the floor once more."""
    state = accepted(trained((3, 3, 3)))
    state, _ = decide(state, removal(state, place(0, 3)))
    assert servable(state)[0].checkpoint.slice == 2
    state = accepted(state, "er-2")
    after, _ = decide(state, removal(state, place(0, 2), request_id="er-2"))
    assert servable(after)[0].checkpoint.slice == 1
    assert (after.generation, after.floor) == (state.generation + 1, state.generation + 1)


def test_a_superseded_checkpoint_changes_nothing() -> None:
    """A report by a worker that learned from points erased meanwhile, or a repeated one, changes nothing (D5, D7)."""
    state = configured(federation((3, 3)))
    lineages = state.lineages(ShardId(0))
    old = CheckpointWritten(shard=ShardId(0), checkpoint=checkpoint_of(lineages[0]), at=AT)
    later = CheckpointWritten(shard=ShardId(0), checkpoint=checkpoint_of(lineages[1]), at=AT)
    assert decide(state, later)[0] == state
    learned = decide(state, old)[0]
    assert decide(learned, old)[0] == learned
    asked = accepted(learned)
    cut, _ = decide(asked, removal(asked, place(0, 1)))
    assert decide(cut, old)[0] == cut
    assert decide(cut, later)[0] == cut


def test_a_removal_repeated_changes_nothing() -> None:
    """Points are removed once; a second attempt at the same request changes nothing."""
    state = accepted(trained((3, 3)))
    event = removal(state, place(0, 2))
    once = decide(state, event)[0]
    assert decide(once, event)[0] == once
    assert decide(once, replace(event, request_id="unheard-of"))[0] == once


def test_a_checkpoint_under_the_wrong_slice_is_a_bug() -> None:
    """A lineage says which slice it is of; a record that says otherwise is refused."""
    state = configured(federation((3, 3)))
    wrong = replace(checkpoint_of(state.lineages(ShardId(0))[0]), slice=SliceIndex(2))
    with pytest.raises(InvariantBroken, match="slice is not the one of its lineage"):
        decide(state, CheckpointWritten(shard=ShardId(0), checkpoint=wrong, at=AT))


def test_nothing_to_erase_is_said_plainly() -> None:
    """A request for unknown subjects is refused with the reason, and its names are purged."""
    state = accepted(trained((3, 3)))
    names = state.requests[0].names
    after, effects = decide(state, NothingToErase(request_id="er-1", reason="none here", at=AT))
    assert (after.requests[0].state, after.requests[0].reason) == (RequestState.REFUSED, "none here")
    assert isinstance(names, ObjectRef)
    assert (after.condemned, effects) == ((names.key,), (Purge(),))
    assert after.shards == state.shards
    assert decide(after, Purged(at=AT))[0].requests[0].state is RequestState.REFUSED


def test_another_configuration_gives_up_everything() -> None:
    """Under other settings all chains are cut and nothing serves; under the same ones nothing happens (E8)."""
    state = trained((3, 3), (3, 3))
    same = decide(state, TrainingConfigured(settings=state.settings, configuration=configuration(0)))[0]
    assert same == state
    other = configured(state, 1)
    assert [shard.chain for shard in other.shards] == [(), ()]
    assert (servable(other), other.floor, other.generation) == ((), 2, 2)
    assert len(other.condemned) == 4


def test_the_same_data_again_changes_nothing() -> None:
    """Slices of equal content keep their objects, even if new ones were written."""
    state = trained((3, 3))
    same = {place(0, n + 1): replace(record, parts=()) for n, record in enumerate(state.shards[0].slices)}
    assert decide(state, Ingested(data=DATA, slices=same))[0] == state


def test_changed_data_cut_at_the_changed_slice() -> None:
    """A slice with other content retrains its shard from there; a lost one is replaced without retraining."""
    state = trained((3, 3), (3, 3))
    after = decide(state, Ingested(data=DATA, slices={place(0, 2): slice_of([900, 901])}))[0]
    assert (len(after.shards[0].chain), after.shards[1]) == (1, state.shards[1])
    copy = slice_of(range(3))
    assert copy.content_digest == state.shards[0].slices[0].content_digest
    mended = decide(state, Ingested(data=DATA, slices={place(0, 1): copy}, lost=frozenset({place(0, 1)})))[0]
    assert mended.shards[0].slices[0] == copy
    assert mended.shards[0].chain == state.shards[0].chain
    assert mended.condemned == (state.shards[0].slices[0].parts[0].key,)


def test_another_width_cuts_everything() -> None:
    """A checkpoint that has seen only empty slices fits one width, although its lineage names none: it is not kept."""
    state = trained((0, 3), (3, 3))
    wider = replace(DATA, layout=replace(DATA.layout, width=3, features=("x0", "x1", "x2")))
    after = decide(state, Ingested(data=wider, slices={place(0, 2): slice_of([900]), place(1, 1): slice_of([901])}))[0]
    assert [shard.chain for shard in after.shards] == [(), ()]
    assert len(after.condemned) == 4 + 2


def test_a_lost_checkpoint_is_made_again() -> None:
    """The chain is cut before the lost checkpoint, which no longer serves; training it again publishes."""
    state = trained((3, 3, 3), (3, 3, 3))
    after, effects = decide(state, CheckpointLost(shard=ShardId(1), slice=SliceIndex(2)))
    assert effects == (Train(shards=(ShardId(1),)),)
    assert [each.checkpoint.slice for each in servable(after)] == [3, 1]
    done = learn_all(after)
    assert done.published
    assert [each.digest for each in done.shards[1].chain] == [each.digest for each in state.shards[1].chain]


def test_an_empty_shard_is_trained_but_does_not_answer() -> None:
    """A shard without data points has checkpoints of its initial state, and abstains."""
    state = trained((3, 3), (0, 0))
    assert state.published
    assert [each.shard for each in servable(state)] == [0]


def test_nothing_is_to_be_trained_before_there_is_data() -> None:
    """A federation that is empty or not configured has no work except removing points."""
    empty = replace(federation((0, 0)), data=None)
    assert outstanding(configured(empty)) == ()
    assert outstanding(federation((3, 3))) == ()
    assert outstanding(accepted(federation((3, 3)))) == (RemovePoints(request_id="er-1"),)
    assert empty.shards[0].slices == (EMPTY_SLICE, EMPTY_SLICE)
