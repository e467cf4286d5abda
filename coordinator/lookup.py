"""Looking into the store for the coordinator: which points a request means, which objects are sound."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.requests import ObjectRef
from coordinator.state import FederationState
from shards.dataset import count_erased, locate_points
from shards.routing import Placement, place
from shards.specification import ShardId, SliceIndex
from shards.tombstones import NOTHING, DigestSet
from storage.digests import Sha256, sha256
from storage.errors import Corrupt, ObjectMissing
from storage.objects import ObjectKey, ObjectStore


def erased_points(store: ObjectStore, state: FederationState, names: DigestSet) -> Mapping[Placement, int]:
    """Return how many data points of ``names`` lie in which slice; slices without any are left out.

    Subjects are found by routing alone; points named one by one are looked for in every slice.
    """
    shards, slices = len(state.shards), len(state.shards[0].slices)
    found: dict[Placement, int] = {}
    for placement in sorted({place(subject, shards, slices) for subject in names.subject_digests()}):
        record = state.shards[placement.shard].slices[placement.slice - 1]
        found[placement] = count_erased(store, record, names)
    if names.points:
        places = {
            Placement(ShardId(shard), SliceIndex(number)): record
            for shard, own in enumerate(state.shards)
            for number, record in enumerate(own.slices, start=1)
        }
        found |= locate_points(store, places, names)
    return {placement: count for placement, count in sorted(found.items()) if count}


def load_digests(store: ObjectStore, ref: ObjectRef | None) -> DigestSet:
    """Return the digests that ``ref`` names; none for None. Raises ``Corrupt`` when the object is not what it was."""
    if ref is None:
        return NOTHING
    try:
        payload = store.get(ref.key).payload
    except ObjectMissing as error:
        raise Corrupt("a set of erased digests is missing", "restore the store from a backup", key=ref.key) from error
    if sha256(payload) != ref.sha256:
        raise Corrupt("a set of erased digests is damaged", "restore the store from a backup", key=ref.key)
    return DigestSet.from_bytes(payload)


def is_intact(store: ObjectStore, key: ObjectKey, expected: Sha256) -> bool:
    """Return whether the object is there and has the digest ``expected``."""
    try:
        return sha256(store.get(key).payload) == expected
    except ObjectMissing:
        return False
