"""Answers to requests that fail: a status, and one body for all errors."""

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
"""How long a caller should wait before it tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProblem:
    """The answer to a request that is refused or failed. It quotes neither what the caller sent nor any secret."""

    status: int
    kind: str
    message: str
    remedy: str
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """Return the HTTP response."""
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
"""On every answer: a cached prediction would outlive the erasure of the data that it was made with."""


def problem_of(error: SisaError) -> HttpProblem:
    """Return the answer for ``error``; for a fault on our side it leaves out identifiers."""
    if isinstance(error, TooManyPoints):
        return too_large(error.fact, error.remedy)
    if isinstance(error, ModelFailed):
        return HttpProblem(status=422, kind=MODEL_FAILED, message=error.message, remedy=error.remedy)
    if isinstance(error, Withheld):
        return HttpProblem(status=403, kind="withheld", message=error.message, remedy=error.remedy)
    if isinstance(error, NewerFormat):  # the caller is not to blame
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
    """Return the refusal of a request that cannot be read."""
    return Refused(HttpProblem(status=400, kind="invalid", message=message, remedy=remedy))


def too_large(message: str, remedy: str) -> HttpProblem:
    """Return the problem for a request that is too large."""
    return HttpProblem(status=413, kind="too_large", message=message, remedy=remedy)


def internal() -> HttpProblem:
    """Return the problem for a request that ran into a bug, without the error's text, which may quote data."""
    return HttpProblem(
        status=500,
        kind="internal",
        message="an unexpected error ended the work on this request; this is a bug",
        remedy="Report it, with the request id of this answer.",
    )
