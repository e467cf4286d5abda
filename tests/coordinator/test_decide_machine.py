"""Decisions over random sequences of events, stale and repeated ones among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.codec import decode_state, encode_state
from coordinator.decide import (
    CheckpointLost,
    CheckpointWritten,
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
    TrainingConfigured,
    decide,
    outstanding,
)
from coordinator.requests import RequestState
from coordinator.state import FederationState, ShardState, servable
from shards.dataset import EMPTY_SLICE
from shards.lineage import valid_prefix
from shards.routing import Placement
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256
from storage.objects import ObjectKey
from tests.coordinator.records import DATA, checkpoint_of, configuration, federation, ref, request_of, slice_of

_SHARDS, _SLICES, _POINTS = 3, 3, 12
_STAGES = list(RequestState)


def _home(point: int) -> Placement:
    return Placement(ShardId(point % _SHARDS), SliceIndex(point // _SHARDS % _SLICES + 1))


_PLACES = sorted({_home(point) for point in range(_SHARDS * _SLICES)})


class Decisions(RuleBasedStateMachine):
    """A coordinator that hears whatever may happen; points are numbers, and each has its place."""

    state: FederationState

    @initialize()
    def start(self) -> None:
        """Begin with nothing."""
        self.state = replace(federation(), shards=(ShardState(slices=(EMPTY_SLICE,) * _SLICES),) * _SHARDS, data=None)
        self.points: frozenset[int] = frozenset()
        self.erased: frozenset[int] = frozenset()
        self.named: dict[str, frozenset[int]] = {}
        self.told: list[CheckpointWritten] = []
        self.removals: list[PointsRemoved] = []
        self.seen: dict[Sha256, frozenset[int]] = {}
        self.owed: set[ObjectKey] = set()

    def happen(self, event: Event, touched: frozenset[int]) -> None:
        """Take the event in and check the step; ``touched`` are the shards whose chains may change."""
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

    def slices(self, points: frozenset[int]) -> Mapping[Placement, frozenset[int]]:
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
        event = TrainingConfigured(settings={"n": number}, configuration=configuration(number))
        self.happen(event, frozenset(range(_SHARDS)))

    @precondition(lambda self: self.state.data is not None)
    @rule(points=st.frozensets(st.integers(0, _POINTS), min_size=1, max_size=3))
    def accept(self, points: frozenset[int]) -> None:
        """A request arrives."""
        request_id = f"er-{len(self.named)}"
        self.named[request_id] = points
        self.happen(ErasureAccepted(request=request_of(request_id)), frozenset())

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

    @precondition(lambda self: self.state.data is not None and self.state.configuration is not None)
    @rule(shard=st.integers(0, _SHARDS - 1), slices=st.integers(1, _SLICES))
    def learn(self, shard: int, slices: int) -> None:
        """A worker learns the next slices of a shard."""
        for lineage in self.state.lineages(ShardId(shard))[len(self.state.shards[shard].chain) :][:slices]:
            held = self.slices(self.points)
            seen = [held[where] for where in _PLACES if where.shard == shard and where.slice <= lineage.slice]
            self.seen[lineage.digest()] = frozenset().union(*seen)
            event = CheckpointWritten(shard=ShardId(shard), checkpoint=checkpoint_of(lineage), at="2")
            self.told.append(event)
            self.happen(event, frozenset({shard}))
            assert decide(self.state, event)[0] == self.state

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def hear_again(self, data: st.DataObject) -> None:
        """An old checkpoint is told of once more: neither an object in use nor a condemned one is taken."""
        event = data.draw(st.sampled_from(self.told))
        if event.checkpoint.key in {*self.state.condemned, *self.state.referenced()}:
            assert decide(self.state, event)[0] == self.state

    @precondition(lambda self: self.removals)
    @rule(data=st.data())
    def remove_again(self, data: st.DataObject) -> None:
        """A removal carried out before is told of once more."""
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
            request.state.is_open and request.state is not RequestState.PURGED for request in self.state.requests
        )

    @precondition(lambda self: any(isinstance(effect, IssueReceipt) for effect in outstanding(self.state)))
    @rule(index=st.integers(0, 99))
    def issue(self, index: int) -> None:
        """The first receipt owed is issued."""
        effect = outstanding(self.state)[0]
        assert isinstance(effect, IssueReceipt)
        self.happen(ReceiptIssued(request_id=effect.request_id, index=index), frozenset())
        done = self.state.request(effect.request_id)
        assert done is not None
        assert (done.state, done.receipt) == (RequestState.PURGED, index)

    @invariant()
    def chains_are_what_slices_and_settings_demand(self) -> None:
        """Every chain is a start of what is expected now, and what may be served is part of it."""
        for number, shard in enumerate(self.state.shards):
            assert valid_prefix(shard.chain, self.state.lineages(ShardId(number))) == shard.chain
            assert shard.serving <= len(shard.chain)
        assert not self.state.published or all(shard.serving == _SLICES for shard in self.state.shards)
        assert self.state.floor <= self.state.generation

    @invariant()
    def nothing_erased_is_in_any_model(self) -> None:
        """No checkpoint of a chain has seen a point that is gone; the served ones have seen nothing else either."""
        for shard in self.state.shards:
            for checkpoint in shard.chain:
                assert self.seen[checkpoint.lineage] <= self.points
                assert not self.seen[checkpoint.lineage] & self.erased

    @invariant()
    def nothing_condemned_is_current(self) -> None:
        """The purge list never names an object of the state."""
        assert not set(self.state.condemned) & self.state.referenced()

    @invariant()
    def the_state_survives_being_written(self) -> None:
        """Written as JSON and read again it is the same state."""
        assert decode_state(json.loads(json.dumps(encode_state(self.state)))) == self.state


TestDecisions = Decisions.TestCase
TestDecisions.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
