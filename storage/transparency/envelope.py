"""DSSE envelopes: a payload, its type, and one Ed25519 signature over both (https://github.com/secure-systems-lab/dsse).

An envelope is always canonical JSON, so its bytes are unique. It is passed around as bytes, because a leaf of the log
is the hash of exactly these bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from storage.digests import canonical_json
from storage.encodings import from_base64, to_base64
from storage.errors import Corrupt
from storage.transparency.keys import PublicKey, SigningKey

SIGNATURE_BYTES = 64

_NAMES = {"payload", "payloadType", "signatures"}
_REMEDY = "Get the receipt again from its issuer. Do not rely on this one."


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedEnvelope:
    """An envelope whose signature holds."""

    payload: bytes
    key: PublicKey
    """The key that made the signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Envelope:
    payload: bytes
    payload_type: str
    key_id: str
    signature: bytes

    @property
    def signed(self) -> bytes:
        return _encoded(self.payload, self.payload_type)


def sign_envelope(payload: bytes, payload_type: str, key: SigningKey) -> bytes:
    """Return the envelope; the same payload and key always give the same bytes."""
    signature = to_base64(key.sign(_encoded(payload, payload_type)))
    return canonical_json(
        {
            "payload": to_base64(payload),
            "payloadType": payload_type,
            "signatures": [{"keyid": key.public.key_id, "sig": signature}],
        }
    )


def open_envelope(envelope: bytes, payload_type: str, keys: Iterable[PublicKey]) -> OpenedEnvelope:
    """Return the payload of type ``payload_type`` that one of ``keys`` has signed.

    Raises ``Corrupt`` when the bytes are not an envelope with exactly one signature, the payload has another type, or
    the signature was not made with any of ``keys``.
    """
    parsed = _parsed(envelope)
    if parsed.payload_type != payload_type:
        raise Corrupt("the envelope holds something of another type", _REMEDY)
    for key in keys:
        if key.key_id == parsed.key_id and key.verifies(parsed.signed, parsed.signature):
            return OpenedEnvelope(payload=parsed.payload, key=key)
    raise Corrupt(
        "the envelope is signed by none of the known keys, or was altered", _REMEDY, key_id=parsed.key_id[:64]
    )


def envelope_payload(envelope: bytes) -> bytes:
    """Return the payload without checking the signature.

    Raises ``Corrupt`` when the bytes are not an envelope with one signature.
    """
    return _parsed(envelope).payload


def envelope_signer(envelope: bytes) -> str:
    """Return the id of the key that the envelope names as its signer, unchecked. Raises as ``envelope_payload``."""
    return _parsed(envelope).key_id


def _encoded(payload: bytes, payload_type: str) -> bytes:
    """Return what is signed, DSSE's pre-authentication encoding (PAE)."""
    kind = payload_type.encode("utf-8", "surrogatepass")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _parsed(envelope: bytes) -> _Envelope:
    try:
        fields = json.loads(envelope)
        canonical = canonical_json(fields) == envelope
    except (ValueError, RecursionError):
        raise _no_envelope() from None
    if not canonical or not isinstance(fields, dict) or fields.keys() != _NAMES:
        raise _no_envelope()
    signature = _only_signature(fields["signatures"])
    if not isinstance(fields["payload"], str) or not isinstance(fields["payloadType"], str):
        raise _no_envelope()
    found = _Envelope(
        payload=from_base64(fields["payload"]),
        payload_type=fields["payloadType"],
        key_id=signature["keyid"],
        signature=from_base64(signature["sig"]),
    )
    if len(found.signature) != SIGNATURE_BYTES:
        raise _no_envelope()
    return found


def _only_signature(signatures: Any) -> dict[str, str]:
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise _no_envelope()
    signature = signatures[0]
    if signature.keys() != {"keyid", "sig"} or not all(isinstance(value, str) for value in signature.values()):
        raise _no_envelope()
    return signature


def _no_envelope() -> Corrupt:
    return Corrupt("these bytes are not an envelope of ours", _REMEDY)
