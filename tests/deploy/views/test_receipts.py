"""What ``sisa receipt`` and ``sisa log`` say."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.receipts.bundles import CHECKPOINTS, RECEIPTS, ReceiptBundle, bundle_from_bytes
from coordinator.receipts.issuer import Registrar
from coordinator.receipts.kinds import PAYLOAD_TYPE
from deploy.views.handed_over import read_log_checkpoint
from deploy.views.output import ExitCode, envelope
from deploy.views.receipts import check_receipt, log_outcome, receipt_outcome, receipt_text
from storage.digests import Json, canonical_json
from storage.errors import Invalid
from storage.objects import object_key
from storage.stores.memory import MemoryStore
from storage.transparency.envelope import sign_envelope
from storage.transparency.keys import SigningKey
from storage.transparency.layout import LogLayout
from storage.transparency.log import TransparencyLog
from tests.coordinator.receipts.facts import evidence_of
from tests.doubles.time_and_names import CountingNames, VirtualClock


@pytest.fixture
def registrar() -> Iterator[Registrar]:
    """A registrar that has issued one receipt, for the request ``first``."""
    store = MemoryStore("deploy-receipts")
    store.forget()
    found = Registrar(store, VirtualClock(), CountingNames("deploy"))
    found.issue(evidence_of("first"))
    yield found
    store.forget()


@pytest.fixture
def file(registrar: Registrar, tmp_path: Path) -> Path:
    """The receipt in a file."""
    path = tmp_path / "receipt.json"
    path.write_bytes(registrar.find("first").to_bytes())
    return path


@pytest.fixture
def keys(registrar: Registrar, tmp_path: Path) -> list[Path]:
    """The operator's public keys in files."""
    paths = []
    for key in registrar.public_keys():
        paths.append(tmp_path / f"{key.purpose}.pem")
        paths[-1].write_text(key.to_text(), encoding="ascii")
    return paths


def test_a_receipt_is_reported_to_people(registrar: Registrar) -> None:
    """The text says what was asked, what was done, what it proves and what not, and shows the checkpoint to keep."""
    outcome = receipt_outcome(registrar.find("first"))
    assert outcome.code is ExitCode.DONE
    for words in (
        "receipt for erasure request first",
        "named: 1 subjects, 0 data points; 0 of them have nothing here",
        "erased: 2 data points",
        "quarantined",
        "due 2026-01-31T00:00:00+00:00",
        "12 to 10",
        "generation 4 took over; none below 3 is ever served",
        "purged: 4 objects (2 checkpoint, 1 names, 1 slice) from a store of kind folder",
        "scan after it: 17 objects, 0 findings",
        "it proves: The operator stated these facts",
        "it does not prove: It does not prove that no copy exists elsewhere",
        "not covered: Files outside the store",
        "sisa-ray/deploy-000001",
    ):
        assert words in outcome.text


def test_a_receipt_is_reported_to_machines(registrar: Registrar) -> None:
    """The bundle in the JSON envelope, written as canonical JSON, is the receipt that can be checked."""
    data = envelope(receipt_outcome(registrar.find("first")))["data"]
    assert data["request_id"] == "first"
    assert canonical_json(data["bundle"]) == registrar.find("first").to_bytes()


def test_a_genuine_receipt(file: Path, keys: list[Path]) -> None:
    """A receipt that verifies by the operator's keys is genuine, and the command succeeds."""
    outcome = check_receipt(file, keys)
    assert (outcome.code, outcome.problem) == (ExitCode.DONE, None)
    assert outcome.data is not None
    assert (outcome.data["valid"], outcome.data["keys_given"], outcome.data["request_id"]) == (True, True, "first")
    assert "the receipt is genuine: signed, and entry 0 of a log of 1" in outcome.text


def test_without_keys_it_says_what_was_not_checked(file: Path, registrar: Registrar) -> None:
    """Without public keys the check does not call a receipt genuine, and shows the key ids to compare."""
    outcome = check_receipt(file)
    assert outcome.code is ExitCode.UNTRUSTED
    assert outcome.data is not None
    assert (outcome.data["keys_given"], outcome.data["trusted"]) == (False, False)
    assert "genuine" not in outcome.text
    assert "WHOSE it is was not checked" in outcome.text
    for key in registrar.public_keys():
        assert f"{key.purpose}: {key.key_id}" in outcome.text


