"""The S3 store's logic on a versioned bucket in memory, in which every put was retried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from storage.objects import VersionTag
from storage.s3.bucket import Bucket, Mark, PutOutcome, PutReply, Upload
from storage.s3.names import S3Names
from storage.s3.store import BucketStore
from tests.storage.s3.fake_bucket import FakeBucket


@dataclass(slots=True)
class RetriedBucket(FakeBucket):
    """Every put leaves two versions, like a put that the client library repeats in a versioned bucket."""

    begun: list[Upload] = field(default_factory=list)
    """Multipart uploads that were started and not completed."""

    def put(self, name: str, payload: bytes, expected: VersionTag | None, mark: Mark) -> PutReply:
        """Put twice."""
        reply = FakeBucket.put(self, name, payload, expected, mark)
        if reply.outcome is PutOutcome.LANDED:
            self.store(name, payload, mark)
        return reply

    def begin(self, name: str) -> None:
        """Leave a multipart upload unfinished."""
        self.numbers += 1
        self.begun.append(Upload(name=name, upload=f"u{self.numbers}"))

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield the unfinished uploads."""
        return iter([upload for upload in self.begun if upload.name.startswith(prefix)])

    def abort(self, upload: Upload) -> None:
        """Abort the upload."""
        self.begun.remove(upload)


@dataclass(frozen=True, slots=True)
class MemoryBucketStore(BucketStore):
    """The S3 store without HTTP."""

    bucket: RetriedBucket
    lease_seconds: float = 30.0
    monotonic: Callable[[], float] = float

    @property
    def location(self) -> str:
        """A placeholder location."""
        return "s3://memory/federation"

    @property
    def full_names(self) -> S3Names:
        """The names under the prefix."""
        return S3Names("federation")

    @property
    def requests(self) -> Bucket:
        """The bucket."""
        return self.bucket

    @property
    def address(self) -> str:
        """A unique address."""
        return f"memory {id(self.bucket)}"
