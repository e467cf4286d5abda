"""Creates an object once, even when the store does not say whether an attempt succeeded."""

from __future__ import annotations

from storage.errors import ObjectExists, ObjectMissing, OutcomeUnknown
from storage.objects import ObjectKey, ObjectStore

_ATTEMPTS = 64


def create_or_read(store: ObjectStore, key: ObjectKey, payload: bytes) -> bytes:
    """Return what ``key`` holds from now on: ``payload``, or what another writer had created before.

    For objects that are never replaced. They need no nonce: equal bytes are equal, regardless of which writer put them.
    The returned bytes are durable, even if another writer or an attempt of unknown outcome put them.
    Raises ``OutcomeUnknown`` when the outcome of the attempt stays unknown 64 times in a row.
    """
    for _ in range(_ATTEMPTS):
        try:
            store.put_if_absent(key, payload)
        except (ObjectExists, OutcomeUnknown):
            try:
                return store.get_durable(key).payload
            except ObjectMissing:
                continue  # the same name again: the first attempt may still arrive, under this very name
        return payload
    raise OutcomeUnknown("the store does not say whether the object was created", "Repeat the command.", key=key)