def test_a_final_line_break_does_no_harm(file: Path, keys: list[Path]) -> None:
    """A final line break does not count as reformatting; more white space does."""
    whole = file.read_bytes()
    for more, is_respelled in ((b"\n", False), (b"\n\n", True)):
        file.write_bytes(whole + more)
        outcome = check_receipt(file, keys)
        assert outcome.code is ExitCode.DONE
        assert outcome.data is not None
        assert outcome.data["respelled"] is is_respelled
    for more in (b"{}", b"\0", b"\n" + whole):
        file.write_bytes(whole + more)
        assert check_receipt(file, keys).code is ExitCode.PROOF_FAILED


def test_every_altered_byte_fails_the_proof(file: Path, keys: list[Path]) -> None:
    """A receipt with one byte altered or cut fails with the exit code for failed proofs, and says what fails."""
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        outcome = check_receipt(file, keys)
        assert outcome.code is ExitCode.PROOF_FAILED
        assert outcome.problem is not None
        assert outcome.problem.kind == "proof_failed"
        assert outcome.data is not None
        assert outcome.data["failures"]
        assert outcome.data["request_id"] is None
        file.write_bytes(whole[:place])
        assert check_receipt(file, keys).code is ExitCode.PROOF_FAILED


def test_another_operators_keys_fail_the_proof(file: Path, tmp_path: Path) -> None:
    """A receipt by unknown keys is refused, and both signatures are named."""
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(SigningKey(RECEIPTS, bytes(32)).public.to_text(), encoding="ascii")
    outcome = check_receipt(file, [stranger])
    assert outcome.code is ExitCode.PROOF_FAILED
    assert outcome.data is not None
    assert [each.split(":")[0] for each in outcome.data["failures"]] == [
        "the receipt's signature",
        "the log's checkpoint",
    ]


def test_bad_files_are_named(file: Path, tmp_path: Path) -> None:
    """Files that are missing, folders, no keys, or of a newer format end in wrong input, not in a failed proof."""
    with pytest.raises(Invalid, match="there is no such file"):
        check_receipt(tmp_path / "none")
    with pytest.raises(Invalid, match="this is a folder"):
        check_receipt(tmp_path)
    with pytest.raises(Invalid, match="the file holds no public keys of this system"):
        check_receipt(file, [file])
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")
    with pytest.raises(Invalid, match="the file holds no public keys of this system"):
        check_receipt(file, [binary])
    with pytest.raises(Invalid, match="the file holds no checkpoint"):
        read_log_checkpoint(binary)
    file.write_bytes(canonical_json({**json.loads(file.read_bytes()), "format_version": 2}))
    with pytest.raises(Invalid, match="the receipt was written in format 2"):
        check_receipt(file)


def strangers_receipt(predicate: dict[str, Any]) -> ReceiptBundle:
    """A receipt that someone made with keys of their own, about anything they like."""
    digest = "0" * 64
    request = {"id": "x", "digest": digest, **predicate.pop("request", {})}
    statement: Json = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "urn:sisa-ray:erasure-receipt:v1",
        "subject": [{"name": "erasure-request", "digest": {"sha256": digest}}],
        "predicate": {**predicate, "request": request},
    }
    signer, log_signer = SigningKey(RECEIPTS, bytes(32)), SigningKey(CHECKPOINTS, bytes(32))
    envelope_ = sign_envelope(canonical_json(statement), PAYLOAD_TYPE, signer)
    store = MemoryStore("deploy-stranger")
    store.forget()
    log = TransparencyLog(store, LogLayout(origin="o"), signer=log_signer, keys=lambda: (), admits=lambda _: True)
    log.append([envelope_])
    proved = log.prove(0)
    store.forget()
    keys = (signer.public, log_signer.public)
    return ReceiptBundle(envelope=envelope_, index=0, proof=(), checkpoint=proved.checkpoint, keys=keys)


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)),
    max_leaves=8,
)
NAMES = ["shards", "purged", "generation", "erasure_floor", "scan", "store", "erased", "times", "exceptions", "proves"]


