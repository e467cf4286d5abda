"""Bearer tokens: who may do what over HTTP, kept as digests.

    control/tokens         compare-and-swap; of every token ever made its id, role, times and the digest of its secret
    control/sign-in-key    created once; under it the console's cookies hold tokens, encrypted

A token is 256 random bits, shown once when it is made. Its SHA-256 is enough to recognise it: nobody can try 2**256
secrets, so that a slow hash would only slow the answers. To replace a token, make a new one and revoke the old one.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, cast, get_args

from coordinator.ports import Clock
from storage.digests import Json, Sha256, sha256
from storage.errors import Invalid
from storage.objects import ObjectStore, object_key
from storage.records import decode_record, encode_record
from storage.registers.create_once import create_or_read
from storage.registers.record import RecordRegister

Role = Literal["predict", "erase", "audit", "officer", "federate"]
"""``predict``: predictions, and the federation's status. ``erase``: submits erasure requests, and reads those that it
submitted itself, with their receipts. ``audit``: reads all requests, receipts and the status, and changes nothing.
``officer``: submits requests, pauses, releases, extends and cancels them, reads all of them, receipts and the status.
``federate``: for the server of a federation that this one is a site of: predictions, erasure requests, receipts, the
status, the site's standing, its withdrawal, and where weights may leave its checkpoints."""

TOKENS_KEY: Final = object_key("control/tokens")
SIGN_IN_KEY: Final = object_key("control/sign-in-key")

_SECRET_BYTES: Final = 32
_TOKEN = re.compile(r"sisa_([0-9a-f]{12})_([0-9a-f]{64})")
_MOST_DAYS: Final = 3650


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """What the store keeps of a token; its secret cannot be derived from it."""

    token_id: str
    """12 hexadecimal digits, not secret: they name the token in lists and logs."""
    role: Role
    digest: Sha256 = field(repr=False)
    note: str
    """For whom or what, without personal data."""
    created_at: str
    """UTC, ISO 8601, as the others."""
    expires_at: str
    revoked_at: str = ""
    """Empty: it is not revoked."""

    @property
    def sees_only_its_own(self) -> bool:
        """Whether the token sees only the erasure requests that were submitted with it."""
        return self.role == "erase"

    def is_over(self, now: datetime) -> bool:
        """Return whether it has expired or was revoked."""
        return bool(self.revoked_at) or datetime.fromisoformat(self.expires_at) <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token that was just made: its secret is shown only now."""

    text: str = field(repr=False)
    """What callers send as ``Authorization: Bearer ...``."""
    record: TokenRecord


class TokenRegister:
    """The tokens of one federation. Holds no state: every call reads the store."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._record = RecordRegister(store=store, key=TOKENS_KEY, field_names=frozenset({"tokens"}))
        self._clock = clock

    def create(self, role: str, *, days: float, note: str = "") -> NewToken:
        """Make a token that expires after ``days``; durable when this returns.

        Raises ``Invalid`` for an unknown role, days outside 0 .. 3650, or a note that cannot be shown.
        """
        if role not in get_args(Role):
            raise Invalid(f"a token's role is one of {', '.join(get_args(Role))}, got {role!r}", "Name one of them.")
        if not 0 < days <= _MOST_DAYS:
            raise Invalid(f"a token lives above 0 and at most {_MOST_DAYS} days, got {days:g}", "Choose other --days.")
        if len(note) > 200 or not (note.isprintable() or not note):
            raise Invalid("a token's note is at most 200 printable characters", "Shorten it: it is shown in lists.")
        token_id, secret, now = secrets.token_hex(6), secrets.token_hex(_SECRET_BYTES), self._clock.now()
        record = TokenRecord(
            token_id=token_id,
            role=cast("Role", role),
            digest=_digest(secret),
            note=note,
            created_at=_text(now),
            expires_at=_text(now + timedelta(days=days)),
        )
        self._change(lambda records: records if record in records else (*records, record))
        return NewToken(text=f"sisa_{token_id}_{secret}", record=record)

    def records(self) -> tuple[TokenRecord, ...]:
        """Return the records of all tokens ever made, in the order of their creation. Raises ``Corrupt``."""
        return _decoded(self._record.read())

    def revoke(self, token_id: str) -> TokenRecord:
        """Revoke a token for good; durable when this returns. Raises ``Invalid`` when there is no such token."""
        revoked_at = _text(self._clock.now())

        def revoked(records: tuple[TokenRecord, ...]) -> tuple[TokenRecord, ...]:
            if token_id not in {each.token_id for each in records}:
                raise Invalid("there is no such token", "See 'sisa token list'.", token=token_id[:40])
            is_meant = (each.token_id == token_id and not each.revoked_at for each in records)
            return tuple(
                replace(each, revoked_at=revoked_at) if meant else each
                for each, meant in zip(records, is_meant, strict=True)
            )

        return next(each for each in self._change(revoked) if each.token_id == token_id)

    def _change(self, changed: Callable[[tuple[TokenRecord, ...]], tuple[TokenRecord, ...]]) -> tuple[TokenRecord, ...]:
        """Write the result of ``changed`` for the records, and return it; see ``RecordRegister.change``."""
        return _decoded(self._record.change(lambda fields: _encoded(changed(_decoded(fields)))))


def known_token(records: Sequence[TokenRecord], text: str) -> TokenRecord | None:
    """Return the record of the token ``text``, even if it is expired or revoked; None if it is not a known token.

    Takes as long for a wrong secret as for the right one.
    """
    parts = _TOKEN.fullmatch(text)
    if parts is None:
        return None
    token_id, secret = parts.groups()
    found = next((each for each in records if each.token_id == token_id), None)
    is_right = hmac.compare_digest(_digest(secret), found.digest if found else _digest(token_id))
    return found if is_right else None


def sign_in_key(store: ObjectStore) -> bytes:
    """Return the key under which cookies of the console hold tokens: drawn once, the same for every replica."""
    made = encode_record({"key": secrets.token_hex(_SECRET_BYTES)})
    kept: Any = decode_record(create_or_read(store, SIGN_IN_KEY, made), SIGN_IN_KEY, frozenset({"key"}))
    return bytes.fromhex(kept["key"])


def _digest(secret: str) -> Sha256:
    return sha256(b"sisa/token/" + secret.encode())


def _encoded(records: Sequence[TokenRecord]) -> dict[str, Json]:
    return {"tokens": [{name: getattr(each, name) for name in TokenRecord.__slots__} for each in records]}


def _decoded(fields: Mapping[str, Json] | None) -> tuple[TokenRecord, ...]:
    listed: Any = fields["tokens"] if fields else ()
    return tuple(TokenRecord(**each) for each in listed)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
