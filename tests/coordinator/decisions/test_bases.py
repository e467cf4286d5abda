"""Bases: the constituents from which learners take points out directly, and when a shard has no base."""

from __future__ import annotations

from dataclasses import replace

from coordinator.decisions.batching import plan_batch
from coordinator.decisions.decide import decide
from coordinator.decisions.events import CheckpointWritten, ConstituentRefuted, Ingested, TrainingConfigured
from coordinator.decisions.plan import learned_chain, plan_retrain
from coordinator.requests import Cost, Found, Refutation, RequestState
from coordinator.state import FederationState
from shards.lineage import CheckpointRecord
from shards.routing import SliceId
from shards.slices.files import SliceRecord
from shards.specification import ShardId, SliceIndex
from storage.digests import sha256
from tests.coordinator.records import DATA, SETTINGS, checkpoint_of, configuration, federation, request_of, slice_of

AT = "2026-01-02T00:00:00+00:00"
SHARD = ShardId(0)
FIRST = SliceId(SHARD, SliceIndex(1))


def _trained() -> FederationState:
    """Return a state whose only shard, of two slices, was learned as one portion."""
    directly = replace(configuration(), learner="forest")
    asked = decide(federation((3, 3)), TrainingConfigured(settings=SETTINGS, configuration=directly))[0]
    written = CheckpointWritten(shard=SHARD, checkpoint=checkpoint_of(asked.lineages(SHARD)[0]), at=AT)
    return decide(asked, written)[0]


def _with(state: FederationState, record: SliceRecord, *, lost: bool = False) -> FederationState:
    read = Ingested(data=DATA, slices={FIRST: record}, lost=frozenset({FIRST} if lost else ()))
    return decide(state, read)[0]


def _refuted(state: FederationState, wrong: CheckpointRecord) -> FederationState:
    refutation = Refutation(
        shard=SHARD,
        slice=wrong.slice,
        checkpoint=wrong.key,
        lineage=wrong.lineage,
        digest=wrong.digest,
        retrained_digest=sha256(b"right"),
        at=AT,
    )
    return decide(state, ConstituentRefuted(refutation=refutation, at=AT))[0]


def test_changed_slices_make_the_last_constituent_the_base() -> None:
    """Until the next one is written, also when slices change again."""
    state = _trained()
    own = state.shards[0]
    after = _with(_with(state, slice_of([900])), slice_of([900, 901]))
    assert after.shards[0].base is not None
    assert (after.shards[0].base.slices, after.shards[0].base.checkpoint) == (own.slices, own.chain[0])
    written = CheckpointWritten(shard=SHARD, checkpoint=checkpoint_of(after.lineages(SHARD)[0]), at=AT)
    assert decide(after, written)[0].shards[0].base is None


def _written(state: FederationState, steps: int, seconds: float) -> FederationState:
    """Return the state after its shard has a new constituent, which took so long."""
    checkpoint = replace(checkpoint_of(state.lineages(SHARD)[0]), steps=steps, seconds=seconds)
    return decide(state, CheckpointWritten(shard=SHARD, checkpoint=checkpoint, at=AT))[0]


def test_the_pace_of_direct_changes_is_not_that_of_training() -> None:
    """What one erasure took says what the next one takes, and nothing about a training from nothing."""
    directly = replace(configuration(), learner="forest")
    asked = decide(federation((300, 300)), TrainingConfigured(settings=SETTINGS, configuration=directly))[0]
    trained = _written(asked, steps=600, seconds=6.0)
    assert learned_chain(trained, SHARD) == trained.shards[0].chain
    assert plan_retrain(trained, {FIRST: 5}, 1).expected == Cost(point_epochs=5, seconds=0.05)
    waiting = _with(trained, slice_of(range(299)))
    assert plan_retrain(waiting, {FIRST: 5}, 1).expected == Cost(point_epochs=5, seconds=0.05)
    changed = _written(waiting, steps=1, seconds=0.2)
    assert plan_retrain(changed, {FIRST: 1}, 1).expected == Cost(point_epochs=1, seconds=0.2)
    assert plan_retrain(changed, {FIRST: 5}, 1).expected == Cost(point_epochs=5, seconds=1.0)
    assert learned_chain(changed, SHARD) == ()


def test_a_direct_change_says_nothing_of_how_long_learning_again_takes() -> None:
    """It took few points so long; a second for each of all points would be minutes."""
    for learner, gone in (("forest", 500), ("k_means", 1)):
        asking = TrainingConfigured(settings=SETTINGS, configuration=replace(configuration(), learner=learner))
        trained = _written(decide(federation((300, 300)), asking)[0], steps=600, seconds=6.0)
        left = 600 - gone
        assert plan_retrain(trained, {FIRST: gone}, 1).expected == Cost(point_epochs=left, seconds=left / 100)
        changed = _written(_with(trained, slice_of(range(299))), steps=1, seconds=0.2)
        assert plan_retrain(changed, {FIRST: gone}, 1).expected == Cost(point_epochs=left - 1, seconds=0.2)


def test_a_batch_of_many_points_is_priced_as_the_plans_of_its_requests() -> None:
    """By the cheaper way, which is to learn again."""
    directly = replace(configuration(), learner="forest")
    asked = decide(federation((300, 300)), TrainingConfigured(settings=SETTINGS, configuration=directly))[0]
    trained = _written(asked, steps=600, seconds=6.0)
    request = replace(request_of("r-1"), state=RequestState.QUARANTINED, found=Found(from_slices={SHARD: FIRST.slice}))
    batch = plan_batch(replace(_with(trained, slice_of(range(10))), requests=(request,)), 1)
    assert batch.expected == plan_retrain(trained, {FIRST: 290}, 1).expected == Cost(point_epochs=310, seconds=3.1)


def test_a_batch_of_direct_changes_costs_what_these_cost() -> None:
    """The cost is not that of training the shard."""
    directly = replace(configuration(), learner="forest")
    asked = decide(federation((300, 300)), TrainingConfigured(settings=SETTINGS, configuration=directly))[0]
    waiting = _with(_written(_written(asked, 600, 6.0), 600, 6.0), slice_of(range(298)))
    request = replace(request_of("r-1"), state=RequestState.QUARANTINED, found=Found(from_slices={SHARD: FIRST.slice}))
    batch = plan_batch(replace(waiting, requests=(request,)), 1)
    assert batch.expected == Cost(point_epochs=2, seconds=0.02)


def test_a_replaced_slice_of_equal_content_leaves_no_base() -> None:
    """The constituent stays. If it is refuted later, it is not what the next one is made from."""
    state = _trained()
    mended = _with(state, slice_of(range(3)), lost=True)
    assert (mended.shards[0].chain, mended.shards[0].base) == (state.shards[0].chain, None)
    refuted = _refuted(mended, state.shards[0].chain[0])
    assert (refuted.shards[0].chain, refuted.shards[0].base) == ((), None)


def test_a_base_that_is_refuted_is_given_up() -> None:
    """A verification may end after an erasure has made the wrong constituent the base."""
    state = _trained()
    changed = _with(state, slice_of([900]))
    assert changed.shards[0].base is not None
    assert _refuted(changed, state.shards[0].chain[0]) == replace(
        changed, shards=(replace(changed.shards[0], base=None),)
    )
