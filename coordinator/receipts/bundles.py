"""Receipt bundles: a signed receipt with everything that is needed to check it offline, and the check. Pure.

{"format_version": 1,
 "envelope":  the DSSE envelope, whose canonical bytes are the log's leaf,
 "log":       {"index", "proof" (hexadecimal, lowest first), "checkpoint" (the signed note)},
 "keys":      [the two public keys, as published]}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from coordinator.receipts.kinds import PAYLOAD_TYPE, PREDICATE_TYPES, STATEMENT_TYPE, SUBJECT_NAME
from storage.digests import canonical_json
from storage.encodings import from_hex
from storage.errors import Corrupt, Invalid
from storage.transparency.checkpoint import OpenedCheckpoint, open_checkpoint
from storage.transparency.envelope import envelope_payload, open_envelope
from storage.transparency.keys import PublicKey, public_key_from_text
from storage.transparency.merkle import leaf_hash, verify_inclusion

FORMAT_VERSION: Final = 1

RECEIPTS: Final = "receipts"
"""Purpose of the keys that sign receipts."""
CHECKPOINTS: Final = "checkpoints"
"""Purpose of the keys that sign the log's checkpoints."""

_NAMES = {"format_version", "envelope", "log", "keys"}
_LOG_NAMES = {"index", "proof", "checkpoint"}

