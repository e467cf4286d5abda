"""Moving a store to another place: copy, read back, take over there, then delete here, with the keys first.

control/restoring     in the new place until the copy is complete; until then nothing is answered or written there
control/identity      in the old place, names the new one afterwards: data left there is a copy, and is not written to

After an interruption at any point the same command continues. A federation keeps its id, its receipts and its tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cluster.backups.contents import Placed, is_secret, refuse_others, refuse_overlap
from cluster.backups.restore import require_room
from cluster.coordinator_actor.ownership import PROOF_KEY
from cluster.coordinator_actor.record import RECORD_KEY, RELEASES_KEY
from cluster.runtime.system import holder, many_at_once
from cluster.writer.keys_owner import check_owner, own_keys
from cluster.writer.place import IDENTITY_KEY, foreign_place, give_place, read_identity, settle_identity, take_place
from coordinator.receipts.rollback import RESTORING_KEY, refuse_restoring
from storage.encryption.store import SealedStore
from storage.errors import Conflict, Corrupt, Invalid, ObjectMissing
from storage.location import is_on_s3
from storage.objects import ObjectKey, ObjectStore
from storage.registers.record import RecordRegister
from storage.stores.probe import PROBE_PREFIX, probe_store

_STAYS = frozenset({RECORD_KEY, RELEASES_KEY, PROOF_KEY, RESTORING_KEY})
"""Objects that only have a meaning in their own place."""

_TOGETHER = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A store that was moved."""

    federation: str
    """Its id, as before."""
    place: str
    """Its new place, which the specification's ``store`` has to name."""
    objects: int
    left: int
    """Objects that were kept in the old place, with ``keep``."""


def move(
    store: SealedStore, place: ObjectStore, *, now: datetime, progress: Callable[[int, int], None], keep: bool = False
) -> Moved:
    """Move the store to ``place``, which is empty; with ``keep`` the old one stays as a copy, its keys included.

    Raises ``Conflict`` when a coordinator or another command writes, the store is a copy, or something is in ``place``;
    ``StoreFull`` when there is no room; ``Corrupt`` when what was written there does not read back.
    """
    own = [Placed(store, "the store"), *([Placed(store.keys, "'keys'")] if store.keys else [])]
    refuse_overlap(*own, Placed(place, "the new place"))
    refuse_restoring(store)
    there = SealedStore(place, store.keys)
    with store.exclusive("writer", holder("move", now)):
        if foreign_place(store) != place.location:  # else it was moved there, and what is left is deleted
            check_owner(store)
        identity = read_identity(store)
        if identity is None and next(iter(store.inner.list("")), None) is None:
            raise Invalid("there is no federation here", "Check 'store' in the specification.", store=store.location)
        identity = settle_identity(store)
        if not _is_taken(place, identity.id):
            count = _copy(store.inner, place, identity.id, progress)
            take_place(place, identity.id)
            give_place(store, place)
            own_keys(there, take=True)
            place.delete(RESTORING_KEY)
        else:
            count = sum(1 for _ in place.list(""))
        left = list(_listed(store.inner)) if keep else _delete(store.inner)
    return Moved(federation=identity.id, place=place.location, objects=count, left=len(left))


def _is_taken(place: ObjectStore, own_id: str) -> bool:
    """Return whether the whole federation is already in its new place."""
    try:
        place.get(RESTORING_KEY)
    except ObjectMissing:
        there = read_identity(place)
        return there is not None and there.id == own_id and foreign_place(place) is None
    return False


def _copy(store: ObjectStore, place: ObjectStore, own_id: str, progress: Callable[[int, int], None]) -> int:
    """Copy every object and read it back; remove objects of an earlier attempt that the store no longer has."""
    mark = RecordRegister(store=place, key=RESTORING_KEY, field_names=frozenset({"moved", "from"}))
    if mark.read() is None:
        refuse_others(place, lambda _: False, "move that was begun")
        if is_on_s3(place.location):
            probe_store(place)
    found = mark.change(lambda found: found or {"moved": own_id, "from": store.location})
    if found["moved"] != own_id:
        raise Conflict(
            f"the move that was begun to this place is of another store, {found['from']}",
            "Name an empty place.",
            place=place.location,
        )
    sizes = _listed(store)
    require_room(place, sum(sizes.values()))
    keys = [key for key in sorted(sizes) if key != IDENTITY_KEY]
    for start in range(0, len(keys), _TOGETHER):
        progress(start, len(keys))
        many_at_once(lambda key: _put(place, key, store.get(key).payload), keys[start : start + _TOGETHER])
    _put(place, IDENTITY_KEY, store.get(IDENTITY_KEY).payload)
    place.delete_all([key for key in _listed(place) if key not in sizes])
    progress(len(keys), len(keys))
    return len(sizes)


def _put(place: ObjectStore, key: ObjectKey, payload: bytes) -> None:
    """Put the object, replacing an older one of an earlier attempt. Raises ``Corrupt``."""
    try:
        found = place.get(key)
    except ObjectMissing:
        place.put_if_absent(key, payload)
    else:
        if found.payload != payload:
            place.put_if_match(key, payload, found.tag)
    if place.get(key).payload != payload:
        raise Corrupt(
            "an object does not read back as it was written; nothing was deleted",
            "Check the disk or server of the new place, then run the command again.",
            place=place.location,
            key=key,
        )


def _delete(store: ObjectStore) -> list[ObjectKey]:
    """Delete everything: keys first, and last the record of the federation's new place."""
    keys = sorted(_listed(store), key=lambda key: (key == IDENTITY_KEY, not is_secret(key)))
    store.delete_all([*(key for key in keys if key != IDENTITY_KEY), *_STAYS])
    store.remove_unfinished("")
    store.delete(IDENTITY_KEY)
    return []


def _listed(store: ObjectStore) -> dict[ObjectKey, int]:
    listed = {info.key: info.payload_bytes for info in store.list("")}
    return {key: size for key, size in listed.items() if key not in _STAYS and not key.startswith(PROBE_PREFIX)}
