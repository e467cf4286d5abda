"""The requests of a bucket in S3's own terms, over any client that can send them.

A failed request returns a ``Failure`` value: the caller decides whether it is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from storage.digests import sha256
from storage.errors import Corrupt, SisaError, Unavailable
from storage.objects import VersionTag
from storage.s3.backoff import pause
from storage.s3.bucket import Listed, Mark, PutOutcome, PutReply, Read, Refusal, Seen, StoreFacts, Upload, Version
from storage.s3.responses import (
    S3Answer,
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

PART_BYTES = 64 * 1024 * 1024
"""The size of all parts of an upload but the last."""

_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed request."""

    error: SisaError
    """The error to raise if the caller cannot handle the failure."""
    outcome: PutOutcome | None
    """The outcome of a put with this failure; None when repeating it cannot help."""
    code: str
    """The server's code, or the name of the client's error."""
    status: int = 0
    """The HTTP status; 0 without an answer."""
    in_body: bool = False
    """Whether the answer began as a success, but its body was incomplete or damaged."""


class S3Caller(Protocol):
    """The client that talks to the server."""

    def ask(self, operation: str, *, once: bool = False, **wanted: Any) -> S3Answer | Failure:
        """Send the request, repeatedly if needed unless ``once``; the complete body is the answer's ``Payload``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Requests:
    """Implements ``storage.s3.bucket.Bucket``."""

    caller: S3Caller
    bucket: str
    location: str
    single_put_bytes: int

    def put(self, name: str, payload: bytes, expected: VersionTag | None, mark: Mark) -> PutReply:
        """Put the object once; a payload above the limit is uploaded in parts and completed once."""
        wanted: dict[str, Any] = {"Key": name, "Metadata": metadata_of(mark)}
        condition: dict[str, Any] = {**condition_of(expected)}
        if len(payload) <= self.single_put_bytes:
            return _reply(self._ask("put_object", once=True, Body=payload, **wanted, **condition))
        parts = self._upload(payload, wanted)
        if isinstance(parts, Failure):
            return replace(_reply(parts), outcome=PutOutcome.NOT_DONE)  # without the completion nothing is stored
        return self._complete(parts, condition)

    def look(self, name: str) -> Seen | None:
        """Return the object's current tag and mark."""
        for attempt in range(1, _ATTEMPTS + 1):
            answer = self._ask("head_object", Key=name)
            if isinstance(answer, Failure) and answer.status == 404:
                return None
            found = _answered(answer)
            if found.get("ETag"):
                return Seen(tag=tag_of(found), mark=mark_of(found))
            pause(attempt)  # a success without these fields is an incomplete answer
        raise self._speechless()

    def read(self, name: str) -> Read | None:
        """Return the object; it is read again if its body is incomplete or does not match its mark."""
        for attempt in range(1, _ATTEMPTS + 1):
            answer = self._ask("get_object", Key=name)
            if isinstance(answer, Failure):
                if answer.code in {"NoSuchKey", "404"}:
                    return None
                if not answer.in_body or attempt == _ATTEMPTS:
                    raise answer.error
            elif (found := _proved(answer)) is not None:
                return found
            elif not answer.get("ETag") and attempt == _ATTEMPTS:
                raise self._speechless()
            pause(attempt)
        raise Corrupt(
            "a stored object is not what was written, or was not written by this system",
            "If another tool has copied the store here without the objects' metadata, put it into an empty place with"
            " 'sisa restore'. Otherwise keep the object for inspection, and restore it from a copy, metadata included."
            " It was not used.",
            name=name,
        )

    def objects(self, prefix: str) -> Iterator[Listed]:
        """Yield the objects under ``prefix``, page by page."""
        for answer in self._pages("list_objects_v2", Prefix=prefix):
            yield from listed_of(answer)

    def versions(self, name: str) -> Iterator[Version]:
        """Yield the versions and delete markers of ``name``."""
        for answer in self._pages("list_object_versions", Prefix=name, Delimiter="/"):
            yield from versions_of(answer, name)

    def remove(self, versions: Sequence[Version]) -> list[Refusal]:
        """Delete versions by their ids; this request may be repeated."""
        return refusals_of(_answered(self._ask("delete_objects", Delete=wanted_gone(versions))), versions)

    def retention(self, version: Version) -> str | None:
        """Return what protects a version from deletion."""
        place: dict[str, Any] = {"Key": version.name, "VersionId": version.version}
        kept = self._ask("get_object_retention", **place)
        if not isinstance(kept, Failure) and (words := retention_of(kept)) is not None:
            return words
        held = self._ask("get_object_legal_hold", **place)
        if not isinstance(held, Failure) and held.get("LegalHold", {}).get("Status") == "ON":
            return "a legal hold"
        return "the bucket has Object Lock" if self._is_configured("get_object_lock_configuration") else None

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield the unfinished multipart uploads under ``prefix``."""
        for answer in self._pages("list_multipart_uploads", Prefix=prefix):
            yield from (upload for upload in uploads_of(answer) if upload.name.startswith(prefix))

    def abort(self, upload: Upload) -> None:
        """Abort an upload, if it still exists."""
        answer = self._abort(upload)
        if isinstance(answer, Failure) and answer.code != "NoSuchUpload":
            raise answer.error

    def facts(self, now: datetime) -> StoreFacts:
        """Return what is known about bucket and server."""
        head = _answered(self._ask("head_bucket"))
        versioning, answered = self._ask("get_bucket_versioning"), server_time(head)
        return StoreFacts(
            location=self.location,
            server=headers_of(head).get("server", ""),
            versioning=None if isinstance(versioning, Failure) else versioning_of(versioning),
            object_lock=self._is_configured("get_object_lock_configuration"),
            replication=self._is_configured("get_bucket_replication"),
            clock_difference_seconds=None if answered is None else (answered - now).total_seconds(),
        )

    def _upload(self, payload: bytes, wanted: dict[str, Any]) -> _Parts | Failure:
        """Upload the parts; each may be repeated."""
        begun = self._ask("create_multipart_upload", **wanted)
        if isinstance(begun, Failure):
            return begun
        parts = _Parts(upload=Upload(name=wanted["Key"], upload=begun["UploadId"]))
        for number, start in enumerate(range(0, max(1, len(payload)), PART_BYTES), start=1):
            part = self._ask("upload_part", PartNumber=number, Body=payload[start : start + PART_BYTES], **parts.place)
            if isinstance(part, Failure):
                self._abort(parts.upload)
                return part
            parts.done.append({"PartNumber": number, "ETag": part["ETag"]})
        return parts

    def _complete(self, parts: _Parts, condition: dict[str, Any]) -> PutReply:
        answer = self._ask(
            "complete_multipart_upload", once=True, MultipartUpload={"Parts": parts.done}, **parts.place, **condition
        )
        if isinstance(answer, Failure):
            self._abort(parts.upload)  # a completion that is still on its way then finds no upload
        return _reply(answer)

    def _abort(self, upload: Upload) -> S3Answer | Failure:
        """Try to abort an upload; if that fails, it stays behind and is found as unfinished."""
        return self._ask("abort_multipart_upload", Key=upload.name, UploadId=upload.upload)

    def _ask(self, operation: str, *, once: bool = False, **wanted: Any) -> S3Answer | Failure:
        return self.caller.ask(operation, once=once, Bucket=self.bucket, **wanted)

    def _speechless(self) -> Unavailable:
        """Return the error for a server whose successes lack the object's data: incomplete answers, or a website."""
        return Unavailable(
            "the store's server does not say what it holds",
            "Try again later. If this persists, check 'endpoint': it may be the address of a website or console, not of"
            " S3 itself.",
            store=self.location,
        )

    def _pages(self, operation: str, **wanted: str) -> Iterator[S3Answer]:
        def ask(**each: Any) -> S3Answer:
            return _answered(self._ask(operation, **each))

        return pages(ask, **wanted)

    def _is_configured(self, operation: str) -> bool | None:
        """Return whether the bucket has this configuration; None when it cannot be read."""
        answer = self._ask(operation)
        if isinstance(answer, Failure):
            return False if answer.code.endswith("NotFoundError") else None
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """A multipart upload and its parts so far."""

    upload: Upload
    done: list[dict[str, Any]] = field(default_factory=list)

    @property
    def place(self) -> dict[str, Any]:
        return {"Key": self.upload.name, "UploadId": self.upload.upload}


def _answered(answer: S3Answer | Failure) -> S3Answer:
    """Return the answer; raise the error if it is a failure."""
    if isinstance(answer, Failure):
        raise answer.error
    return answer


def _reply(answer: S3Answer | Failure) -> PutReply:
    """Return the reply to a put; raise the error if repeating cannot help."""
    if not isinstance(answer, Failure):
        return landed(answer)
    if answer.outcome is None:
        raise answer.error
    return PutReply(outcome=answer.outcome, cause=answer.code)


def _proved(answer: S3Answer) -> Read | None:
    """Return the object; None when its bytes do not match its mark."""
    payload: bytes = answer["Payload"]
    mark = mark_of(answer)
    if mark is None or sha256(payload) != mark.sha256:
        return None
    return Read(payload=payload, tag=tag_of(answer), age_seconds=age_of(answer))
