"""DSSE envelopes: a payload, its type, and one Ed25519 signature over both (https://github.com/secure-systems-lab/dsse).

An envelope has one spelling only, canonical JSON, and is handled as these bytes: they are what a log's leaf hashes.
securesystemslib loads every cloud library it finds (boto3: 90 ms), so it is imported where it is used: most commands
touch no receipt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.digests import canonical_json
from storage.encodings import from_base64
from storage.errors import Corrupt
from storage.transparency.keys import PublicKey, SigningKey

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope

SIGNATURE_BYTES = 64

_NAMES = {"payload", "payloadType", "signatures"}
_REMEDY = "get the receipt again from who issued it; do not rely on this one"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedEnvelope:
    """An envelope whose signature holds."""

    payload: bytes
    key: PublicKey
    """Who signed."""


def sign_envelope(payload: bytes, payload_type: str, key: SigningKey) -> bytes:
    """Return the envelope; the same payload and key always give the same bytes."""
    from securesystemslib.dsse import Envelope  # noqa: PLC0415
    from securesystemslib.signer import Signature  # type: ignore[attr-defined]  # noqa: PLC0415

    envelope = Envelope(payload, payload_type, {})
    signature = key.sign(envelope.pae())
    envelope.signatures[key.public.key_id] = Signature(key.public.key_id, signature.hex())
    return canonical_json(envelope.to_dict())


def open_envelope(envelope: bytes, payload_type: str, keys: Iterable[PublicKey]) -> OpenedEnvelope:
    """Return what one of ``keys`` has signed as a ``payload_type``.

    Raises ``Corrupt`` when the bytes are no envelope of one signature, or none of ``keys`` made it.
    """
    parsed = _parsed(envelope)
    if parsed.payload_type != payload_type:
        raise Corrupt("the envelope holds something of another type", _REMEDY)
    key_id = next(iter(parsed.signatures))
    for key in keys:
        if key.key_id == key_id and _holds(parsed, key):
            return OpenedEnvelope(payload=parsed.payload, key=key)
    raise Corrupt("the envelope is signed by none of the known keys, or was altered", _REMEDY, key_id=key_id[:64])


def envelope_payload(envelope: bytes) -> bytes:
    """Return the payload, whoever signed it. Raises ``Corrupt`` when the bytes are no envelope of one signature."""
    return _parsed(envelope).payload


def _holds(envelope: Envelope, key: PublicKey) -> bool:
    from securesystemslib.exceptions import VerificationError  # noqa: PLC0415
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # noqa: PLC0415

    try:
        envelope.verify([SSlibKey(key.key_id, "ed25519", "ed25519", {"public": key.raw.hex()})], 1)
    except VerificationError:
        return False
    return True


def _parsed(envelope: bytes) -> Envelope:
    """Return the library's form, after checking a shape that it is more lenient about."""
    from securesystemslib.dsse import Envelope  # noqa: PLC0415

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
    from_base64(fields["payload"])
    if len(from_base64(signature["sig"])) != SIGNATURE_BYTES:
        raise _no_envelope()
    return Envelope.from_dict(fields)


def _only_signature(signatures: Any) -> dict[str, str]:
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise _no_envelope()
    signature = signatures[0]
    if signature.keys() != {"keyid", "sig"} or not all(isinstance(value, str) for value in signature.values()):
        raise _no_envelope()
    return signature


def _no_envelope() -> Corrupt:
    return Corrupt("these bytes are not an envelope of ours", _REMEDY)
