"""Records requests: puts an id on every answer, and writes one log line for each, without the request's content."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.coordinator_actor.log_lines import LogLines, Value
from cluster.release import HEADER, own_contract, own_release
from cluster.serving.http_errors import NO_STORE, HttpProblem, Refused, internal, problem_of
from coordinator.ports import Clock
from storage.errors import SisaError

REQUEST_ID: Final = "X-Request-Id"

_Raw = tuple[bytes, bytes]
"""A header in ASGI's form."""


def _raw(name: str, value: str) -> _Raw:
    return name.lower().encode(), value.encode()


_NO_STORE: Final = tuple(_raw(name, value) for name, value in NO_STORE.items())

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Recorder:
    """The outermost layer of the API: it turns every error of an endpoint into an answer."""

    def __init__(self, app: ASGIApp, clock: Clock, lines: LogLines, *, names_requests: bool) -> None:
        """``names_requests``: put the request's id on the answer; false if a proxy in front of the API does that."""
        self._app = app
        self._clock = clock
        self._lines = lines
        self._names_requests = names_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = _Record(scope, self._clock.monotonic())

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], *self._added(record, message["headers"])]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            note(scope, kind="client_gone")
        except (Refused, SisaError, Exception) as error:  # noqa: BLE001  no error may escape: its text may quote the request
            problem = _problem(error)
            note(scope, kind=problem.kind)
            if record.status == 0:
                await problem.response()(scope, receive, sending)
        finally:
            self._lines.write("http_request", **record.line(self._clock.monotonic()))

    def _added(self, record: _Record, headers: Iterable[_Raw]) -> Iterator[_Raw]:
        """Yield the headers that every answer has, except those that this one already has."""
        present = {name for name, _ in headers}
        yield from (header for header in _NO_STORE if header[0] not in present)
        yield _raw(HEADER, own_release() if record.is_admitted else f"+{own_contract()}")
        if self._names_requests:
            yield _raw(REQUEST_ID, record.request_id)


def note(scope: MutableMapping[str, Any], **facts: str | int) -> None:
    """Add fields to the request's log line; ``cluster.coordinator_actor.log_lines`` lists the names they may have."""
    scope["state"]["noted"].update(facts)


class _Record:
    def __init__(self, scope: Scope, started: float) -> None:
        given = Headers(scope=scope).get(REQUEST_ID, "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.status = 0
        self._scope = scope
        self._started = started
        self._noted: dict[str, str | int] = {}
        scope.setdefault("state", {})["noted"] = self._noted

    @property
    def is_admitted(self) -> bool:
        """Whether the request has a valid token."""
        return "token_id" in self._noted

    def line(self, now: float) -> dict[str, Value]:
        """Return the log's line. It names the route instead of the path, because a path may hold anything."""
        return {
            "http_request_id": self.request_id,
            "method": self._scope["method"] if self._scope["method"] in _METHODS else "other",
            "route": getattr(self._scope.get("route"), "path", ""),
            "status": self.status,
            "seconds": round(now - self._started, 4),
            **self._noted,
        }


def _problem(error: Exception) -> HttpProblem:
    if isinstance(error, Refused):
        return error.problem
    return problem_of(error) if isinstance(error, SisaError) else internal()
