"""The gate: who asks, whether they may, and how often."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

from cluster.serving.http_errors import HttpProblem, Refused
from cluster.tokens import Role, TokenRecord, TokenRegister, known_token
from coordinator.ports import Clock
from storage.errors import SisaError, Unavailable

_STALE_REFRESHES: Final = 5
"""After this many refreshes without an answer from the store, no token is accepted."""

_HASTY_READS: Final = 10
"""An unknown token may be new, so the register is read again; at most this many times a second."""

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="sisa"'}


@dataclass(slots=True)
class _Bucket:
    """A token bucket: a number of allowed calls that refills evenly."""

    most: float
    per_second: float
    left: float
    at: float

    def take(self, now: float) -> float:
        """Take one call and return 0; if none is left, return the seconds until there is one."""
        self.left = min(self.most, self.left + (now - self.at) * self.per_second)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / self.per_second
        self.left -= 1
        return 0.0


class Gate:
    """One replica's knowledge of tokens. May be used from any thread; ``admit`` seldom reads the store."""

    def __init__(
        self,
        register: TokenRegister,
        clock: Clock,
        *,
        refresh_seconds: float,
        per_minute: int,
        lookups_per_minute: int,
    ) -> None:
        self._register = register
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._per_minute = per_minute
        self._lookups_per_minute = lookups_per_minute
        self._lock = Lock()
        """Guards all fields below; ``_records`` and ``_read_at`` are read without it, as each is replaced as a
        whole."""
        self._records: tuple[TokenRecord, ...] = ()
        self._read_at: float | None = None
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._haste = _Bucket(_HASTY_READS, _HASTY_READS, _HASTY_READS, clock.monotonic())

    def refresh(self) -> None:
        """Read the register again if that is due."""
        if self._is_older_than(self._refresh_seconds):
            self._read()

    @property
    def tokens(self) -> tuple[TokenRecord, ...]:
        """All tokens, as the register was last read; touches nothing."""
        return self._records

    def admit(self, headers: Mapping[str, str], *roles: Role) -> TokenRecord:
        """Return the token of an admitted request.

        Raises ``Refused`` with 401 without a valid token, 403 if its role is not one of ``roles``, 429 if it asks too
        often; ``Unavailable`` if the register of tokens cannot be read.
        """
        return self._admitted(self._known(_bearer(headers)), roles)

    def admit_from_memory(self, headers: Mapping[str, str], *roles: Role) -> TokenRecord | None:
        """Do what ``admit`` does, for an event loop; None: the register has to be read first."""
        text = _bearer(headers)
        is_stale = self._is_older_than(self._refresh_seconds * _STALE_REFRESHES)
        record = None if is_stale else known_token(self._records, text)
        return None if record is None else self._admitted(record, roles)

    def _admitted(self, record: TokenRecord, roles: Collection[Role]) -> TokenRecord:
        self._refuse_over(record)
        if record.role not in roles:
            raise Refused(
                HttpProblem(
                    status=403,
                    kind="forbidden",
                    message=f"a token with the role '{record.role}' may not do this",
                    remedy=f"Use one with the role {' or '.join(map(repr, roles))}.",
                )
            )
        self._count(record, self._per_minute, "asks")
        return record

    def check_still(self, record: TokenRecord) -> None:
        """Raise ``Refused`` with 401 once an admitted token has expired or is revoked; counts nothing."""
        if self._is_older_than(self._refresh_seconds * _STALE_REFRESHES):
            self._read()
        self._refuse_over(next((each for each in self._records if each.token_id == record.token_id), record))

    def count_lookup(self, record: TokenRecord) -> None:
        """Count one look-up of the token. Raises ``Refused`` with 429 if it has none left."""
        self._count(record, self._lookups_per_minute, "looks people up")

    def _known(self, text: str) -> TokenRecord:
        if self._is_older_than(self._refresh_seconds * _STALE_REFRESHES):
            self._read()
        record = known_token(self._records, text)
        if record is None and self._may_hurry():
            self._read()
            record = known_token(self._records, text)
        if record is None:
            raise _unauthorized("the token is not known", "Ask the operator for one: 'sisa token create'.")
        return record

    def _refuse_over(self, record: TokenRecord) -> None:
        if record.is_over(self._clock.now()):
            state = "was revoked" if record.revoked_at else "has expired"
            raise _unauthorized(f"the token {state}", "Ask the operator for a new one: 'sisa token create'.")

    def _may_hurry(self) -> bool:
        with self._lock:
            return not self._haste.take(self._clock.monotonic())

    def _count(self, record: TokenRecord, most: int, does: str) -> None:
        """Count one request of this kind (``does``) by the token.

        Raises ``Refused`` with 429 above ``most`` per minute.
        """
        now = self._clock.monotonic()
        with self._lock:
            wait = self._buckets.setdefault((record.token_id, does), _Bucket(most, most / 60, most, now)).take(now)
        if not wait:
            return
        raise Refused(
            HttpProblem(
                status=429,
                kind="rate_limited",
                message=f"this token {does} more than {most:,} times a minute",
                remedy="Wait as long as Retry-After says. Ask for more in one request.",
                headers={"Retry-After": str(int(wait) + 1)},
            )
        )

    def _is_older_than(self, seconds: float) -> bool:
        return self._read_at is None or self._clock.monotonic() - self._read_at > seconds

    def _read(self) -> None:
        at = self._clock.monotonic()
        try:
            records = self._register.records()
        except SisaError as error:
            raise Unavailable("the register of tokens cannot be read", error.remedy or "Try again.") from error
        with self._lock:
            if self._read_at is None or at >= self._read_at:  # another thread may have begun later and ended sooner
                self._records, self._read_at = records, at


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise _unauthorized("a bearer token is needed", "Send 'Authorization: Bearer ...'; see 'sisa token create'.")
    return text.strip()


def _unauthorized(message: str, remedy: str) -> Refused:
    return Refused(HttpProblem(status=401, kind="unauthorized", message=message, remedy=remedy, headers=_CHALLENGE))
