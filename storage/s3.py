"""Objects in an S3 bucket: conditional puts that know their own success, proved reads, purges of every version.

The one door to boto3. Clients are made in each process at its first request and never cross a fork or a pickle.
Credentials come from boto3's own chain (environment, profile, role), never from our settings.

Never by boto3's transfer manager: with its CRT client it ignores the endpoint and sends to the public address of the
region (boto3 issue 4839).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

import boto3.session
import botocore.exceptions as botocore_errors
from botocore.config import Config

from storage.bucket import (
    Bucket,
    Fate,
    Listed,
    Mark,
    PutReply,
    Read,
    Refusal,
    Seen,
    StoreFacts,
    Upload,
    Version,
)
from storage.bucket_store import BucketStore, pause
from storage.digests import sha256
from storage.errors import Corrupt, Invalid, ObjectMissing, SisaError, Unavailable
from storage.objects import VersionTag
from storage.s3_names import S3Names, check_endpoint, check_place
from storage.s3_refusals import Complaint, fate_of, refusal, unidentified, unreachable

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_MIB = 1024 * 1024
_PART_BYTES = 64 * _MIB
_CONNECTIONS = 64
_READ_ATTEMPTS = 4

_Errors = (botocore_errors.ClientError, botocore_errors.BotoCoreError)

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
)
"""It may have been sent, and its answer did not come whole."""

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
    """Address of a compatible server, such as ``http://127.0.0.1:8333``; None: AWS, or what boto3 is told."""
    region: str | None = None
    """None: what boto3 is told, else ``us-east-1``."""
    lease_seconds: float = 15.0
    """How long the right to write lasts without renewal."""
    multipart_above_bytes: int = _PART_BYTES
    """Larger payloads are uploaded in parts of 64 MiB."""
    connect_timeout_seconds: float = 3.0
    """To reach the server."""
    read_timeout_seconds: float = 20.0
    """Without a byte from the server; a contended conditional put may take a few seconds."""
    checksums: Literal["when_supported", "when_required"] | None = None
    """``when_required`` for servers that refuse checksums; None: what boto3 is told, else ``when_supported``."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds that only ever grow."""

    def __post_init__(self) -> None:
        check_place(self.bucket, self.prefix)
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
    def server(self) -> str:
        """The server as the user knows it."""
        return self.endpoint or "AWS"

    @property
    def names(self) -> S3Names:
        """The names under the prefix."""
        return S3Names(self.prefix)

    @property
    def requests(self) -> Bucket:
        """The bucket, through this process's clients."""
        with _told(self):
            again, once = _clients(self)
        return _Requests(store=self, again=again, once=once)

    def describe(self, now: datetime) -> StoreFacts:
        """Return what is known of bucket and server; ``now`` is this machine's time, with its zone."""
        with _told(self):
            again, _ = _clients(self)
        return _facts(self, again, now)


# ------------------------------------------------------------------------------------------------------- clients

_Clients = tuple["S3Client", "S3Client"]
_CLIENTS: dict[tuple[object, ...], _Clients] = {}
_GUARD = threading.Lock()


def _clients(store: S3Store) -> _Clients:
    """Return this process's two clients for the store's server.

    The first repeats requests that may be repeated; the second sends each once: a conditional put that the client
    repeats by itself meets its own success and reports a failure.
    """
    timeouts = (store.connect_timeout_seconds, store.read_timeout_seconds)
    place = (store.endpoint, store.region, store.checksums, *timeouts)
    with _GUARD:
        if place not in _CLIENTS:
            session = boto3.session.Session(region_name=store.region)
            _CLIENTS[place] = (_client(store, session, attempts=5), _client(store, session, attempts=1))
        return _CLIENTS[place]


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
    return session.client("s3", region_name=region, endpoint_url=store.endpoint, config=config)


def _checksums(wanted: str) -> dict[str, Any]:
    return {"request_checksum_calculation": wanted, "response_checksum_validation": wanted}


def _forget_in_child() -> None:
    """Let a forked child make clients of its own: two processes on one connection would mix their answers."""
    _CLIENTS.clear()
    _GUARD.release()


os.register_at_fork(before=_GUARD.acquire, after_in_parent=_GUARD.release, after_in_child=_forget_in_child)


# ------------------------------------------------------------------------------------------------------- errors


@contextmanager
def _told(store: S3Store) -> Iterator[None]:
    """Turn boto3's errors from the block into the kind that says what the caller can do."""
    try:
        yield
    except _ERRORS as error:
        raise _as_ours(error, store) from error


def _as_ours(error: Exception, store: S3Store) -> SisaError:
    cause = type(error).__name__
    if isinstance(error, botocore_errors.ClientError):
        return refusal(_complaint(error), store=store.location, server=store.server)
    if isinstance(error, _NOBODY):
        return unidentified(cause, store=store.location)
    if isinstance(error, _NO_ANSWER):
        return unreachable(cause, store=store.location, server=store.server)
    return Invalid(
        "the store's client refuses the request",
        "check 'store', 'endpoint' and boto3's own configuration",
        store=store.location,
        cause=cause,
    )


