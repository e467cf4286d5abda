"""Reads files that others hand over: receipts, public keys, checkpoints. They may come from anyone.

A shell or an editor may have reformatted them: added a byte order mark or indents, or changed encoding or line ends.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.digests import canonical_json
from storage.encodings import from_hex
from storage.errors import Corrupt, Invalid
from storage.transparency.key_rotation import ENDORSED
from storage.transparency.keys import PublicKey, public_keys_from_text

_MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A checkpoint, and the proof that its log continues an earlier one."""

    checkpoint: str
    """The signed note."""
    proof: tuple[bytes, ...] | None
    """RFC 9162 section 2.1.4; None: the file has none."""


def receipt_in(file: Path) -> tuple[bytes, bool]:
    """Return the receipt in a file as canonical JSON, and whether the file was reformatted.

    The output of ``sisa receipt --json`` contains the receipt. Bytes that are not JSON are returned unchanged, and so
    is JSON with a repeated key, because readers differ in which of the two values they use. Raises ``Invalid`` when the
    file cannot be read.
    """
    payload = _read(file)
    try:
        found = json.loads(_decoded(payload), object_pairs_hook=_object)
        data = found.get("data") if isinstance(found, dict) else None
        if isinstance(data, dict) and "bundle" in data:
            return canonical_json(data["bundle"]), False
        canonical = canonical_json(found)
    except (ValueError, TypeError, RecursionError):
        return payload, False
    return canonical, canonical != payload.removesuffix(b"\n")


def public_keys_in(file: Path) -> tuple[PublicKey, ...]:
    """Return the public keys in a file. Raises ``Invalid`` when it cannot be read or holds none."""
    payload = _read(file)
    try:
        return public_keys_from_text(_decoded(payload))
    except ValueError as error:  # from the decoder, or Invalid
        raise Invalid(
            "the file holds no public keys of this system",
            "Give it as 'sisa keys --export' wrote it, or a key as it was published at log/keys/ in the store.",
            file=str(file),
        ) from error


def endorsements_in(file: Path) -> tuple[bytes, ...]:
    """Return the endorsements in a file of keys, unchecked. Raises ``Invalid`` when it cannot be read."""
    try:
        lines = _decoded(_read(file)).split("\n")
    except UnicodeDecodeError:
        return ()
    return tuple(line.removeprefix(ENDORSED).encode() for line in lines if line.startswith(ENDORSED))


def read_log_checkpoint(file: Path) -> str:
    """Return the checkpoint in ``file``: alone, in a receipt, or in what ``sisa log --json`` printed.

    Raises ``Invalid`` when the file cannot be read or holds no checkpoint.
    """
    return read_growth(file).checkpoint


def read_growth(file: Path) -> Growth:
    """Return the checkpoint and the proof in ``file``, as ``sisa log CHECKPOINT --json`` prints them.

    Raises ``Invalid`` when the file cannot be read or holds no checkpoint.
    """
    try:
        text = _decoded(_read(file))
    except UnicodeDecodeError as error:
        raise _no_checkpoint(file) from error
    try:
        found = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return Growth(checkpoint=text.rstrip("\n") + "\n", proof=None)
    for name in ("data", "bundle", "log"):
        found = found.get(name, found) if isinstance(found, dict) else found
    checkpoint = found.get("checkpoint") if isinstance(found, dict) else None
    if not isinstance(checkpoint, str):
        raise _no_checkpoint(file)
    proof = found.get("consistency")
    try:
        return Growth(checkpoint=checkpoint, proof=None if proof is None else tuple(from_hex(each) for each in proof))
    except (Corrupt, TypeError) as error:
        raise _no_checkpoint(file) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _decoded(payload: bytes) -> str:
    """Return a file's text: in UTF-8, or in UTF-16 or UTF-32 as shells write it, with or without a byte order mark.

    Raises ``UnicodeDecodeError`` for anything else.
    """
    text = payload.decode(json.detect_encoding(payload))
    return text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").replace("\r\n", "\n")


def _no_checkpoint(file: Path) -> Invalid:
    return Invalid("the file holds no checkpoint", "Give the file as it was saved.", file=str(file))


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise Invalid("the file is too large for a receipt or a key", "Check its name.", file=str(file))
        return file.read_bytes()
    except FileNotFoundError:
        raise Invalid("there is no such file", "Check its name.", file=str(file)) from None
    except IsADirectoryError:
        raise Invalid("this is a folder", "Name the file in it.", file=str(file)) from None
