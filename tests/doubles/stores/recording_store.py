"""A store in memory that keeps every version, and a thief with everything it ever held except destroyed keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from storage.objects import ObjectKey, VersionTag
from storage.stores.memory import MemoryStore

_FORMAT = b"sisa-sealed/1\n"


@dataclass(frozen=True, slots=True)
class RecordingStore(MemoryStore):
    """Objects in memory; ``history`` has every payload of every object."""

    history: list[tuple[ObjectKey, bytes]] = field(default_factory=list, compare=False)

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object."""
        tag = MemoryStore.put_if_absent(self, key, payload)
        self.history.append((key, payload))
        return tag

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object."""
        tag = MemoryStore.put_if_match(self, key, payload, expected)
        self.history.append((key, payload))
        return tag


def stolen(*stores: RecordingStore) -> Mapping[ObjectKey, list[bytes]]:
    """Return everything ever stored, by key, without the deleted key-encryption keys."""
    loot: dict[ObjectKey, list[bytes]] = {}
    for store in stores:
        present = {info.key for info in store.list("")}
        for key, payload in store.history:
            if "/kek-" not in key or key in present:
                loot.setdefault(key, []).append(payload)
    return loot


def opened(loot: Mapping[ObjectKey, list[bytes]]) -> dict[ObjectKey, set[bytes]]:
    """Return the payloads that can be decrypted with any data key of any keyring and any remaining key."""
    keks = [payload for key, payloads in loot.items() if "/kek-" in key for payload in payloads]
    rings = [json.loads(payload) for key, payloads in loot.items() if key.endswith("/ring") for payload in payloads]
    found: dict[ObjectKey, set[bytes]] = {}
    for ring in rings:
        for name, wrapped in ring["entries"].items():
            for data_key in _unwrapped(bytes.fromhex(wrapped), keks):
                for payload in _plain(loot.get(name, []), name, data_key):
                    found.setdefault(name, set()).add(payload)
    return found


def _unwrapped(wrapped: bytes, keks: list[bytes]) -> Iterator[bytes]:
    for kek in keks:
        try:
            yield aes_key_unwrap(kek, wrapped)
        except InvalidUnwrap:
            continue


def _plain(stored: list[bytes], name: str, data_key: bytes) -> Iterator[bytes]:
    for payload in stored:
        nonce, text = payload[len(_FORMAT) : len(_FORMAT) + 12], payload[len(_FORMAT) + 12 :]
        try:
            yield AESGCM(data_key).decrypt(nonce, text, _FORMAT + name.encode())
        except InvalidTag:
            continue
