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
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import boto3.session
import botocore.exceptions as botocore_errors
from botocore.config import Config
from botocore.parsers import ResponseParserError

from storage.bucket import (
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
from storage.errors import Corrupt, Invalid, SisaError
from storage.objects import VersionTag
from storage.s3_answers import (
    Answer,
    age_of,
    condition_of,
    headers_of,
    landed,
    listed_of,
    mark_of,
    metadata_of,
    pages,
    refusals_of,
    retention_of,
    server_time,
    tag_of,
    uploads_of,
    versioning_of,
    versions_of,
    wanted_gone,
)
from storage.s3_names import S3Names, check_endpoint, check_place
from storage.s3_refusals import Complaint, fate_of, refusal, unidentified, unreachable

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_MIB = 1024 * 1024
_PART_BYTES = 64 * _MIB
_LARGEST_PUT_BYTES = 5 * 1024 * _MIB
_CONNECTIONS = 64
_READ_ATTEMPTS = 4

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
    multipart_above_bytes: int | None = None
    """Larger payloads are uploaded in parts of 64 MiB. None: 64 MiB on AWS, and 5 GiB, which is all that one put can
    carry, on other servers: some of them (SeaweedFS 4.48) let several writers complete the same object in a race."""
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
    def single_put_bytes(self) -> int:
        """The largest payload that goes in one put."""
        if self.multipart_above_bytes is not None:
            return self.multipart_above_bytes
        return _PART_BYTES if self.endpoint is None else _LARGEST_PUT_BYTES

    @property
    def server(self) -> str:
        """The server as the user knows it."""
        return self.endpoint or "AWS"

    @property
    def names(self) -> S3Names:
        """The names under the prefix."""
        return S3Names(self.prefix)

    @property
    def requests(self) -> _Requests:
        """The bucket, through this process's clients."""
        with _told(self):
            again, once = _clients(self)
        return _Requests(store=self, again=again, once=once)

    def describe(self, now: datetime) -> StoreFacts:
        """Return what is known of bucket and server; ``now`` is this machine's time, with its zone."""
        return self.requests.facts(now)


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


# ------------------------------------------------------------------------------------------------------ requests


@dataclass(frozen=True, slots=True, kw_only=True)
class _Requests:
    """Implements ``storage.bucket.Bucket``."""

    store: S3Store
    again: S3Client
    once: S3Client

    def put(self, name: str, payload: bytes, expected: VersionTag | None, mark: Mark) -> PutReply:
        """Put the object once; a payload above the store's limit goes in parts, completed once."""
        try:
            if len(payload) > self.store.single_put_bytes:
                upload = self._upload(name, payload, metadata_of(mark))
                return self._complete(upload, condition_of(expected)) if isinstance(upload, _Parts) else upload
            answer = self.once.put_object(
                Bucket=self.store.bucket,
                Key=name,
                Body=payload,
                Metadata=metadata_of(mark),
                **_any(condition_of(expected)),
            )
        except _ERRORS as error:
            return self._reply(error)
        return landed(answer)

    def _upload(self, name: str, payload: bytes, metadata: dict[str, str]) -> _Parts | PutReply:
        """Upload the parts, each repeated where need be: without a completion nothing lands."""
        place = {"Bucket": self.store.bucket, "Key": name}
        parts: _Parts | None = None
        try:
            begun = self.again.create_multipart_upload(**_any(place), Metadata=metadata)
            parts = _Parts(upload=Upload(name=name, upload=begun["UploadId"]))
            for number, start in enumerate(range(0, max(1, len(payload)), _PART_BYTES), start=1):
                body = payload[start : start + _PART_BYTES]
                wanted = place | {"UploadId": parts.upload.upload}
                answer = self.again.upload_part(**_any(wanted), PartNumber=number, Body=body)
                parts.done.append({"PartNumber": number, "ETag": answer["ETag"]})
        except BaseException as error:
            if parts is not None:
                self._abort_quietly(parts.upload)
            if isinstance(error, _ERRORS):
                return replace(self._reply(error), fate=Fate.NOT_DONE)
            raise
        return parts

    def _complete(self, parts: _Parts, condition: dict[str, str]) -> PutReply:
        place = {"Bucket": self.store.bucket, "Key": parts.upload.name, "UploadId": parts.upload.upload}
        done: Any = {"Parts": parts.done}
        try:
            return landed(self.once.complete_multipart_upload(**_any(place | condition), MultipartUpload=done))
        except BaseException:
            self._abort_quietly(parts.upload)  # a completion still on its way then finds nothing to complete
            raise

    def _abort_quietly(self, upload: Upload) -> None:
        """End an upload; where that fails it stays behind and is found as unfinished."""
        with suppress(SisaError):
            self.abort(upload)

    def _reply(self, error: Exception) -> PutReply:
        """Return the fate of a put that raised ``error``; raise what no repetition helps."""
        fate = _fate(error)
        if fate is None:
            raise _as_ours(error, self.store) from error
        return PutReply(fate=fate, cause=_cause(error))

    def look(self, name: str) -> Seen | None:
        """Return what is there now."""
        for attempt in range(1, _READ_ATTEMPTS + 1):
            with _told(self.store):
                try:
                    answer = self.again.head_object(Bucket=self.store.bucket, Key=name)
                except botocore_errors.ClientError as error:
                    if _complaint(error).status == 404:
                        return None
                    raise
            if answer.get("ETag"):
                return Seen(tag=tag_of(answer), mark=mark_of(answer))
            pause(attempt)  # a success that says nothing is an answer cut short
        raise refusal(Complaint(code="NoTag", status=200), store=self.store.location, server=self.store.server)

    def read(self, name: str) -> Read | None:
        """Return the object, read again where its body broke off or is not the one put."""
        for attempt in range(1, _READ_ATTEMPTS + 1):
            with _told(self.store):
                try:
                    return self._read_once(name)
                except botocore_errors.ClientError as error:
                    if _complaint(error).code in {"NoSuchKey", "404"}:
                        return None
                    raise
                except (*_NO_ANSWER, Corrupt):  # boto3 repeats what fails before the body, and nothing after
                    if attempt == _READ_ATTEMPTS:
                        raise
            pause(attempt)
        raise AssertionError

    def _read_once(self, name: str) -> Read:
        answer = self.again.get_object(Bucket=self.store.bucket, Key=name)
        with closing(answer["Body"]) as body:  # entered itself, it gives the bare stream, unchecked
            payload = body.read()
        mark = mark_of(answer)
        if mark is None or sha256(payload) != mark.sha256:
            raise Corrupt(
                "a stored object is not what was written, or was not written by this system",
                "keep it for inspection and restore it from a copy, metadata included; it was not used",
                name=name,
            )
        return Read(payload=payload, tag=tag_of(answer), age_seconds=age_of(answer))

    def objects(self, prefix: str) -> Iterator[Listed]:
        """Yield the objects under ``prefix``, page by page."""
        with _told(self.store):
            for answer in pages(self.again.list_objects_v2, Bucket=self.store.bucket, Prefix=prefix):
                yield from listed_of(answer)

    def versions(self, name: str) -> Iterator[Version]:
        """Yield the versions and delete markers of ``name``."""
        ask = self.again.list_object_versions
        with _told(self.store):
            for answer in pages(ask, Bucket=self.store.bucket, Prefix=name, Delimiter="/"):
                yield from versions_of(answer, name)

    def remove(self, versions: Sequence[Version]) -> list[Refusal]:
        """Delete versions by their ids, which may be repeated."""
        with _told(self.store):
            answer = self.again.delete_objects(Bucket=self.store.bucket, Delete=_any(wanted_gone(versions)))
        return refusals_of(answer, versions)

    def retention(self, version: Version) -> str | None:
        """Return what keeps a version."""
        place = {"Bucket": self.store.bucket, "Key": version.name, "VersionId": version.version}
        kept = _answer(self.again.get_object_retention, **place)
        if (words := retention_of(kept or {})) is not None:
            return words
        held = _answer(self.again.get_object_legal_hold, **place)
        if held and held.get("LegalHold", {}).get("Status") == "ON":
            return "a legal hold"
        locked = _configured(self.again.get_object_lock_configuration, self.store.bucket)
        return "the bucket has Object Lock" if locked else None

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield the unfinished multipart uploads under ``prefix``."""
        with _told(self.store):
            for answer in pages(self.again.list_multipart_uploads, Bucket=self.store.bucket, Prefix=prefix):
                yield from (upload for upload in uploads_of(answer) if upload.name.startswith(prefix))

    def abort(self, upload: Upload) -> None:
        """End an upload, if it is still there."""
        with _told(self.store):
            try:
                self.again.abort_multipart_upload(Bucket=self.store.bucket, Key=upload.name, UploadId=upload.upload)
            except botocore_errors.ClientError as error:
                if _complaint(error).code != "NoSuchUpload":
                    raise

    def facts(self, now: datetime) -> StoreFacts:
        """Return what is known of bucket and server."""
        bucket = self.store.bucket
        with _told(self.store):
            head = self.again.head_bucket(Bucket=bucket)
        versioning = _answer(self.again.get_bucket_versioning, Bucket=bucket)
        answered = server_time(head)
        return StoreFacts(
            location=self.store.location,
            server=headers_of(head).get("server", ""),
            versioning=None if versioning is None else versioning_of(versioning),
            object_lock=_configured(self.again.get_object_lock_configuration, bucket),
            replication=_configured(self.again.get_bucket_replication, bucket),
            clock_difference_seconds=None if answered is None else (answered - now).total_seconds(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """A multipart upload and its parts so far."""

    upload: Upload
    done: list[dict[str, Any]] = field(default_factory=list)


def _any(wanted: dict[str, Any]) -> Any:
    """Return parameters that the stubs would know one by one."""
    return wanted


def _answer(ask: Callable[..., Any], **wanted: str) -> Answer | None:
    """Return the answer to a question that this account, or this server, may not answer."""
    try:
        answer: Answer = ask(**wanted)
    except _ERRORS:
        return None
    return answer


def _configured(ask: Callable[..., Any], bucket: str) -> bool | None:
    """Return whether the bucket has a configuration; None when that cannot be read."""
    try:
        ask(Bucket=bucket)
    except botocore_errors.ClientError as error:
        return False if _complaint(error).code.endswith("NotFoundError") else None
    except botocore_errors.BotoCoreError:
        return None
    return True
