"""Signed checkpoints: the form that others read, and every alteration found."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import Corrupt, Invalid
from storage.transparency import checkpoint as notes
from storage.transparency.checkpoint import LogCheckpoint, open_checkpoint, sign_checkpoint
from storage.transparency.keys import PublicKey, SigningKey

KEY = SigningKey("checkpoints", bytes(range(32)))
OTHER = SigningKey("checkpoints", bytes(range(1, 33)))
CHECKPOINT = LogCheckpoint(origin="example.org/log", size=7, root=bytes(range(100, 132)))
NOTE = sign_checkpoint(CHECKPOINT, KEY)


def test_the_form() -> None:
    """Three lines, an empty one, and the signature's line, as C2SP's tlog-checkpoint has it."""
    lines = NOTE.split("\n")
    assert lines[:4] == ["example.org/log", "7", base64.b64encode(bytes(range(100, 132))).decode(), ""]
    assert lines[4].startswith("— example.org/log ")
    assert lines[5:] == [""]


def test_the_signature_of_the_go_implementation_is_accepted() -> None:
    """Key hash and signature of golang.org/x/mod/sumdb/note's own example are computed as there."""
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    encoded = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    raw = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:]
    key = PublicKey(purpose="checkpoints", raw=raw)
    assert notes._key_hash("PeterNeumann", key).hex() == "c74f20a3"
    assert notes._signer(text, "PeterNeumann", base64.b64decode(encoded), [KEY.public, key]) == key
    with pytest.raises(Corrupt, match="signed by none of the known keys"):
        notes._signer(text + "\n", "PeterNeumann", base64.b64decode(encoded), [key])


def test_what_is_signed_is_opened() -> None:
    """The checkpoint comes back with its signer; signing again gives the same text."""
    opened = open_checkpoint(NOTE, [OTHER.public, KEY.public], "example.org/log")
    assert (opened.checkpoint, opened.key) == (CHECKPOINT, KEY.public)
    assert sign_checkpoint(CHECKPOINT, KEY) == NOTE


def test_every_altered_byte_is_found() -> None:
    """No note that differs in one bit of one byte opens."""
    encoded = NOTE.encode()
    for place in range(len(encoded) * 8):
        flipped = bytearray(encoded)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(Corrupt, match="checkpoint|only valid base64 form"):
            open_checkpoint(bytes(flipped).decode("utf-8", "replace"), [KEY.public])


def test_every_truncation_and_addition_is_found() -> None:
    """No part of a note opens, nor one with something before, after or between."""
    for length in range(len(NOTE)):
        with pytest.raises(Corrupt, match="this text is not a signed checkpoint"):
            open_checkpoint(NOTE[:length], [KEY.public])
    last = NOTE.splitlines(keepends=True)[-1]
    for other in (NOTE + last, NOTE + "\n", "\n" + NOTE, NOTE.replace("\n\n", "\nextension\n\n"), NOTE * 2):
        with pytest.raises(Corrupt, match="this text is not a signed checkpoint"):
            open_checkpoint(other, [KEY.public])


def test_sizes_have_one_spelling() -> None:
    """Leading zeros, signs, spaces and other digits are refused even when signed."""
    for size in ("07", "+7", " 7", "7 ", "\u0667", "-7", "1e1", ""):
        text = CHECKPOINT.text.replace("\n7\n", f"\n{size}\n")
        signature = notes._key_hash(CHECKPOINT.origin, KEY.public) + KEY.sign(text.encode())
        note = f"{text}\n— {CHECKPOINT.origin} {base64.b64encode(signature).decode()}\n"
        with pytest.raises(Corrupt, match="this text is not a signed checkpoint"):
            open_checkpoint(note, [KEY.public])


def test_a_root_has_32_bytes() -> None:
    """A signed root of another length is refused."""
    with pytest.raises(Corrupt, match="this text is not a signed checkpoint"):
        open_checkpoint(sign_checkpoint(LogCheckpoint(origin="o", size=1, root=b"short"), KEY), [KEY.public])


def test_other_logs_and_signers_are_refused() -> None:
    """A checkpoint of another log, by an unknown key, or with another's signature does not open."""
    with pytest.raises(Corrupt, match=r"another log's \[origin=example.org/log expected=example.org/other\]"):
        open_checkpoint(NOTE, [KEY.public], "example.org/other")
    with pytest.raises(Corrupt, match="signed by none of the known keys"):
        open_checkpoint(NOTE, [OTHER.public])
    swapped = NOTE.rpartition("\n— ")[0] + "\n— " + sign_checkpoint(CHECKPOINT, OTHER).rpartition("\n— ")[2]
    with pytest.raises(Corrupt, match="signed by none of the known keys"):
        open_checkpoint(swapped, [KEY.public])


@pytest.mark.parametrize("origin", ["", "with space", "with+plus", "with\nline", "ünicode", "x" * 201])
def test_bad_origins_are_refused(origin: str) -> None:
    """A log's name can stand in a note's signature line."""
    with pytest.raises(Invalid, match="a log's origin is printable ASCII"):
        LogCheckpoint(origin=origin, size=0, root=bytes(32))


@given(st.text(max_size=200))
def test_any_other_text(text: str) -> None:
    """Text that nobody signed is refused."""
    for each in (text, f"{CHECKPOINT.text}\n{text}", f"{CHECKPOINT.text}\n— example.org/log {text}\n"):
        with pytest.raises(Corrupt, match="checkpoint|only valid base64 form"):
            open_checkpoint(each, [KEY.public])
