"""Registers with something in them, for the tests of the manifest register."""

from __future__ import annotations

from storage.manifest import ManifestRegister
from storage.objects import ObjectKey, ObjectStore, object_key


def filled(store: ObjectStore, count: int, token: int = 1) -> ManifestRegister:
    """A register with manifests 1..count."""
    register = ManifestRegister(store)
    for number in range(count):
        register.commit({"n": number + 1}, after=number, token=token, nonce=f"nonce-{number + 1}")
    return register


def number_key(number: int) -> ObjectKey:
    """The key of manifest ``number``."""
    return object_key(f"manifest/{number:020d}")
