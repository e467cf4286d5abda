"""A bucket of data files in memory, which answers the requests of ``storage.s3.files`` like S3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from storage.errors import Invalid, Unavailable
from storage.s3.bucket import PutOutcome
from storage.s3.files import BucketFiles
from storage.s3.requests import Failure
from storage.s3.responses import S3Answer

_PAGE = 7


@dataclass(slots=True)
class DataBucket:
    """A bucket named ``bucket``. Implements ``storage.s3.requests.S3Caller``."""

    contents: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    """The operations so far, each with the number of bytes in the answer."""
    broken: int = 0
    """How many of the next bodies break off."""

    @property
    def files(self) -> BucketFiles:
        """The bucket's files."""
        return BucketFiles(caller=self, bucket="bucket", server="memory")

    def opens(self) -> Callable[[str, str | None, str | None], BucketFiles]:
        """Return a replacement for ``bucket_files``."""
        return lambda _bucket, _endpoint, _profile: self.files

    def ask(self, operation: str, *, once: bool = False, **wanted: Any) -> S3Answer | Failure:
        """Answer a listing, with seven names per page, or a get."""
        answer = self._listing(**wanted) if operation == "list_objects_v2" else self._content(**wanted)
        self.asked.append((operation, 0 if isinstance(answer, Failure) else len(answer.get("Payload", b""))))
        return answer

    def _listing(self, Bucket: str, Prefix: str, MaxKeys: int = _PAGE, ContinuationToken: str = "") -> S3Answer:
        names = [name for name in sorted(self.contents) if name.startswith(Prefix) and name > ContinuationToken]
        page = names[: min(MaxKeys, _PAGE)]
        found = [{"Key": name, "Size": len(self.contents[name]), "ETag": self._tag(name)} for name in page]
        more = {"IsTruncated": True, "NextContinuationToken": page[-1]} if len(names) > len(page) else {}
        return {"Contents": found, **more}

    def _content(self, Bucket: str, Key: str, IfMatch: str, Range: str | None = None) -> S3Answer | Failure:
        if Key not in self.contents:
            return Failure(
                error=Invalid("there is no such key"), outcome=PutOutcome.MISSING, code="NoSuchKey", status=404
            )
        if IfMatch != self._tag(Key):
            return Failure(
                error=Invalid("another one"), outcome=PutOutcome.REFUSED, code="PreconditionFailed", status=412
            )
        if self.broken:
            self.broken -= 1
            return Failure(error=Unavailable("it broke off"), outcome=None, code="IncompleteRead", in_body=True)
        payload = self.contents[Key]
        if Range is not None:
            start, end = map(int, Range.removeprefix("bytes=").split("-"))
            payload = payload[start : end + 1]
        return {"Payload": payload}

    def _tag(self, name: str) -> str:
        return f'"{hashlib.sha256(self.contents[name]).hexdigest()[:32]}"'
