"""Bases: the constituents from which learners take points out directly, and when a shard has no base."""

from __future__ import annotations

from dataclasses import replace

from coordinator.decisions.decide import decide
from coordinator.decisions.events import CheckpointWritten, ConstituentRefuted, Ingested, TrainingConfigured
from coordinator.requests import Refutation
from coordinator.state import FederationState
from shards.lineage import CheckpointRecord
from shards.routing import SliceId
from shards.slices.files import SliceRecord
from shards.specification import ShardId, SliceIndex
from storage.digests import sha256
from tests.coordinator.records import DATA, SETTINGS, checkpoint_of, configuration, federation, slice_of

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
