"""Receipt bundles: what is genuine is accepted, nothing else ever is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.receipts.bundles import (
    CHECKPOINTS,
    RECEIPTS,
    ReceiptBundle,
    bundle_from_bytes,
    read_statement,
    statement_of,
    verify_bundle,
)
from coordinator.receipts.evidence import statement
from coordinator.receipts.kinds import PAYLOAD_TYPE
from storage.digests import canonical_json
from storage.errors import Corrupt, Invalid
from storage.stores.memory import MemoryStore
from storage.transparency.checkpoint import LogCheckpoint, sign_checkpoint
from storage.transparency.envelope import sign_envelope
from storage.transparency.keys import SigningKey
from storage.transparency.layout import LogLayout
from storage.transparency.log import TransparencyLog
from tests.coordinator.receipts.facts import evidence_of
from tests.volume import examples, spread

RECEIPT_KEY = SigningKey(RECEIPTS, bytes(range(32)))
LOG_KEY = SigningKey(CHECKPOINTS, bytes(range(1, 33)))
KEYS = (RECEIPT_KEY.public, LOG_KEY.public)
THIEF_RECEIPTS = SigningKey(RECEIPTS, bytes(range(2, 34)))
THIEF_LOG = SigningKey(CHECKPOINTS, bytes(range(3, 35)))


def receipts(count: int = 6, signer: SigningKey = RECEIPT_KEY, log_signer: SigningKey = LOG_KEY) -> list[ReceiptBundle]:
    """Receipts of one log, each under the checkpoint that was the newest when it was issued."""
    store = MemoryStore("bundles")
    store.forget()
    log = TransparencyLog(
        store,
        LogLayout(origin="sisa-ray/tests"),
        signer=log_signer,
        keys=lambda: (log_signer.public,),
        admits=lambda _: True,
    )
    found = []
    for number in range(count):
        payload = statement(evidence_of(f"request-{number}"), "2026-01-05T00:00:00.000+00:00")
        envelope = sign_envelope(payload, PAYLOAD_TYPE, signer)
        (index,) = log.append([envelope])
        proved = log.prove(index)
        keys = (signer.public, log_signer.public)
        found.append(
            ReceiptBundle(envelope=envelope, index=index, proof=proved.proof, checkpoint=proved.checkpoint, keys=keys)
        )
    store.forget()
    return found


ALL = receipts()
BUNDLE = ALL[4]
PAYLOAD = BUNDLE.to_bytes()


def is_accepted(payload: bytes) -> bool:
    """Whether someone with the true public keys would take these bytes for a receipt of the operator."""
    try:
        return verify_bundle(bundle_from_bytes(payload), KEYS).is_valid
    except (Corrupt, Invalid):
        return False


def test_a_true_receipt_is_accepted() -> None:
    """Every receipt verifies by the public keys alone, and says what it is for."""
    for number, bundle in enumerate(ALL):
        check = verify_bundle(bundle_from_bytes(bundle.to_bytes()), KEYS)
        assert check.failures == ()
        assert (check.request_id, check.index, check.log_size) == (f"request-{number}", number, number + 1)
        assert check.origin == "sisa-ray/tests"
        assert check.statement == statement_of(bundle)


def test_round_trip() -> None:
    """Reading and writing a bundle gives the same bytes."""
    for bundle in ALL:
        assert bundle_from_bytes(bundle.to_bytes()) == bundle
        assert bundle_from_bytes(bundle.to_bytes()).to_bytes() == bundle.to_bytes()


@pytest.mark.volume
def test_every_flipped_bit_is_found() -> None:
    """No receipt with one bit of any byte flipped is accepted."""
    for place in spread(range(len(PAYLOAD)), 3):
        flipped = bytes([PAYLOAD[place] ^ 1 << place % 8])
        assert not is_accepted(PAYLOAD[:place] + flipped + PAYLOAD[place + 1 :]), place


def test_every_truncation_is_found() -> None:
    """No start of a receipt is accepted, nor one with more after it."""
    for length in range(len(PAYLOAD)):
        assert not is_accepted(PAYLOAD[:length])
    for more in (b" ", b"\n", b"{}", PAYLOAD):
        assert not is_accepted(PAYLOAD + more)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from _places(inner, (*path, name))


def _edited(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copy = value.copy()
    copy[path[0]] = _edited(value[path[0]], path[1:], change)
    return copy


FIELDS = json.loads(PAYLOAD)
PLACES = sorted(_places(FIELDS), key=str)
OTHER_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10),
    st.text(max_size=20),
    st.sampled_from([json.loads(each.to_bytes()) for each in ALL]).flatmap(
        lambda other: st.sampled_from([other["envelope"], other["log"], other["log"]["checkpoint"], other["keys"]])
    ),
    st.lists(st.integers(0, 3), max_size=3),
)


@pytest.mark.volume
@settings(max_examples=examples(100, few=50))
@given(st.data())
def test_random_edits_are_found(data: st.DataObject) -> None:
    """After any edits of a receipt's JSON it is refused, unless they restore the receipt."""
    fields = FIELDS
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(PLACES))
        value = data.draw(OTHER_VALUES)
        try:
            fields = _edited(fields, path, lambda _, value=value: value)  # type: ignore[misc]
        except (KeyError, TypeError, AttributeError, IndexError):
            continue
    payload = canonical_json(fields)
    genuine = {bundle.to_bytes() for bundle in ALL}
    assert is_accepted(payload) == (payload in genuine)


