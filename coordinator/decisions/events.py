"""Events, which say what has happened, and effects, which say what remains to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.effects import HoldoutMeasure
from coordinator.requests import (
    NONE_SIMILAR,
    Cost,
    ErasureRequest,
    InlineDigests,
    ObjectRef,
    PlacedRows,
    Readmission,
    Refutation,
    Segment,
    Similar,
)
from coordinator.state import DataState
from shards.lineage import CheckpointRecord, Configuration
from shards.routing import SliceId
from shards.slices.files import SliceRecord
from shards.specification import ShardId, SliceIndex

# Events: what has happened.


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """The source was read; ``slices`` are its current slices."""

    data: DataState
    slices: Mapping[SliceId, SliceRecord]
    lost: frozenset[SliceId] = frozenset()
    """Slices whose old objects are damaged: they are replaced even if their content is the same."""
    holdout: tuple[SliceRecord, ...] = ()
    """All slices of hold-out points; empty: the settings hold out nothing."""
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfigured:
    """Training is requested under these settings."""

    settings: Mapping[str, Any]
    configuration: Configuration
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureAccepted:
    """A request has arrived; its names are durable. It may arrive paused."""

    request: ErasureRequest
    looked: int = 0
    """How many ended requests had left the state when this request's id was looked up among them. If more have left
    since, the event changes nothing, and the id must be looked up again (D4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsRemoved:
    """The request's data points were found, and their slices rewritten without them or with corrected values."""

    request_id: str
    removed: Mapping[SliceId, int]
    slices: Mapping[SliceId, SliceRecord]
    """The slices without those data points. If requests are carried out together, the first event may hold the slices
    of all."""
    held_out: int = 0
    """Number of removed hold-out points, which are not in ``removed``."""
    holdout: tuple[SliceRecord, ...] | None = None
    """All slices of hold-out points, without the removed points; None: unchanged. As with ``slices``, the first event
    may hold those of all requests."""
    tombstones: ObjectRef | None
    """The new ``FederationState.tombstones``; in an event of release 0.1: all tombstones, including this request's."""
    segments: tuple[Segment, ...] | None = None
    """The new ``FederationState.segments``, including this request's tombstones; None: release 0.1 recorded the
    event."""
    before: ObjectRef
    """The state before the removal, kept for the receipt; requests carried out together share it."""
    unknown: int = 0
    """Number of names without a data point; they get no tombstone."""
    missing: ObjectRef | InlineDigests | None = None
    """Keyed digests of those names; None: no such names, or release 0.1 recorded the event."""
    similar: Similar = NONE_SIMILAR
    """Data points that stay, of subjects whose names differ only in spelling."""
    expected: Cost | None = None
    """Expected cost of retraining for this request alone."""
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesKept:
    """The values that are kept for corrections changed: some were carried out, or their subjects were erased."""

    corrected: tuple[PlacedRows, ...]
    """The new ``FederationState.corrected``."""
    drafts: Mapping[str, tuple[PlacedRows, ...]]
    """The remaining new values of open requests, by request id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToErase:
    """No data point of the request is in the federation, or those to correct already have the new values."""

    request_id: str
    reason: str
    unknown: int = 0
    """Number of names in the request; 0: release 0.1 recorded the event."""
    similar: Similar = NONE_SIMILAR
    """See ``PointsRemoved.similar``."""
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten:
    """A worker has trained on a slice and stored the checkpoint."""

    shard: ShardId
    checkpoint: CheckpointRecord
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLost:
    """A committed checkpoint is missing or corrupt: it and all later ones of its chain cannot be used."""

    shard: ShardId
    slice: SliceIndex
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """A scan has shown that only the current state's objects are left in the store."""

    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptIssued:
    """The request's receipt is signed and in the log."""

    request_id: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DueExtended:
    """The request's due date was moved, which is possible once."""

    request_id: str
    due_at: str
    """The new due date, UTC, ISO 8601."""
    reason: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeld:
    """The request is paused, such as for a legal hold: nothing is removed until it is released."""

    request_id: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReleased:
    """The pause has ended; the due date moves by its length."""

    request_id: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCancelled:
    """The request was withdrawn before anything was removed."""

    request_id: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """An attempt to carry out these requests failed; they keep their stage, and the next attempt continues there."""

    request_ids: tuple[str, ...]
    reason: str
    """What happened and what to do."""
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectsReadmitted:
    """Erased subjects may come back: their own tombstones are removed, those of their erased data points stay."""

    readmission: Readmission
    tombstones: ObjectRef | None
    """The new ``FederationState.tombstones``, without those of the subjects."""
    segments: tuple[Segment, ...]
    """The new ``FederationState.segments``, without the subjects' tombstones."""
    looked: int = 0
    """See ``ErasureAccepted.looked``."""
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstituentRefuted:
    """A verification found that a checkpoint differs from the result of training on its data points."""

    refutation: Refutation
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutMeasured:
    """The current generation was measured on the current hold-out points."""

    measure: HoldoutMeasure
    margin: float
    """The setting ``[erasure] alarm_margin``."""
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryKept:
    """The records of the generations up to this one are stored in objects."""

    through: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedKept:
    """These requests and readmissions have ended and are recorded in buckets."""

    request_ids: tuple[str, ...]
    buckets: tuple[ObjectRef | None, ...]
    """The new buckets of ended requests, which also hold the records of these requests."""


InterventionEvent = DueExtended | RequestHeld | RequestReleased | RequestCancelled | AttemptFailed
RequestEvent = (
    ErasureAccepted
    | PointsRemoved
    | NothingToErase
    | ReceiptIssued
    | SubjectsReadmitted
    | HoldoutMeasured
    | InterventionEvent
)
Event = (
    Ingested
    | TrainingConfigured
    | CheckpointWritten
    | CheckpointLost
    | ConstituentRefuted
    | Purged
    | HistoryKept
    | EndedKept
    | ValuesKept
    | RequestEvent
)

# Effects: the remaining work.


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePoints:
    """Find the request's data points and write their slices without them."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Extend the chains of these shards to their last slice."""

    shards: tuple[ShardId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """Delete the objects that nothing refers to, and show that they are gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueReceipt:
    """Sign a statement of what was done for the request, and put it into the log."""

    request_id: str


Effect = RemovePoints | Train | Purge | IssueReceipt
