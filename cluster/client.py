"""A client of the HTTP API, in Python: predictions, erasure requests, receipts, status. Loads neither Ray nor torch.

    from cluster.client import Client
    with Client("http://127.0.0.1:8000", token) as client:
        answers = client.predict([{"id": 1, "features": [0.1, 0.2]}])
        request = client.erase(subjects=["person-17"])

Errors are those of ``storage.errors``, by what the caller does next. The client retries a call a few times while the
server is away. That is safe for erasures, too, because the client gives each one its request id. ``hold``, ``release``,
``extend`` and ``cancel`` are sent once, because a second one would be a conflict: after ``Unavailable`` the caller
first reads the request's status.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from ipaddress import ip_address
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

from pydantic import TypeAdapter, ValidationError

from cluster.release import HEADER, refuse_other_contract, release_in
from cluster.results.federation import ErasureAnswer, ReadmissionAnswer, SubjectFound, SubjectsFound
from cluster.results.sites import SitesStatus
from cluster.results.traces import SubjectTraces
from coordinator.aggregation import AnsweredBy, ModelFailed
from coordinator.effects import HoldoutMeasure
from coordinator.requests import RequestState
from coordinator.sites import SiteStanding, TookPart
from coordinator.status import FederationStatus, RequestStatus
from shards.data.frames import plain_table, table_of
from shards.data.messages import ARROW_STREAM, facts_of, metadata_texts, stream_of, table_of_stream
from shards.learner_kinds.guarantees import EXACT
from storage.errors import Conflict, Corrupt, Invalid, ObjectMissing, SisaError, Unavailable
from storage.objects import new_name
from storage.release import RELEASE

_JSON: Final = "application/json"
_MOST_POINTS: Final = 1 << 40
_ATTEMPTS: Final = 6
_MOST_BYTES: Final = 1 << 40
_PIECE_BYTES: Final = 1 << 20
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 10.0

_LOOK_SECONDS: Final = 0.5
"""How often the client checks whether a request is carried out."""

_ANY_STATUS: Final[Any] = FederationStatus | SitesStatus

_OVER: Final = frozenset(state.value for state in RequestState if not state.is_open)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")
"""The request ids that the API accepts; without HTTP other printable characters are allowed, too."""

_KINDS: Final[Mapping[int, type[SisaError]]] = {404: ObjectMissing, 409: Conflict, 429: Unavailable, 503: Unavailable}
"""The error that each HTTP status becomes; other 3xx and 4xx: ``Invalid``, the rest: ``SisaError``."""

MODEL_FAILED: Final = "model_failed"
"""The kind of a server's error that stands for ``ModelFailed``."""

_Shape = TypeVar("_Shape")


