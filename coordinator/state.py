"""What a federation is at one moment: the body of a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from coordinator.effects import HoldoutMeasure
from coordinator.requests import Cost, ErasureRequest, ObjectRef, PlacedRows, Readmission, Refutation, Segment
from shards.data.inventory import SourceFile
from shards.learner_kinds.guarantees import EXACT, Guarantee
from shards.lineage import Base, CheckpointRecord, Configuration, Lineage, expected_lineages
from shards.routing import AS_GIVEN, Naming, SliceId
from shards.slices.files import SliceRecord
from shards.slices.ingest import FeatureLayout
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256
from storage.objects import ObjectKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardState:
    """One shard: its current slices, and the checkpoints that have seen only these."""

    slices: tuple[SliceRecord, ...]
    """Slices 1..R."""
    chain: tuple[CheckpointRecord, ...] = ()
    """Checkpoints after portions 1..k. Only an erasure shortens the chain, and only training extends it."""
    serving: int = 0
    """How many portions the served checkpoint has seen, fixed within a generation; 0: the shard abstains."""
    base: Base | None = None
    """The last constituent before the slices changed, for learners that take points out directly; None once there is a
    new one, or where it must not be used."""

    @property
    def points(self) -> int:
        """Data points in the shard."""
        return sum(record.points for record in self.slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataState:
    """The data that were ingested, and their source."""

    layout: FeatureLayout
    inventory: tuple[SourceFile, ...]
    """Empty: the files are to be read again, even if they have not changed."""
    taken: Mapping[str, Any]
    """Label, features and classes of the ingest."""
    refused: int
    """Data points left out at ingest because of a tombstone."""
    by_id: int = 0
    """Those of them whose subject, as named by the source, has no tombstone."""
    respelt: int = 0
    """Ingested data points whose subject differs from an erased one only in spelling."""
    outdated: int = 0
    """Data points of which the source has values that were corrected: they keep the corrected ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRecord:
    """One generation of the ensemble: when it was served, and which slices each constituent had seen."""

    number: int
    since: str
    """UTC, ISO 8601, like ``until``; empty: a release that did not record it began the generation."""
    until: str
    """Empty: it is still served."""
    serving: tuple[int, ...]
    """For each shard, how many portions the served checkpoint had seen; 0: it abstained."""


_NO_COST: Final = Cost()

Spans = tuple[tuple[int, int], ...]
"""Whole numbers as rising ranges with gaps between them: the first and the last number of each."""


def joined(spans: Spans, numbers: Iterable[int]) -> Spans:
    """Return the spans with these numbers added.

    >>> joined(((0, 3), (7, 9)), [5, 4, 12])
    ((0, 5), (7, 9), (12, 12))
    """
    ranges: list[tuple[int, int]] = []
    for first, last in sorted((*spans, *((number, number) for number in numbers))):
        if ranges and first <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    return tuple(ranges)


def is_within(spans: Spans, number: int) -> bool:
    """Return whether the number is in one of the spans."""
    return any(first <= number <= last for first, last in spans)


def others(spans: Spans) -> Iterator[int]:
    """Yield the numbers from 0 on that are not in any span."""
    start = 0
    for first, last in spans:
        yield from range(start, first)
        start = last + 1
    yield from count(start)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRequests:
    """Requests and readmissions that have ended and left the state (``coordinator.engine.ended``)."""

    complete: int = 0
    refused: int = 0
    cancelled: int = 0
    readmissions: int = 0
    expected: Cost = _NO_COST
    """The expected cost of the complete requests."""
    spent: Cost = _NO_COST
    """The actual cost of the complete requests."""
    purged_at: str = ""
    """When the last of the complete requests was purged, UTC, ISO 8601; empty: no complete request."""
    numbers: Spans = ()
    """The numbers of the requests, counted from 0 in the order of acceptance; without readmissions."""
    receipts: Spans = ()
    """Indexes of their receipts and statements in the log."""
    missing: tuple[ObjectKey, ...] = ()
    """Objects with the keyed digests of their unknown names, for requests that have many."""
    buckets: tuple[ObjectRef | None, ...] = ()
    """Their records, by the digest of their ids; None: an empty bucket."""

    @property
    def requests(self) -> int:
        """How many erasure requests have left the state."""
        return self.complete + self.refused + self.cancelled

    @property
    def count(self) -> int:
        """How many requests and readmissions have left the state."""
        return self.requests + self.readmissions


