"""Decisions over random sequences of events, stale and repeated ones among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.decisions.batching import AT_ONCE, plan_batch, retrain_start
from coordinator.decisions.decide import decide, outstanding
from coordinator.decisions.events import (
    AttemptFailed,
    CheckpointLost,
    CheckpointWritten,
    DueExtended,
    ErasureAccepted,
    Event,
    Ingested,
    IssueReceipt,
    NothingToErase,
    PointsRemoved,
    Purge,
    Purged,
    ReceiptIssued,
    RemovePoints,
    RequestCancelled,
    RequestHeld,
    RequestReleased,
    Train,
    TrainingConfigured,
)
from coordinator.engine.codec import decode_state, encode_state
from coordinator.requests import ErasureRequest, InlineDigests, RequestState
from coordinator.settings import ErasureSettings
from coordinator.state import FederationState, ShardState, servable
from shards.lineage import valid_prefix
from shards.routing import SliceId
from shards.slices.files import EMPTY_SLICE
from shards.specification import ShardId, SliceIndex
from shards.tombstones import DigestSet
from storage.digests import Sha256
from storage.objects import ObjectKey
from tests.coordinator.records import DATA, checkpoint_of, configuration, federation, paused, ref, request_of, slice_of
from tests.volume import examples

pytestmark = pytest.mark.volume

_SHARDS, _SLICES, _POINTS = 3, 3, 12
_EPOCHS = 4
_STAGES = list(RequestState)
_POLICIES = (ErasureSettings(), ErasureSettings(batch="until_due"))
_AT = "2026-01-05T00:00:00.000+00:00"
_MOVES_DUE_DATES = (DueExtended, RequestReleased, RequestCancelled)


def _home(point: int) -> SliceId:
    return SliceId(ShardId(point % _SHARDS), SliceIndex(point // _SHARDS % _SLICES + 1))


_PLACES = sorted({_home(point) for point in range(_SHARDS * _SLICES)})


class Decisions(RuleBasedStateMachine):
    """A coordinator that receives every possible event; points are numbers, and each has its place."""

    state: FederationState

    @initialize(begun=st.booleans())
    def start(self, begun: bool) -> None:
        """Begin with nothing, or with everything trained."""
        self.state = replace(federation(), shards=(ShardState(slices=(EMPTY_SLICE,) * _SLICES),) * _SHARDS, data=None)
        self.points: frozenset[int] = frozenset()
        self.erased: frozenset[int] = frozenset()
        self.named: dict[str, frozenset[int]] = {}
        self.reported: list[CheckpointWritten] = []
        self.removals: list[PointsRemoved] = []
        self.seen: dict[Sha256, frozenset[int]] = {}
        self.owed: set[ObjectKey] = set()
        if begun:
            self.ingest(frozenset(range(_POINTS)), again=False)
            self.configure(0)
            self.learn_everything()

    def happen(self, event: Event, touched: frozenset[int]) -> None:
        """Apply the event and check the step; ``touched`` are the shards whose chains may change."""
        before = self.state
        after, effects = decide(before, event)
        assert effects == outstanding(after)
        assert decide(before, event)[0] == after
        assert after.floor >= before.floor
        assert after.generation >= before.generation
        for number, (was, now) in enumerate(zip(before.shards, after.shards, strict=True)):
            assert number in touched or now.chain == was.chain
        for request in before.requests:
            now_ = after.request(request.request_id)
            assert now_ is not None
            assert _STAGES.index(now_.state) >= _STAGES.index(request.state)
            self.check_request(request, now_, event)
        assert [each.request_id for each in after.requests][: len(before.requests)] == [
            each.request_id for each in before.requests
        ]
        if after.generation == before.generation:
            assert servable(after) == servable(before), "what is served changed within a generation"
        if not {each.checkpoint for each in servable(before)} <= {
            each for shard in after.shards for each in shard.chain
        }:
            assert after.floor == after.generation > before.generation
        self.owed |= before.referenced() - after.referenced()
        if isinstance(event, Purged):
            self.owed.clear()
        assert self.owed <= set(after.condemned)
        self.state = after

    def check_request(self, was: ErasureRequest, now: ErasureRequest, event: Event) -> None:
        """Check that an event changed a request only as allowed."""
        assert was.state.is_open or now == was, "a request at its end has changed"
        assert was.due_at == now.due_at or isinstance(event, _MOVES_DUE_DATES)
        assert was.extension in (None, now.extension)
        assert now.spent.point_epochs >= was.spent.point_epochs
        assert now.spent.seconds >= was.spent.seconds
        if was.pause:
            assert now.state in (was.state, RequestState.CANCELLED), "a request got further while it was paused"

    def slices(self, points: frozenset[int]) -> Mapping[SliceId, frozenset[int]]:
        """Return the points by place."""
        return {where: frozenset(point for point in points if _home(point) == where) for where in _PLACES}

    @rule(points=st.frozensets(st.integers(0, _POINTS)), again=st.booleans())
    def ingest(self, points: frozenset[int], again: bool) -> None:
        """The source holds these points, or the same as before; erased ones stay out."""
        self.points = self.points if again else points - self.erased
        records = {where: slice_of(held) for where, held in self.slices(self.points).items()}
        self.happen(Ingested(data=DATA, slices=records), frozenset(range(_SHARDS)))

    @rule(number=st.integers(0, 1))
    def configure(self, number: int) -> None:
        """Training is asked for, mostly under the same settings."""
        event = TrainingConfigured(
            settings={"n": number, "training": {"epochs": _EPOCHS}}, configuration=configuration(number)
        )
        self.happen(event, frozenset(range(_SHARDS)))

    @precondition(lambda self: self.state.data is not None)
    @rule(
        points=st.frozensets(st.integers(0, _POINTS), min_size=1, max_size=3),
        arrives_paused=st.sampled_from([False, False, False, True]),
        inline=st.booleans(),
        then=st.sampled_from(["", "", "", "hold", "extend", "cancel", "fail"]),
    )
    def accept(self, points: frozenset[int], arrives_paused: bool, inline: bool, then: str) -> None:
        """A request arrives, sometimes paused; if it arrives twice, it is one request. An intervention may follow."""
        request_id = f"er-{len(self.named)}"
        self.named[request_id] = points
        request = paused(request_of(request_id)) if arrives_paused else request_of(request_id)
        if inline:
            request = replace(request, names=InlineDigests.of(DigestSet()))
        self.happen(ErasureAccepted(request=request), frozenset())
        assert decide(self.state, ErasureAccepted(request=request))[0] == self.state
        if then:
            self.ask(then, request_id)

    @precondition(lambda self: any(isinstance(effect, RemovePoints) for effect in outstanding(self.state)))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """One of the accepted requests is carried out."""
        effect = data.draw(st.sampled_from(outstanding(self.state)))
        assert isinstance(effect, RemovePoints)
        gone = self.named[effect.request_id] & self.points
        if not gone:
            self.happen(NothingToErase(request_id=effect.request_id, reason="none", at="1"), frozenset())
            return
        self.points -= gone
        self.erased |= self.named[effect.request_id]
        hit = {_home(point) for point in gone}
        event = PointsRemoved(
            request_id=effect.request_id,
            removed={where: len(self.slices(gone)[where]) for where in hit},
            slices={where: slice_of(self.slices(self.points)[where]) for where in hit},
            tombstones=ref(),
            before=ref(),
            at="1",
        )
        self.removals.append(event)
        self.happen(event, frozenset(where.shard for where in hit))

    @precondition(lambda self: any(isinstance(effect, RemovePoints) for effect in outstanding(self.state)))
    @rule()
    def remove_together(self) -> None:
        """All accepted requests are carried out at once: they share slices, tombstones and the state before."""
        effects, left = outstanding(self.state), self.points
        batch = {each.request_id: self.named[each.request_id] for each in effects if isinstance(each, RemovePoints)}
        union = frozenset().union(*batch.values()) & self.points
        self.points -= union
        changed = {where: slice_of(self.slices(self.points)[where]) for where in {_home(point) for point in union}}
        touched = frozenset(where.shard for where in changed)
        tombstones, before = ref(), ref()
        for request_id, named in batch.items():
            gone, left = named & left, left - named
            if not gone:
                self.happen(NothingToErase(request_id=request_id, reason="none", at=_AT), frozenset())
                continue
            self.erased |= named
            event = PointsRemoved(
                request_id=request_id,
                removed={where: len(held) for where, held in self.slices(gone).items()},
                slices=changed,
                tombstones=tombstones,
                before=before,
                at=_AT,
            )
            changed = {}
            self.removals.append(event)
            self.happen(event, touched)

    @precondition(lambda self: self.named)
    @rule(data=st.data(), how=st.sampled_from(["hold", "release", "extend", "cancel", "fail"]))
    def intervene(self, data: st.DataObject, how: str) -> None:
        """An officer intervenes in a request at any stage, mostly in an open one."""
        ids = [each.request_id for each in self.state.requests if each.state.is_open] * 3
        request_id = data.draw(st.sampled_from([*ids, *self.named, "unheard-of"]))
        self.ask(how, request_id)

    def ask(self, how: str, request_id: str) -> None:
        """Ask for one of the interventions below."""
        getattr(self, how)(request_id)

    def hold(self, request_id: str) -> None:
        """A hold is requested: it works if no point is removed yet, and then none is removed until the release."""
        self.happen(RequestHeld(request_id=request_id, reason="a hold", at=_AT), frozenset())
        request = self.state.request(request_id)
        assert request is None or (request.pause is not None) == (request.state is RequestState.ACCEPTED)
        self.refuse_removal(request_id)

    def release(self, request_id: str) -> None:
        """A release is requested."""
        event = RequestReleased(request_id=request_id, at="2026-01-07T00:00:00.000+00:00")
        self.happen(event, frozenset())
        request = self.state.request(request_id)
        assert request is None or request.pause is None
        assert decide(self.state, event)[0] == self.state

    def extend(self, request_id: str) -> None:
        """More time is requested."""
        due_at = "2026-03-01T00:00:00.000+00:00"
        self.happen(DueExtended(request_id=request_id, due_at=due_at, reason="many", at=_AT), frozenset())

    def cancel(self, request_id: str) -> None:
        """A withdrawal is requested: it works if no point is removed yet, and then none is ever removed."""
        self.happen(RequestCancelled(request_id=request_id, reason="a mistake", at=_AT), frozenset())
        request = self.state.request(request_id)
        assert request is None or request.state is not RequestState.ACCEPTED
        if request is not None and request.state is RequestState.CANCELLED:
            assert (request.shown, request.names, request.pause) == (RequestState.CANCELLED, None, None)
            self.refuse_removal(request_id)

    def fail(self, request_id: str) -> None:
        """An attempt for two requests fails: those that are open and not paused record it; no stage changes."""
        chosen = (request_id, next(iter(self.named)))
        before = self.state
        self.happen(AttemptFailed(request_ids=chosen, reason="no room", at=_AT), frozenset())
        assert [each.state for each in self.state.requests] == [each.state for each in before.requests]
        assert outstanding(self.state) == outstanding(before)
        for request in self.state.requests:
            if request.request_id in chosen and request.state.is_open and not request.pause:
                assert request.shown is RequestState.FAILED

    def refuse_removal(self, request_id: str) -> None:
        """Check that a removal that comes now, or a refusal, changes nothing."""
        removal = PointsRemoved(
            request_id=request_id, removed={_PLACES[0]: 1}, slices={}, tombstones=ref(), before=ref(), at=_AT
        )
        assert decide(self.state, removal)[0] == self.state
        assert decide(self.state, NothingToErase(request_id=request_id, reason="none", at=_AT))[0] == self.state

    @precondition(lambda self: self.state.data is not None and self.state.configuration is not None)
    @rule(shard=st.integers(0, _SHARDS - 1), slices=st.integers(1, _SLICES))
    def learn(self, shard: int, slices: int) -> None:
        """A worker learns the next slices of a shard."""
        for lineage in self.state.lineages(ShardId(shard))[len(self.state.shards[shard].chain) :][:slices]:
            held = self.slices(self.points)
            seen = [held[where] for where in _PLACES if where.shard == shard and where.slice <= lineage.slice]
            self.seen[lineage.digest()] = frozenset().union(*seen)
            event = CheckpointWritten(shard=ShardId(shard), checkpoint=checkpoint_of(lineage), at="2")
            self.reported.append(event)
            self.happen(event, frozenset({shard}))
            assert decide(self.state, event)[0] == self.state

    @precondition(lambda self: isinstance(next(iter(outstanding(self.state)), None), Train))
    @rule()
    def learn_everything(self) -> None:
        """All workers finish: a new ensemble takes over."""
        for shard in range(_SHARDS):
            self.learn(shard, _SLICES)
        assert self.state.published
        assert not self.state.at_once

    @precondition(lambda self: self.reported)
    @rule(data=st.data())
    def hear_again(self, data: st.DataObject) -> None:
        """An old checkpoint is reported again: neither an object in use nor a condemned one is taken."""
        event = data.draw(st.sampled_from(self.reported))
        if event.checkpoint.key in {*self.state.condemned, *self.state.referenced()}:
            assert decide(self.state, event)[0] == self.state

    @precondition(lambda self: self.removals)
    @rule(data=st.data())
    def remove_again(self, data: st.DataObject) -> None:
        """An earlier removal is reported again."""
        assert decide(self.state, data.draw(st.sampled_from(self.removals)))[0] == self.state

    @precondition(lambda self: any(shard.chain for shard in self.state.shards))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A checkpoint is found damaged."""
        shard = data.draw(st.sampled_from([n for n, shard in enumerate(self.state.shards) if shard.chain]))
        slice_ = data.draw(st.integers(1, len(self.state.shards[shard].chain)))
        self.happen(CheckpointLost(shard=ShardId(shard), slice=SliceIndex(slice_)), frozenset({shard}))

    @precondition(lambda self: Purge() in outstanding(self.state))
    @rule()
    def purge(self) -> None:
        """Everything condemned is deleted."""
        self.happen(Purged(at="3"), frozenset())
        assert not any(
            request.state.is_open and request.state is not RequestState.PURGED
            for request in self.state.requests
            if request.pause is None
        )

    @precondition(lambda self: any(isinstance(effect, IssueReceipt) for effect in outstanding(self.state)))
    @rule(index=st.integers(0, 99))
    def issue(self, index: int) -> None:
        """The first outstanding receipt is issued."""
        effect = outstanding(self.state)[0]
        assert isinstance(effect, IssueReceipt)
        self.happen(ReceiptIssued(request_id=effect.request_id, index=index), frozenset())
        done = self.state.request(effect.request_id)
        assert done is not None
        assert (done.state, done.receipt) == (RequestState.PURGED, index)

    @precondition(lambda self: self.state.data is not None and self.state.configuration is not None)
    @rule()
    def settle(self) -> None:
        """All outstanding work is done: every request ends, unless it is paused."""
        while effects := outstanding(self.state):
            match effects[0]:
                case RemovePoints():
                    self.remove_together()
                case Train():
                    self.learn_everything()
                case Purge():
                    self.purge()
                case IssueReceipt():
                    self.issue(len(effects))
        assert [each.state for each in self.state.requests if each.state.is_open and not each.pause] == []
        assert not self.state.condemned

    @invariant()
    def chains_are_what_slices_and_settings_demand(self) -> None:
        """Every chain is a prefix of the lineages expected now, and served checkpoints are in it."""
        for number, shard in enumerate(self.state.shards):
            assert valid_prefix(shard.chain, self.state.lineages(ShardId(number))) == shard.chain
            assert shard.serving <= len(shard.chain)
        assert not self.state.published or all(shard.serving == _SLICES for shard in self.state.shards)
        assert self.state.floor <= self.state.generation

    @invariant()
    def nothing_erased_is_in_any_model(self) -> None:
        """No checkpoint of a chain, and no served checkpoint, has seen a removed point."""
        for shard in self.state.shards:
            for checkpoint in shard.chain:
                assert self.seen[checkpoint.lineage] <= self.points
                assert not self.seen[checkpoint.lineage] & self.erased

    @invariant()
    def nobody_else_loses_a_point(self) -> None:
        """Every slice has exactly the points that are left: paused and withdrawn requests have taken none."""
        for where, held in self.slices(self.points).items():
            assert self.state.slice(where).points == len(held)
        for request in self.state.requests:
            if request.pause or request.state in (RequestState.CANCELLED, RequestState.REFUSED):
                assert (request.found.points, request.found.shards) == (0, ())

    @invariant()
    def retraining_is_never_late(self) -> None:
        """Outstanding training always has a start time: at once unless it is only for erasures, and never too late."""
        trainable = self.state.data is not None and self.state.configuration is not None
        untrained = set(self.state.untrained())
        batch = plan_batch(self.state, _EPOCHS)
        affected = {each.shard for each in batch.shards}
        for policy in _POLICIES:
            start = retrain_start(self.state, policy)
            assert (start is not None) == (trainable and bool(untrained))
            if start is not None and not untrained <= affected:
                assert start == AT_ONCE
            for request in self.state.requests:
                if start is not None and request.request_id in batch.requests:
                    assert start <= datetime.fromisoformat(request.due_at)

    @invariant()
    def nothing_condemned_is_current(self) -> None:
        """The purge list never names an object of the state."""
        assert not set(self.state.condemned) & self.state.referenced()

    @invariant()
    def the_state_survives_being_written(self) -> None:
        """The state survives the round trip through JSON."""
        assert decode_state(json.loads(json.dumps(encode_state(self.state)))) == self.state


TestDecisions = Decisions.TestCase
TestDecisions.settings = settings(max_examples=examples(100, few=35), stateful_step_count=40, deadline=None)
