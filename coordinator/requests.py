"""Erasure requests and the states they pass through."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from coordinator.delays import EndedPause, Extension, FailedAttempt, Pause
from coordinator.effects import ErasureEffect
from shards.routing import SliceId
from shards.slices.files import SliceRecord
from shards.specification import ShardId, SliceIndex
from shards.tombstones import DigestSet
from storage.digests import Sha256
from storage.encodings import from_base64, to_base64
from storage.errors import Invalid
from storage.objects import ObjectKey

MOST_INLINE: Final = 64
"""Most keyed digests that a request holds inline, 1 KiB of them; more are in an object of their own."""

_MOST_CHARACTERS: Final = 200
_OF_REFUTATIONS: Final = "refuted-shard-"
"""Prefix of the ids of statements about refutations, which share a name space with the ids of requests."""


class RequestState(enum.Enum):
    """The state of a request (docs/design.md, section 17).

    ``accepted`` to ``complete`` are the stages, in order. While a pause or a failure is recorded, ``waiting`` or
    ``failed`` is shown in place of the stage (``ErasureRequest.shown``); the stage itself is kept.
    """

    ACCEPTED = "accepted"
    """Durable: it will be carried out, even after a crash."""
    PLANNED = "planned"
    """Its data points are found and removed from their slices."""
    QUARANTINED = "quarantined"
    """No prediction can use a model that has seen those data points."""
    RETRAINING = "retraining"
    PUBLISHED = "published"
    """The retrained constituents have taken over."""
    PURGED = "purged"
    """Nothing that held those data points is left in the store."""
    COMPLETE = "complete"
    WAITING = "waiting"
    """Paused, for a reason such as a legal hold; it continues once released."""
    FAILED = "failed"
    """The last attempt failed; the next one continues from there."""
    REFUSED = "refused"
    """Nothing to erase: no data point of these subjects or ids is in the federation."""
    CANCELLED = "cancelled"
    """Withdrawn before anything was removed."""

    @property
    def is_open(self) -> bool:
        """Whether work remains to be done."""
        return self not in (RequestState.COMPLETE, RequestState.REFUSED, RequestState.CANCELLED)


_ORDER = [
    RequestState.ACCEPTED,
    RequestState.PLANNED,
    RequestState.QUARANTINED,
    RequestState.RETRAINING,
    RequestState.PUBLISHED,
    RequestState.PURGED,
    RequestState.COMPLETE,
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """An object and the digest its bytes must have."""

    key: ObjectKey
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineDigests:
    """Keyed digests that are kept in the state itself, so that accepting a small request is one durable write."""

    payload: str
    """Base64 of ``DigestSet.to_bytes()``."""

    @classmethod
    def of(cls, names: DigestSet) -> InlineDigests:
        """Return ``names`` as the state keeps them: at most ``MOST_INLINE``, because every manifest then holds them."""
        return cls(payload=to_base64(names.to_bytes()))

    def digests(self) -> DigestSet:
        """Return the names. Raises ``Corrupt`` when the text is not what ``of`` wrote."""
        return DigestSet.from_bytes(from_base64(self.payload))


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of the tombstones, in an object of its own."""

    ref: ObjectRef
    digests: int
    """How many it holds. Small segments are merged, so that an erasure writes about as much as it adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Similar:
    """Data points of subjects whose names differ only in spelling from names in a request."""

    points: int = 0
    subjects: int = 0

    def __add__(self, other: Similar) -> Similar:
        return Similar(points=self.points + other.points, subjects=self.subjects + other.subjects)


NONE_SIMILAR: Final = Similar()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Work of training, expected or done."""

    point_epochs: int = 0
    """Data points seen, counted once per epoch."""
    seconds: float = 0.0
    """Seconds of workers, added up over shards; concurrent training takes less wall time."""

    def __add__(self, other: Cost) -> Cost:
        # Rounded to the precision of checkpoints, so that sums do not gain digits that were never measured.
        return Cost(point_epochs=self.point_epochs + other.point_epochs, seconds=round(self.seconds + other.seconds, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search for a request's data points has found."""

    from_slices: Mapping[ShardId, SliceIndex] = field(default_factory=dict)
    """For each shard that held something, the earliest slice that held something."""
    points: int = 0
    """Data points erased, or corrected."""
    held_out: int = 0
    """Those of them that were hold-out points."""
    unknown: int = 0
    """Named subjects and ids that have no data point here, perhaps because they were erased before."""
    missing: ObjectRef | InlineDigests | None = None
    """Keyed digests of the unknown ones, for a repetition of the request with the same names. None: all names or no
    names are unknown, or an earlier release carried it out."""
    similar: Similar = NONE_SIMILAR
    """Data points of similar names, which stay unless ``include_similar``."""
    expected: Cost | None = None
    """The expected cost of retraining for this request alone; None: nothing is removed, or the cost is not known."""

    @property
    def shards(self) -> tuple[ShardId, ...]:
        """Shards that held something."""
        return tuple(sorted(self.from_slices))


NOTHING_FOUND: Final = Found()
"""Before the search, and after one that found nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRows:
    """Rows that belong to a slice, in objects like those of the slice."""

    place: SliceId
    record: SliceRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What makes a request one to correct data points instead of erasing them (GDPR Art. 16)."""

    drafts: tuple[PlacedRows, ...] = ()
    """The new values, encrypted; empty once the request is carried out or has ended."""
    read_as: str = ""
    """Digest of the settings by which they were read; empty like ``drafts``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureRequest:
    """A demand to erase subjects or data points, or to correct data points; holds keyed digests, never ids."""

    request_id: str
    body: Sha256
    """Digest of the keyed digests it names: the same id with another body is a conflict (D4)."""
    include_similar: bool = False
    """Whether subjects whose names differ only in spelling are erased as well."""
    commitment: Sha256 | None = None
    """The commitment to its names in its receipt (``coordinator.receipts.openings``); None: the release that accepted
    it made none."""
    names: ObjectRef | InlineDigests | None
    """The keyed digests it names. None once its points are removed (then they are among the tombstones) or corrected,
    or once it is refused or cancelled."""
    correction: Correction | None = None
    """None: it erases."""
    subjects: int
    """Subjects named."""
    ids: int
    """Data points named by id."""
    before: ObjectRef | None = None
    """The state before its quarantine, for the receipt, until it is complete."""
    receipt: int | None = None
    """Index of its receipt in the log; None until it is complete."""
    by: str | None = None
    """Id of the token it was submitted with; None: by command. Not a part of ``body``."""
    received_at: str
    """UTC, ISO 8601."""
    due_at: str
    """UTC, ISO 8601; includes extensions and pauses."""
    state: RequestState = RequestState.ACCEPTED
    """The stage it has reached; ``shown`` is what people see."""
    times: Mapping[str, str] = field(default_factory=dict)
    """When each state was reached, UTC, ISO 8601."""
    pause: Pause | None = None
    """None: it is not paused."""
    holds: tuple[EndedPause, ...] = ()
    """Pauses that have ended."""
    extension: Extension | None = None
    """None: its due date was not moved."""
    failure: FailedAttempt | None = None
    """Why the last attempt failed; None: it did not fail, or work has progressed since."""
    found: Found = NOTHING_FOUND
    reason: str | None = None
    """Why it was refused or cancelled; None: it was neither."""
    effect: ErasureEffect | None = None
    """Measures on hold-out points before and after it; None: there were no hold-out points, or nothing is removed."""
    spent: Cost = Cost()
    """Cost of training its shards again from its earliest slices on. Work that several requests share counts in full
    for each of them; work that a later request made obsolete and repeated counts twice."""

    def __post_init__(self) -> None:
        check_request_id(self.request_id)

    @property
    def shown(self) -> RequestState:
        """The state that people see: ``waiting`` while paused, ``failed`` after a failure, else the stage."""
        if not self.state.is_open:
            return self.state
        if self.pause is not None:
            return RequestState.WAITING
        return self.state if self.failure is None else RequestState.FAILED

    @property
    def kind(self) -> str:
        """What it is about: ``erasure`` or ``rectification``."""
        return "erasure" if self.correction is None else "rectification"

    @property
    def drafts(self) -> tuple[PlacedRows, ...]:
        """The new values that it is to put into slices."""
        return () if self.correction is None else self.correction.drafts

    def reach(self, state: RequestState, at: str) -> ErasureRequest:
        """Return the request in ``state``; the states in between are recorded as reached at ``at`` as well."""
        passed = [state]
        if state in _ORDER and self.state in _ORDER:
            passed = _ORDER[_ORDER.index(self.state) + 1 : _ORDER.index(state) + 1]
        return replace(self, state=state, times={**self.times, **{each.value: at for each in passed}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Readmission:
    """A readmission of erased subjects: their new data points are accepted again."""

    request_id: str
    body: Sha256
    """As in an erasure request: the same id with another body is a conflict (D4)."""
    subjects: int
    """Named subjects who were erased."""
    without_ids: int = 0
    """Those of them whose erased data points have no tombstones by id, and so come back if a source has them: release
    0.1 erased them, or each data point is its own subject."""
    reason: str
    """For the record; without personal data."""
    at: str
    """UTC, ISO 8601."""
    receipt: int | None = None
    """Index of its statement in the log; None: not yet issued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refutation:
    """A constituent that differs from the result of training on its data points; it no longer answers."""

    shard: ShardId
    slice: SliceIndex
    """The first slice after which it differed."""
    checkpoint: ObjectKey
    lineage: Sha256
    """The lineage that the checkpoint claimed."""
    digest: Sha256
    """Digest of the constituent after that slice."""
    retrained_digest: Sha256 | None
    """Digest of the result of training from nothing; None: training had no result."""
    at: str
    """UTC, ISO 8601."""
    receipt: int | None = None
    """Index of its statement in the log; None: not yet issued."""

    @property
    def request_id(self) -> str:
        """The id of its statement."""
        return f"{_OF_REFUTATIONS}{self.shard}-{self.digest[:16]}"


def check_request_id(request_id: str) -> None:
    """Raise ``Invalid`` unless the id has 1 to 200 printable characters, not only spaces.

    It is shown in receipts, on terminals and in lines of text, where control characters would take effect.
    """
    if len(request_id) <= _MOST_CHARACTERS and request_id.isprintable() and request_id.strip():
        return
    # The id itself is left out: it could control the terminal that shows this.
    raise Invalid(
        f"a request id is 1 to {_MOST_CHARACTERS} printable characters, got {len(request_id)} characters"
        f"{'' if request_id.isprintable() else ', not all printable'}",
        "Choose another --request-id, or leave it out: one is drawn then.",
    )


def check_own_request_id(request_id: str) -> None:
    """Raise ``Invalid`` unless a request may have this id: it can be shown, and is not reserved for refutations."""
    check_request_id(request_id)
    if request_id.startswith(_OF_REFUTATIONS):
        raise Invalid(
            f"ids that begin with '{_OF_REFUTATIONS}' are those of statements about constituents found wrong",
            "Choose another --request-id, or leave it out: one is drawn then.",
        )
