"""A client of the HTTP API, in Python: predictions, erasure requests, receipts, status. Loads neither Ray nor torch.

    from cluster.client import Client
    with Client("http://127.0.0.1:8000", token) as client:
        answers = client.predict([{"id": 1, "features": [0.1, 0.2]}])
        request = client.erase(subjects=["person-17"])

Errors are those of ``storage.errors``, by what the caller does next. What is away for now is asked for again, a few
times: every call may be repeated, erasures too, because the client names each of them itself.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import TypeAdapter, ValidationError

from coordinator.requests import RequestState
from coordinator.status import FederationStatus, RequestStatus
from shards.exchange import ARROW_STREAM, facts_of, stream_of, table_of_stream
from storage.errors import Conflict, Corrupt, Invalid, ObjectMissing, SisaError, Unavailable

_JSON: Final = "application/json"
_MOST_POINTS: Final = 1 << 40
_ATTEMPTS: Final = 6
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 10.0

_LOOK_SECONDS: Final = 0.5
"""How often it is looked whether a request is carried out."""

_OVER: Final = frozenset(state.value for state in RequestState if not state.is_open)

_KINDS: Final[Mapping[int, type[SisaError]]] = {404: ObjectMissing, 409: Conflict, 429: Unavailable, 503: Unavailable}
"""Which error an answer's status stands for; other 4xx: ``Invalid``, other 5xx: ``SisaError``."""

_Shape = TypeVar("_Shape")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RemoteAnswers:
    """Predictions, in the order asked."""

    generation: int
    constituents: int
    """How many answered, of ``shards``."""
    shards: int
    table: Any
    """A ``pyarrow.Table``: the id where there was one, ``prediction``, and ``probability_<class>`` for each class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Client:
    """One server and one token. May be used from any thread; its calls take turns on one connection."""

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        timeout_seconds: float = 60.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """``pause`` waits for so many seconds before something is asked for again. Connects at the first call.

        Raises ``Invalid`` when ``url`` is no address of an HTTP server.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
            raise Invalid("the address is none of an HTTP API", "write it like http://127.0.0.1:8000")
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._place = (parts.hostname, parts.port)
        self._prefix = parts.path.rstrip("/")
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._pause = pause
        self._lock = Lock()
        self._connection: HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next call opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def predict(self, data: Any) -> RemoteAnswers:
        """Return the ensemble's answers for a ``pyarrow.Table``, or a list of ``{"id": …, "features": …}``.

        Raises ``Invalid`` when the data do not fit, ``Unavailable`` when nothing can be answered now.
        """
        if isinstance(data, Sequence):
            body, media_type = json.dumps({"points": data}).encode(), _JSON
        else:
            body, media_type = stream_of(data), ARROW_STREAM
        headers = {"Content-Type": media_type, "Accept": ARROW_STREAM}
        table = table_of_stream(self._ask("POST", "/v1/predictions", body, headers).body, _MOST_POINTS)
        facts = facts_of(table)
        return RemoteAnswers(
            generation=facts["generation"], constituents=facts["constituents"], shards=facts["shards"], table=table
        )

    def erase(
        self,
        *,
        subjects: Iterable[str | int] = (),
        ids: Iterable[str | int] = (),
        request_id: str | None = None,
        held: str = "",
        wait_seconds: float = 0.0,
    ) -> RequestStatus:
        """Submit an erasure request and return it, accepted and durable; see ``Federation.erase``.

        With ``wait_seconds`` it is returned once it is over, paused or failed, or after so long.
        """
        named = request_id or f"er-{secrets.token_hex(6)}"
        body = json.dumps({"subjects": list(subjects), "ids": list(ids), "hold": held}).encode()
        headers = {"Content-Type": _JSON, "Idempotency-Key": named}
        status = _decoded(RequestStatus, self._ask("POST", "/v1/erasures", body, headers).body)
        waited = 0.0
        while waited < wait_seconds and status.state not in _OVER and status.state == status.stage:
            self._pause(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
            status = self.request(named)
        return status

    def request(self, request_id: str) -> RequestStatus:
        """Return how an erasure request stands. Raises ``ObjectMissing`` when there is none."""
        return _decoded(RequestStatus, self._ask("GET", f"/v1/erasures/{quote(request_id, safe='')}").body)

    def receipt(self, request_id: str) -> bytes:
        """Return a request's receipt: what ``sisa receipt --check`` verifies. Raises ``ObjectMissing``."""
        return self._ask("GET", f"/v1/erasures/{quote(request_id, safe='')}/receipt").body

    def status(self) -> FederationStatus:
        """Return how the federation stands; the requests only for the role audit."""
        return _decoded(FederationStatus, self._ask("GET", "/v1/status").body)

    def is_healthy(self) -> bool:
        """Return whether a replica can answer now. Raises ``Unavailable`` when no server does."""
        return self._exchange("GET", "/healthz", None, {}).status == 200

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> _Reply:
        """Return a good answer, asking again while the server, or something behind it, is away."""
        sent = {**(headers or {}), **({"Authorization": f"Bearer {self._token}"} if self._token else {})}
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                reply = self._exchange(method, path, body, sent)
            except Unavailable:
                if last:
                    raise
                reply = None
            if reply is not None and (reply.status not in (429, 503) or last):
                return _good(reply)
            self._pause(_pause_seconds(attempt, reply))
        raise AssertionError

    def _exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> _Reply:
        with self._lock:
            connection = self._connection or self._kind(*self._place, timeout=self._timeout_seconds)
            self._connection = connection
            try:
                connection.request(method, self._prefix + path, body=body, headers=dict(headers))
                answer = connection.getresponse()
                names = {name.lower(): value for name, value in answer.getheaders()}
                return _Reply(status=answer.status, headers=names, body=answer.read())
            except (OSError, HTTPException) as error:
                self.close()
                raise Unavailable(
                    f"the server does not answer: {type(error).__name__}",
                    "check the address, and that 'sisa serve' runs there",
                    server=f"{self._place[0]}:{self._place[1] or 'default port'}",
                ) from error


def _pause_seconds(attempt: int, reply: _Reply | None) -> float:
    """Return how long to wait before the next attempt: as long as the server says, or ever longer."""
    said = reply.headers.get("retry-after", "") if reply else ""
    wanted = float(said) if said.isdecimal() else _FIRST_PAUSE_SECONDS * 2.0**attempt
    return min(wanted, _LONGEST_PAUSE_SECONDS)


def _good(reply: _Reply) -> _Reply:
    """Return the reply if it is a success. Raises the error that it stands for otherwise."""
    if 200 <= reply.status < 300:
        return reply
    try:
        told = json.loads(reply.body)["error"]
        fact, remedy = str(told["message"]), str(told["remedy"])
    except (ValueError, KeyError, TypeError):  # not the API: a proxy before it, or another server
        fact, remedy = f"the server answered with status {reply.status}, not as the API does", "check the address"
    others = Invalid if 400 <= reply.status < 500 else SisaError
    raise _KINDS.get(reply.status, others)(fact, remedy)


def _decoded(shape: type[_Shape], body: bytes) -> _Shape:
    try:
        return TypeAdapter(shape).validate_json(body)
    except ValidationError as error:
        raise Corrupt("the server's answer is not what the API's version 1 says", "upgrade one of the two") from error
