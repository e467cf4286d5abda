"""The formats of receipts and of their log, byte for byte."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from coordinator.receipts.bundles import RECEIPTS, bundle_from_bytes, verify_bundle
from coordinator.receipts.evidence import Evidence
from storage.objects import object_key
from storage.stores.memory import MemoryStore
from storage.transparency.check import check_log
from storage.transparency.keys import KeyFolder, public_key_from_text
from storage.transparency.layout import LogLayout
from tests.golden.regenerate_receipts import EVIDENCE, FOLDER, NOTHING_FOUND, READMITTED, RECTIFIED, SALT, golden

GOLDEN = golden()
BUNDLE = FOLDER / "bundle-v1.json"


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_what_is_written_is_the_golden_file(name: str) -> None:
    """What this version writes is what the first one wrote."""
    assert (FOLDER / name).read_bytes() == GOLDEN[name]


def test_every_golden_file_is_checked() -> None:
    """A test reads every golden file."""
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(GOLDEN)


def test_the_golden_receipt_is_genuine() -> None:
    """What the first version issued is read, verifies by its keys, and is written again as it was."""
    bundle = bundle_from_bytes(BUNDLE.read_bytes())
    check = verify_bundle(bundle, bundle.keys)
    assert (check.failures, check.request_id) == ((), EVIDENCE.request_id)
    assert bundle.to_bytes() == BUNDLE.read_bytes()


@pytest.mark.parametrize(
    ("name", "evidence"), [("nothing-found", NOTHING_FOUND), ("readmission", READMITTED), ("rectification", RECTIFIED)]
)
def test_the_golden_statements_are_genuine(name: str, evidence: Evidence) -> None:
    """What the first version stated is read, verifies by its keys, and is written again as it was."""
    payload = (FOLDER / f"{name}-v1.json").read_bytes()
    bundle = bundle_from_bytes(payload)
    check = verify_bundle(bundle, bundle.keys)
    assert (check.failures, check.request_id) == ((), evidence.request_id)
    assert bundle.to_bytes() == payload
    statement = json.loads(base64.b64decode(json.loads(payload)["envelope"]["payload"]))
    assert statement["predicateType"] == evidence.predicate_type
    assert statement["subject"][0]["digest"]["sha256"] == evidence.request_digest


def test_a_commitment_can_be_checked_without_us() -> None:
    """With the salt and the names, the recipe in the statement suffices to check the commitment."""
    record = json.loads((FOLDER / "nothing-found-v1.json").read_bytes())
    request = json.loads(base64.b64decode(record["envelope"]["payload"]))["predicate"]["request"]
    assert "SHA-256 over the salt's text, 'subject' or 'id', a zero byte, and the name" in request["digest_is"]
    named = [("subject", "ann"), ("subject", " Zürich 数"), ("id", "17")]
    leaves = sorted(hashlib.sha256(f"{SALT}{kind}\0{name}".encode()).digest() for kind, name in named)
    assert hashlib.sha256(b"sisa/nothing-found/1" + b"".join(leaves)).hexdigest() == request["digest"]


def test_the_golden_log_is_sound() -> None:
    """The golden entry and checkpoint are a log that checks out."""
    bundle = bundle_from_bytes(BUNDLE.read_bytes())
    store = MemoryStore("golden-log")
    store.forget()
    store.put_if_absent(object_key(f"log/entries/{0:020d}"), (FOLDER / "entry-v1.json").read_bytes())
    store.put_if_absent(object_key(f"log/checkpoint/{1:020d}"), (FOLDER / "checkpoint-v1.txt").read_bytes())
    check = check_log(store, LogLayout(origin="sisa-ray/golden-000001"), bundle.keys, bundle.checkpoint)
    assert (check.problems, check.entries, check.uncovered, check.earlier) == ((), 1, 0, 1)
    store.forget()


def test_the_golden_keys_are_read() -> None:
    """The private key of the first version still signs, as the public key that it published."""
    store = MemoryStore("golden-keys")
    store.forget()
    store.put_if_absent(object_key(f"control/signing/receipts/{1:020d}"), (FOLDER / "private-key-v1.json").read_bytes())
    public = public_key_from_text((FOLDER / "public-key-v1.pem").read_text(encoding="ascii"))
    key = KeyFolder(store, store).current(RECEIPTS)
    assert public.verifies(b"message", key.sign(b"message"))
    store.forget()


def test_a_receipt_can_be_checked_without_us() -> None:
    """Envelope, leaf and root follow from the file by base64, SHA-256 and the published forms alone."""
    record = json.loads(BUNDLE.read_bytes())
    envelope = json.dumps(record["envelope"], sort_keys=True, separators=(",", ":")).encode()
    root = hashlib.sha256(b"\x00" + envelope).digest()  # the log's only entry: its leaf hash is the root
    assert record["log"]["proof"] == []
    assert record["log"]["checkpoint"].split("\n")[2] == base64.b64encode(root).decode()
    statement = json.loads(base64.b64decode(record["envelope"]["payload"]))
    assert statement["subject"][0]["digest"]["sha256"] == EVIDENCE.request_digest
