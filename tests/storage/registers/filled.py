"""Registers and journals with something in them, for their tests."""

from __future__ import annotations

from storage.objects import ObjectKey, ObjectStore, VersionTag, object_key
from storage.registers.journal import START, Journal, Position
from storage.registers.manifest import ManifestRegister


def filled(store: ObjectStore, count: int, token: int = 1) -> ManifestRegister:
    """A register with manifests 1..count."""
    register = ManifestRegister(store)
    for number in range(count):
        register.commit({"n": number + 1}, after=number, token=token, nonce=f"nonce-{number + 1}")
    return register


def number_key(number: int) -> ObjectKey:
    """The key of manifest ``number``."""
    return object_key(f"manifest/{number:020d}")


def written(store: ObjectStore, count: int, token: int = 1) -> list[Position]:
    """The places in a journal with entries 1..count: place n is behind entry n."""
    journal, places = Journal(store), [START]
    for number in range(1, count + 1):
        places.append(journal.append([{"n": number}], after=places[-1], token=token, nonce=f"nonce-{number}"))
    return places


def entry_key(number: int) -> ObjectKey:
    """The key of journal entry ``number``."""
    return object_key(f"journal/{number:020d}")


def overwrite(store: ObjectStore, key: ObjectKey, payload: bytes) -> VersionTag:
    """Write without a condition, as damage does."""
    store.delete(key)
    return store.put_if_absent(key, payload)
