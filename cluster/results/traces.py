"""What is on record about where a subject's data are, and which models may have answered with them."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.requests import NONE_SIMILAR, Similar
from storage.digests import Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedSlice:
    """A slice that holds data points of the subject now."""

    shard: int
    slice: int
    points: int
    held_out: bool = False
    """Whether they are hold-out points, which no constituent is trained on; ``shard`` is then not that of any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedCheckpoint:
    """A checkpoint in the store that has seen data points of the subject."""

    shard: int
    slice: int
    sha256: Sha256
    """Digest of the object."""
    digest: Sha256
    """Digest of the parameters and buffers."""
    serving: bool
    """Whether it answers now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedGeneration:
    """A generation that may have answered with data points of the subject.

    Its constituents had seen the slices in which they are, or were. Since when they were in these slices is not on
    record, so that an early generation may have been without them.
    """

    number: int
    since: str
    """When it began to be served, UTC, ISO 8601; empty: not on record."""
    until: str
    """When it ended; empty: it is served now."""
    shards: tuple[int, ...]
    """Whose constituents had seen these slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRequest:
    """A request or readmission that named the subject."""

    request_id: str
    kind: str
    """``erasure`` or ``readmission``."""
    state: str
    received_at: str
    ended_at: str
    """Empty: it is open."""
    receipt: int | None
    """Index of its receipt or statement in the log; None: it has none yet, or never will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectTrace:
    """What is on record about one subject."""

    points: int = 0
    similar: Similar = NONE_SIMILAR
    erased: bool = False
    """Whether the subject was erased, so that its new data points are kept out."""
    slices: tuple[TracedSlice, ...] = ()
    checkpoints: tuple[TracedCheckpoint, ...] = ()
    generations: tuple[TracedGeneration, ...] = ()
    requests: tuple[TracedRequest, ...] = ()
    """Open requests that name it, and ended ones that named it alone: of an ended request with several names, the
    store does not keep whom it named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectTraces:
    """The answer to a trace; it repeats no name."""

    subjects: tuple[SubjectTrace, ...]
    """In the order in which they were named."""
    together: tuple[TracedRequest, ...] = ()
    """Ended requests that named all of these subjects, and no others."""
