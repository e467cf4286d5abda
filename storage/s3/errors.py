"""Translates a server's codes and a client's errors into the outcome of a put, and into errors of this system.

The server's own text is never passed on: it may quote the request, and with it secrets.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.errors import Invalid, SisaError, StoreFull, Unavailable
from storage.s3.bucket import PutOutcome

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give this machine a role"

_NO_CHECKSUMS = (
    "set AWS_REQUEST_CHECKSUM_CALCULATION and AWS_RESPONSE_CHECKSUM_VALIDATION to when_required, on every machine that"
    " uses the store: each object that is read is still checked against its SHA-256"
)

_SPOILED = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InvalidDigest",
        "InvalidPart",
        "MalformedXML",
        "RequestTimeout",
        "XAmzContentSHA256Mismatch",
        "XAmzContentChecksumMismatch",
    }
)
"""The upload was damaged or cut off on its way; nothing was changed."""

_WRONG_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity", "NotSignedUp"}
)
_RUN_OUT = frozenset({"ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException", "RequestExpired"})
REFUSED_CREDENTIALS = _WRONG_CREDENTIALS | _RUN_OUT
"""Nothing was done, and these credentials will not be accepted again; they may have been replaced by now."""

_FULL = frozenset(
    {
        "QuotaExceeded",
        "XMinioStorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "InsufficientStorage",
        "StorageFull",
        "InsufficientCapacity",
    }
)
_ELSEWHERE = frozenset(
    {
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "TemporaryRedirect",
        "301",
    }
)
_LACKING = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})
_DENIED = frozenset(
    {"AccessDenied", "AllAccessDisabled", "AccountProblem", "UnauthorizedAccess", "403", "401", "Forbidden"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """An answer that is not a success."""

    code: str
    """The server's code, such as ``SlowDown``; the HTTP status if the answer has no body."""
    status: int
    """The HTTP status."""
    request: str = ""
    """S3's name of the request."""
    names_checksums: bool = False
    """Whether the server's text is about checksums."""


def outcome_of(complaint: Complaint) -> PutOutcome | None:
    """Return the outcome of a conditional put with this answer; None when the server plainly refuses to serve it.

    >>> outcome_of(Complaint(code="PreconditionFailed", status=412))
    <PutOutcome.REFUSED: 'refused'>
    >>> outcome_of(Complaint(code="InternalError", status=200))
    <PutOutcome.DOUBTFUL: 'doubtful'>
    """
    code, status = complaint.code, complaint.status
    if status == 412 or code == "PreconditionFailed":
        return PutOutcome.REFUSED
    if code == "NoSuchKey":
        return PutOutcome.MISSING
    if status in {409, 429} or code in _SPOILED or code == "NoSuchUpload":
        return PutOutcome.NOT_DONE
    if (status >= 500 or status < 300) and code not in _LACKING | _FULL and status not in {501, 507}:
        return PutOutcome.DOUBTFUL
    return None


def refusal(complaint: Complaint, *, store: str, server: str) -> SisaError:
    """Return the error for an answer that repetitions cannot change, or did not change.

    ``server`` is the endpoint as the user knows it.
    """
    code, status = complaint.code, complaint.status
    context: dict[str, str | int] = {"store": store, "server": server, "code": code, "status": status}
    if status == 411 or (complaint.names_checksums and code not in _SPOILED and status >= 400):
        return Unavailable(
            "the store's server refuses the checksums that come with requests", _sentence(_NO_CHECKSUMS), **context
        )
    if code in {"NoSuchBucket", "InvalidBucketName"}:
        return Invalid("the bucket does not exist", "Create it, or correct 'store' and 'endpoint'.", **context)
    if code in _WRONG_CREDENTIALS:
        return Invalid("the store does not accept these credentials", f"Correct them: {_CREDENTIALS}.", **context)
    if code in _RUN_OUT:
        return Unavailable("the credentials have run out", "Renew them, then repeat the command.", **context)
    if code == "RequestTimeTooSkewed":
        return Unavailable(
            "this machine's clock and the store's differ by too much for the store to answer",
            "Set this machine's clock (NTP), then repeat the command.",
            **context,
        )
    if code in _FULL or status == 507:
        return StoreFull(
            "the store has no room for the object; nothing was published", "Free space or raise the quota.", **context
        )
    if code in _ELSEWHERE or status in {301, 307}:
        return Invalid("the bucket is in another region", "Set AWS_REGION to the bucket's region.", **context)
    if status in {302, 303, 308}:
        return redirected(store=store, server=server)
    if code in _LACKING or status in {405, 501}:
        asked: dict[str, str | int] = {"request": complaint.request} if complaint.request else {}
        return Unavailable(
            "the store's server does not know a request that is needed, or a header of it",
            "Choose a server with conditional puts, version listings and multipart uploads. If it has them but takes no"
            f" checksums, {_NO_CHECKSUMS}.",
            **context,
            **asked,
        )
    return _other(complaint, context)


def unreachable(cause: str, *, store: str, server: str) -> Unavailable:
    """Return the error for a server that did not answer."""
    return Unavailable(
        "the store's server cannot be reached",
        "Check 'endpoint', the network, and whether the server runs.",
        store=store,
        server=server,
        cause=cause,
    )


def redirected(*, store: str, server: str) -> Invalid:
    """Return the error for a server that sends requests elsewhere."""
    return Invalid(
        "the store's server sends requests elsewhere",
        "Set 'endpoint' to the address of S3 itself ('https://' where 'http://' leads there), not of a console or"
        " website.",
        store=store,
        server=server,
    )


def unidentified(cause: str, *, store: str) -> Invalid:
    """Return the error for a machine that has no usable credentials."""
    return Invalid(
        "this machine has no usable credentials for the store", _sentence(_CREDENTIALS), store=store, cause=cause
    )


def _sentence(instruction: str) -> str:
    return f"{instruction[0].upper()}{instruction[1:]}."


def _other(complaint: Complaint, context: dict[str, str | int]) -> SisaError:
    if complaint.code in _DENIED or complaint.status in {401, 403}:
        return Unavailable(
            "the store does not allow this account what is asked of it",
            "Allow it to read, write, list and delete objects and their versions under the prefix.",
            **context,
        )
    if complaint.status >= 500 or complaint.status in {200, 408, 409, 429} or complaint.code in _SPOILED:
        return Unavailable("the store's server is overloaded or failing", "Try again later.", **context)
    return Invalid("the store's server refuses the request", "Check 'store', 'endpoint' and the server.", **context)
