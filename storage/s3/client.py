"""Objects in an S3 bucket: conditional puts that recognise their own success, checked reads, purges of every version.

The only module that uses boto3. Each process makes its clients at its first request; they never cross a fork or a
pickle. Credentials come from boto3's own chain (environment, profile, role), never from our settings. The settings may
name a profile: each machine looks it up in its own credentials file, and only its name is sent to other processes.

boto3's transfer manager is not used: with its CRT client it ignores the endpoint and sends to the public address of the
region (boto3 issue 4839).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Literal

import boto3.session
import botocore.exceptions as botocore_errors
from botocore.config import Config
from botocore.parsers import ResponseParserError

from storage.errors import Invalid, SisaError
from storage.s3.bucket import PutOutcome, StoreFacts
from storage.s3.errors import REFUSED_CREDENTIALS, Complaint, outcome_of, redirected, refusal, unidentified, unreachable
from storage.s3.names import S3Names, check_bucket_and_prefix, check_endpoint
from storage.s3.requests import PART_BYTES, Failure, S3Requests
from storage.s3.responses import S3Answer, date_of
from storage.s3.store import BucketStore

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_ABOUT_CHECKSUMS = re.compile(r"checksum|x-amz-trailer|aws-chunked", re.IGNORECASE)
_LARGEST_PUT_BYTES = 5 * 1024 * 1024 * 1024
_CONNECTIONS = 64

_ERRORS = (botocore_errors.ClientError, botocore_errors.BotoCoreError)

_NOT_SENT = (
    botocore_errors.EndpointConnectionError,
    botocore_errors.ConnectTimeoutError,
    botocore_errors.ProxyConnectionError,
    botocore_errors.SSLError,
)
"""The request did not leave this machine."""

_NO_ANSWER = (
    botocore_errors.HTTPClientError,
    botocore_errors.ConnectionError,
    botocore_errors.IncompleteReadError,
    botocore_errors.FlexibleChecksumError,
    ResponseParserError,
)
"""The request may have been sent; no complete answer arrived."""

_NOBODY = (
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.CredentialRetrievalError,
    botocore_errors.TokenRetrievalError,
    botocore_errors.ProfileNotFound,
    botocore_errors.ConfigParseError,
    botocore_errors.SSOError,
    botocore_errors.LoginError,
)


@dataclass(frozen=True, slots=True)
class S3Store(BucketStore):
    """An ``ObjectStore`` under ``prefix`` of a bucket that exists; safe under any number of machines."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    """Address of a compatible server, such as ``http://127.0.0.1:8333``; None: AWS, or boto3's own setting."""
    region: str | None = None
    """None: boto3's own setting, else ``us-east-1``."""
    lease_seconds: float = 15.0
    """How long the right to write lasts without renewal."""
    multipart_above_bytes: int | None = None
    """Larger payloads are uploaded in parts of 64 MiB. None: 64 MiB on AWS; on other servers 5 GiB, the most that one
    put can carry, because some of them (SeaweedFS 4.48) let several racing writers complete the same object."""
    connect_timeout_seconds: float = 3.0
    """Time limit for reaching the server."""
    read_timeout_seconds: float = 20.0
    """Time limit without a byte from the server; a contended conditional put may take a few seconds."""
    checksums: Literal["when_supported", "when_required"] | None = None
    """``when_required`` for servers that refuse checksums; None: boto3's own setting, else ``when_supported``."""
    monotonic: Callable[[], float] = time.monotonic
    """A monotonic clock, in seconds."""
    profile: str | None = None
    """Name of the profile whose credentials are used instead of the environment's; None: those that boto3 finds."""

    def __post_init__(self) -> None:
        check_bucket_and_prefix(self.bucket, self.prefix)
        if self.endpoint is not None:
            check_endpoint(self.endpoint)

    @property
    def location(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def address(self) -> str:
        """Server and location."""
        return f"{self.server} {self.location}"

    @property
    def single_put_bytes(self) -> int:
        """The largest payload that goes in one put."""
        if self.multipart_above_bytes is not None:
            return self.multipart_above_bytes
        return PART_BYTES if self.endpoint is None else _LARGEST_PUT_BYTES

    @property
    def server(self) -> str:
        """The server as the user knows it."""
        return self.endpoint or "AWS"

    @property
    def full_names(self) -> S3Names:
        """The names under the prefix."""
        return S3Names(self.prefix)

    @property
    def requests(self) -> S3Requests:
        """The bucket, through this process's clients."""
        return S3Requests(
            caller=_Asking(self),
            bucket=self.bucket,
            location=self.location,
            single_put_bytes=self.single_put_bytes,
        )

    def describe(self, now: datetime) -> StoreFacts:
        """Return what is known about bucket and server; ``now`` is this machine's time, with its zone."""
        return self.requests.facts(now)


# ------------------------------------------------------------------------------------------------------- clients

_Clients = tuple["S3Client", "S3Client"]
_CLIENTS: dict[tuple[object, ...], _Clients] = {}  # under ``_GUARD``
_GUARD = threading.Lock()


def _clients(store: S3Store) -> _Clients:
    """Return this process's two clients for the store's server.

    The first repeats failed requests; the second sends each request once, for conditional puts: if a client repeats
    them by itself, the repetition meets the put's own success and is reported as a failure.
    """
    place = _place(store)
    with _GUARD:
        if place not in _CLIENTS:
            session = boto3.session.Session(region_name=store.region, profile_name=store.profile)
            _CLIENTS[place] = (_client(store, session, attempts=5), _client(store, session, attempts=1))
        return _CLIENTS[place]


def _place(store: S3Store) -> tuple[object, ...]:
    timeouts = (store.connect_timeout_seconds, store.read_timeout_seconds)
    return (store.endpoint, store.region, store.profile, store.checksums, *timeouts)


def _forget_clients(store: S3Store) -> None:
    """Make the next request read the credentials again: they may expire while the process runs."""
    with _GUARD:
        _CLIENTS.pop(_place(store), None)


def _client(store: S3Store, session: boto3.session.Session, *, attempts: int) -> S3Client:
    config = Config(
        connect_timeout=store.connect_timeout_seconds,
        read_timeout=store.read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=_CONNECTIONS,
        s3={"addressing_style": "path" if store.endpoint else "auto"},
        **({} if store.checksums is None else _checksums(store.checksums)),
    )
    region = session.region_name or "us-east-1"
    client = session.client("s3", region_name=region, endpoint_url=store.endpoint, config=config)
    client.meta.events.register("before-parse.s3", _settle_dates)
    client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
    if store.endpoint is not None:
        client.meta.events.register_first("needs-retry.s3", _refuse_redirect)
    return client


def _settle_dates(response_dict: dict[str, Any], **_: Any) -> None:
    """Reduce an answer's date headers to at most one valid date: boto3 raises for anything else."""
    headers = response_dict["headers"]
    if (changed := headers.pop("last-modified", None)) is not None and (date := date_of(changed)) is not None:
        headers["last-modified"] = format_datetime(date.astimezone(UTC), usegmt=True)


def _add_md5(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Add ``Content-MD5`` to a batch deletion: servers that are older than S3's other checksums require it.

    With ``checksums="when_required"`` it is the only checksum that is sent.
    """
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
    if context["client_config"].request_checksum_calculation == "when_required":
        context.get("checksum", {}).pop("request_algorithm", None)


def _checksums(wanted: str) -> dict[str, Any]:
    return {"request_checksum_calculation": wanted, "response_checksum_validation": wanted}


def _forget_in_child() -> None:
    """Make a forked child create its own clients: two processes on one connection would mix up their answers."""
    _CLIENTS.clear()
    _GUARD.release()


os.register_at_fork(before=_GUARD.acquire, after_in_parent=_GUARD.release, after_in_child=_forget_in_child)


# ------------------------------------------------------------------------------------------------------- errors


class _Redirected(botocore_errors.ClientError):
    """A redirect that names no region."""


def _refuse_redirect(response: tuple[Any, Any] | None, operation: Any, **_: Any) -> None:
    """Raise ``_Redirected`` in place of an endless loop: boto3 would ask for the region and be redirected again."""
    if response is None or response[0].status_code not in {301, 302, 307}:
        return
    if "x-amz-bucket-region" not in response[0].headers and "Region" not in response[1].get("Error", {}):
        raise _Redirected(response[1], operation.name)


@dataclass(frozen=True, slots=True)
class _Asking:
    """This process's clients. Implements ``storage.s3.requests.S3Caller``."""

    store: S3Store

    def ask(self, operation: str, *, once: bool = False, **wanted: Any) -> S3Answer | Failure:
        """Send the request through the client that repeats failed requests, or through the other one."""
        begun = False
        try:
            again, single = _clients(self.store)
            answer: S3Answer = getattr(single if once else again, operation)(**wanted)
            begun = True
            if "Body" not in answer:
                return answer
            with closing(
                answer["Body"]
            ) as body:  # the body's own context manager gives the raw stream, without the checksum
                return {**answer, "Payload": body.read()}
        except _ERRORS as error:
            failure = _failure(error, self.store)
            failure.error.__cause__ = error
            if failure.code in REFUSED_CREDENTIALS:
                _forget_clients(self.store)
            return replace(failure, in_body=begun)


def _failure(error: Exception, store: S3Store) -> Failure:
    if isinstance(error, _Redirected):
        elsewhere = redirected(store=store.location, server=store.server)
        return Failure(error=elsewhere, outcome=None, code=type(error).__name__)
    if isinstance(error, botocore_errors.ClientError):
        said: Mapping[str, Any] = error.response
        complaint = Complaint(
            code=str(said.get("Error", {}).get("Code", "")),
            status=int(said.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)),
            request=error.operation_name,
            names_checksums=_ABOUT_CHECKSUMS.search(str(said.get("Error", {}).get("Message", ""))) is not None,
        )
        ours = refusal(complaint, store=store.location, server=store.server)
        return Failure(error=ours, outcome=outcome_of(complaint), code=complaint.code, status=complaint.status)
    doubtful = isinstance(error, _NO_ANSWER) and not isinstance(error, _NOT_SENT)
    sent = PutOutcome.DOUBTFUL if doubtful else PutOutcome.NOT_DONE if isinstance(error, _NOT_SENT) else None
    return Failure(error=_as_ours(error, store), outcome=sent, code=type(error).__name__)


def _as_ours(error: Exception, store: S3Store) -> SisaError:
    cause = type(error).__name__
    if store.profile is not None and isinstance(error, _NOBODY):
        return _without_profile(store, store.profile, cause)
    if isinstance(error, _NOBODY):
        return unidentified(cause, store=store.location)
    if isinstance(error, _NO_ANSWER):
        return unreachable(cause, store=store.location, server=store.server)
    return Invalid(
        "the store's client refuses the request",
        "Check 'store', 'endpoint' and boto3's own configuration.",
        store=store.location,
        cause=cause,
    )


def _without_profile(store: S3Store, profile: str, cause: str) -> Invalid:
    return Invalid(
        "this machine has no usable credentials under the name of the profile",
        "Write the profile into ~/.aws/credentials, or the file that AWS_SHARED_CREDENTIALS_FILE names, on each machine"
        " that uses the bucket, or correct 'credentials'.",
        profile=profile,
        store=store.location,
        cause=cause,
    )
