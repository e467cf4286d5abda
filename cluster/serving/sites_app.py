"""The HTTP API of a federation of several sites: the contract of ``app``, with sites behind it. No Ray in here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.responses import Response

from cluster.coordinator_actor.log_lines import LogLines
from cluster.results.sites import SitesStatus
from cluster.serving.access_log import note
from cluster.serving.bodies import JSON, answer_body, answer_type_of, media_type_of
from cluster.serving.console.console import add_sites_console
from cluster.serving.endpoints import COMMON, TOKEN, Endpoints, add_erasures, add_predictions, assembled, json_answer
from cluster.serving.schemas import (
    AT,
    BY,
    ERASED_AT,
    SiteErasureShape,
    SiteRequestShape,
    SitesPredictions,
    responses,
)
from cluster.serving.sites_service import SitesService
from cluster.sites.fan_out import CombinedAnswer
from cluster.tokens import Role, TokenRecord
from coordinator.requests import check_request_id
from coordinator.sites import answered_together
from coordinator.status import RequestStatus

_QUESTIONS_AT_ONCE: Final = 4
"""As many as one site may be asked at once: with more, healthy sites would appear to be behind."""


def build_sites_app(service: SitesService, lines: LogLines, *, names_requests: bool = True) -> FastAPI:
    """Return the API over ``service``; each request is a line in ``lines``; ``names_requests``: see ``Recorder``."""
    endpoints = _Endpoints(service)
    app = assembled(
        endpoints,
        service,
        lines,
        data=service.specification.sites[0].specification.data,
        title=f"sisa-ray: {service.specification.name}, a federation of sites",
        description="Predictions by the sites that take part; each erases for itself. Every call but the health check"
        " needs a token: press Authorize and enter it.",
        names_requests=names_requests,
    )
    add_sites_console(app, endpoints, service, endpoints.predicted)
    return app


class _Endpoints(Endpoints):
    """The endpoints of the API of a federation of sites."""

    def __init__(self, service: SitesService) -> None:
        super().__init__(service)
        self._service = service
        self._questions = ThreadPoolExecutor(_QUESTIONS_AT_ONCE, "sisa-questions")

    def add_to(self, app: FastAPI) -> None:
        """Put the endpoints into ``app``."""
        add_predictions(app, self.predict, SitesPredictions)
        add_erasures(app, self.erase, SiteErasureShape, ERASED_AT, 404)
        for path, endpoint, shape, parameters in (
            ("/v1/erasures/{request_id}", self.erasure, SiteRequestShape, [AT]),
            ("/v1/erasures/{request_id}/receipt", self.receipt, dict[str, Any], [AT, BY]),
        ):
            app.add_api_route(
                path,
                endpoint,
                response_model=shape,
                responses=responses(*COMMON, 404, 422),
                openapi_extra={**TOKEN, "parameters": parameters},
            )
        app.add_api_route(
            "/v1/status",
            self.status,
            response_model=SitesStatus,
            responses=responses(*COMMON),
            openapi_extra=TOKEN,
        )
        super().add_to(app)

    async def health(self, request: Request) -> Response:
        """Return whether this replica can answer, regardless of the sites. Needs no token."""
        del request
        await asyncio.to_thread(self._service.check)  # not among the calls that wait for sites
        return json_answer({"status": "ok"})

    async def admit_by(self, request: Request, headers: Mapping[str, str], *roles: Role) -> TokenRecord:
        """See ``Endpoints.admit_by``."""
        await self.call(self._service.refresh)
        return await super().admit_by(request, headers, *roles)

    async def predict(self, request: Request) -> Response:
        """Answer data points by the sites that take part, as JSON or an Arrow IPC stream.

        By default the answer has the request's own format. Each site confirms its answer after computing it. 'absent'
        names the members that did not take part, and why; if too few answer, the request fails. Roles: predict.
        """
        token = await self.admit(request, "predict")
        media_type = media_type_of(request.headers)
        answer_type = answer_type_of(request.headers, media_type)
        async with self.predictions.body(request, token.token_id) as payload:
            return await self.predicted(request, payload, media_type, answer_type)

    async def predicted(self, request: Request, payload: bytes, media_type: str, answer_type: str) -> Response:
        """Return the answer to a body of this type, whose caller was admitted."""
        reader = await self.call(self._service.reader)
        asked = await self.predictions.handle(len(payload), lambda: reader.read(payload, media_type))
        answer = await asyncio.get_running_loop().run_in_executor(
            self._questions, self._service.answer, asked.features_NF, reader.data.features
        )
        note(request.scope, points=len(asked.features_NF))
        target, id_column = self._service.specification.target, self._service.specification.id_column
        facts = _facts(answer)
        body = await self.predictions.handle(
            len(payload), lambda: answer_body(facts, answer.scores_NS, asked, target, id_column, answer_type)
        )
        return Response(body, media_type=answer_type)

    async def erase(self, request: Request) -> Response:
        """Submit an erasure request to the site that it names; it is durable there when the server answers.

        'include_similar', and the private details of the answer, are the same as at a site's own server.
        Roles: erase, officer.
        """
        token = await self.admit(request, "erase", "officer")
        wanted, request_id = await self.erasure_asked(request, token, "site")
        status, is_new = await self.submit(lambda: self._service.submit(wanted, request_id))
        note(request.scope, request_id=status.request_id)
        location = request.url_for(self.erasure.__name__, request_id=status.request_id).path
        headers = {"Location": f"{location}?site={wanted.site}"}
        return json_answer(_with_site(wanted.site, status), 202 if is_new else 200, headers)

    async def erasure(self, request: Request, request_id: str) -> Response:
        """Return the site that has an erasure request, and the request's status.

        A site does not record which of this server's tokens a request was submitted with: the role erase reads all.
        Roles: erase, audit, officer.
        """
        await self.admit(request, "erase", "audit", "officer")
        check_request_id(request_id)
        site = request.query_params.get("site")
        return json_answer(_with_site(*await self.call(lambda: self._service.find(request_id, site))))

    async def receipt(self, request: Request, request_id: str) -> Response:
        """Return the signed receipt of a complete erasure. 'sisa receipt --check' verifies it. Role: audit, officer."""
        await self.admit(request, "audit", "officer")
        check_request_id(request_id)
        site, by = request.query_params.get("site"), request.query_params.get("by", "site")
        bundle = await self.call(lambda: self._service.receipt(request_id, site, by))
        return Response(bundle, media_type=JSON)

    async def status(self, request: Request) -> Response:
        """Return the status of the federation and its sites.

        For the role predict, the answer leaves out erasure requests and the places of stores, and for each constituent
        'points', 'digest', 'slice_digests' and 'budget_used' are null. Roles: predict, audit, officer.
        """
        token = await self.admit(request, "predict", "audit", "officer")
        status = await self.call(lambda: self._service.status(is_public=token.role == "predict"))
        return json_answer(asdict(status))


def _facts(answer: CombinedAnswer) -> dict[str, Any]:
    return {
        **answered_together(answer.sites).facts,
        "sites": [asdict(each) for each in answer.sites],
        "absent": dict(answer.absent),
    }


def _with_site(site: str, status: RequestStatus) -> dict[str, Any]:
    return {"site": site, **asdict(status)}
