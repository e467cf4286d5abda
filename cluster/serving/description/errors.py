"""Errors by name: what each status means, and an example of every kind of error with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cluster.client import MODEL_FAILED


@dataclass(frozen=True, slots=True)
class ErrorExample:
    """One kind of error: programs go by the kind, people by the message and the remedy."""

    kind: str
    message: str
    remedy: str

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": {"kind": self.kind, "message": self.message, "remedy": self.remedy}}


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """One HTTP status of errors."""

    meaning: str
    examples: tuple[ErrorExample, ...]

    @property
    def named(self) -> dict[str, Any]:
        """The examples by kind, in the form of an OpenAPI document."""
        return {each.kind: {"summary": each.kind, "value": each.body} for each in self.examples}


ERRORS: Final[dict[int, ErrorStatus]] = {
    400: ErrorStatus(
        "The body cannot be read, or a key in the body, a header or a parameter is repeated.",
        (ErrorExample("invalid", "the request has the header Authorization twice", "Send it once."),),
    ),
    401: ErrorStatus(
        "The token is missing, unknown, expired or revoked.",
        (
            ErrorExample(
                "unauthorized",
                "a bearer token is needed",
                "Send 'Authorization: Bearer ...'; see 'sisa token create'.",
            ),
        ),
    ),
    403: ErrorStatus(
        "The token's role may not do this, or the site does not give this away.",
        (
            ErrorExample(
                "forbidden", "a token with the role 'predict' may not do this", "Use one with the role 'officer'."
            ),
            ErrorExample("withheld", "the site's weights do not leave it", "Ask the site for predictions."),
        ),
    ),
    404: ErrorStatus(
        "There is no such thing.",
        (ErrorExample("missing", "there is no such erasure request", "Check its id: requests are never deleted."),),
    ),
    406: ErrorStatus(
        "None of the accepted formats can be written.",
        (ErrorExample("not_acceptable", "answers are JSON or an Arrow stream", "Accept one of these."),),
    ),
    408: ErrorStatus(
        "The body does not arrive: its sender is too slow, or has stopped.",
        (ErrorExample("too_slow", "the body did not come in", "Send it without a pause."),),
    ),
    409: ErrorStatus(
        "The request id was used for something else, or it is too late for this.",
        (
            ErrorExample(
                "conflict",
                "this request id was used before, and not with this token",
                "Choose another Idempotency-Key, or leave it out: one is drawn then.",
            ),
        ),
    ),
    413: ErrorStatus(
        "The body, or what it names, is larger than this server takes.",
        (ErrorExample("too_large", "the request names more than 100", "Send several."),),
    ),
    415: ErrorStatus(
        "The body's media type is not supported.",
        (
            ErrorExample(
                "unsupported_media_type", "the body is text/html", "Send application/json, and say so in Content-Type."
            ),
        ),
    ),
    422: ErrorStatus(
        "What the body says is not acceptable.",
        (
            ErrorExample("invalid", "no subject is named", "Name at least one."),
            ErrorExample(
                MODEL_FAILED,
                "the model cannot answer data point 2: it returns a value that is not finite",
                "Leave that data point out, or correct it.",
            ),
        ),
    ),
    429: ErrorStatus(
        "This token asks too often, or for too much at once.",
        (
            ErrorExample(
                "rate_limited",
                "this token asks more than 6,000 times a minute",
                "Wait as long as Retry-After says. Ask for more in one request.",
            ),
        ),
    ),
    500: ErrorStatus(
        "A bug of this server.",
        (
            ErrorExample(
                "internal",
                "an unexpected error ended the work on this request; this is a bug",
                "Report it, with the request id of this answer.",
            ),
        ),
    ),
    503: ErrorStatus(
        "The store, the coordinator or a trained ensemble is not available now, or this server is too busy: try again"
        " later.",
        (
            ErrorExample("unavailable", "no coordinator is at work to accept or change requests", "Run 'sisa launch'."),
            ErrorExample(
                "outcome_unknown", "whether the request was accepted is not known", "Send it again with the same key."
            ),
            ErrorExample("corrupt", "an object of the store is damaged", "Ask the operator to run 'sisa verify'."),
        ),
    ),
}