_Kind = TypeVar("_Kind", str, int, list[Any], dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptBundle:
    """A receipt, in the form that is handed out."""

    envelope: bytes
    """The signed statement, in canonical form."""
    index: int
    """Its index in the log."""
    proof: tuple[bytes, ...]
    """The proof that it has this index under ``checkpoint``."""
    checkpoint: str
    """The signed note."""
    keys: tuple[PublicKey, ...]
    """The key that signed the envelope, then that of the checkpoint. Trust them only if you know them from
    elsewhere."""

    def to_bytes(self) -> bytes:
        """Return the bundle as canonical JSON."""
        return canonical_json(
            {
                "format_version": FORMAT_VERSION,
                "envelope": json.loads(self.envelope),
                "log": {
                    "index": self.index,
                    "proof": [each.hex() for each in self.proof],
                    "checkpoint": self.checkpoint,
                },
                "keys": [key.to_text() for key in self.keys],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptCheck:
    """The result of checking a bundle."""

    failures: tuple[str, ...]
    """The failed checks, by name; empty: the receipt is genuine if the keys are."""
    statement: dict[str, Any] | None = None
    """The in-toto Statement, if its signature is valid."""
    index: int = 0
    log_size: int = 0
    """Entries under the checkpoint, if its signature is valid."""
    log_root: bytes = b""
    """What they hash to, if its signature is valid."""
    origin: str = ""
    """The log's name, if the checkpoint's signature is valid."""

    @property
    def is_valid(self) -> bool:
        """Whether all checks passed."""
        return not self.failures

    @property
    def request_id(self) -> str | None:
        """The request that the receipt is for; None when its signature is invalid."""
        return str(self.statement["predicate"]["request"]["id"]) if self.statement else None


def bundle_from_bytes(payload: bytes) -> ReceiptBundle:
    """Return the bundle that ``to_bytes`` wrote; ``to_bytes`` of it gives ``payload`` again.

    Raises ``Corrupt`` for any other bytes, ``Invalid`` when a newer version wrote it.
    """
    fields = _parsed(payload)
    log = _typed(fields, "log", dict)
    if log.keys() != _LOG_NAMES:
        raise _no_bundle("log")
    try:
        keys = tuple(public_key_from_text(str(text)) for text in _typed(fields, "keys", list))
    except Invalid as error:
        raise _no_bundle("keys") from error
    bundle = ReceiptBundle(
        envelope=canonical_json(_typed(fields, "envelope", dict)),
        index=_typed(log, "index", int),
        proof=tuple(from_hex(str(text)) for text in _typed(log, "proof", list)),
        checkpoint=_typed(log, "checkpoint", str),
        keys=keys,
    )
    if bundle.to_bytes() != payload:
        raise _no_bundle("spelling")
    return bundle


def verify_bundle(bundle: ReceiptBundle, keys: Sequence[PublicKey]) -> ReceiptCheck:
    """Check whether the bundle is genuine, using only ``keys`` and the bundle.

    1. The envelope is signed by a receipts key among ``keys``.
    2. It holds a statement of this system about one request.
    3. The checkpoint is signed by a checkpoints key among ``keys``.
    4. The proof shows the envelope at its index under that checkpoint.
    5. The keys named in the bundle are those that signed.
    """
    failures: list[str] = []
    found, signer = _check_envelope(bundle, keys, failures)
    opened = _check_checkpoint(bundle, keys, failures)
    if opened is not None:
        _check_inclusion(bundle, opened, failures)
    if signer is not None and opened is not None and bundle.keys != (signer, opened.key):
        failures.append("the bundle names other public keys than those that signed it")
    return ReceiptCheck(
        failures=tuple(failures),
        statement=found,
        index=bundle.index,
        log_size=opened.checkpoint.size if opened else 0,
        log_root=opened.checkpoint.root if opened else b"",
        origin=opened.checkpoint.origin if opened else "",
    )


def statement_of(bundle: ReceiptBundle) -> dict[str, Any]:
    """Return the statement in the bundle, unchecked. Raises ``Corrupt`` when it does not hold one."""
    return read_statement(envelope_payload(bundle.envelope))


def read_statement(payload: bytes) -> dict[str, Any]:
    """Return the in-toto Statement of a receipt. Raises ``Corrupt`` when it is not one."""
    try:
        found = json.loads(payload)
        canonical = canonical_json(found) == payload
    except (ValueError, RecursionError):
        raise _no_statement() from None
    if not canonical or not isinstance(found, dict) or not _is_ours(found):
        raise _no_statement()
    return found


def _check_envelope(
    bundle: ReceiptBundle, keys: Sequence[PublicKey], failures: list[str]
) -> tuple[dict[str, Any] | None, PublicKey | None]:
    """Do steps 1 and 2."""
    try:
        opened = open_envelope(bundle.envelope, PAYLOAD_TYPE, _for(RECEIPTS, keys))
    except Corrupt as error:
        failures.append(f"the receipt's signature: {error.fact}")
        return None, None
    try:
        return read_statement(opened.payload), opened.key
    except Corrupt as error:
        failures.append(f"the receipt's content: {error.fact}")
        return None, opened.key


def _check_checkpoint(bundle: ReceiptBundle, keys: Sequence[PublicKey], failures: list[str]) -> OpenedCheckpoint | None:
    """Do step 3."""
    try:
        return open_checkpoint(bundle.checkpoint, _for(CHECKPOINTS, keys))
    except Corrupt as error:
        failures.append(f"the log's checkpoint: {error.fact}")
        return None


def _check_inclusion(bundle: ReceiptBundle, opened: OpenedCheckpoint, failures: list[str]) -> None:
    """Do step 4."""
    included = verify_inclusion(
        leaf=leaf_hash(bundle.envelope),
        index=bundle.index,
        size=opened.checkpoint.size,
        proof=bundle.proof,
        root=opened.checkpoint.root,
    )
    if not included:
        failures.append("the inclusion proof: it does not show this receipt at this place of the log")


def _for(purpose: str, keys: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
    return tuple(key for key in keys if key.purpose == purpose)


def _is_ours(found: dict[str, Any]) -> bool:
    """Return whether the statement has the expected types, and names the same request in both places."""
    match found:
        case {
            "_type": str(kind),
            "predicateType": str(predicate_type),
            "subject": [{"name": str(name), "digest": {"sha256": str(subject)}}],
            "predicate": {"request": {"id": str(), "digest": str(digest)}},
        }:
            return predicate_type in PREDICATE_TYPES and (kind, name, subject) == (STATEMENT_TYPE, SUBJECT_NAME, digest)
        case _:
            return False


def _parsed(payload: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(payload)
        canonical = canonical_json(fields) == payload
    except (ValueError, RecursionError):
        raise _no_bundle("JSON") from None
    if not isinstance(fields, dict) or not canonical:
        raise _no_bundle("spelling")
    version = fields.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise Invalid(
            f"the receipt was written in format {version}, this version reads up to {FORMAT_VERSION}",
            "Upgrade sisa-ray.",
        )
    if fields.keys() != _NAMES or type(version) is not int or version != FORMAT_VERSION:
        raise _no_bundle("fields")
    return fields


def _typed(fields: dict[str, Any], name: str, kind: type[_Kind]) -> _Kind:
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, kind):  # a bool is an int, but not one of ours
        raise _no_bundle(name)
    return value


def _no_bundle(part: str) -> Corrupt:
    return Corrupt("this is not a receipt of ours, or it was altered", "Get it again from its issuer.", part=part)


def _no_statement() -> Corrupt:
    return Corrupt("this is not an erasure receipt's statement", "Get it again from its issuer.")
