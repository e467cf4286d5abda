"""Signing in to the console: the cookie that stands for a token, and the checks of where a form came from.

The cookie holds the token encrypted, so that a stolen cookie is a sign-in that ends, and not the token. Its key is in
the store, because every replica must be able to read it; the key alone opens nothing without a cookie. Each request
passes the token to the gate, so that revocation, expiry and limits are those of the API.

    cookie    base64url of the encrypted JSON [token, end of the sign-in in UTC, secret of its forms]
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Final
from urllib.parse import urlsplit

from cluster.serving.http_errors import HttpProblem, Refused
from cluster.tokens import SIGN_IN_KEY, TokenRecord, sign_in_key
from coordinator.ports import Clock
from storage.encryption.cipher import decrypt, encrypt, fresh_nonce
from storage.errors import Corrupt
from storage.objects import ObjectStore

COOKIE: Final = "sisa_console"
SIGN_IN_HOURS: Final = 12
"""How long somebody stays signed in: a working day."""

_MOST_COOKIE: Final = 2048
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a cookie holds."""

    token: str = field(repr=False)
    ends_at: datetime
    csrf: str = field(repr=False)
    """Repeated in every form; another site's page does not know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A signed-in user, with a token that the gate has just admitted."""

    token: TokenRecord
    csrf: str = field(repr=False)
    ends_at: datetime


class SignIns:
    """Makes and reads cookies. Its methods may read the store once, so they are for threads."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = Lock()
        self._key: bytes | None = None  # under ``_lock``

    def seal(self, token: str) -> str:
        """Return a new cookie's value for ``token``."""
        ends_at = self._clock.now() + timedelta(hours=SIGN_IN_HOURS)
        held = json.dumps([token, ends_at.isoformat(timespec="seconds"), secrets.token_hex(16)])
        return base64.urlsafe_b64encode(encrypt(held.encode(), SIGN_IN_KEY, self._secret(), fresh_nonce())).decode()

    def open(self, cookie: str) -> Opened:
        """Return the content of a cookie.

        Raises ``Refused`` with 401 unless this system made it and it has not expired.
        """
        if not cookie or len(cookie) > _MOST_COOKIE:
            raise signed_out("nobody is signed in")
        try:
            sealed = base64.b64decode(cookie.encode("ascii"), altchars=b"-_", validate=True)
            token, end, csrf = json.loads(decrypt(sealed, SIGN_IN_KEY, self._secret()))
        except (Corrupt, ValueError, binascii.Error):
            raise signed_out("this browser's sign-in is not valid here") from None
        ends_at = datetime.fromisoformat(end)
        if ends_at <= self._clock.now():
            raise signed_out(f"you were signed in for {SIGN_IN_HOURS} hours, and that is over")
        return Opened(token=token, ends_at=ends_at, csrf=csrf)

    def _secret(self) -> bytes:
        with self._lock:
            if self._key is None:
                self._key = sign_in_key(self._store)
            return self._key


def signed_out(message: str) -> Refused:
    """Return the refusal of a request without a sign-in."""
    return Refused(HttpProblem(status=401, kind="unauthorized", message=message, remedy="Sign in with a token."))


def check_origin(headers: Mapping[str, str]) -> None:
    """Raise ``Refused`` with 403 when a browser says that another site's page sends this form."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        is_own = site in {"same-origin", "none"}
    else:
        is_own = origin is None or _is_at(origin, headers.get("host", ""))
    if not is_own:
        raise _foreign("the form was sent from a page of another site")


def check_secret(given: str, wanted: str) -> None:
    """Raise ``Refused`` with 403 unless the form has the secret of this sign-in."""
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        raise _foreign("the form was made for another sign-in, or by another site")


def is_secure(scheme: str, headers: Mapping[str, str]) -> bool:
    """Return whether the cookie is for TLS alone: always, but when a browser on this machine uses plain HTTP."""
    return scheme == "https" or urlsplit(f"//{headers.get('host', '')}").hostname not in _LOOPBACK


def _is_at(origin: str, host: str) -> bool:
    return bool(host) and urlsplit(origin).netloc == host


def _foreign(message: str) -> Refused:
    remedy = "Open the page again and repeat it there. A proxy in front must pass on the header Host unchanged."
    return Refused(HttpProblem(status=403, kind="forbidden", message=message, remedy=remedy))
