"""A bucket as its requests: each sent once, and everything that one of them can come to.

The steps built of such requests (conditional puts, purges, leases) are the same for every server and are in
files of their own; ``storage.s3.client`` alone speaks to one. ``name`` is an object's full name in the bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal, Protocol, runtime_checkable

from storage.errors import OutcomeUnknown, SisaError
from storage.objects import VersionTag


class PutOutcome(Enum):
    """The outcome of one conditional put, as far as its answer shows it."""

    LANDED = "landed"
    REFUSED = "refused"
    """The condition did not hold (412), or so the server says: it may have met this put's own success."""
    MISSING = "missing"
    """Nothing is there to be replaced (404)."""
    NOT_DONE = "not done"
    """Nothing was changed, try again: 409, a spoiled upload, a connection that never came about."""
    DOUBTFUL = "doubtful"
    """The answer was lost, or was one that a server also gives after it has done the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutReply:
    """The answer to one conditional put."""

    outcome: PutOutcome
    tag: VersionTag | None = None
    """Of the object put; only where it landed."""
    cause: str = ""
    """The server's code, or the name of the client's error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a writer leaves beside the payload, in the object's metadata."""

    nonce: str
    """Drawn for this put alone, so that its writer recognises its own success."""
    sha256: str
    """Of the payload; every read checks it."""
    replaced: VersionTag | None
    """The tag that was to be replaced; None for a creation. Shows which put the present content came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look at an object shows without its payload."""

    tag: VersionTag
    mark: Mark | None
    """None on an object that another program wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One object, whole and proved."""

    payload: bytes
    tag: VersionTag
    age_seconds: float | None
    """Since its last change, both times by the server's clock; None where the server does not tell them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object of a listing."""

    name: str
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of an object, or one delete marker."""

    name: str
    version: str
    latest: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A multipart upload that was begun and not ended."""

    name: str
    upload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One version that a batch deletion, successful as a whole, did not delete."""

    version: Version
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What is known of a bucket and its server; None where this account may not read it."""

    location: str
    server: str
    """The server's name for itself, or empty."""
    versioning: Literal["off", "on", "suspended"] | None
    object_lock: bool | None
    """Whether objects may be kept from deletion, which an erasure cannot bear."""
    replication: bool | None
    """Whether copies go to buckets out of our reach."""
    clock_difference_seconds: float | None
    """The server's clock minus ours; S3 refuses requests from about 900 s on."""


@runtime_checkable
class Describes(Protocol):
    """A store that can report what matters for erasure."""

    def describe(self, now: datetime) -> StoreFacts:
        """Return what is known of it; ``now`` is this machine's time, with its zone."""
        ...


class Bucket(Protocol):
    """Requests to one bucket.

    All raise the kind that says what the caller can do: ``Invalid`` (no such bucket, wrong credentials),
    ``Unavailable`` (no access, out of reach, clocks apart), ``StoreFull``. Only ``put`` is never repeated on its own.
    """

    def put(self, name: str, payload: bytes, expected: VersionTag | None, mark: Mark) -> PutReply:
        """Put the object once, if it is absent (``expected`` is None) or still has that tag."""
        ...

    def look(self, name: str) -> Seen | None:
        """Return what is there now."""
        ...

    def read(self, name: str) -> Read | None:
        """Return the object. Raises ``Corrupt`` when its bytes are not those its mark names, however often read."""
        ...

    def objects(self, prefix: str) -> Iterator[Listed]:
        """Yield all objects whose name starts with ``prefix``, in no promised order."""
        ...

    def versions(self, name: str) -> Iterator[Version]:
        """Yield every version and delete marker of exactly this name."""
        ...

    def remove(self, versions: Sequence[Version]) -> list[Refusal]:
        """Delete up to 1,000 versions; return those that the server would not delete."""
        ...

    def retention(self, version: Version) -> str | None:
        """Return what keeps a version from deletion, in words, None when nothing is known to."""
        ...

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield the unfinished multipart uploads for names that start with ``prefix``."""
        ...

    def abort(self, upload: Upload) -> None:
        """End a multipart upload; a missing one is not an error."""
        ...


def in_doubt(key: str, cause: str, error: SisaError | None = None) -> OutcomeUnknown:
    """Return the error for a put of which nobody can say whether it landed."""
    return OutcomeUnknown(
        "the store did not say whether the write landed",
        "Read the object again before anything else.",
        key=key,
        cause=cause or (type(error).__name__ if error else "no answer"),
    )
