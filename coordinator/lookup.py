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

_RESTORE = "restore the store from a copy"


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
    return NOTHING if ref is None else DigestSet.from_bytes(load_object(store, ref))


def load_object(store: ObjectStore, ref: ObjectRef) -> bytes:
    """Return the bytes that ``ref`` names. Raises ``Corrupt`` when the object is missing or not what it was."""
    try:
        payload = store.get(ref.key).payload
    except ObjectMissing as error:
        raise Corrupt("an object of the federation's state is missing", _RESTORE, key=ref.key) from error
    if sha256(payload) != ref.sha256:
        raise Corrupt("an object of the federation's state is damaged", _RESTORE, key=ref.key)
    return payload


def is_intact(store: ObjectStore, key: ObjectKey, expected: Sha256) -> bool:
    """Return whether the object is there and has the digest ``expected``."""
    try:
        return sha256(store.get(key).payload) == expected
    except (ObjectMissing, Corrupt):
        return False
