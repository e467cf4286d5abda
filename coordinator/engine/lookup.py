"""Reads objects for the coordinator and checks their digests."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.requests import InlineDigests, ObjectRef
from shards.tombstones import NOTHING, DigestSet
from storage.digests import Sha256, sha256
from storage.errors import Corrupt, ObjectMissing
from storage.objects import ObjectKey, ObjectStore

_RESTORE = "Restore the store from a copy."


def load_digests(store: ObjectStore, ref: ObjectRef | InlineDigests | None) -> DigestSet:
    """Return the digests that ``ref`` names or holds; an empty set for None.

    Raises ``Corrupt`` when they are damaged.
    """
    match ref:
        case None:
            return NOTHING
        case InlineDigests():
            return ref.digests()
        case ObjectRef():
            return DigestSet.from_bytes(load_object(store, ref))


def load_tombstones(store: ObjectStore, objects: Iterable[ObjectRef]) -> DigestSet:
    """Return all tombstones in ``objects``. Raises ``Corrupt`` as ``load_digests`` does."""
    return NOTHING.union(*(load_digests(store, ref) for ref in objects))


def load_object(store: ObjectStore, ref: ObjectRef) -> bytes:
    """Return the bytes that ``ref`` names. Raises ``Corrupt`` when the object is missing or damaged."""
    try:
        payload = store.get(ref.key).payload
    except ObjectMissing as error:
        raise Corrupt("an object of the federation's state is missing", _RESTORE, key=ref.key) from error
    if sha256(payload) != ref.sha256:
        raise Corrupt("an object of the federation's state is damaged", _RESTORE, key=ref.key)
    return payload


def is_intact(store: ObjectStore, key: ObjectKey, expected: Sha256) -> bool:
    """Return whether the object exists and has the digest ``expected``."""
    try:
        return sha256(store.get(key).payload) == expected
    except (ObjectMissing, Corrupt):
        return False
