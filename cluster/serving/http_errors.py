"""What callers are told when something is wrong: a status, and one body for all errors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from starlette.responses import Response

from cluster.client import MODEL_FAILED
from cluster.ensemble.site_report import Withheld
from coordinator.aggregation import ModelFailed
from shards.data.messages import TooManyPoints, Unreadable
from storage.errors import Conflict, Invalid, InvariantBroken, NewerFormat, ObjectMissing, SisaError

RETRY_SECONDS: Final = 1
"""After so long a caller may try again what is away for now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProblem:
    """The answer to a request that is refused or failed. Quotes nothing that the caller sent, and no secret of ours."""

    status: int
    kind: str
    message: str
    remedy: str
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """Return it as HTTP has it."""
        body = {"error": {"kind": self.kind, "message": self.message, "remedy": self.remedy}}
        return Response(
            json.dumps(body),
            status_code=self.status,
            media_type="application/json",
            headers={**NO_STORE, **self.headers},
        )


class Refused(Exception):
    """Ends the work on a request with a problem. Never leaves this process."""

    def __init__(self, problem: HttpProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


NO_STORE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""On every answer: a prediction that a cache keeps would outlive the erasure of what it was made with."""


def problem_of(error: SisaError) -> HttpProblem:
    """Return what a caller is told of ``error``; what went wrong on our side is told without names of things."""
    if isinstance(error, TooManyPoints):
        return too_large(error.fact, error.remedy)
    if isinstance(error, ModelFailed):
        return HttpProblem(status=422, kind=MODEL_FAILED, message=error.message, remedy=error.remedy)
    if isinstance(error, Withheld):
        return HttpProblem(status=403, kind="withheld", message=error.message, remedy=error.remedy)
    if isinstance(error, NewerFormat):  # nothing that was sent is the cause
        return _away(error)
    for kind, status in ((Unreadable, 400), (Invalid, 422), (Conflict, 409), (ObjectMissing, 404)):
        if isinstance(error, kind):
            return HttpProblem(status=status, kind=error.kind, message=error.message, remedy=error.remedy)
    if isinstance(error, InvariantBroken):
        return HttpProblem(status=500, kind=error.kind, message=error.fact, remedy=error.remedy or "Report it.")
    return _away(error)


def _away(error: SisaError) -> HttpProblem:
    return HttpProblem(
        status=503,
        kind=error.kind,
        message=error.fact,
        remedy=error.remedy or "Try again.",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def unreadable(message: str, remedy: str) -> Refused:
    """Return the end of a request whose body is not what it says."""
    return Refused(HttpProblem(status=400, kind="invalid", message=message, remedy=remedy))


def too_large(message: str, remedy: str) -> HttpProblem:
    """Return the problem of a request that is larger than a request may be."""
    return HttpProblem(status=413, kind="too_large", message=message, remedy=remedy)


def internal() -> HttpProblem:
    """Return the problem of a request that met a bug of ours. What it was is for nobody's eyes: it may quote data."""
    return HttpProblem(
        status=500,
        kind="internal",
        message="an unexpected error ended the work on this request; this is a bug",
        remedy="Report it, with the request id of this answer.",
    )
