"""The cipher: one stored form, opened only as the object it was made for."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

import storage.encryption.cipher
from storage.encryption.cipher import (
    OVERHEAD_BYTES,
    decrypt,
    encrypt,
    fresh_key,
    fresh_nonce,
    is_encrypted,
    unwrap,
    wrap,
)
from storage.errors import Corrupt
from storage.objects import object_key

KEY = object_key("shards/0001/a")
OTHER = object_key("shards/0001/b")


@given(payload=st.binary(max_size=200))
def test_what_was_encrypted_is_returned(payload: bytes) -> None:
    """Every payload comes back, longer by a fixed number of bytes while it is stored."""
    data_key = fresh_key()
    stored = encrypt(payload, KEY, data_key, fresh_nonce())
    assert decrypt(stored, KEY, data_key) == payload
    assert len(stored) == len(payload) + OVERHEAD_BYTES
    assert is_encrypted(stored)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 160, 161])
def test_long_payloads_go_through_in_pieces(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Piece by piece (as above 256 MiB) the stored form is the one that a single step gives."""
    monkeypatch.setattr(storage.encryption.cipher, "_CHUNK_BYTES", 16)
    data_key, nonce, payload = fresh_key(), fresh_nonce(), bytes(range(256))[:size]
    stored = encrypt(payload, KEY, data_key, nonce)
    assert stored[26:] == AESGCM(data_key).encrypt(nonce, payload, stored[:14] + KEY.encode())
    assert decrypt(stored, KEY, data_key) == payload


def test_another_key_or_name_opens_nothing() -> None:
    """Under another data key, or as another object, nothing comes out, not even a part."""
    data_key = fresh_key()
    stored = encrypt(b"payload" * 100, KEY, data_key, fresh_nonce())
    with pytest.raises(Corrupt, match="not what was written.*shards/0001/a"):
        decrypt(stored, KEY, fresh_key())
    with pytest.raises(Corrupt, match="not what was written.*shards/0001/b"):
        decrypt(stored, OTHER, data_key)
    for damaged in (b"", stored[:41], stored[1:], b"x" + stored):
        with pytest.raises(Corrupt, match="not what was written"):
            decrypt(damaged, KEY, data_key)


def test_a_wrapped_key_opens_under_its_own_alone() -> None:
    """A data key comes back from its wrapping, and from no other or altered one."""
    data_key, kek = fresh_key(), fresh_key()
    wrapped = wrap(data_key, kek)
    assert unwrap(wrapped, kek, KEY) == data_key
    assert data_key not in wrapped
    with pytest.raises(Corrupt, match="cannot be unwrapped.*shards/0001/a"):
        unwrap(wrapped, fresh_key(), KEY)
    for position in range(len(wrapped)):
        altered = wrapped[:position] + bytes([wrapped[position] ^ 1]) + wrapped[position + 1 :]
        with pytest.raises(Corrupt, match="cannot be unwrapped"):
            unwrap(altered, kek, KEY)