def _complaint(error: botocore_errors.ClientError) -> Complaint:
    answer: Mapping[str, Any] = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    return Complaint(code=code, status=int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)))


def _fate(error: Exception) -> Fate | None:
    """Return what a put that raised ``error`` came to; None when no repetition helps."""
    if isinstance(error, botocore_errors.ClientError):
        return fate_of(_complaint(error))
    if isinstance(error, _NOT_SENT):
        return Fate.NOT_DONE
    return Fate.DOUBTFUL if isinstance(error, (*_NO_ANSWER, ResponseParserError)) else None


def _cause(error: Exception) -> str:
    return _complaint(error).code if isinstance(error, botocore_errors.ClientError) else type(error).__name__


# ------------------------------------------------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True, kw_only=True)
class _Requests:
    """Implements ``storage.bucket.Bucket``."""

    store: S3Store
    again: S3Client
    once: S3Client

    def put(self, name: str, payload: bytes, expected: VersionTag | None, mark: Mark) -> PutReply:
        bucket, condition, metadata = self.store.bucket, _condition(expected), _metadata(mark)
        try:
            if len(payload) > self.store.multipart_above_bytes:
                return self._put_in_parts(name, payload, condition, metadata)
            answer = self.once.put_object(Bucket=bucket, Key=name, Body=payload, Metadata=metadata, **condition)
        except _ERRORS as error:
            return self._reply(error)
        return _landed(answer)

    def _put_in_parts(
        self, name: str, payload: bytes, condition: dict[str, Any], metadata: dict[str, str]
    ) -> PutReply:
        """Upload the parts, which may be repeated; then complete, once and under the condition."""
        try:
            upload, parts = self._parts(name, payload, metadata)
        except _ERRORS as error:
            reply = self._reply(error)
            return replace(reply, fate=Fate.NOT_DONE)  # without a completion nothing lands
        bucket = self.store.bucket
        try:
            answer = self.once.complete_multipart_upload(
                Bucket=bucket, Key=name, UploadId=upload.upload, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException as error:
            self._abort_quietly(upload)  # a completion still on its way then finds nothing to complete
            if isinstance(error, _ERRORS):
                return self._reply(error)
            raise
        return _landed(answer)

    def _parts(self, name: str, payload: bytes, metadata: dict[str, str]) -> tuple[Upload, list[Any]]:
        bucket = self.store.bucket
        begun = self.again.create_multipart_upload(Bucket=bucket, Key=name, Metadata=metadata)
        upload = Upload(name=name, upload=begun["UploadId"])
        view, parts = memoryview(payload), []
        try:
            for number, start in enumerate(range(0, max(1, len(payload)), _PART_BYTES), start=1):
                body = bytes(view[start : start + _PART_BYTES])
                answer = self.again.upload_part(
                    Bucket=bucket, Key=name, UploadId=upload.upload, PartNumber=number, Body=body
                )
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        except BaseException:
            self._abort_quietly(upload)
            raise
        return upload, parts

    def _abort_quietly(self, upload: Upload) -> None:
        """End an upload; where that fails it stays behind and is found as unfinished."""
        with suppress(SisaError):
            self.abort(upload)

    def _reply(self, error: Exception) -> PutReply:
        """Return the fate of a put; raise what ends it."""
        fate = _fate(error)
        if fate is None:
            raise _as_ours(error, self.store) from error
        return PutReply(fate=fate, cause=_cause(error))

    def look(self, name: str) -> Seen | None:
        with _told(self.store):
            try:
                answer = self.again.head_object(Bucket=self.store.bucket, Key=name)
            except botocore_errors.ClientError as error:
                if _complaint(error).status == 404:
                    return None
                raise
        return Seen(tag=_tag(answer["ETag"]), mark=_mark(answer.get("Metadata", {})))

    def read(self, name: str) -> Read | None:
        spoiled = False
        for attempt in range(_READ_ATTEMPTS):
            if attempt:
                pause(attempt)
            try:
                found = self._read_once(name)
            except botocore_errors.ClientError as error:
                if _complaint(error).code in {"NoSuchKey", "404"}:
                    return None
                raise _as_ours(error, self.store) from error
            except _NO_ANSWER as error:  # a body that broke off; boto3 repeats what failed before the body
                broken: Exception = error
                spoiled = False
                continue
            except _ERRORS as error:
                raise _as_ours(error, self.store) from error
            if found is not None:
                return found
            spoiled = True
        if spoiled:
            raise _damaged(name)
        raise _as_ours(broken, self.store) from broken

    def _read_once(self, name: str) -> Read | None:
        """Return the object; None when its bytes are not those that its mark names."""
        answer = self.again.get_object(Bucket=self.store.bucket, Key=name)
        with answer["Body"] as body:
            payload = body.read()
        mark = _mark(answer.get("Metadata", {}))
        if mark is None or sha256(payload) != mark.sha256:
            return None
        return Read(payload=payload, tag=_tag(answer["ETag"]), age_seconds=_age(answer))