NONE_ENDED: Final = EndedRequests()


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationState:
    """Everything that is current, derived only from committed manifests (D2)."""

    name: str
    settings: Mapping[str, Any]
    """The settings it was last trained with, for comparison."""
    key_digest: Sha256
    """Identifies the partition key without revealing it."""
    shards: tuple[ShardState, ...]
    holdout: tuple[SliceRecord, ...] = ()
    """Slices 1..R of the hold-out points, which no constituent is trained on; empty: ``[data] holdout`` was not set
    when the source was read. In keys and in ``SliceId`` they belong to ``shard_of_holdout``, after the last shard."""
    measure: HoldoutMeasure | None = None
    """The last measure on hold-out points."""
    is_measured: bool = False
    """Whether it is that of the last published generation on the current hold-out points."""
    data: DataState | None = None
    configuration: Configuration | None = None
    generation: int = 0
    """Number of the ensemble that is served; 0: no ensemble yet."""
    floor: int = 0
    """Erasure floor: no older generation may be served, ever (E10)."""
    published: bool = False
    """Whether the served ensemble consists of fully trained constituents."""
    at_once: bool = False
    """Whether training was requested, or trained slices were discarded, for another reason than an erasure: then
    training does not wait for more requests. False again once everything is trained."""
    naming: Naming = AS_GIVEN
    """How names of subjects are normalised; fixed when the federation was made."""
    tombstones: ObjectRef | None = None
    """Tombstones as release 0.1 kept them; None: that release erased nothing."""
    segments: tuple[Segment, ...] = ()
    """Tombstones of later erasures, the older and larger segments first."""
    corrected: tuple[PlacedRows, ...] = ()
    """Digests of the contents that corrected data points had, so that a source does not bring these back."""
    readmissions: tuple[Readmission, ...] = ()
    refuted: tuple[Refutation, ...] = ()
    """Constituents that a verification found wrong."""
    history: tuple[GenerationRecord, ...] = ()
    """The last generations, the current one included; older ones are in objects (``coordinator.engine.history``)."""
    requests: tuple[ErasureRequest, ...] = ()
    """The open requests and the last ended ones, in the order of acceptance."""
    ended: EndedRequests = NONE_ENDED
    """Requests and readmissions that ended earlier."""
    condemned: tuple[ObjectKey, ...] = ()
    """Purge list: objects that nothing refers to any more, not yet deleted."""

    @property
    def is_begun(self) -> bool:
        """Whether it holds anything that a different specification must not change."""
        return self.data is not None or bool(self.requests) or bool(self.ended.count)

    @property
    def readmitted(self) -> int:
        """How many readmissions there were."""
        return len(self.readmissions) + self.ended.readmissions

    def request(self, request_id: str) -> ErasureRequest | None:
        """Return the request of this id, if the state has it; one that ended long ago is in a bucket of ``ended``."""
        return next((request for request in self.requests if request.request_id == request_id), None)

    def readmission(self, request_id: str) -> Readmission | None:
        """Return the readmission of this id, if the state has it, as ``request`` does."""
        return next((each for each in self.readmissions if each.request_id == request_id), None)

    def refutation(self, request_id: str) -> Refutation | None:
        """Return the last refutation whose statement has this name, if there is one."""
        return next((each for each in reversed(self.refuted) if each.request_id == request_id), None)

    def tombstone_objects(self) -> tuple[ObjectRef, ...]:
        """Return the objects that hold all tombstones."""
        return (*((self.tombstones,) if self.tombstones else ()), *(segment.ref for segment in self.segments))

    @property
    def shard_of_holdout(self) -> ShardId:
        """The number under which hold-out slices are found and stored: it follows that of the last shard."""
        return ShardId(len(self.shards))

    @property
    def held_out(self) -> int:
        """How many hold-out points there are."""
        return sum(record.points for record in self.holdout)

    @property
    def has_current_measure(self) -> bool:
        """Whether ``measure`` is that of the current generation; in quarantine it is that of an earlier one."""
        return self.is_measured and self.measure is not None and self.measure.generation == self.generation

    def slice(self, place: SliceId) -> SliceRecord:
        """Return the record of the slice, of a shard or of the hold-out points."""
        slices = self.holdout if place.shard == self.shard_of_holdout else self.shards[place.shard].slices
        return slices[place.slice - 1]

    def slices(self) -> Iterator[tuple[SliceId, SliceRecord]]:
        """Yield every slice, those of hold-out points last."""
        for shard, slices in enumerate((*(shard.slices for shard in self.shards), self.holdout)):
            for index, record in enumerate(slices, start=1):
                yield SliceId(ShardId(shard), SliceIndex(index)), record

    @property
    def is_whole(self) -> bool:
        """Whether all slices of a shard are one portion: what is learned between two checkpoints."""
        return self.configuration is not None and self.configuration.is_whole

    @property
    def promise(self) -> Guarantee:
        """What the learner promises about erased data points."""
        return self.configuration.promise if self.configuration is not None else EXACT

    def portions(self, slices: Sequence[int]) -> tuple[int, ...]:
        """Return the data points of each portion of a shard, given those of its slices 1..R."""
        return (sum(slices),) if self.is_whole else tuple(slices)

    def portion_of(self, slice_: SliceIndex) -> SliceIndex:
        """Return the number of the portion that the slice is in."""
        return SliceIndex(1) if self.is_whole else slice_

    def seen(self, shard: ShardId, checkpoints: int) -> int:
        """Return how many data points the shard's checkpoint of this number has seen."""
        return sum(self.portions([record.points for record in self.shards[shard].slices])[:checkpoints])

    def full_chain(self, shard: ShardId) -> int:
        """Return the number of checkpoints of a trained constituent."""
        return 1 if self.is_whole else len(self.shards[shard].slices)

    def is_trained(self, shard: ShardId) -> bool:
        """Whether the constituent has learned all slices."""
        return len(self.shards[shard].chain) == self.full_chain(shard)

    def untrained(self) -> tuple[ShardId, ...]:
        """Return the shards whose constituents have not learned all slices."""
        return tuple(self._untrained())

    @property
    def is_all_trained(self) -> bool:
        """Whether all constituents have learned all slices. Stops at the first that has not: every event asks."""
        return next(self._untrained(), None) is None

    def _untrained(self) -> Iterator[ShardId]:
        is_whole = self.is_whole
        for number, shard in enumerate(self.shards):
            if len(shard.chain) != (1 if is_whole else len(shard.slices)):
                yield ShardId(number)

    def lineages(self, shard: ShardId) -> tuple[Lineage, ...]:
        """Return the lineages that the shard's checkpoints must have; empty before training is configured."""
        if self.configuration is None:
            return ()
        return expected_lineages(shard, self.shards[shard].slices, self.configuration)

    def referenced(self) -> frozenset[ObjectKey]:
        """Return the keys of all objects that are part of the current state."""
        keys = {part.key for _, record in self.slices() for part in record.parts}
        drafts = (rows for request in self.requests for rows in request.drafts)
        keys |= {part.key for rows in (*drafts, *self.corrected) for part in rows.record.parts}
        keys |= {checkpoint.key for shard in self.shards for checkpoint in shard.chain}
        for base in (shard.base for shard in self.shards if shard.base is not None):
            keys |= {base.checkpoint.key, *(part.key for record in base.slices for part in record.parts)}
        refs = (ref for request in self.requests for ref in (request.names, request.before, request.found.missing))
        keys |= {ref.key for ref in refs if isinstance(ref, ObjectRef)}
        keys |= {ref.key for ref in (*self.tombstone_objects(), *self.ended.buckets) if ref is not None}
        return frozenset(keys.union(self.ended.missing))


@dataclass(frozen=True, slots=True, kw_only=True)
class Constituent:
    """A constituent that may be served now."""

    shard: ShardId
    checkpoint: CheckpointRecord


def servable(state: FederationState) -> tuple[Constituent, ...]:
    """Return the constituents that may answer: each shard's last checkpoint that has seen no erased point (E10).

    A shard abstains if it has no such checkpoint or no data points: an initial state has learned nothing.
    """
    return tuple(
        Constituent(shard=ShardId(number), checkpoint=shard.chain[shard.serving - 1])
        for number, shard in enumerate(state.shards)
        if state.seen(ShardId(number), shard.serving)
    )
