"""Status: the state as people and scripts want to see it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coordinator.requests import ErasureRequest
from coordinator.state import FederationState, ShardState, servable
from shards.specification import ShardId
from storage.digests import Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstituentStatus:
    """One shard and its constituent."""

    shard: ShardId
    slices: int
    """R."""
    points: int
    digest: Sha256 | None
    """Of parameters and buffers after the last slice; None while it is not trained."""
    slice_digests: tuple[Sha256, ...]
    """The same after slices 1..k, as far as it is trained."""
    state: str
    """``trained``, ``training``, ``quarantined`` (serves an earlier slice, or abstains) or ``empty`` (no points)."""
    serving_slice: int
    """The slice whose checkpoint answers; 0: abstains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """One erasure request."""

    request_id: str
    state: str
    subjects: int
    ids: int
    points: int
    unknown: int
    """Subjects and ids named that have no data point here."""
    shards: tuple[ShardId, ...]
    received_at: str
    due_at: str
    overdue: bool
    reason: str
    times: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationStatus:
    """The whole federation."""

    name: str
    store: str
    shards: int
    slices: int
    points: int
    generation: int
    floor: int
    serving: int
    """Constituents that answer, of ``shards``."""
    tombstoned_at_ingest: int
    """Data points that the last ingest left out because they are erased."""
    constituents: tuple[ConstituentStatus, ...]
    requests: tuple[RequestStatus, ...]
    differences: tuple[str, ...] = ()
    """Settings of the specification that differ from those it was trained with."""


def describe(state: FederationState, store: str, now: datetime, differences: tuple[str, ...] = ()) -> FederationStatus:
    """Return the status of ``state`` at ``now``."""
    constituents = tuple(_constituent(state, ShardId(number), shard) for number, shard in enumerate(state.shards))
    return FederationStatus(
        name=state.name,
        store=store,
        shards=len(state.shards),
        slices=len(state.shards[0].slices),
        points=sum(each.points for each in constituents),
        generation=state.generation,
        floor=state.floor,
        serving=len(servable(state)),
        tombstoned_at_ingest=state.data.refused if state.data else 0,
        constituents=constituents,
        requests=tuple(describe_request(request, now) for request in state.requests),
        differences=differences,
    )


def describe_request(request: ErasureRequest, now: datetime) -> RequestStatus:
    """Return the status of one request at ``now``."""
    return RequestStatus(
        request_id=request.request_id,
        state=request.state.value,
        subjects=request.subjects,
        ids=request.ids,
        points=request.points,
        unknown=request.unknown,
        shards=request.shards,
        received_at=request.received_at,
        due_at=request.due_at,
        overdue=request.state.is_open and datetime.fromisoformat(request.due_at) < now,
        reason=request.reason,
        times=dict(request.times),
    )


def _constituent(state: FederationState, number: ShardId, shard: ShardState) -> ConstituentStatus:
    return ConstituentStatus(
        shard=number,
        slices=len(shard.slices),
        points=shard.points,
        digest=shard.chain[-1].digest if shard.is_trained else None,
        slice_digests=tuple(checkpoint.digest for checkpoint in shard.chain),
        state=_kind(state, number, shard),
        serving_slice=shard.serving,
    )


def _kind(state: FederationState, number: ShardId, shard: ShardState) -> str:
    if not shard.is_trained:
        open_here = any(request.state.is_open and number in request.shards for request in state.requests)
        return "quarantined" if open_here else "training"
    return "trained" if shard.points else "empty"
