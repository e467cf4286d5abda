"""The requests of a bucket, and every possible outcome of each.

Operations that consist of several requests (conditional puts, purges, leases) are the same for every server and are in
other modules; only ``storage.s3.client`` talks to a server. ``name`` is an object's full name in the bucket.
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
    """The server says that the condition did not hold (412); the reason may be this put's own success."""
    MISSING = "missing"
    """There is no object to replace (404)."""
    NOT_DONE = "not done"
    """Nothing was changed, try again: 409, a damaged upload, or a failed connection."""
    DOUBTFUL = "doubtful"
    """The answer was lost, or is one that a server may also give after it did the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutReply:
    """The answer to one conditional put."""

    outcome: PutOutcome
    tag: VersionTag | None = None
    """Tag of the new object; None unless the put landed."""
    cause: str = ""
    """The server's code, or the name of the client's error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a writer stores in the object's metadata."""

    nonce: str
    """Drawn for this put only, so that its writer recognises its own success."""
    sha256: str
    """Digest of the payload; every read checks it."""
    replaced: VersionTag | None
    """The tag that was to be replaced; None for a creation. Shows which put the current content came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the server reports about an object without its payload."""

    tag: VersionTag
    mark: Mark | None
    """None: another program wrote the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One object, read completely and checked."""

    payload: bytes
    tag: VersionTag
    age_seconds: float | None
    """Since its last change, both times by the server's clock; None when the server does not report them."""


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
    """A multipart upload that was not completed."""

    name: str
    upload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One version that an otherwise successful batch deletion did not delete."""

    version: Version
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What is known about a bucket and its server; a field is None if this account may not read it."""

    location: str
    server: str
    """The server's name for itself, or empty."""
    versioning: Literal["off", "on", "suspended"] | None
    object_lock: bool | None
    """Whether objects may be protected from deletion, which makes erasure impossible."""
    replication: bool | None
    """Whether objects are copied to buckets that this system cannot reach."""
    clock_difference_seconds: float | None
    """The server's clock minus ours; S3 refuses requests from about 900 s on."""


@runtime_checkable
class Describes(Protocol):
    """A store that can report what matters for erasure."""

    def describe(self, now: datetime) -> StoreFacts:
        """Return what is known about it; ``now`` is this machine's time, with its zone."""
        ...


class Bucket(Protocol):
    """Requests to one bucket.

    All raise the kind of error that fits the caller's next step: ``Invalid`` (no such bucket, wrong credentials),
    ``Unavailable`` (no access, out of reach, clocks apart), ``StoreFull``. Only ``put`` is never repeated on its own.
    """

    def put(self, name: str, payload: bytes, expected: VersionTag | None, mark: Mark) -> PutReply:
        """Put the object once, if it is absent (``expected`` is None) or still has that tag."""
        ...

    def look(self, name: str) -> Seen | None:
        """Return what is there now."""
        ...

    def read(self, name: str) -> Read | None:
        """Return the object. Raises ``Corrupt`` when its bytes never match its mark, even after several reads."""
        ...

    def objects(self, prefix: str) -> Iterator[Listed]:
        """Yield all objects whose name starts with ``prefix``, in no particular order."""
        ...

    def versions(self, name: str) -> Iterator[Version]:
        """Yield every version and delete marker of exactly this name."""
        ...

    def remove(self, versions: Sequence[Version]) -> list[Refusal]:
        """Delete up to 1,000 versions; return those that the server would not delete."""
        ...

    def retention(self, version: Version) -> str | None:
        """Return in words what protects a version from deletion; None when nothing is known."""
        ...

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield the unfinished multipart uploads for names that start with ``prefix``."""
        ...

    def abort(self, upload: Upload) -> None:
        """Abort a multipart upload; a missing one is not an error."""
        ...


def in_doubt(key: str, cause: str, error: SisaError | None = None) -> OutcomeUnknown:
    """Return the error for a put that may or may not have landed."""
    return OutcomeUnknown(
        "the store did not say whether the write landed",
        "Read the object again before anything else.",
        key=key,
        cause=cause or (type(error).__name__ if error else "no answer"),
    )
