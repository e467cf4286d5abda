"""The common part of all servers' endpoints: admission, reading bodies, and answering errors."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from fastapi import Depends, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.config.serve import ServeSettings
from cluster.coordinator_actor.log_lines import LogLines
from cluster.serving.access_log import Recorder, note
from cluster.serving.auth import Gate
from cluster.serving.bodies import JSON, media_type_of, parsed_body
from cluster.serving.description.document import openapi_of
from cluster.serving.description.page import ASSETS, POLICY, asset, page
from cluster.serving.erasures import checked_names
from cluster.serving.http_errors import HttpProblem, Refused, problem_of, too_large, unreadable
from cluster.serving.intake import CHANGES, PREDICTIONS, READS, Lane
from cluster.serving.schemas import ASKED, EARLIER, KEY, KEYS_TEXT, Health, responses
from cluster.tokens import Role, TokenRecord
from coordinator.ports import Clock
from coordinator.receipts.issuer import Registrar
from shards.data.messages import ARROW_STREAM
from shards.specification import DataSettings
from storage.errors import Invalid, SisaError
from storage.objects import ObjectStore
from storage.transparency.check import LogGrowth

_Result = TypeVar("_Result")

TOKEN: Final[dict[str, Any]] = {"security": [{"token": []}]}
COMMON: Final = (400, 401, 403, 429, 500, 503)
"""Statuses that every endpoint with a token may answer with."""

_GATES_AT_ONCE: Final = 16
"""Threads for checks of tokens, separate from other calls, so that slow questions do not delay them."""
_CALLS_AT_ONCE: Final = 16
_SUBMISSIONS_AT_ONCE: Final = 16
"""Threads for submissions, which wait during a coordinator's restart; separate from other calls, which do not."""

_PREDICTIONS: Final = "/v1/predictions"
_WITHOUT_LANE: Final = frozenset({"/healthz", "/docs", "/docs/{name}"})

_KEY = re.compile(KEY["schema"]["pattern"])  # type: ignore[index]

_NUMBER: Final = re.compile(r"[0-9]{1,12}")

_KINDS: Final[Mapping[type, str]] = {str: "a text", int: "a whole number", list: "a list"}

_SINGLE_HEADERS: Final = ("Authorization", "Content-Type", "Content-Encoding", "Content-Length", "Idempotency-Key")
"""Headers with a single value. Servers differ in which of two they take, so a proxy may have checked the other one."""


class Behind(Protocol):
    """The objects behind a server's endpoints, for one federation or for one of several sites."""

    @property
    def clock(self) -> Clock:
        """The clock that dates its log."""
        ...

    @property
    def gate(self) -> Gate:
        """The gate that admits callers."""
        ...

    @property
    def registrar(self) -> Registrar:
        """Its receipts, their log and its keys."""
        ...

    @property
    def serve(self) -> ServeSettings:
        """The settings that limit one caller."""
        ...

    @property
    def store(self) -> ObjectStore:
        """The store that holds its tokens."""
        ...

    def check(self) -> None:
        """Raise ``Unavailable`` when it cannot answer now, ``InvariantBroken`` when it never will."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The subjects or data points that an erasure's body names."""

    subjects: list[str | int]
    ids: list[str | int]
    held: str
    """Why the request is to be paused; empty: it is not paused."""
    include_similar: bool = False
    """Whether subjects whose names differ only in spelling are meant as well."""
    everyone: bool = False
    site: str = ""
    """Where they are to be erased; empty: the body does not say."""


