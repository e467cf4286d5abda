"""Regenerates the golden files: ``python -m tests.golden.regenerate``.

If a file differs afterwards, a stored format has changed: raise ``format_version`` and keep reading the old one.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from cluster.writer.last_verification import LastVerification
from storage.digests import sha256
from storage.encryption.cipher import encrypt, wrap
from storage.encryption.keyring import Ring
from storage.objects import object_key
from storage.records import encode_record
from storage.registers.journal import JournalEntry
from storage.registers.manifest import Manifest

FOLDER = Path(__file__).parent / "storage"

MANIFEST = Manifest(
    number=41,
    token=7,
    nonce="00112233445566778899aabbccddeeff",
    body={
        "empty": {},
        "escapes": 'quote " backslash \\ tab \t Zürich 数',
        "false": False,
        "floor": 3,
        "large": 9007199254740991,
        "list": [1, -2, 0.5, 1e-07, 0.1],
        "none": None,
        "true": True,
    },
)

JOURNAL_ENTRY = JournalEntry(
    number=3,
    token=7,
    nonce="ffeeddccbbaa99887766554433221100",
    previous=sha256(b"the stored bytes of entry 2"),
    records=(
        {"at": "2026-11-23T10:00:00.000000+00:00", "digests": ["00ff", "ff00"], "kind": "accepted", "request": "r-1"},
        'quote " backslash \\ tab \t Zürich 数',
        [1, -2, 0.5, 1e-07, 9007199254740991],
        True,
        None,
        {},
    ),
)

SEALED_KEY = object_key("shards/0001/slices/0002/00112233445566778899aabbccddeeff.parquet")
DATA_KEY, NONCE, KEK = bytes(range(32)), bytes(range(100, 112)), bytes(range(200, 232))
SEALED_PAYLOAD = b"a payload of 28 bytes, so it"
RING = Ring(
    name="0001",
    number=3,
    kek="kek-000000000003-ffeeddccbbaa99887766554433221100",
    kek_sha256=sha256(KEK),
    entries={SEALED_KEY: wrap(DATA_KEY, KEK)},
)

VERIFICATION = LastVerification(
    at="2026-11-30T03:10:00+00:00",
    generation=7,
    shards=10,
    proved=10,
    kept=9,
    guarantee="exact",
    objects=123,
    residue=1,
    receipts=4,
    broken=2,
    everything=True,
)

GOLDEN: dict[str, bytes] = {
    "keyring-v1.json": RING.to_bytes(),
    "keyring-identity-v1.json": encode_record({"identity": "00112233445566778899aabbccddeeff"}),
    "sealed-object-v1.bin": encrypt(SEALED_PAYLOAD, SEALED_KEY, DATA_KEY, NONCE),
    "manifest-v1.json": MANIFEST.to_bytes(),
    "journal-entry-v1.json": JOURNAL_ENTRY.to_bytes(),
    "floor-v1.json": encode_record({"floor": 40}),
    "token-v1.json": encode_record({"token": 7}),
    "last-verification-v1.json": encode_record(asdict(VERIFICATION)),
    "sign-in-key-v1.json": encode_record({"key": KEK.hex()}),
}


def regenerate() -> None:
    """Write every golden file."""
    FOLDER.mkdir(exist_ok=True)
    for name, payload in GOLDEN.items():
        (FOLDER / name).write_bytes(payload)


if __name__ == "__main__":
    regenerate()
