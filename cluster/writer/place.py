"""Which federation a store holds, and its place when it was last written: a copy has the same id at another place.

    control/identity     the federation's id, the ids of those that it was copied from, the place of the store

The id is drawn when the store is first written; a store of an earlier release gets one at its next write.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from storage.digests import Json
from storage.errors import Conflict, InvariantBroken
from storage.location import inode_of
from storage.objects import ObjectStore, new_name, object_key
from storage.registers.record import RecordRegister

IDENTITY_KEY: Final = object_key("control/identity")

PLACE_FIELDS: Final = frozenset({"location", "host", "inode"})

REMEDY: Final = (
    "Give the command for the original. If this store is to take its place, or was moved, run"
    " 'sisa adopt --reason REASON' here."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The recorded identity of a store."""

    id: str
    earlier: tuple[str, ...]
    """Ids of the federations that it was copied from, the oldest first."""
    place: Mapping[str, Any]


def read_identity(store: ObjectStore) -> Identity | None:
    """Return the recorded identity; None: no release that draws an id has written here."""
    found = _record(store).read()
    return None if found is None else _identity(found)


def check_place(store: ObjectStore) -> None:
    """Raise ``Conflict`` when the store is a copy of one at another place."""
    if (theirs := foreign_place(store)) is not None:
        raise Conflict(
            f"this store is a copy of {theirs}, which may still be in use: it can be read and verified, and nothing is"
            " written here; nothing was done",
            REMEDY,
            store=store.location,
        )


def foreign_place(store: ObjectStore) -> str | None:
    """Return the place of the store that this one is a copy of; None: its record shows no other place."""
    found = read_identity(store)
    return None if found is None or is_own_place(found.place, store) else str(found.place["location"])


def settle_identity(store: ObjectStore) -> Identity:
    """Draw the federation's id unless it has one, record where the store is now, and return both.

    The caller holds the writer lock. A copy stays a copy.
    """
    known, place, own_id = read_identity(store), place_of(store), new_name()
    if known is not None and (known.place == place or not is_own_place(known.place, store)):
        return known

    def settled(found: Mapping[str, Json] | None) -> Mapping[str, Json]:
        if found is None:
            return {"id": own_id, "earlier": [], "place": place}
        is_own = is_own_place(_identity(found).place, store)
        return {**found, "place": place} if is_own else found

    return _changed(store, settled)


def take_place(store: ObjectStore, own_id: str) -> Identity:
    """Make the store a federation of its own, with this id, at its current place."""

    def taken(found: Mapping[str, Json] | None) -> Mapping[str, Json]:
        before = None if found is None else _identity(found)
        if before is None or before.id == own_id:
            earlier = () if before is None else before.earlier
        else:
            earlier = (*before.earlier, before.id)
        return {"id": own_id, "earlier": list(earlier), "place": place_of(store)}

    return _changed(store, taken)


def give_place(store: ObjectStore, other: ObjectStore) -> Identity:
    """Record that the federation is now in ``other``, so that ``store`` is a copy of it."""
    place = place_of(other)

    def given(found: Mapping[str, Json] | None) -> Mapping[str, Json]:
        if found is None:
            raise InvariantBroken("a store without an identity has no place to give", store=store.location)
        return {**found, "place": place}

    return _changed(store, given)


def place_of(store: ObjectStore) -> dict[str, Json]:
    """Return the fields that describe the store's place."""
    return {"location": store.location, "host": platform.node(), "inode": inode_of(store)}


def is_own_place(place: Mapping[str, Any], store: ObjectStore) -> bool:
    """Return whether the place is this store's.

    For a folder, two of location, host and inode must agree: it may be moved on its host, and other hosts may see it
    under the same path. For a bucket, only bucket and prefix count, under any name of its server.
    """
    ours = place_of(store)
    same = {name for name in PLACE_FIELDS if place[name] == ours[name]}
    return "location" in same if ours["inode"] is None else len(same) >= 2


def _changed(store: ObjectStore, change: Callable[[Mapping[str, Json] | None], Mapping[str, Json]]) -> Identity:
    return _identity(_record(store).change(change))


def _identity(fields: Mapping[str, Any]) -> Identity:
    return Identity(id=fields["id"], earlier=tuple(fields["earlier"]), place=fields["place"])


def _record(store: ObjectStore) -> RecordRegister:
    return RecordRegister(store=store, key=IDENTITY_KEY, field_names=frozenset({"id", "earlier", "place"}))