class Endpoints:
    """The endpoints that every server has; subclasses add their own."""

    def __init__(self, behind: Behind) -> None:
        self._behind = behind
        self._settings = behind.serve
        self.predictions = Lane("predictions", PREDICTIONS, behind.serve)
        self.changes = Lane("requests that change or look up something", CHANGES, behind.serve)
        self._reads = Lane("questions", READS, behind.serve)
        self.lanes = {_PREDICTIONS: self.predictions}
        """The classes of requests to particular paths; all others are questions or changes, by their method."""
        self._gates = ThreadPoolExecutor(_GATES_AT_ONCE, "sisa-gates")
        self._calls = ThreadPoolExecutor(_CALLS_AT_ONCE, "sisa-calls")
        self._submissions = ThreadPoolExecutor(_SUBMISSIONS_AT_ONCE, "sisa-submissions")

    def add_to(self, app: FastAPI) -> None:
        """Put the endpoints into ``app``."""
        app.add_api_route("/healthz", self.health, response_model=Health, responses=responses(500, 503))
        app.add_api_route(
            "/v1/log/checkpoint",
            self.log_checkpoint,
            response_model=LogGrowth,
            responses=responses(*COMMON, 404, 422),
            openapi_extra={**TOKEN, "parameters": [EARLIER]},
        )
        app.add_api_route(
            "/v1/keys",
            self.keys,
            response_class=Response,
            responses=responses(*COMMON, 404, of_200=KEYS_TEXT),
            openapi_extra=TOKEN,
        )
        app.add_api_route("/docs", self.docs, response_class=HTMLResponse, include_in_schema=False)
        app.add_api_route("/docs/{name}", self.docs_asset, response_class=Response, include_in_schema=False)

    async def health(self, request: Request) -> Response:
        """Return whether this replica can answer. Needs no token."""
        del request
        self._behind.check()
        return json_answer({"status": "ok"})

    async def log_checkpoint(self, request: Request) -> Response:
        """Return the newest signed checkpoint of the receipts' log, and the proof that it continues an 'earlier' size.

        'sisa-check log' accepts the answer unchanged. Roles: audit, officer.
        """
        await self.admit(request, "audit", "officer")
        earlier = whole_number(request, "earlier")
        return json_answer(asdict(await self.call(lambda: self._behind.registrar.growth(earlier))))

    async def keys(self, request: Request) -> Response:
        """Return all public keys that sign receipts and their log, as a file for --key. Roles: audit, officer."""
        await self.admit(request, "audit", "officer")
        return PlainTextResponse(await self.call(self._behind.registrar.published))

    async def docs(self, request: Request) -> Response:
        """Show this document to people. Needs no token."""
        return HTMLResponse(page(request.app.title), headers=POLICY)

    async def docs_asset(self, name: str) -> Response:
        """Return a file that the page of this document loads. Needs no token."""
        if name not in ASSETS:
            raise HTTPException(404)
        return asset(name)

    async def admit(self, request: Request, *roles: Role) -> TokenRecord:
        """Return the caller's token. Raises as ``Gate.admit`` does, and ``Refused`` with 400 for repeated headers."""
        return await self.admit_by(request, request.headers, *roles)

    async def admit_by(self, request: Request, headers: Mapping[str, str], *roles: Role) -> TokenRecord:
        """Return the token in ``headers``, which need not be the request's own; see ``admit``."""
        _refuse_repeated(request)
        gate = self._behind.gate
        record = gate.admit_from_memory(headers, *roles)
        if record is None:
            record = await self.at_gate(lambda: gate.admit(headers, *roles))
        note(request.scope, token_id=record.token_id, role=record.role)
        return record

    async def at_gate(self, act: Callable[[], _Result]) -> _Result:
        """Call ``act``, which checks who asks, on a thread."""
        return await self._on(self._gates, act)

    async def call(self, act: Callable[[], _Result]) -> _Result:
        """Call ``act``, which waits for the store or the coordinator, on a thread."""
        return await self._on(self._calls, act)

    async def submit(self, act: Callable[[], _Result]) -> _Result:
        """Call ``act``, which waits for the coordinator to accept a request, on a thread."""
        return await self._on(self._submissions, act)

    async def in_its_lane(self, request: Request) -> AsyncIterator[None]:
        """Count the request among those of its class, until it is answered. Raises as ``Lane.entered`` does."""
        path = request.scope["route"].path
        if path in _WITHOUT_LANE:
            yield
            return
        others = self._reads if request.method == "GET" else self.changes
        with self.lanes.get(path, others).entered():
            yield

    async def _on(self, threads: ThreadPoolExecutor, act: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(threads, act)

    async def erasure_asked(self, request: Request, token: TokenRecord, *more: str) -> tuple[Named, str | None]:
        """Return the names in an erasure's body, and its Idempotency-Key; ``more`` are further members it may have.

        Raises ``Refused``, ``Invalid``.
        """
        media_type_of(request.headers, (JSON,))
        request_id = idempotency_key(request)
        async with self.changes.body(request, token.token_id) as payload:
            wanted = await self.changes.handle(len(payload), lambda: _named(payload, self._settings.max_names, more))
        return wanted, request_id

    async def members(self, request: Request, token: TokenRecord, kinds: Mapping[str, type]) -> dict[str, Any]:
        """Return the members of a small JSON body, which has exactly ``kinds``. Raises ``Refused``, ``Invalid``."""
        media_type_of(request.headers, (JSON,))
        async with self.changes.body(request, token.token_id) as payload:
            body = await self.changes.handle(len(payload), lambda: parsed_body(payload, self._settings.max_names))
        is_object = isinstance(body, dict) and body.keys() == kinds.keys()
        if is_object and all(type(body[name]) is kind for name, kind in kinds.items()):  # true must not count as 1
            found: dict[str, Any] = body
            return found
        wanted = " and ".join(f"'{name}', {_KINDS[kind]}" for name, kind in kinds.items())
        raise Invalid(f"the body is an object with {wanted or 'nothing in it'}, and no more", "See /docs.")


def add_predictions(app: FastAPI, endpoint: Callable[..., Any], model: type) -> None:
    """Put the endpoint that predicts into ``app``; ``model`` describes its answers in JSON."""
    app.add_api_route(
        _PREDICTIONS,
        endpoint,
        methods=["POST"],
        response_model=model,
        responses=responses(
            *(*COMMON, 406, 408, 413, 415, 422),
            of_200={"content": {ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}}}},
        ),
        openapi_extra={**TOKEN, **ASKED},
    )


