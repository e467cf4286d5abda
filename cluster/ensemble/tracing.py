"""Traces of a subject: which slices, checkpoints, generations and requests had its data points. Nothing is written.

Erased data cannot be traced, because it is gone. What the store may still have: that a subject is erased (its
tombstone); for each ended request the digest of the names that it named, which shows whether they are exactly these, to
those who have the names and the partition key; the shards and slices that the request changed; and the generations,
without names. A request that named several people does not show one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from cluster.results.traces import TracedCheckpoint, TracedGeneration, TracedRequest, TracedSlice
from cluster.writer.drafting import bodies_naming
from coordinator.engine.ended import buckets
from coordinator.engine.lookup import load_digests
from coordinator.requests import ErasureRequest, Readmission, RequestState
from coordinator.state import FederationState, GenerationRecord
from shards.routing import SliceId
from shards.specification import ShardId, SliceIndex
from shards.tombstones import DigestSet
from storage.objects import ObjectStore

Known = ErasureRequest | Readmission
"""What may have named a subject."""


class RequestIndex:
    """All requests and readmissions of a state, read once, and looked up by the names in them."""

    def __init__(self, store: ObjectStore, state: FederationState) -> None:
        """Read every bucket of ended requests, and the names in open ones."""
        self._by_body: dict[str, list[Known]] = {}
        known: list[Known] = [*state.requests, *state.readmissions]
        for bucket in buckets(store, state):
            known += (*(request for _, request in bucket.requests), *bucket.readmissions)
        for each in known:
            self._by_body.setdefault(each.body, []).append(each)
        self._open = [(each, load_digests(store, each.names)) for each in state.requests if each.state.is_open]

    def naming(self, names: DigestSet) -> tuple[Known, ...]:
        """Return the requests with exactly these names, and open ones with all of these among others, oldest first."""
        exactly = (each for body in bodies_naming(names) for each in self._by_body.get(body, ()))
        among = (each for each, named in self._open if not len(names.without(named)))
        found = {each.request_id: each for each in chain(exactly, among)}
        return tuple(sorted(found.values(), key=_received))


def slices_with(state: FederationState, found: Mapping[SliceId, int]) -> tuple[TracedSlice, ...]:
    """Return the slices in which data points were found, in order."""
    return tuple(
        TracedSlice(shard=where.shard, slice=where.slice, points=points, held_out=where.shard == state.shard_of_holdout)
        for where, points in sorted(found.items())
    )


def checkpoints_after(state: FederationState, found: Iterable[SliceId]) -> tuple[TracedCheckpoint, ...]:
    """Return the current checkpoints that have seen one of these slices, in order."""
    return tuple(
        TracedCheckpoint(
            shard=shard,
            slice=checkpoint.slice,
            sha256=checkpoint.sha256,
            digest=checkpoint.digest,
            serving=number == state.shards[shard].serving,
        )
        for shard, first in sorted(_first_portions(state, found).items())
        for number, checkpoint in enumerate(state.shards[shard].chain, start=1)
        if number >= first
    )


def generations_after(
    state: FederationState, records: Iterable[GenerationRecord], found: Iterable[SliceId], before: str = ""
) -> Iterator[TracedGeneration]:
    """Yield the generations with constituents that had seen one of these slices, and began ``before`` a moment."""
    first = _first_portions(state, found)
    for record in records:
        seen = tuple(shard for shard, number in enumerate(record.serving) if 0 < first.get(ShardId(shard), 0) <= number)
        if seen and (not before or record.since < before):
            yield TracedGeneration(number=record.number, since=record.since, until=record.until, shards=seen)


def generations_of(
    state: FederationState,
    records: Sequence[GenerationRecord],
    found: Iterable[SliceId],
    named_by: Iterable[Known],
) -> tuple[TracedGeneration, ...]:
    """Return the generations that may have answered with a subject's data points, current or erased."""
    by_number = {each.number: each for each in generations_after(state, records, found)}
    for request in named_by:
        if isinstance(request, ErasureRequest) and (until := request.times.get(RequestState.QUARANTINED.value)):
            places = (SliceId(shard, slice_) for shard, slice_ in request.found.from_slices.items())
            for each in generations_after(state, records, places, until):
                by_number.setdefault(each.number, each)
    return tuple(by_number[number] for number in sorted(by_number))


def traced_request(each: Known) -> TracedRequest:
    """Return a trace's entry about a request or readmission."""
    if isinstance(each, Readmission):
        return TracedRequest(
            request_id=each.request_id,
            kind="readmission",
            state="readmitted",
            received_at=each.at,
            ended_at=each.at,
            receipt=each.receipt,
        )
    return TracedRequest(
        request_id=each.request_id,
        kind=each.kind,
        state=each.shown.value,
        received_at=each.received_at,
        ended_at="" if each.state.is_open else each.times.get(each.state.value, ""),
        receipt=each.receipt,
    )


def _received(each: Known) -> str:
    return each.at if isinstance(each, Readmission) else each.received_at


def _first_portions(state: FederationState, found: Iterable[SliceId]) -> dict[ShardId, SliceIndex]:
    """Return for each shard the first portion with one of these slices; hold-out points are not learned."""
    first: dict[ShardId, SliceIndex] = {}
    for where in found:
        if where.shard != state.shard_of_holdout:
            portion = state.portion_of(where.slice)
            first[where.shard] = min(portion, first.get(where.shard, portion))
    return first
