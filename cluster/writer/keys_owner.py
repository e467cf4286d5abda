"""Which store the keys in another place belong to: a copy of the objects has the same keys, and must destroy none.

An erasure destroys keys. In a copy whose specification names the same ``keys``, it would make the original unreadable.
So the place of the keys, which no copy of the store takes along, says which store writes with them.

owners/<digest of the keyrings' identity>     in the store of keys: the place of the store of objects
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Final

from storage.digests import Json, sha256
from storage.encryption.keyring_location import IDENTITY, find_keyrings
from storage.encryption.store import SealedStore
from storage.errors import Conflict
from storage.location import inode_of
from storage.objects import object_key
from storage.registers.record import SealedRecord

_FIELDS: Final = frozenset({"location", "host", "inode"})


def check_owner(store: SealedStore) -> None:
    """Raise ``Conflict`` when the store's keys belong to another store, of which this one is a copy."""
    owner = _owner(store)
    if owner is not None and not _is_ours(owner, store):
        raise Conflict(
            f"this store is a copy of {owner['location']}, whose keys it shares: an erasure here would destroy them"
            " there; nothing was done",
            "give the command for the original; if this store is to take its place, or was moved, run"
            " 'sisa adopt --reason REASON' here",
            store=store.location,
        )


def has_foreign_keys(store: SealedStore) -> bool:
    """Return whether the store's keys belong to another store."""
    owner = _owner(store)
    return owner is not None and not _is_ours(owner, store)


def own_keys(store: SealedStore, *, take: bool = False) -> None:
    """Record that the keys belong to ``store``, unless they are another's; with ``take`` they are taken over.

    A store that was moved is recorded where it is now: whatever stands where it was before is a copy from then on.
    To be called by who holds the writer lock. Does nothing while there are no keys, or where they lie in the store.
    """
    record, place = _record(store), _place(store)
    if record is None or record.read() == place:
        return
    record.change(lambda found: place if take or found is None or _is_ours(found, store) else found)


def _owner(store: SealedStore) -> Mapping[str, Json] | None:
    record = _record(store)
    return None if record is None else record.read()


def _record(store: SealedStore) -> SealedRecord | None:
    """Return where the owner is on record; None: there are no keys, or not elsewhere.

    Raises ``Conflict`` when the keys are not there, so that nothing is made in their place.
    """
    if store.keys is None or find_keyrings(store.inner, store.keys) is None:
        return None
    identity = store.inner.get(IDENTITY).payload
    return SealedRecord(store=store.keys, key=object_key(f"owners/{sha256(identity)}"), names=_FIELDS)


def _place(store: SealedStore) -> Mapping[str, Json]:
    return {"location": store.location, "host": platform.node(), "inode": inode_of(store)}


def _is_ours(owner: Mapping[str, Json], store: SealedStore) -> bool:
    """Return whether the place is this store's: on its host a folder may move, and other hosts may see it unmoved.

    A bucket and its prefix are the place, whatever its server is called here: objects and keys share a server.
    """
    ours = _place(store)
    is_same = {name for name in _FIELDS if owner[name] == ours[name]}
    if ours["inode"] is None:
        return "location" in is_same
    return len(is_same) >= 2