class NotAllowed(Invalid):
    """The server does not let this token do this."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RemoteAnswers(AnsweredBy):
    """Predictions, in the order asked."""

    table: Any
    """A ``pyarrow.Table``: the id if there was one, ``prediction``, and ``probability_<class>`` for each class."""
    sites: tuple[TookPart, ...] = ()
    """The sites that answered, where a federation of several sites was asked."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Why each of the other sites has no part in the answers, by site."""

    def __repr__(self) -> str:
        return (
            f"RemoteAnswers({self.table.num_rows} predictions, generation {self.generation},"
            f" constituents {self.constituents} of {self.shards})"
        )


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
        attempts: int = _ATTEMPTS,
        most_bytes: int = _MOST_BYTES,
        trust: ssl.SSLContext | None = None,
        contract: Sequence[str] = ("api",),
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect at the first call. ``pause`` sleeps for the given number of seconds before a retry.

        While the server is away, each call is tried ``attempts`` times, and each attempt ends after ``timeout_seconds``
        of silence. An answer of more than ``most_bytes`` is refused. ``trust`` holds the certificate authorities that
        the client trusts; default: this machine's. A server that speaks another version of a part of the ``contract``
        is refused: ``OtherRelease``.

        Raises ``Invalid`` when ``url`` is not the address of an HTTP server, or ``token`` cannot be sent.
        """
        parts = _address(url)
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise Invalid("not a valid token: it has characters that no token has", "Copy the whole token again.")
        self._is_secure = parts.scheme == "https"
        self._trust = trust
        self._attempts = attempts
        self._most_bytes = most_bytes
        self._place = (parts.hostname or "", parts.port)
        self._prefix = parts.path.rstrip("/")
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._contract = contract
        self._said = ""  # without a lock: replaced as a whole, and all answers come from one server
        self._pause = pause
        self._lock = Lock()
        self._connection: HTTPConnection | None = None  # under ``_lock``, as is the exchange over it
        # ``close`` takes no lock: called from another thread, it breaks off the exchange under way.

    def __repr__(self) -> str:
        host, port = self._place  # never the token
        where = f"[{host}]" if ":" in host else host
        scheme = "https" if self._is_secure else "http"
        return f"Client('{scheme}://{where}{f':{port}' if port else ''}{self._prefix}')"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def can_be_overheard(self) -> bool:
        """Whether others on the network can read what is sent, the token included: plain HTTP to another machine."""
        return not self._is_secure and not _is_here(self._place[0])

    @property
    def server_release(self) -> str:
        """The release that the server runs, as its last answer said; empty when it has not said so."""
        return release_in(self._said)

    def close(self) -> None:
        """End the connection; the next call opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def predict(self, data: Any) -> RemoteAnswers:
        """Return the ensemble's answers for a table or frame, or a list of ``{"id": …, "features": …}``.

        A table is a ``pyarrow.Table``, a pandas or polars frame, or any object that supports one of Arrow's protocols.

        Raises ``Invalid`` when the data do not fit, ``Unavailable`` when the ensemble cannot answer now.
        """
        if isinstance(data, Sequence):
            body, media_type = json.dumps({"points": data}, default=_as_text).encode(), _JSON
        else:
            body, media_type = stream_of(plain_table(table_of(data))), ARROW_STREAM
        headers = {"Content-Type": media_type, "Accept": ARROW_STREAM}
        reply = self._ask("POST", "/v1/predictions", body, headers)
        try:
            table = table_of_stream(reply.body, _MOST_POINTS)
            facts, texts = facts_of(table), metadata_texts(table)
            return RemoteAnswers(
                generation=facts["generation"],
                constituents=facts["constituents"],
                shards=facts["shards"],
                guarantee=self._decoded(str, texts.get("guarantee", f'"{EXACT}"').encode()),
                table=table,
                sites=self._decoded(tuple[TookPart, ...], texts.get("sites", "[]").encode()),
                absent=self._decoded(dict[str, str], texts.get("absent", "{}").encode()),
            )
        except (Invalid, KeyError, ValueError):
            raise self._strange() from None

    def erase(
        self,
        *,
        subjects: Iterable[str | int] = (),
        ids: Iterable[str | int] = (),
        request_id: str | None = None,
        held: str = "",
        wait_seconds: float = 0.0,
        site: str | None = None,
        include_similar: bool = False,
    ) -> ErasureAnswer:
        """Submit an erasure request and return it, accepted and durable; see ``Federation.erase``.

        With ``wait_seconds`` the call returns once the request is over, paused or failed, or after that many seconds.
        ``site`` is the only site where a federation of several looks for the names. Repeat a request that was carried
        out to learn which of its names are unknown; with ``wait_seconds`` the client does so itself.
        """
        named = _checked_id(request_id)
        body = {
            "subjects": list(subjects),
            "ids": list(ids),
            "hold": held,
            **({} if site is None else {"site": site}),
            **({"include_similar": True} if include_similar else {}),  # servers of older releases do not know it
        }
        answer = self._submit(body, named)
        seen = [answer.request, *self.follow(answer, wait_seconds, site)]
        return brought_up_to(answer, seen[-1], lambda: self._submit(body, named))

    def erase_everyone(self, request_id: str) -> ErasureAnswer:
        """Submit the request that erases everybody who has a data point there; the same id is the same request.

        For a federation whose site leaves it: the role federate. Raises ``Conflict`` when the id was used before, and
        there are data points nevertheless.
        """
        return self._submit({"everyone": True}, request_id)

    def follow(self, request: RequestStatus, wait_seconds: float, site: str | None = None) -> Iterator[RequestStatus]:
        """Yield the request's status repeatedly until it is over, paused or failed, or ``wait_seconds`` have passed."""
        waited = 0.0
        while waited < wait_seconds and request.state not in _OVER and request.state == request.stage:
            self._pause(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
            request = self.request(request.request_id, site)
            yield request

    def request(self, request_id: str, site: str | None = None) -> RequestStatus:
        """Return the status of an erasure request. Raises ``ObjectMissing`` when there is no such request."""
        return self._decoded(RequestStatus, self._ask("GET", _request_path(request_id, "", site)).body)

    def receipt(self, request_id: str, site: str | None = None) -> bytes:
        """Return a request's receipt: what ``sisa receipt --check`` verifies. Raises ``ObjectMissing``."""
        return self._ask("GET", _request_path(request_id, "/receipt", site)).body

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """Return what the federation holds of each subject, in their order; see ``Federation.lookup``. Role officer.

        Raises ``Invalid`` for more than 100 names, and at a site that the federation may not ask.
        """
        names = list(subjects)
        payload = json.dumps({"subjects": names}).encode()
        reply = self._ask("POST", "/v1/subjects:lookup", payload, {"Content-Type": _JSON})
        found = self._decoded(SubjectsFound, reply.body)
        if len(found.subjects) != len(names):
            raise self._strange()
        return found.subjects

    def trace(self, subjects: Iterable[str | int]) -> SubjectTraces:
        """Return what is on record of each subject, in their order; see ``Federation.trace``. Role officer.

        Raises ``Invalid`` for more than 100 names.
        """
        names = list(subjects)
        payload = json.dumps({"subjects": names}).encode()
        reply = self._ask("POST", "/v1/subjects:trace", payload, {"Content-Type": _JSON})
        found = self._decoded(SubjectTraces, reply.body)
        if len(found.subjects) != len(names):
            raise self._strange()
        return found

    def readmit(self, subjects: Iterable[str | int], reason: str, request_id: str | None = None) -> ReadmissionAnswer:
        """Let erased subjects come back; see ``Federation.readmit``. Role officer.

        Without a ``request_id`` one is drawn here, so that a repetition after a lost answer is the same readmission.
        """
        names = list(subjects)
        named = _checked_id(request_id)
        headers = {"Content-Type": _JSON, "Idempotency-Key": named}
        payload = json.dumps({"subjects": names, "reason": reason}).encode()
        answer = self._decoded(ReadmissionAnswer, self._ask("POST", "/v1/subjects:readmit", payload, headers).body)
        if not all(0 <= position < len(names) for position in answer.unknown_subjects):
            raise self._strange()
        return replace(answer, unknown_names=tuple(str(names[position]) for position in answer.unknown_subjects))

    def hold(self, request_id: str, reason: str) -> RequestStatus:
        """Pause a request none of whose points are removed yet, such as for a legal hold; its due date moves along.

        ``hold``, ``release``, ``extend`` and ``cancel`` need the role officer. They raise ``ObjectMissing`` when there
        is no such request, ``Invalid`` when the reason or the days are not acceptable, ``Conflict`` when it is too
        late, ``Unavailable`` when no coordinator is at work or the outcome is unknown.
        """
        return self._change(request_id, "hold", reason=reason)

    def release(self, request_id: str) -> RequestStatus:
        """End a request's pause: it is carried out."""
        return self._change(request_id, "release")

    def extend(self, request_id: str, days: int, reason: str) -> RequestStatus:
        """Move a request's due date, once, and before it is overdue."""
        return self._change(request_id, "extend", days=days, reason=reason)

    def cancel(self, request_id: str, reason: str) -> RequestStatus:
        """Withdraw a request none of whose points are removed yet."""
        return self._change(request_id, "cancel", reason=reason)

    def status(self) -> FederationStatus:
        """Return the federation's status; it includes requests only for the role audit.

        Raises ``Invalid`` when it is one of several sites, whose status has another shape.
        """
        found = self.status_of_any()
        if isinstance(found, SitesStatus):
            raise Invalid(
                "this is the server of a federation of several sites, whose status has another shape",
                "Ask for it as one of those: status_of_any() in Python, 'sisa status --url' without --watch.",
            )
        return found

    def status_of_any(self) -> FederationStatus | SitesStatus:
        """Return the status of a federation, with or without several sites; see ``status``."""
        found: FederationStatus | SitesStatus = self._decoded(_ANY_STATUS, self._ask("GET", "/v1/status").body)
        return found

    def standing(self, requests: int = 0) -> SiteStanding:
        """Return the site's standing, for a caller that knows its first ``requests`` requests; role federate."""
        return self._decoded(SiteStanding, self._ask("GET", f"/v1/standing?requests={requests}").body)

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """Return a checkpoint that the site serves now; role federate.

        Raises ``Invalid`` when no weights leave the site, ``ObjectMissing`` when the checkpoint is not served.
        """
        return self._ask("GET", f"/v1/checkpoints/{shard}/{quote(sha256, safe='')}").body

    def measure(self) -> HoldoutMeasure:
        """Return how well the site's own constituents do on its hold-out points; role federate.

        Raises ``Invalid`` when the site keeps that to itself, or has no hold-out points.
        """
        return self._decoded(HoldoutMeasure, self._ask("GET", "/v1/measure").body)

    def is_healthy(self) -> bool:
        """Return whether a replica can answer now. Raises ``Unavailable`` when no server does."""
        return self._exchange("GET", "/healthz", None, {}).status == 200

    def _submit(self, body: Mapping[str, Any], request_id: str) -> ErasureAnswer:
        headers = {"Content-Type": _JSON, "Idempotency-Key": request_id}
        reply = self._ask("POST", "/v1/erasures", json.dumps(body).encode(), headers)
        answer = self._decoded(ErasureAnswer, reply.body)
        subjects, ids = body.get("subjects", []), body.get("ids", [])
        for names, positions in ((subjects, answer.unknown_subjects), (ids, answer.unknown_ids)):
            if not all(0 <= position < len(names) for position in positions):
                raise self._strange()
        return answer.naming(subjects, ids)

    def _change(self, request_id: str, act: str, **body: object) -> RequestStatus:
        with self._lock:
            self.close()  # on a connection that the server has closed meanwhile, the call would be sent twice
        path, payload = _request_path(request_id, f"/{act}", None), json.dumps(body).encode()
        return self._decoded(RequestStatus, self._ask("POST", path, payload, {"Content-Type": _JSON}, attempts=1).body)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        attempts: int | None = None,
    ) -> _Reply:
        """Return a successful answer; retry while the server, or something behind it, is away.

        ``attempts`` defaults to the client's.
        """
        sent = {**(headers or {}), **({"Authorization": f"Bearer {self._token}"} if self._token else {})}
        most = self._attempts if attempts is None else attempts
        for attempt in range(most):
            last = attempt == most - 1
            try:
                reply = self._exchange(method, path, body, sent)
            except Unavailable:
                if last:
                    raise
                reply = None
            if reply is not None and (reply.status not in (429, 503) or last):
                self._said = reply.headers.get(HEADER.lower(), "")
                refuse_other_contract(self._said, self._contract)
                return _good(reply)
            self._pause(_pause_seconds(attempt, reply))
        raise AssertionError

    def _exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> _Reply:
        with self._lock:
            try:
                return self._exchanged(method, path, body, headers)
            except ssl.SSLCertVerificationError as error:
                self.close()
                raise Invalid(
                    "the server's certificate is not trusted",
                    "Check the address. If the server's authority is your own, name its file in SSL_CERT_FILE.",
                    server=self._place[0],
                ) from error
            except (OSError, HTTPException) as error:
                self.close()
                raise Unavailable(
                    f"the server does not answer: {type(error).__name__}",
                    "Check the address, and that 'sisa serve' runs there.",
                    server=f"{self._place[0]}:{self._place[1] or 'default port'}",
                ) from error

    def _exchanged(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> _Reply:
        if self._connection is not None:
            try:
                return self._over(self._connection, method, path, body, headers)
            except ConnectionError:  # the server has ended it since the last answer, as servers do
                self.close()
        self._connection = self._opened()
        return self._over(self._connection, method, path, body, headers)

    def _opened(self) -> HTTPConnection:
        if self._is_secure:
            return HTTPSConnection(*self._place, timeout=self._timeout_seconds, context=self._trust)
        return HTTPConnection(*self._place, timeout=self._timeout_seconds)

    def _over(
        self, connection: HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> _Reply:
        connection.request(method, self._prefix + path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return _Reply(status=answer.status, headers=names, body=self._body(answer))

    def _body(self, answer: HTTPResponse) -> bytes:
        """Return an answer's body. Raises ``Corrupt`` when it is larger than any that makes sense."""
        parts, size = [], 0
        while part := answer.read(_PIECE_BYTES):  # piece by piece: a false Content-Length costs no memory
            parts.append(part)
            size += len(part)
            if size > self._most_bytes:
                self.close()
                raise self._strange()
        if answer.length:
            raise IncompleteRead(b"", answer.length)
        return b"".join(parts)

    def _decoded(self, shape: type[_Shape], body: bytes) -> _Shape:
        try:
            return TypeAdapter(shape).validate_json(body)
        except ValidationError:
            raise self._strange() from None

    def _strange(self) -> Corrupt:
        """Return the error for an answer of another shape. It has no cause, because a cause would quote the answer."""
        return Corrupt(
            "the server's answer is not what the API's version 1 says",
            "Check the address. If it is right, upgrade the older of the two.",
            server=self.server_release or "unknown",
            client=RELEASE,
        )


def _checked_id(request_id: str | None) -> str:
    """Return the id of a request, drawn if there is none. Raises ``Invalid`` when the API does not accept it."""
    named = request_id or f"er-{new_name()[:12]}"
    if not _REQUEST_ID.fullmatch(named):
        raise Invalid(
            "over HTTP a request id is 1 to 200 of A-Z, a-z, 0-9, '.', '_', ':', '-', a letter or digit first",
            "Choose another, or leave it out: one is drawn then.",
        )
    return named


def brought_up_to(answer: ErasureAnswer, last: RequestStatus, again: Callable[[], ErasureAnswer]) -> ErasureAnswer:
    """Return ``answer`` brought up to date: the request was followed until ``last``.

    A server keeps no names, so it can report unknown ones only if the request is sent ``again``. If it cannot be
    reached then, the answer lists none of them.
    """
    if last == answer.request:
        return answer
    now = ErasureAnswer.of(last)
    if last.unknown:
        with suppress(Unavailable):
            now = again()
    return replace(now, salt=answer.salt)


def _as_text(value: object) -> str:
    """Return a date, a time or an image in a data point as JSON holds it."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise Invalid("a data point holds a value that JSON cannot hold", "Send numbers, texts, dates, bytes, or a table.")


def _request_path(request_id: str, what: str, site: str | None) -> str:
    where = "" if site is None else f"?site={quote(site, safe='')}"
    return f"/v1/erasures/{quote(request_id, safe='')}{what}{where}"


def _address(url: str) -> SplitResult:
    """Return the parts of a server's address. Raises ``Invalid``, without the address: it may hold a password."""
    with suppress(ValueError):  # the address, its port or its host name is malformed
        parts = urlsplit(url)
        strange = parts.query or parts.fragment or parts.username or not url.isprintable() or " " in url
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and not strange:
            parts.hostname.encode("idna")
            return parts
    raise Invalid("this is not the address of an HTTP API", "Write it like http://127.0.0.1:8000.")


def _is_here(host: str) -> bool:
    """Return whether a host is this machine.

    >>> _is_here("localhost"), _is_here("127.1.2.3"), _is_here("::1"), _is_here("10.0.0.1"), _is_here("localhost.org")
    (True, True, True, False, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _pause_seconds(attempt: int, reply: _Reply | None) -> float:
    """Return how long to wait before the next attempt: as long as the server says, else twice as long each time."""
    said = reply.headers.get("retry-after", "") if reply else ""
    wanted = float(said) if said.isdecimal() else _FIRST_PAUSE_SECONDS * 2.0**attempt
    return min(wanted, _LONGEST_PAUSE_SECONDS)


def _good(reply: _Reply) -> _Reply:
    """Return the reply if it is a success; otherwise raise the error that it stands for."""
    if 200 <= reply.status < 300:
        return reply
    try:
        error_body = json.loads(reply.body)["error"]
        fact, remedy, kind = str(error_body["message"]), str(error_body["remedy"]), error_body.get("kind")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # not the API: a proxy, another server
        kind = None
        fact, remedy = f"the server answered with status {reply.status}, not as the API does", "Check the address."
    if reply.status in {401, 403} and kind != "withheld":
        raise NotAllowed(fact, remedy)
    if kind == MODEL_FAILED:
        raise ModelFailed(fact, remedy)
    others = Invalid if 300 <= reply.status < 500 else SisaError
    raise _KINDS.get(reply.status, others)(fact, remedy)
