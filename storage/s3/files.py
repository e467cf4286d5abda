"""Other people's files in a bucket: found and read, never written.

This is not a store: names may have any form, and only the server vouches for the content. Every request for a file has
``If-Match`` with the tag of the file as it was found, so that the bytes are of one content and not a mixture of two.
A file that is read in one request is checked by the server's checksum, if it keeps one. A piece of a file is not: over
plain HTTP nothing protects the transfer, over HTTPS the connection does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from storage.errors import Conflict, Invalid, SisaError, Unavailable
from storage.s3.backoff import pause
from storage.s3.requests import Failure, S3Caller
from storage.s3.responses import S3Answer, pages, tag_of

SCHEME: Final = "s3://"

_ATTEMPTS: Final = 4
_FORMS: Final = "Write 's3://bucket/folder/file', a folder, or a glob. See also 'endpoint'."
_CHANGED: Final = frozenset({"PreconditionFailed", "NoSuchKey", "NoSuchVersion", "InvalidRange", "412", "404", "416"})
_NO_BUCKET: Final = frozenset({"NoSuchBucket", "InvalidBucketName"})
_NOBODY: Final = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})
_DENIED: Final = frozenset({"AccessDenied", "AllAccessDisabled", "Forbidden"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketFile:
    """One file of a bucket, as it was found."""

    name: str
    """Its full name, without the bucket."""
    payload_bytes: int
    tag: str
    """The server's entity tag; a different content has a different tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketFiles:
    """The files of one bucket."""

    caller: S3Caller
    bucket: str
    server: str
    """The server's name in messages to users."""

    def find(self, name: str) -> BucketFile | None:
        """Return the file of exactly this name.

        Raises ``Invalid`` when there is no such bucket or the credentials are not accepted, ``Unavailable`` when the
        account may not list it or the server does not answer. All methods that send requests raise these errors.
        """
        # HEAD is not used: its errors have no body, so that a missing bucket and a missing file look alike.
        answer = self._answered(self._ask("list_objects_v2", Prefix=name, MaxKeys=1))
        return next((each for each in _listed(answer) if each.name == name), None)

    def under(self, prefix: str) -> Iterator[BucketFile]:
        """Yield the files whose name starts with ``prefix``, in no particular order."""
        for answer in pages(lambda **wanted: self._answered(self._ask("list_objects_v2", **wanted)), Prefix=prefix):
            yield from _listed(answer)

    def read(self, file: BucketFile, start: int, end: int) -> bytes:
        """Return bytes ``start`` up to ``end`` of the file, both within it.

        Raises ``Conflict`` when the file was replaced or deleted since it was found.
        """
        wanted: dict[str, Any] = {"Key": file.name, "IfMatch": f'"{file.tag}"'}
        if end - start < file.payload_bytes:
            wanted["Range"] = f"bytes={start}-{end - 1}"
        for attempt in range(1, _ATTEMPTS + 1):
            answer = self._ask("get_object", **wanted)
            if not isinstance(answer, Failure):
                payload: bytes = answer["Payload"]
                if len(payload) == end - start:
                    return payload
            elif answer.code in _CHANGED:
                raise self._changed(file)
            elif not answer.in_body:
                raise self._as_data_error(answer)
            pause(attempt)  # the body was incomplete, or its checksum was wrong
        raise Unavailable(
            "the file's bytes do not arrive whole", "Try again later.", file=self._address(file), server=self.server
        )

    def _ask(self, operation: str, **wanted: Any) -> S3Answer | Failure:
        return self.caller.ask(operation, Bucket=self.bucket, **wanted)

    def _answered(self, answer: S3Answer | Failure) -> S3Answer:
        if isinstance(answer, Failure):
            raise self._as_data_error(answer)
        return answer

    def _changed(self, file: BucketFile) -> SisaError:
        if self.find(file.name) == file:
            return Unavailable(
                "the data's server refuses to read a file under the tag that it gives it (If-Match)",
                "Copy the data to another server, or to a local folder.",
                file=self._address(file),
                server=self.server,
            )
        return Conflict(
            "the file was replaced or deleted while it was read",
            "Let its writer finish, then run the command again.",
            file=self._address(file),
        )

    def _as_data_error(self, failure: Failure) -> SisaError:
        """Return the error in words for a reader: the store's own errors name what a writer needs."""
        context = {"bucket": self.bucket, "server": self.server, "code": failure.code}
        error: SisaError
        if failure.code in _NO_BUCKET:
            error = Invalid(
                "there is no such bucket", "Correct the bucket's name, or its server's address ('endpoint').", **context
            )
        elif failure.code in _DENIED:
            error = Unavailable(
                "the server does not let this account read the data",
                "Allow this account to list the bucket and to read its objects.",
                **context,
            )
        elif failure.status in {401, 403} and isinstance(failure.error, Invalid):
            error = Invalid("the data's server does not accept these credentials", failure.error.remedy, **context)
        elif failure.code in _NOBODY:
            fact = "this machine has no usable credentials for the data's server"
            error = Invalid(fact, failure.error.remedy, **context)
        elif not failure.status and isinstance(failure.error, Unavailable):
            error = Unavailable("the data's server cannot be reached", failure.error.remedy, **context)
        else:
            return failure.error
        error.__cause__ = failure.error.__cause__
        return error

    def _address(self, file: BucketFile) -> str:
        return f"{SCHEME}{self.bucket}/{file.name}"


def bucket_files(bucket: str, endpoint: str | None, profile: str | None = None) -> BucketFiles:
    """Return the files of ``bucket``; ``endpoint`` is a compatible server's address, None: AWS, or boto3's own.

    ``profile`` names credentials in the credentials file of the machine that reads, None: those that boto3 finds there.

    Sends no request yet. Raises ``Invalid`` when the name of the bucket or the server is invalid.
    """
    from storage.s3.client import S3Store  # noqa: PLC0415  boto3 takes a third of a second, and most data do without

    store = S3Store(bucket, "", endpoint, profile=profile)
    return BucketFiles(caller=store.requests.caller, bucket=bucket, server=store.server)


def bucket_and_name(location: str) -> tuple[str, str]:
    """Return bucket and name of ``s3://bucket/name``, the name unchanged. Raises ``Invalid`` for any other form."""
    bucket, _, name = location[len(SCHEME) :].partition("/")
    if not location.lower().startswith(SCHEME) or not bucket:
        raise Invalid("data on S3 are named by bucket and name", _FORMS, data=location)
    return bucket, name


def _listed(answer: S3Answer) -> Iterator[BucketFile]:
    for each in answer.get("Contents", ()):
        yield BucketFile(name=each["Key"], payload_bytes=each["Size"], tag=tag_of(each))
