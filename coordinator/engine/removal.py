"""Removing points: from the names of requests to slices without them, and the events that say so (E2, E10, E12).

Requests that arrive together are removed together: each slice is read and written once, whoever named points in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from coordinator.decisions.decide import NothingToErase, PointsRemoved
from coordinator.decisions.plan import plan_retrain
from coordinator.engine.codec import encode_state
from coordinator.engine.lookup import load_digests
from coordinator.ports import Names
from coordinator.requests import Cost, ErasureRequest, ObjectRef
from coordinator.state import FederationState
from shards.routing import Placement, places
from shards.slices.files import identities, rewrite_slice
from shards.specification import ShardId, SliceIndex
from shards.tombstones import NOTHING, DigestSet
from storage.digests import canonical_json, sha256
from storage.objects import ObjectStore, object_key

NOTHING_TO_ERASE: Final = "no data point of these subjects or ids is in the federation: there is nothing to erase"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What one set of names removes."""

    removed: Mapping[Placement, int]
    """Data points by slice; those that an earlier set of the batch names too are not counted again."""
    found: DigestSet
    """The names that have a data point. Tombstones are set for them and for nobody else: a misspelt name must not keep
    a stranger out for good."""


def find_points(store: ObjectStore, state: FederationState, batch: Sequence[DigestSet]) -> tuple[Removal, ...]:
    """Return what each set of names removes, in their order; writes nothing.

    Subjects are found by routing alone; points named one by one are looked for in every slice.
    """
    removed: list[dict[Placement, int]] = [{} for _ in batch]
    found: list[list[DigestSet]] = [[] for _ in batch]
    for where, numbers in sorted(_search(state, batch).items()):
        for block in identities(store, state.shards[where.shard].slices[where.slice - 1]):
            left = block
            for number in numbers:
                named = batch[number].contains(left)
                if count := int(named.sum()):
                    removed[number][where] = removed[number].get(where, 0) + count
                    found[number].append(batch[number].among(left))
                    left = left.take(~named)
    return tuple(
        Removal(removed=counts, found=NOTHING.union(*names)) for counts, names in zip(removed, found, strict=True)
    )


def everyone(store: ObjectStore, state: FederationState) -> DigestSet:
    """Return all subjects that have data points here; nobody: the empty set."""
    records = (record for shard in state.shards for record in shard.slices)
    return NOTHING.union(*(DigestSet.subjects_of(block) for record in records for block in identities(store, record)))


def removal_events(
    store: ObjectStore,
    names: Names,
    state: FederationState,
    batch: Sequence[tuple[ErasureRequest, DigestSet]],
    at: str,
) -> Iterator[PointsRemoved | NothingToErase]:
    """Write the slices without what the requests name, and yield what happened, request by request.

    All slices come with the first event that removes anything: the events belong into one commit.
    """
    removals = find_points(store, state, [digests for _, digests in batch])
    every = NOTHING.union(*(removal.found for removal in removals))
    slices = {
        where: rewrite_slice(store, state.shards[where.shard].slices[where.slice - 1], every, where, names).record
        for where in sorted({where for removal in removals for where in removal.removed})
    }
    tombstones = before = None
    if slices:
        tombstones = put_digests(store, names, "tombstones", load_digests(store, state.tombstones).union(every))
        before = put_object(store, names, "requests/", ".before", canonical_json(encode_state(state)))
    for (request, digests), removal in zip(batch, removals, strict=True):
        if tombstones is None or before is None or not removal.removed:
            yield NothingToErase(request_id=request.request_id, reason=NOTHING_TO_ERASE, at=at)
            continue
        yield PointsRemoved(
            request_id=request.request_id,
            removed=removal.removed,
            slices=slices,
            tombstones=tombstones,
            before=before,
            unknown=len(digests) - len(removal.found),
            expected=expected_cost(state, removal.removed),
            at=at,
        )
        slices = {}


def expected_cost(state: FederationState, removed: Mapping[Placement, int]) -> Cost | None:
    """Return what retraining without these points is expected to cost; None before anything was trained."""
    epochs = state.settings.get("training", {}).get("epochs")
    if epochs is None or state.configuration is None:
        return None
    plan = plan_retrain(state, removed, epochs)
    return Cost(point_epochs=plan.point_epochs, seconds=round(sum(each.seconds for each in plan.shards), 3))


def put_digests(store: ObjectStore, names: Names, prefix: str, digests: DigestSet) -> ObjectRef:
    """Write the digests to an object of their own."""
    return put_object(store, names, f"{prefix}/", ".digests", digests.to_bytes())


def put_object(store: ObjectStore, names: Names, prefix: str, ending: str, payload: bytes) -> ObjectRef:
    """Write an object under a name that was never used before."""
    key = object_key(f"{prefix}{names()}{ending}")
    store.put_if_absent(key, payload)
    return ObjectRef(key=key, sha256=sha256(payload))


def _search(state: FederationState, batch: Sequence[DigestSet]) -> dict[Placement, list[int]]:
    """Return which sets of the batch may name points of which slice."""
    shards, slices = len(state.shards), len(state.shards[0].slices)
    everywhere = [Placement(ShardId(s), SliceIndex(r)) for s in range(shards) for r in range(1, slices + 1)]
    wanted: dict[Placement, list[int]] = {}
    for number, digests in enumerate(batch):
        for where in everywhere if digests.points else places(digests.subjects, shards, slices):
            wanted.setdefault(where, []).append(number)
    return wanted