def add_erasures(
    app: FastAPI, endpoint: Callable[..., Any], model: type, body: Mapping[str, Any], *statuses: int
) -> None:
    """Put the endpoint for erasure requests into ``app``; ``statuses`` are further ones that it may answer with."""
    app.add_api_route(
        "/v1/erasures",
        endpoint,
        methods=["POST"],
        status_code=202,
        response_model=model,
        responses=responses(
            *sorted({*COMMON, 408, 409, 413, 415, 422, *statuses}),
            of_200={"model": model, "description": "The request was accepted before."},
        ),
        openapi_extra={**TOKEN, **body, "parameters": [KEY]},
    )


def assembled(
    endpoints: Endpoints,
    behind: Behind,
    lines: LogLines,
    *,
    data: DataSettings,
    title: str,
    description: str,
    names_requests: bool,
) -> FastAPI:
    """Return the API for data points of ``data``; each request is a line in ``lines``.

    ``names_requests``: see ``Recorder``.
    """
    app = _Api(
        title=title,
        version="1",
        description=description,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        dependencies=[Depends(endpoints.in_its_lane)],
    )
    endpoints.add_to(app)
    for kind in (Refused, SisaError, HTTPException):
        app.add_exception_handler(kind, _refuse)
    app.openapi = openapi_of(app, data)  # type: ignore[method-assign]
    recorded = partial(Recorder, clock=behind.clock, lines=lines, names_requests=names_requests)
    app.add_middleware(recorded)
    app.straight = recorded(_Straight(endpoints.predictions, app.routes))
    return app


