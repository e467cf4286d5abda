"""The page on the receipts' format is enough to write a verifier: one written from it alone agrees with ours."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.receipts.bundles import bundle_from_bytes, verify_bundle
from storage.digests import canonical_json
from storage.errors import Corrupt, Invalid
from storage.transparency.checkpoint import open_checkpoint
from storage.transparency.keys import PublicKey, public_keys_from_text
from storage.transparency.merkle import verify_consistency
from tests.golden import independent_verifier as verifier
from tests.golden.regenerate_vectors import FILE, vectors

VECTORS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
KEYS = verifier.read_keys(VECTORS["keys"])
PAGE = (FILE.parent / "README.md").read_text(encoding="utf-8")


def test_the_vectors_are_what_this_version_writes() -> None:
    """The published vectors are made by fixed keys, names and times, and so is every receipt of this format."""
    assert FILE.read_bytes() == vectors()


def test_the_verifier_is_independent() -> None:
    """It imports the standard library and cryptography, and nothing of ours."""
    tree = ast.parse(Path(verifier.__file__).read_text(encoding="utf-8"))
    names = {alias.name for each in ast.walk(tree) if isinstance(each, ast.Import) for alias in each.names}
    names |= {str(each.module) for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "cryptography"}


@pytest.mark.parametrize("receipt", VECTORS["receipts"], ids=lambda each: str(each["log"]["index"]))
def test_every_receipt_is_genuine_to_both(receipt: dict[str, Any]) -> None:
    """Both take it, however it is indented, and both read the same statement in it."""
    stated = verifier.check_receipt(json.dumps(receipt, indent=3), KEYS)
    check = verify_bundle(bundle_from_bytes(canonical_json(receipt)), public_keys_from_text(VECTORS["keys"]))
    assert (check.failures, check.statement) == ((), stated)
    opened = verifier.commitment(VECTORS["salt"], VECTORS["subjects"], VECTORS["ids"])
    is_readmission = stated["predicateType"].startswith("urn:sisa-ray:readmission")
    assert verifier.commitment_in(stated) == (None if is_readmission else opened)


def _altered(value: Any) -> list[Any]:
    """Every value that differs from this one in one leaf."""
    if isinstance(value, dict):
        return [{**value, name: each} for name, inner in value.items() for each in _altered(inner)]
    if isinstance(value, list):
        return [[*value[:at], each, *value[at + 1 :]] for at, inner in enumerate(value) for each in _altered(inner)]
    if isinstance(value, int):
        return [value + 1]
    places = range(0, len(value), max(1, len(value) // 12))
    return [value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :] for at in places]


def test_no_altered_receipt_is_genuine_to_either() -> None:
    """A receipt that differs anywhere is refused by both."""
    keys = public_keys_from_text(VECTORS["keys"])
    alterations = _altered(VECTORS["receipts"][2])
    assert len(alterations) > 50
    for receipt in alterations:
        with pytest.raises(verifier.NotGenuineError, match="."):
            verifier.check_receipt(json.dumps(receipt), KEYS)
        assert not _is_genuine(receipt, keys)


def _is_genuine(receipt: dict[str, Any], keys: tuple[PublicKey, ...]) -> bool:
    try:
        return verify_bundle(bundle_from_bytes(canonical_json(receipt)), keys).is_valid
    except (Corrupt, Invalid):
        return False


@pytest.mark.parametrize("grown", VECTORS["growth"], ids=["from 1", "from 5"])
def test_proofs_of_growth_hold_for_both(grown: dict[str, Any]) -> None:
    """Both take the proof from one checkpoint to the next, and no altered one."""
    origin, *old, _ = verifier.open_checkpoint(grown["earlier"], KEYS)
    other, *new, _ = verifier.open_checkpoint(grown["checkpoint"], KEYS)
    assert origin == other
    proof = [bytes.fromhex(each) for each in grown["consistency"]]
    trusted = public_keys_from_text(VECTORS["keys"])
    ours = [open_checkpoint(grown[name], trusted).checkpoint for name in ("earlier", "checkpoint")]
    assert [[each.size, each.root] for each in ours] == [old, new]
    for tried in (proof, proof[1:], proof[::-1], [*proof, proof[0]], []):
        holds = verify_consistency(
            old_size=ours[0].size, old_root=ours[0].root, size=ours[1].size, root=ours[1].root, proof=tried
        )
        assert holds is (tried == proof)
        if holds:
            verifier.check_consistency(tuple(old), tuple(new), tried)  # type: ignore[arg-type]
        else:
            with pytest.raises(verifier.NotGenuineError, match="proof"):
                verifier.check_consistency(tuple(old), tuple(new), tried)  # type: ignore[arg-type]


def test_the_worked_example_is_right() -> None:
    """Each value that the page gives is the one that the verifier computes."""
    receipt = VECTORS["receipts"][2]
    origin, _, root, key_id = verifier.open_checkpoint(receipt["log"]["checkpoint"], KEYS)
    values = {
        "key-id of the receipts key": next(iter(KEYS["receipts"])),
        "SHA-256 of what is signed": hashlib.sha256(verifier.signed_bytes(receipt["envelope"])).hexdigest(),
        "leaf hash": verifier.leaf_hash(verifier.leaf_of(receipt["envelope"])).hex(),
        "root, in hexadecimal": root.hex(),
        "key hash": verifier.key_hash(origin, KEYS["checkpoints"][key_id]).hex(),
        "commitment": verifier.commitment(VECTORS["salt"], VECTORS["subjects"], VECTORS["ids"]),
    }
    assert "\n".join(f"{name:<30} {value}" for name, value in values.items()) in PAGE
