"""The HTTP API: endpoints over one replica's objects. No Ray in here."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from cluster.log_lines import LogLines
from cluster.serving.contract import (
    ASKED,
    ERASED,
    KEY,
    Health,
    Predictions,
    RequestShape,
    StatusShape,
    responses,
)
from cluster.serving.description import POLICY, openapi_of, page
from cluster.serving.erasures import named
from cluster.serving.messages import JSON, Reader, answer_type_of, media_type_of, parsed, written
from cluster.serving.problems import Problem, Refused, problem_of, too_large
from cluster.serving.records import Recorder, note
from cluster.serving.service import Service
from cluster.tokens import Role, TokenRecord
from coordinator.requests import check_request_id
from shards.exchange import ARROW_STREAM
from storage.errors import Invalid, SisaError

_Result = TypeVar("_Result")

_SMALL_BYTES: Final = 16 * 1024
"""A body up to this size is read where it arrives; larger ones take turns on threads."""

_BODIES_AT_ONCE: Final = 2
_CALLS_AT_ONCE: Final = 16
_SUBMISSIONS_AT_ONCE: Final = 16
"""Apart from other calls: while a coordinator is started anew they wait for it, and predictions shall not."""

_KEY = re.compile(KEY["schema"]["pattern"])  # type: ignore[index]


def build_app(service: Service, lines: LogLines, *, names_requests: bool = True) -> FastAPI:
    """Return the API over ``service``; each request is a line in ``lines``; ``names_requests``: see ``Recorder``."""
    app = FastAPI(
        title=f"sisa-ray: {service.specification.name}",
        version="1",
        description="Predictions that never use what was erased, and erasure requests: see DESIGN.md of sisa-ray.",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    _Endpoints(service).add_to(app)
    for kind in (Refused, SisaError, HTTPException):
        app.add_exception_handler(kind, _refuse)
    app.openapi = openapi_of(app)  # type: ignore[method-assign]
    app.add_middleware(Recorder, clock=service.clock, lines=lines, names_requests=names_requests)
    return app


class _Endpoints:
    """What is done at each path."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.specification.serve
        self._bodies = ThreadPoolExecutor(_BODIES_AT_ONCE, "sisa-bodies")
        self._calls = ThreadPoolExecutor(_CALLS_AT_ONCE, "sisa-calls")
        self._submissions = ThreadPoolExecutor(_SUBMISSIONS_AT_ONCE, "sisa-submissions")

    def add_to(self, app: FastAPI) -> None:
        """Put the endpoints into ``app``."""
        token: dict[str, Any] = {"security": [{"token": []}]}
        common = (401, 403, 429, 500, 503)
        app.add_api_route(
            "/v1/predictions",
            self.predict,
            methods=["POST"],
            response_model=Predictions,
            responses=responses(
                *(*common, 400, 406, 413, 415, 422),
                of_200={"content": {ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}}}},
            ),
            openapi_extra={**token, **ASKED},
        )
        app.add_api_route(
            "/v1/erasures",
            self.erase,
            methods=["POST"],
            status_code=202,
            response_model=RequestShape,
            responses=responses(
                *(*common, 400, 409, 413, 415, 422),
                of_200={"model": RequestShape, "description": "The request was accepted before."},
            ),
            openapi_extra={**token, **ERASED, "parameters": [KEY]},
        )
        for path, endpoint, shape in (
            ("/v1/erasures/{request_id}", self.erasure, RequestShape),
            ("/v1/erasures/{request_id}/receipt", self.receipt, dict[str, Any]),
        ):
            app.add_api_route(
                path, endpoint, response_model=shape, responses=responses(*common, 404, 422), openapi_extra=token
            )
        app.add_api_route(
            "/v1/status", self.status, response_model=StatusShape, responses=responses(*common), openapi_extra=token
        )
        app.add_api_route("/healthz", self.health, response_model=Health, responses=responses(500, 503))
        app.add_api_route("/docs", self.docs, response_class=HTMLResponse, include_in_schema=False)

    async def predict(self, request: Request) -> Response:
        """Answer data points with the ensemble: JSON or an Arrow IPC stream, answered in the form asked for.

        The answer was confirmed, after it was computed, against the store: no constituent in it has seen an erased
        data point. Roles: predict.
        """
        await self._admit(request, "predict")
        media_type = media_type_of(request.headers)
        answer_type = answer_type_of(request.headers, media_type)
        payload = await _body(request, self._settings.max_body_bytes)
        state = self._service.standing.state
        if state is None or state.data is None:
            state = await self._call(self._service.standing.trained)
            assert state.data is not None
        reader = Reader.of(self._service.specification, state.data)
        asked = await self._handle(len(payload), lambda: reader.read(payload, media_type))
        answer = await asyncio.wrap_future(self._service.answering.ask(asked.features_NF))
        note(request.scope, points=len(asked.features_NF), generation=answer.generation)
        specification = self._service.specification
        body = await self._handle(len(payload), lambda: written(answer, asked, specification, answer_type))
        return Response(body, media_type=answer_type)

    async def erase(self, request: Request) -> Response:
        """Submit an erasure request; it is durable when this answers, and carried out whatever crashes.

        Roles: erase.
        """
        await self._admit(request, "erase")
        media_type_of(request.headers, (JSON,))
        request_id = request.headers.get("idempotency-key")
        if request_id is not None and not _KEY.fullmatch(request_id):
            raise Invalid(
                "an Idempotency-Key is 1 to 200 of A-Z, a-z, 0-9, '.', '_', ':', '-', no sign first",
                "choose another, or leave it out: one is drawn then",
            )
        payload = await _body(request, self._settings.max_body_bytes)
        wanted = await self._handle(len(payload), lambda: _wanted(payload, self._settings.max_names))
        subjects, ids, held = wanted
        status, is_new = await asyncio.get_running_loop().run_in_executor(
            self._submissions, self._service.erasures.submit, subjects, ids, request_id, held
        )
        note(request.scope, request_id=status.request_id)
        location = request.url_for(self.erasure.__name__, request_id=status.request_id).path
        return _json(asdict(status), 202 if is_new else 200, {"Location": location})

    async def erasure(self, request: Request, request_id: str) -> Response:
        """Tell how an erasure request stands. Roles: erase, audit."""
        await self._admit(request, "erase", "audit")
        check_request_id(request_id)
        return _json(asdict(await self._call(lambda: self._service.erasures.find(request_id))))

    async def receipt(self, request: Request, request_id: str) -> Response:
        """Give the signed receipt of a complete erasure; 'sisa receipt --check' verifies it. Roles: audit."""
        await self._admit(request, "audit")
        check_request_id(request_id)
        bundle = await self._call(lambda: self._service.erasures.receipt(request_id))
        return Response(bundle, media_type=JSON)

    async def status(self, request: Request) -> Response:
        """Tell how the federation stands; the erasure requests only to the role audit. Roles: predict, audit."""
        token = await self._admit(request, "predict", "audit")
        status = await self._call(self._service.standing.status)
        if token.role != "audit":
            status = replace(status, store="", requests=(), batch=None)
        return _json(asdict(status))

    async def health(self, request: Request) -> Response:
        """Tell whether this replica can answer. Needs no token."""
        del request
        self._service.check()
        return _json({"status": "ok"})

    async def docs(self, request: Request) -> Response:
        """Show this document to people."""
        return HTMLResponse(page(request.app.openapi()), headers=POLICY)

    async def _admit(self, request: Request, *roles: Role) -> TokenRecord:
        record = await self._call(lambda: self._service.gate.admit(request.headers, *roles))
        note(request.scope, token_id=record.token_id, role=record.role)
        return record

    async def _call(self, act: Callable[[], _Result]) -> _Result:
        """Do what waits for the store or the coordinator, on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._calls, act)

    async def _handle(self, payload_bytes: int, act: Callable[[], _Result]) -> _Result:
        """Do what takes time with a body of this size, on a thread if it is large: few at once, for their memory."""
        if payload_bytes <= _SMALL_BYTES:
            return act()
        return await asyncio.get_running_loop().run_in_executor(self._bodies, act)


async def _body(request: Request, most_bytes: int) -> bytes:
    """Return the request's body. Raises ``Refused`` with 413 once it is known to be larger than ``most_bytes``."""
    declared = request.headers.get("content-length", "")
    parts, size = [], int(declared) if declared.isdecimal() else 0
    if size <= most_bytes:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > most_bytes:
                break
            parts.append(part)
    if size > most_bytes:
        remedy = "send several requests, or raise [serve] max_body_bytes"
        raise Refused(too_large(f"the body has more than {most_bytes:,} bytes", remedy))
    return b"".join(parts)


