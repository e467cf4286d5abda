"""The stored formats of ``storage``, byte for byte."""

from __future__ import annotations

import hashlib
import json

import pytest

from storage.manifest import ManifestRegister, manifest_from_bytes
from storage.memory import MemoryStore
from storage.objects import object_key
from tests.golden.regenerate import FOLDER, GOLDEN, MANIFEST

KEY = object_key("manifest/00000000000000000041")


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_what_is_written_is_the_golden_file(name: str) -> None:
    """What this version writes is what the first one wrote."""
    assert (FOLDER / name).read_bytes() == GOLDEN[name]


def test_every_golden_file_is_checked() -> None:
    """No golden file lies there unread."""
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
