"""The HTTP API of a federation, or of one site of several: endpoints over one replica's objects. No Ray in here."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.responses import Response

from cluster.coordinator_actor.log_lines import LogLines
from cluster.results.federation import ReadmissionAnswer, SubjectsFound
from cluster.results.traces import SubjectTraces
from cluster.serving.access_log import note
from cluster.serving.bodies import JSON, BodyReader, answer_body, answer_type_of, media_type_of
from cluster.serving.console.console import add_console
from cluster.serving.endpoints import (
    COMMON,
    TOKEN,
    Endpoints,
    add_erasures,
    add_predictions,
    assembled,
    idempotency_key,
    json_answer,
    whole_number,
)
from cluster.serving.erasures import checked_names
from cluster.serving.http_errors import HttpProblem, Refused, too_large
from cluster.serving.schemas import (
    BYTES,
    ERASED,
    HEARD_OF,
    KEY,
    MOST_LOOKED_UP,
    ErasureShape,
    MoreTime,
    Nothing,
    Predictions,
    Reason,
    RequestShape,
    Returning,
    StandingShape,
    StatusShape,
    Subjects,
    body_of,
    responses,
)
from cluster.serving.service import Service
from cluster.tokens import TokenRecord
from coordinator.effects import HoldoutMeasure
from coordinator.interventions import Cancel, Extend, Hold, Intervention, Release
from coordinator.requests import check_request_id
from coordinator.state import DataState
from coordinator.status import for_the_federation, for_the_public, without_effects
from storage.errors import Invalid

OCTETS: Final = "application/octet-stream"

_NUMBER: Final = re.compile(r"[0-9]{1,12}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def build_app(service: Service, lines: LogLines, *, names_requests: bool = True) -> FastAPI:
    """Return the API over ``service``; each request is a line in ``lines``; ``names_requests``: see ``Recorder``."""
    endpoints = _Endpoints(service)
    app = assembled(
        endpoints,
        service,
        lines,
        data=service.specification.data,
        title=f"sisa-ray: {service.specification.name}",
        description="Predictions that never use what was erased, and erasure requests. Every call but the health check"
        " needs a token: press Authorize and enter it.",
        names_requests=names_requests,
    )
    add_console(app, endpoints, service, endpoints.predicted)
    return app


class _Endpoints(Endpoints):
    """The endpoints of a federation's API."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._service = service
        self._target = service.specification.predicted
        self._read_as: tuple[DataState, BodyReader] | None = None

    def add_to(self, app: FastAPI) -> None:
        """Put the endpoints into ``app``."""
        add_predictions(app, self.predict, Predictions)
        add_erasures(app, self.erase, ErasureShape, ERASED)
        for path, endpoint, shape in (
            ("/v1/erasures/{request_id}", self.erasure, RequestShape),
            ("/v1/erasures/{request_id}/receipt", self.receipt, dict[str, Any]),
        ):
            app.add_api_route(
                path, endpoint, response_model=shape, responses=responses(*COMMON, 404, 422), openapi_extra=TOKEN
            )
        for name, change, body in (
            ("hold", self.hold, Reason),
            ("release", self.release, Nothing),
            ("extend", self.extend, MoreTime),
            ("cancel", self.cancel, Reason),
        ):
            app.add_api_route(
                f"/v1/erasures/{{request_id}}/{name}",
                change,
                methods=["POST"],
                response_model=RequestShape,
                responses=responses(*COMMON, 404, 408, 409, 413, 415, 422),
                openapi_extra={**TOKEN, **body_of(body)},
            )
        app.add_api_route(
            "/v1/subjects:lookup",
            self.lookup,
            methods=["POST"],
            response_model=SubjectsFound,
            responses=responses(*COMMON, 408, 413, 415, 422),
            openapi_extra={**TOKEN, **body_of(Subjects)},
        )
        app.add_api_route(
            "/v1/subjects:trace",
            self.trace,
            methods=["POST"],
            response_model=SubjectTraces,
            responses=responses(*COMMON, 408, 413, 415, 422),
            openapi_extra={**TOKEN, **body_of(Subjects)},
        )
        app.add_api_route(
            "/v1/subjects:readmit",
            self.readmit,
            methods=["POST"],
            response_model=ReadmissionAnswer,
            responses=responses(*COMMON, 408, 409, 413, 415, 422),
            openapi_extra={**TOKEN, **body_of(Returning), "parameters": [KEY]},
        )
        app.add_api_route(
            "/v1/status", self.status, response_model=StatusShape, responses=responses(*COMMON), openapi_extra=TOKEN
        )
        app.add_api_route(
            "/v1/standing",
            self.standing,
            response_model=StandingShape,
            responses=responses(*COMMON, 422),
            openapi_extra={**TOKEN, "parameters": [HEARD_OF]},
        )
        app.add_api_route(
            "/v1/measure",
            self.measure,
            response_model=HoldoutMeasure,
            responses=responses(*COMMON, 422),
            openapi_extra=TOKEN,
        )
        app.add_api_route(
            "/v1/checkpoints/{shard}/{sha256}",
            self.checkpoint,
            response_class=Response,
            responses=responses(*COMMON, 404, 422, of_200=BYTES),
            openapi_extra=TOKEN,
        )
        super().add_to(app)

    async def predict(self, request: Request) -> Response:
        """Answer data points with the ensemble, as JSON or an Arrow IPC stream: by default in the request's own format.

        After an answer is computed, it is confirmed against the store that none of its constituents has seen an erased
        data point. Roles: predict, federate.
        """
        token = await self.admit(request, "predict", "federate")
        media_type = media_type_of(request.headers)
        answer_type = answer_type_of(request.headers, media_type)
        async with self.predictions.body(request, token.token_id) as payload:
            return await self.predicted(request, payload, media_type, answer_type)

    async def predicted(self, request: Request, payload: bytes, media_type: str, answer_type: str) -> Response:
        """Return the answer to a body of this type, whose caller was admitted."""
        state = self._service.standing.state
        if state is None or state.data is None:
            state = await self.call(self._service.standing.trained)
            assert state.data is not None
        reader = self._reader(state.data)
        asked = await self.predictions.handle(len(payload), lambda: reader.read(payload, media_type))
        answer = await asyncio.wrap_future(self._service.answering.ask(asked.features_NF))
        note(request.scope, points=len(asked.features_NF), generation=answer.generation)
        body = await self.predictions.handle(
            len(payload),
            lambda: answer_body(
                answer.facts,
                answer.scores_NS,
                asked,
                self._target,
                self._service.specification.data.id,
                answer_type,
            ),
        )
        return Response(body, media_type=answer_type)

    def _reader(self, ingested: DataState) -> BodyReader:
        """Return the reader for the data as ingested; the same object until the data change."""
        if self._read_as is None or self._read_as[0] is not ingested:
            self._read_as = ingested, BodyReader.of(self._service.specification, ingested)
        return self._read_as[1]

    async def erase(self, request: Request) -> Response:
        """Submit an erasure request; it is durable when the server answers, and is carried out even after a crash.

        With 'include_similar' subjects whose names differ only in spelling are erased with those named. Only this
        answer has private details: the 'salt' of a new request, which proves whom the receipt is about, and, if you
        repeat a request that was carried out, which of its names are unknown.

        The same Idempotency-Key with the same names is the same request. For a token of the role erase, a key that was
        used with another token is a conflict, even with the same names. Only the role federate may erase everyone at
        once, as for a site that leaves its federation. Roles: erase, officer, federate.
        """
        token = await self.admit(request, "erase", "officer", "federate")
        wanted, request_id = await self.erasure_asked(request, token, "everyone")
        if wanted.everyone:
            _refuse_unless_federation(token)
        erasures = self._service.erasures
        status, is_new = await self.submit(
            lambda: (
                erasures.submit_everyone(token, request_id)
                if wanted.everyone
                else erasures.submit(
                    token,
                    wanted.subjects,
                    wanted.ids,
                    request_id,
                    wanted.held,
                    include_similar=wanted.include_similar,
                )
            )
        )
        note(request.scope, request_id=status.request_id)
        location = request.url_for(self.erasure.__name__, request_id=status.request_id).path
        return json_answer(asdict(status), 202 if is_new else 200, {"Location": location})

    async def erasure(self, request: Request, request_id: str) -> Response:
        """Return the status of an erasure request.

        A token of the role erase sees only the requests that were submitted with it: others are missing (404). Roles:
        erase, audit, officer, federate.
        """
        token = await self.admit(request, "erase", "audit", "officer", "federate")
        check_request_id(request_id)
        return json_answer(asdict(await self.call(lambda: self._service.erasures.find(token, request_id))))

    async def receipt(self, request: Request, request_id: str) -> Response:
        """Return the signed receipt of a complete erasure; 'sisa receipt --check' verifies it.

        For a refused request, and for a readmission, it is the signed statement that takes a receipt's place. A token
        of the role erase sees only the receipts of requests that were submitted with it.
        Roles: erase, audit, officer, federate.
        """
        token = await self.admit(request, "erase", "audit", "officer", "federate")
        check_request_id(request_id)
        bundle = await self.call(lambda: self._service.erasures.receipt(token, request_id))
        return Response(bundle, media_type=JSON)

    async def hold(self, request: Request, request_id: str) -> Response:
        """Pause an erasure request, such as for a legal hold, as long as none of its points are removed.

        Its due date moves along. Roles: officer.
        """
        return await self._changed(request, request_id, Hold, reason=str)

    async def release(self, request: Request, request_id: str) -> Response:
        """End an erasure request's pause: it is carried out. Roles: officer."""
        return await self._changed(request, request_id, Release)

    async def extend(self, request: Request, request_id: str) -> Response:
        """Move an erasure request's due date, once, and before it is overdue. Roles: officer."""
        return await self._changed(request, request_id, Extend, days=int, reason=str)

    async def cancel(self, request: Request, request_id: str) -> Response:
        """Withdraw an erasure request, as long as none of its points are removed. Roles: officer."""
        return await self._changed(request, request_id, Cancel, reason=str)

    async def lookup(self, request: Request) -> Response:
        """Count the data points of each subject named, and of subjects with similar names; the answer repeats no name.

        'erased' means that the subject was erased and its new data points are kept out. A look-up changes nothing, and
        leaves only a line in the log with the number of names. At most 100 names per request, and [serve]
        lookups_per_minute requests with one token. The role federate needs the site's permission.
        Roles: officer, federate.
        """
        token = await self.admit(request, "officer", "federate")
        subjects = await self._looked_up(request, token)
        lookup = self._service.telling.lookup if token.role == "federate" else self._service.standing.lookup
        return json_answer(asdict(SubjectsFound(subjects=await self.call(lambda: lookup(subjects)))))

    async def trace(self, request: Request) -> Response:
        """Return for each subject named its slices, the checkpoints and generations that may know it, and its requests.

        For an erased subject the answer has what the store still has on record. The answer repeats no
        name, and the call is limited, counted and logged as a look-up. Roles: officer.
        """
        token = await self.admit(request, "officer")
        subjects = await self._looked_up(request, token)
        return json_answer(asdict(await self.call(lambda: self._service.standing.trace(subjects))))

    async def readmit(self, request: Request) -> Response:
        """Let erased subjects come back: their new data points are accepted at the next training.

        Erased data points stay out by their ids, where these are known. A signed statement records the readmission and
        its reason; it is the receipt of the id in the answer. The same Idempotency-Key with the same names is the same
        readmission. Roles: officer.
        """
        token = await self.admit(request, "officer")
        request_id = idempotency_key(request)
        said = await self.members(request, token, {"subjects": list, "reason": str})
        names, most = said["subjects"], self._settings.max_names
        note(request.scope, names=len(names))
        if len(names) > most:
            raise Refused(too_large(f"the request names more than {most:,}", "Send several."))
        subjects = checked_names(names, "subjects")
        erasures = self._service.erasures
        answer = await self.submit(lambda: erasures.readmit(subjects, said["reason"], request_id))
        note(request.scope, request_id=answer.request_id)
        return json_answer(asdict(answer))

    async def status(self, request: Request) -> Response:
        """Return the federation's status.

        For the role predict, the answer leaves out erasure requests and the store's place, and for each constituent
        'points', 'digest', 'slice_digests' and 'budget_used' are null. For the role federate it leaves out 'measure',
        and for every role but officer the measures before and after a request. Roles: predict, audit, officer,
        federate.
        """
        token = await self.admit(request, "predict", "audit", "officer", "federate")
        status = await self.call(self._service.standing.reading.status)
        if token.role != "officer":
            seen_by = {"predict": for_the_public, "federate": for_the_federation}.get(token.role, without_effects)
            status = seen_by(status)
        return json_answer(asdict(status))

    async def standing(self, request: Request) -> Response:
        """Return this site's standing, for the federation that it is a site of. Roles: federate."""
        await self.admit(request, "federate")
        heard_of = whole_number(request, "requests")
        return json_answer(asdict(await self.call(lambda: self._service.telling.standing(heard_of))))

    async def measure(self, request: Request) -> Response:
        """Return how well this site does on its own hold-out points, if its federation may know. Roles: federate."""
        await self.admit(request, "federate")
        return json_answer(asdict(await self.call(self._service.telling.measure)))

    async def checkpoint(self, request: Request, shard: str, sha256: str) -> Response:
        """Return a checkpoint, or its part that serves, to the federation, if weights may leave. Roles: federate."""
        await self.admit(request, "federate")
        if not (_NUMBER.fullmatch(shard) and _DIGEST.fullmatch(sha256)):
            raise Invalid(
                "a checkpoint is named by its shard's number and its digest, 64 hexadecimal digits", "See /docs."
            )
        payload = await self.call(lambda: self._service.telling.checkpoint(int(shard), sha256))
        return Response(payload, media_type=OCTETS)

    async def _looked_up(self, request: Request, token: TokenRecord) -> list[str | int]:
        """Return the subjects that a look-up names, counted for the token and in the log. Raises as ``lookup`` does."""
        self._service.gate.count_lookup(token)
        names = (await self.members(request, token, {"subjects": list}))["subjects"]
        note(request.scope, names=len(names))
        most = min(MOST_LOOKED_UP, self._settings.max_names)
        if len(names) > most:
            raise Refused(too_large(f"the request names more than {most:,}", "Send several."))
        subjects = checked_names(names, "subjects")
        if not subjects:
            raise Invalid("no subject is named", "Name at least one.")
        return subjects

    async def _changed(
        self, request: Request, request_id: str, intervention: type[Intervention], **kinds: type
    ) -> Response:
        """Have the coordinator change a request; ``kinds``: the members of the body and their types."""
        token = await self.admit(request, "officer")
        check_request_id(request_id)
        said = await self.members(request, token, kinds)
        status = await self.submit(lambda: self._service.erasures.intervene(token, request_id, intervention(**said)))
        note(request.scope, request_id=request_id)
        return json_answer(asdict(status))


def _refuse_unless_federation(token: TokenRecord) -> None:
    if token.role != "federate":
        raise Refused(
            HttpProblem(
                status=403,
                kind="forbidden",
                message=f"a token with the role '{token.role}' may not erase everyone",
                remedy="Name whom to erase. Only the role 'federate' may erase everyone at once.",
            )
        )
