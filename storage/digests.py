"""Digests and the canonical bytes they are taken over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NewType

Sha256 = NewType("Sha256", str)
"""A SHA-256 as 64 lower-case hexadecimal characters."""

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""Values that canonical JSON can hold."""


def sha256(payload: bytes | bytearray | memoryview) -> Sha256:
    """Return the SHA-256 of ``payload``."""
    return Sha256(hashlib.sha256(payload).hexdigest())


def canonical_json(value: Json) -> bytes:
    """Return the one byte string for ``value``: sorted names, no spaces, ASCII only, finite numbers.

    Follows RFC 8785 for the values used here (integers below 2**53, strings, short floats);
    names are sorted by code point, which equals RFC 8785's order for ASCII names.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def digest_of(value: Json) -> Sha256:
    """Return the SHA-256 of ``value``'s canonical JSON."""
    return sha256(canonical_json(value))
