"""Signed checkpoints of a log: a note of three lines and its signature, in C2SP's tlog-checkpoint format.

    <origin>
    <size>
    <root, base64>

    — <origin> <base64 of 4 bytes key hash and 64 bytes signature>

The key's name in the signature is the origin. Ours carry one signature and no extension lines; others are refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from storage.encodings import from_base64, to_base64
from storage.errors import Corrupt, Invalid
from storage.transparency.keys import PublicKey, SigningKey
from storage.transparency.merkle import HASH_BYTES

_ED25519 = b"\x01"
_KEY_HASH_BYTES = 4
_ORIGIN = re.compile(r"[!-*,-~]{1,200}")  # names in notes have to be printable ASCII without space and plus
_NOTE = re.compile(
    r"(?P<text>(?P<origin>[^\n]+)\n(?P<size>0|[1-9][0-9]{0,15})\n(?P<root>[^\n]+)\n)"
    r"\n— (?P<name>[^\n ]+) (?P<signature>[^\n ]+)\n"
)
_REMEDY = "Get the checkpoint again from its publisher. Do not rely on this one."


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCheckpoint:
    """What a log's signer states: its first ``size`` entries hash to ``root``."""

    origin: str
    """The log's name, unique among all logs."""
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not _ORIGIN.fullmatch(self.origin):
            raise Invalid(
                "a log's origin is printable ASCII without spaces and '+'", "Choose another origin.", origin=self.origin
            )

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCheckpoint:
    """A checkpoint whose signature holds."""

    checkpoint: LogCheckpoint
    key: PublicKey
    """The key that made the signature."""


def sign_checkpoint(checkpoint: LogCheckpoint, key: SigningKey) -> str:
    """Return the signed note; the same checkpoint and key always give the same text."""
    signature = _key_hash(checkpoint.origin, key.public) + key.sign(checkpoint.text.encode("ascii"))
    return f"{checkpoint.text}\n— {checkpoint.origin} {to_base64(signature)}\n"


def open_checkpoint(note: str, keys: Iterable[PublicKey], origin: str | None = None) -> OpenedCheckpoint:
    """Return the checkpoint that one of ``keys`` has signed, of the log ``origin`` if one is given.

    Raises ``Corrupt`` when the text is not a signed checkpoint, is another log's, or is signed by none of ``keys``.
    """
    match = _NOTE.fullmatch(note)
    if match is None or match["name"] != match["origin"] or not _ORIGIN.fullmatch(match["origin"]):
        raise Corrupt("this text is not a signed checkpoint", _REMEDY)
    if origin is not None and match["origin"] != origin:
        raise Corrupt("the checkpoint is another log's", _REMEDY, origin=match["origin"], expected=origin)
    root = from_base64(match["root"])
    if len(root) != HASH_BYTES:
        raise Corrupt("this text is not a signed checkpoint", _REMEDY)
    key = _signer(match["text"], match["name"], from_base64(match["signature"]), keys)
    checkpoint = LogCheckpoint(origin=match["origin"], size=int(match["size"]), root=root)
    return OpenedCheckpoint(checkpoint=checkpoint, key=key)


def _signer(text: str, name: str, signature: bytes, keys: Iterable[PublicKey]) -> PublicKey:
    for key in keys:
        named = signature[:_KEY_HASH_BYTES] == _key_hash(name, key)
        if named and key.verifies(text.encode("ascii"), signature[_KEY_HASH_BYTES:]):
            return key
    raise Corrupt("the checkpoint is signed by none of the known keys, or was altered", _REMEDY)


def _key_hash(name: str, key: PublicKey) -> bytes:
    """Return the key id of C2SP's signed notes."""
    return hashlib.sha256(name.encode("ascii") + b"\n" + _ED25519 + key.raw).digest()[:_KEY_HASH_BYTES]
