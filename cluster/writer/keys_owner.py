"""Which store owns the keys in another place: a copy of the objects has the same keys, and must not destroy any.

An erasure destroys keys. In a copy whose specification names the same ``keys``, it would make the original unreadable.
So the place of the keys, which is not copied with a store, records which store owns them.

owners/<digest of the keyrings' identity>     in the store of keys: the place of the store of objects
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.writer.place import PLACE_FIELDS, REMEDY, check_place, foreign_place, is_own_place, place_of
from storage.digests import Json, sha256
from storage.encryption.keyring_location import IDENTITY, find_keyrings
from storage.encryption.store import SealedStore
from storage.errors import Conflict
from storage.objects import object_key
from storage.registers.record import RecordRegister


def check_owner(store: SealedStore) -> None:
    """Raise ``Conflict`` when the store is a copy: of one at another place, or of one whose keys it shares."""
    owner = _owner(store)
    if owner is not None and not is_own_place(owner, store):
        raise Conflict(
            f"this store is a copy of {owner['location']}, whose keys it shares: an erasure here would destroy them"
            " there; nothing was done",
            REMEDY,
            store=store.location,
        )
    check_place(store)


def is_of_others(store: SealedStore) -> bool:
    """Return whether the store is a copy of another one, by its place or its keys."""
    return has_foreign_keys(store) or foreign_place(store) is not None


def has_foreign_keys(store: SealedStore) -> bool:
    """Return whether the store's keys belong to another store."""
    owner = _owner(store)
    return owner is not None and not is_own_place(owner, store)


def own_keys(store: SealedStore, *, take: bool = False) -> None:
    """Record that the keys belong to ``store``, unless another store owns them; with ``take`` they are taken over.

    A store that was moved is recorded at its new place: a store at the old place then counts as a copy. The caller
    holds the writer lock. Does nothing while there are no keys, or if they are in the store itself.
    """
    record, place = _record(store), place_of(store)
    if record is None or record.read() == place:
        return
    record.change(lambda found: place if take or found is None or is_own_place(found, store) else found)


def _owner(store: SealedStore) -> Mapping[str, Json] | None:
    record = _record(store)
    return None if record is None else record.read()


def _record(store: SealedStore) -> RecordRegister | None:
    """Return the record of the owner; None: there are no keys, or not in another place.

    Raises ``Conflict`` when the keys are missing, so that no new ones are made in their place.
    """
    if store.keys is None or find_keyrings(store.inner, store.keys) is None:
        return None
    identity = store.inner.get(IDENTITY).payload
    return RecordRegister(store=store.keys, key=object_key(f"owners/{sha256(identity)}"), field_names=PLACE_FIELDS)
