"""The stored formats of ``storage``, and of the small records under ``control/``, byte for byte."""

from __future__ import annotations

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cluster.tokens import SIGN_IN_KEY, sign_in_key
from cluster.writer.last_verification import VERIFICATION_KEY, keep_verification, last_verification
from storage.digests import sha256
from storage.encryption.keyring import ring_from_bytes
from storage.encryption.store import SealedStore
from storage.objects import object_key
from storage.registers.journal import Journal, Position, entry_from_bytes
from storage.registers.manifest import ManifestRegister, manifest_from_bytes
from storage.stores.memory import MemoryStore
from tests.golden.regenerate import (
    FOLDER,
    GOLDEN,
    JOURNAL_ENTRY,
    KEK,
    MANIFEST,
    RING,
    SEALED_KEY,
    SEALED_PAYLOAD,
    VERIFICATION,
)

KEY = object_key("manifest/00000000000000000041")


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_what_is_written_is_the_golden_file(name: str) -> None:
    """What this version writes is what the first one wrote."""
    assert (FOLDER / name).read_bytes() == GOLDEN[name]


def test_every_golden_file_is_checked() -> None:
    """A test reads every golden file."""
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(GOLDEN)


def test_the_golden_manifest_is_read() -> None:
    """What the first version wrote is read as it was meant, and written again as it was."""
    payload = (FOLDER / "manifest-v1.json").read_bytes()
    assert manifest_from_bytes(payload, KEY) == MANIFEST
    assert manifest_from_bytes(payload, KEY).to_bytes() == payload


def test_the_digest_can_be_recomputed_without_us() -> None:
    """The digest in a manifest is plain: SHA-256 over the sorted, unspaced JSON of all other fields."""
    record = json.loads((FOLDER / "manifest-v1.json").read_bytes())
    digest = record.pop("sha256")
    assert hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest() == digest
    assert sorted(record) == ["body", "format_version", "nonce", "number", "token"]


def test_the_register_writes_the_golden_forms() -> None:
    """What the register stores under its keys are these forms."""
    store = MemoryStore("golden-register")
    register = ManifestRegister(store)
    for number in range(41):
        last = number == 40
        register.commit(
            MANIFEST.body if last else {}, after=number, token=7, nonce=MANIFEST.nonce if last else f"n{number}"
        )
    register.prune(40)
    assert store.get(KEY).payload == GOLDEN["manifest-v1.json"]
    assert store.get(object_key("control/floor")).payload == GOLDEN["floor-v1.json"]
    store.forget()
    for _ in range(7):
        register.claim_token()
    assert store.get(object_key(f"control/token/{7:020d}")).payload == GOLDEN["token-v1.json"]
    store.forget()


def test_the_golden_journal_entry_is_read() -> None:
    """What the first version wrote is read as it was meant, and written again as it was."""
    payload = (FOLDER / "journal-entry-v1.json").read_bytes()
    key = object_key("journal/00000000000000000003")
    assert entry_from_bytes(payload, key) == JOURNAL_ENTRY
    assert entry_from_bytes(payload, key).to_bytes() == payload


def test_the_chain_of_a_journal_can_be_checked_without_us() -> None:
    """An entry's digest is over all its stored bytes, and the one within it over the JSON of its other fields."""
    record = json.loads((FOLDER / "journal-entry-v1.json").read_bytes())
    assert record["previous"] == hashlib.sha256(b"the stored bytes of entry 2").hexdigest()
    digest = record.pop("sha256")
    assert hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest() == digest
    assert sorted(record) == ["format_version", "nonce", "number", "previous", "records", "token"]


def test_the_journal_writes_the_golden_forms() -> None:
    """What the journal stores under its keys are these forms, the floor's the same as that of the manifests."""
    store = MemoryStore("golden-journal")
    after = Position(number=2, digest=JOURNAL_ENTRY.previous)
    made = Journal(store).append(JOURNAL_ENTRY.records, after=after, token=7, nonce=JOURNAL_ENTRY.nonce)
    assert store.get(object_key("journal/00000000000000000003")).payload == GOLDEN["journal-entry-v1.json"]
    assert made == Position(number=3, digest=sha256(GOLDEN["journal-entry-v1.json"]))
    for number in range(3, 39):
        made = Journal(store).append([], after=made, token=7, nonce=f"n{number}")
    Journal(store).prune(39)
    assert store.get(object_key("control/journal-floor")).payload == GOLDEN["floor-v1.json"]
    store.forget()


def test_golden_objects_are_opened() -> None:
    """An object, its ring and its key-encryption key as the first version wrote them open, beside the objects and in
    a store of their own.
    """
    ring, sealed = ((FOLDER / name).read_bytes() for name in ("keyring-v1.json", "sealed-object-v1.bin"))
    identity = (FOLDER / "keyring-identity-v1.json").read_bytes()
    for folder in ("keyrings", "keyrings/00112233445566778899aabbccddeeff"):
        store, keys = MemoryStore("golden-objects"), MemoryStore("golden-keys")
        is_apart = folder != "keyrings"
        place = keys if is_apart else store
        store.put_if_absent(SEALED_KEY, sealed)
        if is_apart:
            store.put_if_absent(object_key("keyrings/identity"), identity)
            keys.put_if_absent(object_key(f"{folder}/identity"), identity)
        place.put_if_absent(object_key(f"{folder}/0001/ring"), ring)
        place.put_if_absent(object_key(f"{folder}/0001/{RING.kek}"), KEK)
        assert SealedStore(store, keys if is_apart else None).get(SEALED_KEY).payload == SEALED_PAYLOAD
        store.forget()
        keys.forget()


def test_golden_keyring_is_written_again_as_it_was() -> None:
    """What is read of a ring is all that stands in it."""
    key = object_key("keyrings/0001/ring")
    payload = (FOLDER / "keyring-v1.json").read_bytes()
    assert ring_from_bytes(payload, key, "0001") == RING
    assert ring_from_bytes(payload, key, "0001").to_bytes() == payload


def test_golden_object_opens_without_us() -> None:
    """The stored form is plain AES-256-GCM: format line, nonce, ciphertext and tag; format line and key as associated
    data.
    """
    sealed = (FOLDER / "sealed-object-v1.bin").read_bytes()
    line, nonce, text = sealed[:14], sealed[14:26], sealed[26:]
    assert line == b"sisa-sealed/1\n"
    assert AESGCM(bytes(range(32))).decrypt(nonce, text, line + SEALED_KEY.encode()) == SEALED_PAYLOAD


def test_the_golden_verification_is_read_and_written() -> None:
    """What the first version recorded of a verification is read as it was meant, and written as it was."""
    store = MemoryStore("golden-verification")
    keep_verification(store, VERIFICATION)
    assert store.get(VERIFICATION_KEY).payload == GOLDEN["last-verification-v1.json"]
    assert last_verification(store) == VERIFICATION
    assert not VERIFICATION.holds
    store.forget()


def test_the_golden_key_of_sign_ins_is_read() -> None:
    """A key of the console's cookies that the first version drew is used as it is."""
    store = MemoryStore("golden-sign-ins")
    store.put_if_absent(SIGN_IN_KEY, GOLDEN["sign-in-key-v1.json"])
    assert sign_in_key(store) == KEK
    store.forget()