@given(st.binary(max_size=300))
def test_any_other_bytes(payload: bytes) -> None:
    """Bytes that nobody issued are refused by one error."""
    for each in (payload, b"[" * 100_000, b"{}", b"null", b"NaN", b'{"format_version":true}', b"1" * 5000):
        with pytest.raises(Corrupt, match="this is not a receipt of ours, or it was altered"):
            bundle_from_bytes(each)


def test_every_mix_of_two_receipts_is_found() -> None:
    """Envelope, index, proof and checkpoint belong together: no part of another receipt fits, unless it proves it."""
    accepted = 0
    for one in ALL:
        for two in ALL:
            for parts in range(1, 15):
                mixed = replace(
                    one,
                    envelope=two.envelope if parts & 1 else one.envelope,
                    index=two.index if parts & 2 else one.index,
                    proof=two.proof if parts & 4 else one.proof,
                    checkpoint=two.checkpoint if parts & 8 else one.checkpoint,
                )
                if mixed in ALL:
                    continue
                accepted += 1
                assert not verify_bundle(mixed, KEYS).is_valid
    assert accepted > 300


def test_an_older_checkpoint_does_not_cover_a_receipt() -> None:
    """A replayed checkpoint from before the receipt is refused, by the name of what fails."""
    check = verify_bundle(replace(BUNDLE, checkpoint=ALL[1].checkpoint), KEYS)
    assert check.failures == ("the inclusion proof: it does not show this receipt at this place of the log",)


def test_the_wrong_index_is_refused() -> None:
    """A receipt stands at one place only."""
    for index in range(-2, 12):
        assert verify_bundle(replace(BUNDLE, index=index), KEYS).is_valid == (index == BUNDLE.index)


def test_swapped_signatures_are_named() -> None:
    """Another receipt's signature, and another checkpoint's, count for nothing."""
    fields = json.loads(PAYLOAD)
    fields["envelope"]["signatures"] = json.loads(ALL[0].to_bytes())["envelope"]["signatures"]
    signed = verify_bundle(bundle_from_bytes(canonical_json(fields)), KEYS)
    assert signed.failures[0].startswith("the receipt's signature: the envelope is signed by none of the known keys")
    assert (signed.statement, signed.request_id) == (None, None)
    text = BUNDLE.checkpoint.rpartition("\n— ")[0] + "\n— " + ALL[0].checkpoint.rpartition("\n— ")[2]
    check = verify_bundle(replace(BUNDLE, checkpoint=text), KEYS)
    assert check.failures == (
        "the log's checkpoint: the checkpoint is signed by none of the known keys, or was altered",
    )


@pytest.mark.parametrize(
    ("signer", "log_signer", "failing"),
    [
        (THIEF_RECEIPTS, LOG_KEY, ["the receipt's signature"]),
        (RECEIPT_KEY, THIEF_LOG, ["the log's checkpoint"]),
        (THIEF_RECEIPTS, THIEF_LOG, ["the receipt's signature", "the log's checkpoint"]),
    ],
)
def test_a_forger_needs_both_keys(signer: SigningKey, log_signer: SigningKey, failing: list[str]) -> None:
    """A receipt that is perfect but for whose keys it was made with is refused, and both signatures are judged."""
    forged = receipts(3, signer, log_signer)[2]
    assert verify_bundle(forged, forged.keys).is_valid
    failures = verify_bundle(forged, KEYS).failures
    assert [each.split(":")[0] for each in failures] == failing


