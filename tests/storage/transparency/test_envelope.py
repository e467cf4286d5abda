"""DSSE envelopes: one spelling, one signature, every alteration found."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.digests import canonical_json
from storage.errors import Corrupt
from storage.transparency.envelope import envelope_payload, open_envelope, sign_envelope
from storage.transparency.keys import SigningKey

KEY = SigningKey("tests", bytes(range(32)))
OTHER = SigningKey("tests", bytes(range(1, 33)))
ENVELOPE = sign_envelope(b'{"hello":"world"}', "application/test", KEY)
KNOWN = [OTHER.public, KEY.public]


def fields() -> dict[str, Any]:
    """The envelope's fields."""
    found: dict[str, Any] = json.loads(ENVELOPE)
    return found


def test_the_signature_is_over_the_pre_authentication_encoding() -> None:
    """Anyone can verify without us: DSSEv1, type and payload with their lengths, signed by Ed25519."""
    signature = base64.b64decode(fields()["signatures"][0]["sig"])
    assert KEY.public.verifies(b'DSSEv1 16 application/test 17 {"hello":"world"}', signature)
    assert fields()["signatures"][0]["keyid"] == KEY.public.key_id


def test_another_implementation_verifies_it() -> None:
    """securesystemslib, which TUF and in-toto use, reads the envelope and finds the signature valid."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    public = KEY.public
    key = SSlibKey(public.key_id, "ed25519", "ed25519", {"public": public.raw.hex()})
    read = Envelope.from_dict(fields())
    assert set(read.verify([key], 1)) == {public.key_id}
    assert (read.payload, canonical_json(read.to_dict())) == (b'{"hello":"world"}', ENVELOPE)


def test_what_is_signed_is_opened() -> None:
    """The payload comes back with its signer; signing again gives the same bytes."""
    opened = open_envelope(ENVELOPE, "application/test", KNOWN)
    assert (opened.payload, opened.key) == (b'{"hello":"world"}', KEY.public)
    assert sign_envelope(b'{"hello":"world"}', "application/test", KEY) == ENVELOPE
    assert envelope_payload(ENVELOPE) == b'{"hello":"world"}'


@given(st.binary(max_size=200), st.text(max_size=30))
def test_any_payload(payload: bytes, kind: str) -> None:
    """Payload and type may be anything."""
    try:
        kind.encode()
    except UnicodeEncodeError:
        return
    assert open_envelope(sign_envelope(payload, kind, KEY), kind, KNOWN).payload == payload


def test_every_flipped_bit_is_found() -> None:
    """No envelope that differs in one bit opens."""
    for place in range(len(ENVELOPE) * 8):
        flipped = bytearray(ENVELOPE)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(Corrupt, match="envelope|only valid base64 form"):
            open_envelope(bytes(flipped), "application/test", KNOWN)


def test_every_truncation_is_found() -> None:
    """No start of an envelope opens."""
    for length in range(len(ENVELOPE)):
        with pytest.raises(Corrupt, match="these bytes are not an envelope of ours"):
            open_envelope(ENVELOPE[:length], "application/test", KNOWN)


def test_unknown_signers_and_types_are_refused() -> None:
    """An envelope of another type, or by a key that is not known, does not open."""
    with pytest.raises(Corrupt, match="signed by none of the known keys"):
        open_envelope(ENVELOPE, "application/test", [OTHER.public])
    with pytest.raises(Corrupt, match="signed by none of the known keys"):
        open_envelope(ENVELOPE, "application/test", [])
    with pytest.raises(Corrupt, match="holds something of another type"):
        open_envelope(ENVELOPE, "application/other", KNOWN)


def test_a_signature_under_another_key_id_is_refused() -> None:
    """A key id that is known does not help a signature that is not that key's."""
    found = fields()
    found["signatures"][0]["keyid"] = OTHER.public.key_id
    with pytest.raises(Corrupt, match="signed by none of the known keys"):
        open_envelope(canonical_json(found), "application/test", KNOWN)


@pytest.mark.parametrize(
    "change",
    [
        {"signatures": []},
        {"signatures": [*json.loads(ENVELOPE)["signatures"] * 2]},
        {"signatures": [{**json.loads(ENVELOPE)["signatures"][0], "cert": "x"}]},
        {"signatures": [{"sig": "AA==", "keyid": "x"}]},
        {"signatures": [{"sig": 3, "keyid": "x"}]},
        {"signatures": [3]},
        {"signatures": 3},
        {"payload": 3},
        {"payloadType": None},
        {"more": 1},
    ],
)
def test_other_shapes_are_refused(change: dict[str, Any]) -> None:
    """Fields of other kinds, further fields, and none or two signatures are refused by one error."""
    with pytest.raises(Corrupt, match="these bytes are not an envelope of ours"):
        open_envelope(canonical_json({**fields(), **change}), "application/test", KNOWN)


@given(st.binary(max_size=200))
def test_any_other_bytes(payload: bytes) -> None:
    """Bytes that nobody signed are refused by one error."""
    for each in (payload, b"[" * 100_000, b"{}", b"[]", b"null", b"NaN"):
        with pytest.raises(Corrupt, match="these bytes are not an envelope of ours"):
            open_envelope(each, "application/test", KNOWN)