@given(st.dictionaries(st.sampled_from(NAMES), JSON_VALUES, max_size=8))
def test_a_strangers_receipt_breaks_nothing(predicate: dict[str, Any]) -> None:
    """Any content of a validly signed receipt from a stranger is printed without control characters."""
    request = {"times": predicate.pop("times", None), "due_at": "\x1b[2J"}
    bundle = strangers_receipt({**predicate, "request": request})
    text = receipt_outcome(bundle_from_bytes(bundle.to_bytes())).text
    assert all(line.isprintable() for line in text.split("\n"))


def test_terminal_sequences_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """A request id that would clear the screen is shown with replacement characters, in text and in data."""
    path = tmp_path / "stranger.json"
    path.write_bytes(strangers_receipt({"request": {"id": "\x1b[2J\nforged line\ud800"}}).to_bytes())
    outcome = check_receipt(path)
    assert "\x1b" not in outcome.text
    assert "\nforged line" not in outcome.text
    assert outcome.data is not None
    json.dumps(outcome.data, ensure_ascii=False).encode()


def test_no_person_is_in_the_text(registrar: Registrar) -> None:
    """The text holds no keyed digest beyond that of the whole request."""
    bundle = registrar.find("first")
    found = json.loads(base64.b64decode(json.loads(bundle.to_bytes())["envelope"]["payload"]))
    assert found["predicate"]["request"]["digest"] in receipt_text(bundle, found)


def test_a_sound_log_is_reported(registrar: Registrar) -> None:
    """A sound log shows its size, its root and the checkpoint to keep."""
    kept = registrar.find("first").checkpoint
    registrar.issue(evidence_of("second"))
    outcome = log_outcome(registrar.check_log(kept))
    assert outcome.code is ExitCode.DONE
    assert outcome.data is not None
    assert (outcome.data["sound"], outcome.data["entries"], outcome.data["earlier"]) == (True, 2, 1)
    assert "log: 2 entries, root " in outcome.text
    assert "continues the earlier checkpoint of 1 entries" in outcome.text
    assert "newest checkpoint, to be kept elsewhere:" in outcome.text


def test_a_damaged_log_fails_the_proof(registrar: Registrar) -> None:
    """A damaged log gives the exit code for failed proofs, and lists every finding."""
    MemoryStore("deploy-receipts").delete(object_key(f"log/entries/{0:020d}"))
    outcome = log_outcome(registrar.check_log())
    assert outcome.code is ExitCode.PROOF_FAILED
    assert outcome.problem is not None
    assert outcome.problem.message == "the receipts' log is not what was signed: 1 findings"
    assert "entry 0 is missing" in outcome.text
    assert outcome.data is not None
    assert outcome.data["problems"] == ["entry 0 is missing: checkpoint 1 covers them"]


def test_many_problems_are_cut_for_people_only(registrar: Registrar) -> None:
    """People read the first fifty findings and how many more there are; machines get all."""
    check = replace(registrar.check_log(), problems=tuple(f"entry {n} is missing" for n in range(80)), uncovered=2)
    outcome = log_outcome(check)
    assert "entry 49 is missing" in outcome.text
    assert "entry 50 is missing" not in outcome.text
    assert "and 30 more" in outcome.text
    assert "2 entries await their checkpoint" in outcome.text
    assert outcome.data is not None
    assert len(outcome.data["problems"]) == 80


def test_an_earlier_checkpoint_is_read_from_a_file(registrar: Registrar, tmp_path: Path) -> None:
    """A checkpoint saved with or without its last line break is the same one."""
    path = tmp_path / "checkpoint.txt"
    for text in (registrar.find("first").checkpoint, registrar.find("first").checkpoint.rstrip("\n")):
        path.write_text(text, encoding="utf-8")
        assert registrar.check_log(read_log_checkpoint(path)).earlier == 1
