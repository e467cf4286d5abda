"""Erasures made up for tests, carried out by ``decide`` alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from coordinator.decisions.decide import decide
from coordinator.decisions.events import (
    CheckpointWritten,
    ErasureAccepted,
    PointsRemoved,
    Purged,
    TrainingConfigured,
)
from coordinator.receipts.evidence import ErasureEvidence, ScanEvidence, StoreEvidence, collect_evidence
from coordinator.state import FederationState
from shards.routing import SliceId
from shards.specification import ShardId, SliceIndex
from storage.digests import sha256
from tests.coordinator.records import checkpoint_of, configuration, federation, ref, request_of, slice_of

SCAN = ScanEvidence(objects=17, bytes=12345, findings=0)
STORE = StoreEvidence(kind="folder", properties={"encrypted": True, "versioned": False})


def trained(state: FederationState) -> FederationState:
    """The state once every chain has been extended to its last slice."""
    for number in range(len(state.shards)):
        shard = ShardId(number)
        for lineage in state.lineages(shard)[len(state.shards[shard].chain) :]:
            written = CheckpointWritten(shard=shard, checkpoint=checkpoint_of(lineage), at="2026-01-03T00:00:00+00:00")
            state, _ = decide(state, written)
    return state


def quarantined(state: FederationState, request_id: str, place: SliceId, left: tuple[int, ...]) -> FederationState:
    """The state once the request has removed all points of one slice but those in ``left``."""
    old = state.shards[place.shard].slices[place.slice - 1].points
    event = PointsRemoved(
        request_id=request_id,
        removed={place: old - len(left)},
        slices={place: slice_of(left)},
        tombstones=ref(),
        before=ref(),
        at="2026-01-02T00:00:00+00:00",
    )
    return decide(state, event)[0]


def accepted(state: FederationState, request_id: str) -> FederationState:
    """The state once the request is accepted."""
    return decide(state, ErasureAccepted(request=request_of(request_id)))[0]


def purged(state: FederationState) -> FederationState:
    """The state once everything is purged."""
    return decide(state, Purged(at="2026-01-04T00:00:00+00:00"))[0]


@cache
def two_erasures() -> tuple[FederationState, FederationState]:
    """The states before and after two erasures that shared one retrain, in shards 1 and 2 of 3."""
    state = federation((5, 4, 3), (4, 4, 4), (3, 3, 3))
    state, _ = decide(state, TrainingConfigured(settings={"training": {"epochs": 4}}, configuration=configuration()))
    before = accepted(accepted(trained(state), "first"), "second")
    state = quarantined(before, "first", SliceId(ShardId(1), SliceIndex(2)), (900, 901))
    state = quarantined(state, "second", SliceId(ShardId(2), SliceIndex(3)), (902, 903))
    return before, purged(trained(state))


def evidence_of(request_id: str = "first") -> ErasureEvidence:
    """Evidence of one of the two erasures; any other request id stands for one like the first."""
    found = _evidence_of_one(request_id if request_id in ("first", "second") else "first")
    return replace(found, request_id=request_id, request_digest=sha256(request_id.encode()))


@cache
def _evidence_of_one(request_id: str) -> ErasureEvidence:
    manifests = {"quarantined": 41, "published": 44, "purged": 45}
    return collect_evidence(request_id, *two_erasures(), manifests=manifests, scan=SCAN, store=STORE)