def idempotency_key(request: Request) -> str | None:
    """Return the request's Idempotency-Key; None if it has none. Raises ``Invalid`` unless it can be an id."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid(
            "an Idempotency-Key is 1 to 200 of A-Z, a-z, 0-9, '.', '_', ':', '-', a letter or digit first",
            "Choose another, or leave it out: one is drawn then.",
        )
    return key


class _Api(FastAPI):
    """Passes predictions around the framework, whose layers, routing and dependencies would take longer than the rest.

    The framework still describes them, and answers everything else.
    """

    straight: ASGIApp
    """Answers predictions."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and _is_prediction(scope):
            await self.straight(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _is_prediction(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) == _PREDICTIONS


class _Straight:
    """Answers predictions. Errors leave it as exceptions; the layer outside it, ``Recorder``, answers them."""

    def __init__(self, lane: Lane, routes: Sequence[BaseRoute]) -> None:
        self._lane = lane
        self._route = next(route for route in routes if isinstance(route, Route) and route.path == _PREDICTIONS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["route"] = self._route
        with self._lane.entered():
            response = await self._route.endpoint(Request(scope, receive, send))
            await response(scope, receive, send)


def whole_number(request: Request, name: str) -> int:
    """Return a numeric query parameter, default 0. Raises ``Invalid`` unless it has only digits, at most 12."""
    given = request.query_params.get(name, "0")
    if not _NUMBER.fullmatch(given):
        raise Invalid(f"'{name}' is a whole number, 0 or more, of at most 12 digits", "See /docs.")
    return int(given)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return ``value`` as an answer."""
    return Response(json.dumps(value), status_code=status, media_type=JSON, headers=headers)


def _named(payload: bytes, most_names: int, more: tuple[str, ...]) -> Named:
    body = parsed_body(payload, most_names)
    if not isinstance(body, dict) or not body.keys() <= {"subjects", "ids", "hold", "include_similar", *more}:
        raise Invalid(
            "the body is an object with 'subjects', 'ids', or both, and perhaps 'hold' and 'include_similar'",
            "See /docs.",
        )
    subjects, ids, hold = body.get("subjects", []), body.get("ids", []), body.get("hold", "")
    everyone, site, similar = body.get("everyone", False), body.get("site", ""), body.get("include_similar", False)
    if not isinstance(subjects, list) or not isinstance(ids, list) or not isinstance(hold, str):
        raise Invalid("'subjects' and 'ids' are lists of names, 'hold' is a text", "See /docs.")
    if not isinstance(everyone, bool) or not isinstance(similar, bool) or not isinstance(site, str):
        raise Invalid("'everyone' and 'include_similar' are true or false, 'site' is a text", "See /docs.")
    if everyone and (subjects or ids or hold or similar):
        raise Invalid("'everyone' means all subjects, so that nothing else may be named", "Leave the others out.")
    if len(subjects) + len(ids) > most_names:
        raise Refused(too_large(f"the request names more than {most_names:,}", "Send several, or use 'sisa erase'."))
    return Named(
        subjects=checked_names(subjects, "subjects"),
        ids=checked_names(ids, "ids"),
        held=hold,
        include_similar=similar,
        everyone=everyone,
        site=site,
    )


def _refuse_repeated(request: Request) -> None:
    """Raise ``Refused`` when a single-valued header or a query parameter is given twice."""
    names = [name for name, _ in request.scope["headers"]]
    if len(set(names)) < len(names):
        for name in _SINGLE_HEADERS:
            if len(request.headers.getlist(name)) > 1:
                raise unreadable(f"the request has the header {name} twice", "Send it once.")
    if request.scope["query_string"] and len(request.query_params.multi_items()) != len(request.query_params):
        raise unreadable("the request's address has a parameter twice", "Give each parameter once.")


async def _refuse(request: Request, error: Exception) -> Response:
    """Return the answer for an error of an endpoint or the router, with the body that all errors share."""
    if isinstance(error, Refused):
        problem = error.problem
    elif isinstance(error, SisaError):
        problem = problem_of(error)
    else:
        assert isinstance(error, HTTPException)
        problem = _unroutable(error)
    note(request.scope, kind=problem.kind)
    return problem.response()


def _unroutable(error: HTTPException) -> HttpProblem:
    is_missing = error.status_code == 404
    return HttpProblem(
        status=error.status_code,
        kind="missing" if is_missing else "invalid",
        message="there is nothing at this path" if is_missing else str(error.detail),
        remedy="See /docs.",
        headers=dict(error.headers or {}),
    )
