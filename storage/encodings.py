"""Bytes as text, in exactly one form: otherwise a text could be altered and still decode to the same bytes."""

from __future__ import annotations

import base64
import binascii

from storage.errors import Corrupt


def to_base64(payload: bytes) -> str:
    """Return standard base64 with padding."""
    return base64.b64encode(payload).decode("ascii")


def from_base64(text: str) -> bytes:
    """Return the bytes that ``to_base64`` wrote as ``text``. Raises ``Corrupt`` for any other spelling."""
    try:
        payload = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _unreadable("base64") from None  # the cause would quote the text
    if to_base64(payload) != text:
        raise _unreadable("base64")
    return payload


def from_hex(text: str) -> bytes:
    """Return the bytes whose ``hex()`` is ``text``. Raises ``Corrupt`` for any other spelling."""
    try:
        payload = bytes.fromhex(text)
    except ValueError:
        raise _unreadable("hexadecimal") from None
    if payload.hex() != text:
        raise _unreadable("hexadecimal")
    return payload


def _unreadable(spelling: str) -> Corrupt:
    return Corrupt(f"a text is not in the only valid {spelling} form of its bytes", "Get the file again, unchanged.")
