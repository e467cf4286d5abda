"""Encryption of objects and of the keys that encrypt them; the only user of the ciphers of ``cryptography``.

    stored object   format line (14 bytes) · nonce (12 bytes) · ciphertext · tag (16 bytes)
    wrapped key     40 bytes

An object is AES-256-GCM under a key of its own, with the format line and the object's key name as associated data: it
cannot be decrypted under another name. A data key is wrapped by AES key wrap under a key-encryption key.

Sources: NIST SP 800-38D (GCM; random nonces for fewer than 2**32 messages per key), RFC 3394 (key wrap).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import AEADDecryptionContext, Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from storage.errors import Corrupt
from storage.objects import ObjectKey

ALGORITHM: Final = "AES-256-GCM, one key an object"
WRAPPING: Final = "AES key wrap (RFC 3394) under a 256-bit key for each ring"

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
WRAPPED_BYTES: Final = KEY_BYTES + 8

_FORMAT: Final = b"sisa-sealed/1\n"
_TAG_BYTES: Final = 16
_START: Final = len(_FORMAT) + NONCE_BYTES

OVERHEAD_BYTES: Final = _START + _TAG_BYTES
"""How much longer the stored form is than the payload."""

_CHUNK_BYTES = 1 << 30
"""The library takes at most 2 GiB at once. A payload of one chunk is not copied again."""

_PIECE_BYTES: Final = 1 << 20
"""Few enough to stay in the processor's caches until they have been digested and copied."""


def fresh_key() -> bytes:
    """Return 256 random bits."""
    return secrets.token_bytes(KEY_BYTES)


def fresh_nonce() -> bytes:
    """Return a nonce that no other encryption under the same key will have."""
    return secrets.token_bytes(NONCE_BYTES)


def encrypt(payload: bytes, key: ObjectKey, data_key: bytes, nonce: bytes) -> bytes:
    """Return the stored form of ``payload`` as the object ``key``. Never use a ``nonce`` twice for one data key."""
    context = Cipher(algorithms.AES256(data_key), modes.GCM(nonce)).encryptor()
    context.authenticate_additional_data(_FORMAT + key.encode())
    body = tuple(_through(context, memoryview(payload)))
    return b"".join((_FORMAT, nonce, *body, context.finalize(), context.tag))


def decrypt(stored: bytes, key: ObjectKey, data_key: bytes) -> bytes:
    """Return the payload that ``encrypt`` was given.

    Raises ``Corrupt`` when the stored form is damaged, belongs to another object, or is under another data key.
    """
    context, text = _begun(stored, key, data_key)
    payload = b"".join(_through(context, text))
    try:
        context.finalize()  # no part of the payload is returned before this
    except InvalidTag:
        raise _unreadable(key) from None
    return payload


def _begun(stored: bytes, key: ObjectKey, data_key: bytes) -> tuple[AEADDecryptionContext, memoryview]:
    """Return the context of a decryption that has begun, and the text to decrypt. Raises as ``decrypt``."""
    if not is_encrypted(stored):
        raise _unreadable(key)
    nonce, tag = stored[len(_FORMAT) : _START], stored[-_TAG_BYTES:]
    context = Cipher(algorithms.AES256(data_key), modes.GCM(nonce, tag)).decryptor()
    context.authenticate_additional_data(_FORMAT + key.encode())
    return context, memoryview(stored)[_START:-_TAG_BYTES]


def decrypted_pieces(stored: bytes, key: ObjectKey, data_key: bytes) -> Iterator[memoryview]:
    """Yield, in pieces, the payload that ``encrypt`` was given; each piece reuses the memory of the previous one.

    Do not use any piece before the last one has been yielded: only then is the whole payload authenticated. Raises as
    ``decrypt``.
    """
    context, text = _begun(stored, key, data_key)
    memory = memoryview(bytearray(min(_PIECE_BYTES, len(text))))
    for start in range(0, len(text), _PIECE_BYTES):
        yield memory[: context.update_into(text[start : start + _PIECE_BYTES], memory)].toreadonly()
    try:
        context.finalize()
    except InvalidTag:
        raise _unreadable(key) from None


def is_encrypted(stored: bytes) -> bool:
    """Return whether ``stored`` has the shape of an encrypted object."""
    return stored.startswith(_FORMAT) and len(stored) >= OVERHEAD_BYTES


def wrap(data_key: bytes, kek: bytes) -> bytes:
    """Return the data key, wrapped so that only ``kek`` unwraps it; equal keys give equal bytes."""
    return aes_key_wrap(kek, data_key)


def unwrap(wrapped: bytes, kek: bytes, key: ObjectKey) -> bytes:
    """Return the data key of the object ``key``. Raises ``Corrupt`` when ``kek`` does not unwrap it."""
    try:
        return aes_key_unwrap(kek, wrapped)
    except InvalidUnwrap:
        raise Corrupt(
            "the key of this object cannot be unwrapped: its ring or its key-encryption key is not what was written",
            "Restore the store's keys from a copy. The object was not used.",
            key=key,
        ) from None


def _through(context: CipherContext, payload: memoryview) -> Iterator[bytes]:
    for start in range(0, len(payload), _CHUNK_BYTES):
        yield context.update(payload[start : start + _CHUNK_BYTES])


def _unreadable(key: ObjectKey) -> Corrupt:
    return Corrupt(
        "an encrypted object is not what was written",
        "Restore it from a copy of the store, or run 'sisa train' to rebuild it. It was not used.",
        key=key,
    )