def test_keys_of_the_wrong_purpose_count_for_nothing() -> None:
    """A key signs for its own purpose only: a receipt signed with the log's key is refused in any bundle."""
    crossed = (
        replace(LOG_KEY.public, purpose=RECEIPTS),
        replace(RECEIPT_KEY.public, purpose=CHECKPOINTS),
    )
    assert not verify_bundle(BUNDLE, crossed).is_valid
    assert not verify_bundle(BUNDLE, ()).is_valid
    forged = receipts(1, SigningKey(RECEIPTS, bytes(range(1, 33))))[0]
    assert not verify_bundle(forged, KEYS).is_valid
    reported = verify_bundle(replace(forged, keys=(LOG_KEY.public, LOG_KEY.public)), KEYS)
    assert reported.failures[0].startswith("the receipt's signature: the envelope is signed by none of the known keys")


def test_values_of_another_kind_are_refused() -> None:
    """A number in place of a text is refused."""
    for log in ({"proof": [12]}, {"proof": [True]}, {"checkpoint": 3}, {"index": "4"}, {"index": True}, {"index": 4.0}):
        with pytest.raises(Corrupt, match="this is not a receipt of ours|only valid hexadecimal form"):
            bundle_from_bytes(canonical_json({**FIELDS, "log": {**FIELDS["log"], **log}}))
    with pytest.raises(Corrupt, match=r"this is not a receipt of ours, or it was altered \[part=keys\]"):
        bundle_from_bytes(canonical_json({**FIELDS, "keys": [3]}))


def test_other_named_keys_are_found() -> None:
    """Public keys in the bundle that did not sign it are named, though everything else holds."""
    for keys in ((), KEYS[:1], KEYS[::-1], (THIEF_RECEIPTS.public, LOG_KEY.public), (*KEYS, THIEF_LOG.public)):
        check = verify_bundle(replace(BUNDLE, keys=keys), KEYS)
        assert check.failures == ("the bundle names other public keys than those that signed it",)


def test_a_retired_key_still_verifies() -> None:
    """Keys that are known besides the ones that signed do no harm."""
    assert verify_bundle(BUNDLE, (THIEF_LOG.public, THIEF_RECEIPTS.public, *KEYS)).is_valid


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"no json",
        b'{"_type": "https://in-toto.io/Statement/v1"}',
        canonical_json({**statement_of(BUNDLE), "_type": "https://in-toto.io/Statement/v2"}),
        canonical_json({**statement_of(BUNDLE), "predicateType": "urn:other"}),
        canonical_json({**statement_of(BUNDLE), "predicate": {}}),
        canonical_json({**statement_of(BUNDLE), "subject": [{"name": "erasure-request", "digest": {"sha256": "0"}}]}),
        canonical_json({**statement_of(BUNDLE), "subject": statement_of(BUNDLE)["subject"] * 2}),
    ],
)
def test_a_signed_statement_of_another_kind_is_no_receipt(payload: bytes) -> None:
    """What the true key has signed is still no receipt unless it is a statement of ours about one request."""
    with pytest.raises(Corrupt, match="this is not an erasure receipt's statement"):
        read_statement(payload)
    envelope = sign_envelope(payload, PAYLOAD_TYPE, RECEIPT_KEY)
    check = verify_bundle(replace(BUNDLE, envelope=envelope), KEYS)
    assert check.failures[0] == "the receipt's content: this is not an erasure receipt's statement"


def test_a_payload_of_another_type_is_no_receipt() -> None:
    """A statement signed under another payload type is refused."""
    envelope = sign_envelope(statement(evidence_of(), "now"), "application/other", RECEIPT_KEY)
    check = verify_bundle(replace(BUNDLE, envelope=envelope), KEYS)
    assert check.failures[0] == "the receipt's signature: the envelope holds something of another type"


def test_a_checkpoint_of_another_root_is_refused() -> None:
    """Even the log's own key cannot put a receipt where it is not."""
    note = sign_checkpoint(LogCheckpoint(origin="sisa-ray/tests", size=5, root=bytes(32)), LOG_KEY)
    assert not verify_bundle(replace(BUNDLE, checkpoint=note), KEYS).is_valid


def test_newer_formats_are_named() -> None:
    """A bundle of a newer format asks for an upgrade instead of calling it forged."""
    with pytest.raises(Invalid, match=r"the receipt was written in format 2, this version reads up to 1\. Upgrade"):
        bundle_from_bytes(canonical_json({**FIELDS, "format_version": 2}))
    for version in (0, -1, True, "1", None, 1.0):
        with pytest.raises(Corrupt, match="this is not a receipt of ours"):
            bundle_from_bytes(canonical_json({**FIELDS, "format_version": version}))
