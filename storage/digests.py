"""Digests and the canonical bytes they are taken over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NewType

Sha256 = NewType("Sha256", str)
"""A SHA-256 as 64 lower-case hexadecimal characters."""

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""Values that canonical JSON can hold."""


def sha256(payload: bytes | bytearray | memoryview) -> Sha256:
    """Return the SHA-256 of ``payload``."""
    return Sha256(hashlib.sha256(payload).hexdigest())


_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
"""Made once: most values are short, and ``json.dumps`` makes one for each of them."""


def canonical_json(value: Json) -> bytes:
    """Return the one byte string for ``value``: sorted names, no spaces, ASCII only, finite numbers.

    Follows RFC 8785 for the values used here (integers below 2**53, strings, short floats);
    names are sorted by code point, which equals RFC 8785's order for ASCII names.
    """
    return _ENCODER.encode(value).encode("ascii")


@dataclass(frozen=True, slots=True)
class CanonicalJson:
    """A value that is in canonical form already, so that a large one need not be encoded again for a small change."""

    text: bytes
    """What ``canonical_json`` returns for the value."""


def canonical_object(parts: Mapping[str, bytes]) -> bytes:
    """Return the canonical form of the object with these fields, whose values have it already.

    >>> canonical_object({"b": b"1", "a": b"[]"})
    b'{"a":[],"b":1}'
    """
    return b"{%b}" % b",".join([b"%b:%b" % (_name(name), parts[name]) for name in sorted(parts)])


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    """Return a field's name in canonical form; names repeat."""
    return canonical_json(name)


def digest_of(value: Json) -> Sha256:
    """Return the SHA-256 of ``value``'s canonical JSON."""
    return sha256(canonical_json(value))