def _wanted(payload: bytes, most_names: int) -> tuple[list[str | int], list[str | int], str]:
    """Return subjects, ids and the reason of a hold, from an erasure's body."""
    body = parsed(payload)
    if not isinstance(body, dict) or not body.keys() <= {"subjects", "ids", "hold"}:
        raise Invalid("the body is an object with 'subjects', 'ids', or both, and perhaps 'hold'", "see /docs")
    subjects, ids, hold = body.get("subjects", []), body.get("ids", []), body.get("hold", "")
    if not isinstance(subjects, list) or not isinstance(ids, list) or not isinstance(hold, str):
        raise Invalid("'subjects' and 'ids' are lists of names, 'hold' is a text", "see /docs")
    if len(subjects) + len(ids) > most_names:
        raise Refused(too_large(f"the request names more than {most_names:,}", "send several, or use 'sisa erase'"))
    return named(subjects, "subjects"), named(ids, "ids"), hold


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(value), status_code=status, media_type=JSON, headers=headers)


async def _refuse(request: Request, error: Exception) -> Response:
    """Return an error that an endpoint, or the router, ended with as the one body of all errors."""
    if isinstance(error, Refused):
        problem = error.problem
    elif isinstance(error, SisaError):
        problem = problem_of(error)
    else:
        assert isinstance(error, HTTPException)
        problem = _unroutable(error)
    note(request.scope, kind=problem.kind)
    return problem.response()


def _unroutable(error: HTTPException) -> Problem:
    is_missing = error.status_code == 404
    return Problem(
        status=error.status_code,
        kind="missing" if is_missing else "invalid",
        message="there is nothing at this path" if is_missing else str(error.detail),
        remedy="see /docs",
        headers=dict(error.headers or {}),
    )
