"""The place of a store's keyrings: with its objects, or in another store, linked by an identity in both stores.

    in the store of objects   keyrings/identity              create-if-absent; names the identity
    in the store of keys      keyrings/<identity>/identity   created first, if absent; marks the place of the rings
                              keyrings/<identity>/<ring>/…   the rings (``storage.encryption.keyring``)

So several stores may share one store of keys. A store that is opened with the wrong place for its keys is refused; it
is not mistaken for a store whose keys were all destroyed.
"""

from __future__ import annotations

from typing import Final

from storage.encryption.keyring import Keyrings
from storage.errors import Conflict, Corrupt, ObjectMissing
from storage.objects import ObjectKey, ObjectStore, key_segment, new_name, object_key
from storage.records import decode_record, encode_record
from storage.registers.create_once import create_or_read

KEYRINGS: Final = "keyrings"
"""Folder of the rings."""

IDENTITY: Final = object_key(f"{KEYRINGS}/identity")

_NAMES = frozenset({"identity"})


def find_keyrings(inner: ObjectStore, keys: ObjectStore | None) -> Keyrings | None:
    """Return the keyrings of the objects in ``inner``; None when they belong elsewhere and none was ever made.

    Raises ``Conflict`` when ``keys`` is not where this store's keys are, ``Corrupt`` when the identity is damaged.
    """
    identity = _identity(inner)
    if keys is None:
        if identity is not None:
            raise _elsewhere(inner, "they are kept in a store of their own")
        return Keyrings(inner, KEYRINGS)
    if identity is None:
        if next(iter(inner.list(f"{KEYRINGS}/")), None) is not None:
            raise _elsewhere(inner, "they are kept in the store itself")
        return None
    folder = f"{KEYRINGS}/{identity}"
    try:
        keys.get(object_key(f"{folder}/identity"))
    except ObjectMissing:
        raise _elsewhere(inner, f"they are not in {keys.location}") from None
    return Keyrings(keys, folder)


def make_keyrings(inner: ObjectStore, keys: ObjectStore | None) -> Keyrings:
    """Return the keyrings of the objects in ``inner``, with a new identity where there is none. Raises as above."""
    found = find_keyrings(inner, keys)
    if found is not None:
        return found
    assert keys is not None
    identity = new_name()
    record = encode_record({"identity": identity})
    here = object_key(f"{KEYRINGS}/{identity}/identity")
    create_or_read(keys, here, record)  # first: an identity without its place of keys would be refused for good
    if create_or_read(inner, IDENTITY, record) != record:
        keys.delete(here)  # another process was first
    made = find_keyrings(inner, keys)
    assert made is not None
    return made


def settle_place(inner: ObjectStore, keys: ObjectStore | None, keyrings: Keyrings) -> None:
    """Make the place of the keyrings durable: the process that chose it may have stopped before that."""
    if keys is not None:
        keys.get_durable(object_key(f"{keyrings.folder}/identity"))
        inner.get_durable(IDENTITY)


def identity_in(payload: bytes) -> str:
    """Return the identity that the object ``IDENTITY`` names. Raises ``Corrupt`` when it is damaged."""
    return _named(payload, IDENTITY)


def _identity(inner: ObjectStore) -> str | None:
    try:
        payload = inner.get(IDENTITY).payload
    except ObjectMissing:
        return None
    return _named(payload, IDENTITY)


def _named(payload: bytes, key: ObjectKey) -> str:
    identity = decode_record(payload, key, _NAMES)["identity"]
    if not isinstance(identity, str):
        raise Corrupt("the identity of the store's keys is not what was written", "Restore it from a copy.", key=key)
    return key_segment(identity)


def _elsewhere(inner: ObjectStore, fact: str) -> Conflict:
    return Conflict(
        f"this is not where the store's keys are: {fact}",
        "Set 'keys' in the specification to its value when the store was made; if it had none then, leave it out.",
        store=inner.location,
    )
