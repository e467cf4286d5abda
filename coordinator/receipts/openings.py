"""Commitments to the names in a request, with which a person can show that a receipt is about them. Pure.

A commitment is a SHA-256 over a salt and the names. The salt is drawn for the request, returned in the answer and not
stored: with the salt a person can show whom a receipt is about, and without it nobody can test a guess.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from coordinator.receipts.kinds import NOTHING_FOUND_TYPE
from storage.digests import Sha256

RECIPE: Final = (
    "SHA-256 over 'sisa/nothing-found/1' and, in rising order, of each name given: SHA-256 over the salt's text,"
    " 'subject' or 'id', a zero byte, and the name as it was given, in UTF-8"
)
_DOMAIN: Final = b"sisa/nothing-found/1"


def leaves(salt: str, kind: str, names: Iterable[str]) -> Iterator[bytes]:
    """Yield the digest of each name of this kind, ``subject`` or ``id``."""
    start = salt.encode("utf-8", "surrogatepass") + kind.encode() + b"\0"
    for name in names:
        yield hashlib.sha256(start + name.encode("utf-8", "surrogatepass")).digest()


def over(rising: bytes) -> Sha256:
    """Return the commitment to all ``leaves``, which are joined in rising order."""
    return Sha256(hashlib.sha256(_DOMAIN + rising).hexdigest())


def commitment(salt: str, *, subjects: Iterable[str] = (), ids: Iterable[str] = ()) -> Sha256:
    """Return the commitment to the names under this salt; see ``RECIPE``.

    >>> commitment("00", subjects=["ann", "bob"]) == commitment("00", subjects=["bob", "ann"])
    True
    >>> commitment("00", subjects=["ann"]) == commitment("01", subjects=["ann"])
    False
    """
    return over(b"".join(sorted([*leaves(salt, "subject", subjects), *leaves(salt, "id", ids)])))


def commitment_in(statement: Mapping[str, Any]) -> str | None:
    """Return the commitment in one of our statements; None if it has no commitment."""
    request = statement["predicate"]["request"]
    found = request["digest"] if statement["predicateType"] == NOTHING_FOUND_TYPE else request.get("commitment")
    return found if isinstance(found, str) else None
