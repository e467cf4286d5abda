"""Erasure requests and the states they pass through."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from shards.specification import ShardId, SliceIndex
from shards.tombstones import DigestSet
from storage.digests import Sha256
from storage.encodings import from_base64, to_base64
from storage.errors import Invalid
from storage.objects import ObjectKey

MOST_INLINE: Final = 64
"""Most keyed digests that a request carries in itself, 1 KiB of them; more are in an object of their own."""

_MOST_CHARACTERS: Final = 200
_OF_REFUTATIONS: Final = "refuted-shard-"
"""Begins the ids of their statements, which share a name space with those of requests."""


class RequestState(enum.Enum):
    """Where a request stands (docs/design.md, section 17).

    ``accepted`` to ``complete`` are the stages in their order. ``waiting`` and ``failed`` are shown in place of the
    stage while a pause or a failure is on record (``ErasureRequest.shown``); the stage itself is kept.
    """

    ACCEPTED = "accepted"
    """Durable: it will be carried out, also after any crash."""
    PLANNED = "planned"
    """Its data points are found and written out of their slices."""
    QUARANTINED = "quarantined"
    """No prediction can use a model that has seen them."""
    RETRAINING = "retraining"
    PUBLISHED = "published"
    """The retrained constituents have taken over."""
    PURGED = "purged"
    """Nothing that held them is left in the store."""
    COMPLETE = "complete"
    WAITING = "waiting"
    """Paused, for a reason such as a legal hold; it goes on once released."""
    FAILED = "failed"
    """The last attempt failed; the next one goes on from there."""
    REFUSED = "refused"
    """Nothing to erase: no data point of these subjects or ids is in the federation."""
    CANCELLED = "cancelled"
    """Withdrawn before anything was removed."""

    @property
    def is_open(self) -> bool:
        """Whether work is still owed."""
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
    """Keyed digests that stand in the state itself: accepting a small request is one durable write."""

    payload: str
    """Base64 of ``DigestSet.to_bytes()``."""

    @classmethod
    def of(cls, names: DigestSet) -> InlineDigests:
        """Return ``names`` as they stand in the state: for at most ``MOST_INLINE``, which every manifest then holds."""
        return cls(payload=to_base64(names.to_bytes()))

    def digests(self) -> DigestSet:
        """Return the names. Raises ``Corrupt`` when the text is not what ``of`` wrote."""
        return DigestSet.from_bytes(from_base64(self.payload))


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Some of the tombstones, in an object of their own."""

    ref: ObjectRef
    digests: int
    """How many it holds: small ones are merged, so that an erasure writes about as much as it adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Similar:
    """Data points of subjects whose names differ in spelling alone from names that a request gives."""

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
    """Of workers, added up over shards; what was or is learned side by side takes less wall time."""

    def __add__(self, other: Cost) -> Cost:
        # Rounded to what checkpoints tell, so that sums do not grow digits nobody measured.
        return Cost(point_epochs=self.point_epochs + other.point_epochs, seconds=round(self.seconds + other.seconds, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """More time, granted once (GDPR Art. 12(3))."""

    at: str
    """When it was recorded, UTC, ISO 8601."""
    reason: str
    previous_due_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause that is over; the due date moved by as long as it lasted."""

    reason: str
    held_at: str
    """UTC, ISO 8601."""
    released_at: str
    previous_due_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureRequest:
    """A demand to erase subjects or data points; holds keyed digests and counts, never ids."""

    request_id: str
    body: Sha256
    """Digest of the keyed digests it names: the same id with another body is a conflict (D4)."""
    include_similar: bool = False
    """Whether subjects whose names differ in spelling alone are meant as well."""
    commitment: str = ""
    """What stands for its names in its receipt (``coordinator.receipts.openings``), in hexadecimal; empty: the release
    that took it made none."""
    names: ObjectRef | InlineDigests | None
    """The keyed digests it names, until its points are removed: then they are among the tombstones. None as well once
    it is refused or cancelled."""
    subjects: int
    """Subjects named."""
    ids: int
    """Data points named one by one."""
    before: ObjectRef | None = None
    """The state before its quarantine, for the receipt, until it is complete."""
    receipt: int | None = None
    """Index of its receipt in the log; None until it is complete."""
    by: str = ""
    """Id of the token it was submitted with; empty: by command. No part of ``body``."""
    received_at: str
    """UTC, ISO 8601."""
    due_at: str
    """UTC, ISO 8601; as extensions and pauses have moved it."""
    state: RequestState = RequestState.ACCEPTED
    """The stage it has reached; ``shown`` is what people see."""
    shards: tuple[ShardId, ...] = ()
    """Shards that held something."""
    from_slices: Mapping[ShardId, SliceIndex] = field(default_factory=dict)
    """The earliest slice of each of them that held something."""
    points: int = 0
    """Data points erased."""
    unknown: int = 0
    """Subjects and ids named that have no data point here, perhaps because they were erased before."""
    missing: ObjectRef | InlineDigests | None = None
    """Keyed digests of the unknown ones, for a repetition of the request with the same names; None: all or none are
    unknown, or a release before this one carried it out."""
    similar: Similar = NONE_SIMILAR
    """What was found beside what it names and stays, unless ``include_similar``."""
    reason: str = ""
    """Why it was refused or cancelled."""
    times: Mapping[str, str] = field(default_factory=dict)
    """When each state was reached, UTC, ISO 8601."""
    held: str = ""
    """Why it is paused; empty: it is not. Nothing is removed meanwhile and the clock of its due date stands still."""
    held_at: str = ""
    """Since when, UTC, ISO 8601; empty: not paused."""
    holds: tuple[Pause, ...] = ()
    """Pauses that are over."""
    extensions: tuple[Extension, ...] = ()
    """At most one is granted."""
    failure: str = ""
    """Why the last attempt failed and what to do; empty: it did not, or work has got further since."""
    failed_at: str = ""
    """When, UTC, ISO 8601; empty: no failure."""
    expected: Cost | None = None
    """What its retraining was expected to cost, had it been alone; None until its points are removed."""
    spent: Cost = Cost()
    """Learning of its shards from its earliest slices on, as far as it was kept. Work that several requests share
    counts in full for each of them; what a later request made void and had learned again counts twice."""

    def __post_init__(self) -> None:
        check_request_id(self.request_id)

    @property
    def shown(self) -> RequestState:
        """The state that people see: ``waiting`` while paused, ``failed`` after a failure, else the stage."""
        if not self.state.is_open:
            return self.state
        if self.held:
            return RequestState.WAITING
        return RequestState.FAILED if self.failure else self.state

    def first_slice(self, shard: ShardId) -> SliceIndex:
        """Return the earliest slice of ``shard`` that it concerns; 1 where the version that wrote it did not say."""
        return self.from_slices.get(shard, SliceIndex(1))

    def reach(self, state: RequestState, at: str) -> ErasureRequest:
        """Return the request in ``state``, with the states passed on the way marked as reached at ``at``."""
        passed = [state]
        if state in _ORDER and self.state in _ORDER:
            passed = _ORDER[_ORDER.index(self.state) + 1 : _ORDER.index(state) + 1]
        return replace(self, state=state, times={**self.times, **{each.value: at for each in passed}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Readmission:
    """Subjects who were erased and come back: new data points of theirs are taken again."""

    request_id: str
    body: Sha256
    """As of an erasure request: the same id with another body is a conflict (D4)."""
    subjects: int
    """Subjects named who were erased."""
    without_ids: int = 0
    """Those of them whose erased data points have left no tombstones by id, and come back if a source has them: they
    were erased by 0.1, or each data point is its own subject."""
    reason: str
    """For the record; without personal data."""
    at: str
    """UTC, ISO 8601."""
    receipt: int | None = None
    """Index of its statement in the log; None: not yet issued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refutation:
    """A constituent that was not what training on its data points gives; it answers no longer."""

    shard: ShardId
    slice: SliceIndex
    """The first one after which it differed."""
    checkpoint: ObjectKey
    lineage: Sha256
    """What the checkpoint claimed to have seen."""
    digest: Sha256
    """Of the constituent after that slice."""
    retrained_digest: Sha256 | None
    """What training from nothing gave instead; None: nothing."""
    at: str
    """UTC, ISO 8601."""
    receipt: int | None = None
    """Index of its statement in the log; None: not yet issued."""

    @property
    def request_id(self) -> str:
        """What its statement is called."""
        return f"{_OF_REFUTATIONS}{self.shard}-{self.digest[:16]}"


def check_request_id(request_id: str) -> None:
    """Raise ``Invalid`` unless the id can be shown and kept: 1 to 200 printable characters, not only spaces.

    It stands in receipts, on terminals and in lines of text; control characters would act there.
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
    """Raise ``Invalid`` unless a request may be given this id: one that can be shown, and no ``Refutation`` has."""
    check_request_id(request_id)
    if request_id.startswith(_OF_REFUTATIONS):
        raise Invalid(
            f"ids that begin with '{_OF_REFUTATIONS}' are those of statements about constituents found wrong",
            "Choose another --request-id, or leave it out: one is drawn then.",
        )
