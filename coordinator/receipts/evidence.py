"""Receipts: the facts of an erasure, as values and as an in-toto Statement. Pure.

A receipt holds counts, keyed digests, digests of objects and times, but no id, name or value of a person. It goes into
a log from which nothing is ever deleted, so it may hold nothing that might have to be erased. For that reason it has no
digest of a slice's content: for a slice of one data point, that content could be guessed. Lineages cannot be guessed,
because they also cover keyed digests (E8).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

from coordinator.receipts.kinds import PREDICATE_TYPE, RECTIFICATION_TYPE, STATEMENT_TYPE, SUBJECT_NAME
from coordinator.receipts.openings import RECIPE
from coordinator.requests import ErasureRequest, ObjectRef, RequestState
from coordinator.state import FederationState, ShardState
from shards.learner_kinds.guarantees import Certified
from shards.lineage import CheckpointRecord, NumericsProfile
from shards.slices.files import SliceRecord
from shards.specification import ShardId, SliceIndex
from storage.digests import Json, Sha256, canonical_json
from storage.errors import Invalid
from storage.objects import ObjectKey

FORMAT_VERSION: Final = 1

_QUARANTINED: Final = RequestState.QUARANTINED.value

PROVES: Final = (
    "The operator stated these facts, at this place of an append-only log, and has not changed them since. Digests can "
    "be compared with the objects in the store, and the constituents' digests with a training run that never saw the "
    "erased data points."
)
PROVES_CORRECTION: Final = (
    "The operator stated these facts, at this place of an append-only log, and has not changed them since. Digests can "
    "be compared with the objects in the store, and the constituents' digests with a training run that never saw the "
    "values that were corrected."
)
PROVES_CERTIFIED: Final = (
    "The operator stated these facts, at this place of an append-only log, and has not changed them since. Digests can "
    "be compared with the objects in the store. The constituents are not equal to those of a training run that never "
    "saw the erased data points: nobody who does not know the noise in them can tell them from such ones, up to the "
    "epsilon and delta of the guarantee."
)
"""Replaces ``PROVES`` for a learner with a certified guarantee."""
PROVES_CERTIFIED_CORRECTION: Final = PROVES_CERTIFIED.replace("the erased data points", "the corrected values")
BUDGET: Final = (
    "Each constituent has a budget for how far erasures may move it from the optimum of its data points. The share of "
    "it that is used is stated as budget_used, rounded up to hundredths; a constituent that would use more than all of "
    "it is trained again with new noise. Epsilon and delta are those of one constituent: of several, they add up. How "
    "much an erasure uses depends on who was erased, so the share says something about them."
)
"""What a receipt says about the budget of a learner whose guarantee is certified."""
DOES_NOT_PROVE: Final = (
    "It does not prove that no copy exists elsewhere, nor that the facts are true: it binds the operator to them. It "
    "names nobody; who stands behind the request's digest can be told only with the federation's partition key."
)
DOES_NOT_PROVE_TO_OTHERS: Final = (
    "It does not prove that no copy exists elsewhere, nor that the facts are true: it binds the operator to them. It "
    "names nobody: whom it is about can be shown by the commitment, with the salt that the asker was given, or by the "
    "request's digest, with the federation's partition key."
)
"""As ``DOES_NOT_PROVE``, for a receipt with a commitment to the names."""
STANDING_EXCEPTIONS: Final = (
    "Files outside the store that the data points were read from are not erased by this system.",
    "Copies that others made of the store, such as backups, replicas or access logs, are out of its reach.",
)
"""What no receipt covers; every receipt lists it."""


class Evidence(Protocol):
    """The facts that a receipt states."""

    @property
    def request_id(self) -> str:
        """The request's id in the federation that issues the receipt."""
        ...

    @property
    def request_digest(self) -> Sha256:
        """Digest of the names in the request, which does not reveal them."""
        ...

    @property
    def predicate_type(self) -> str:
        """The kind of facts."""
        ...

    def predicate(self, issued_at: str) -> dict[str, Any]:
        """Return the facts, as JSON values."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectEvidence:
    """An object that held part of the erased data points or old values, and was deleted."""

    key: ObjectKey
    sha256: Sha256
    what: str
    """``slice``, ``checkpoint``, ``names``, ``tombstones``, or ``draft``: values that a request brought."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupersededCheckpoint:
    """A checkpoint that had seen erased data points."""

    slice: SliceIndex
    sha256: Sha256
    """Digest of the object."""
    digest: Sha256
    """Digest of the parameters and buffers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEvidence:
    """One affected shard, before and after."""

    shard: ShardId
    slices: tuple[SliceIndex, ...]
    """Slices that changed; checkpoints from the first of these slices on were trained again."""
    points_before: int
    points_after: int
    lineages_before: tuple[Sha256, ...]
    """Lineages of the checkpoints from the first affected slice on."""
    lineages_after: tuple[Sha256, ...]
    superseded: tuple[SupersededCheckpoint, ...]
    constituent: Sha256 | None
    """Digest of the new constituent."""
    budget_used: float | None = None
    """For a learner with a certified guarantee: see ``coordinator.status.ConstituentStatus.budget_used``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutEvidence:
    """The hold-out points, before and after. No constituent was trained on them."""

    points: int
    """Data points that the request erased or corrected and that were hold-out points."""
    slices: tuple[SliceIndex, ...]
    """Slices that lost data points, or have other values."""
    points_before: int
    points_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringEvidence:
    """Data keys that were destroyed with the erasure: no copy of what they had encrypted can be read."""

    shard: ShardId
    destroyed: int
    """Number of the destroyed keyring."""
    current: int
    """Number of the keyring that replaced it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanEvidence:
    """The result of scanning the whole store after the purge."""

    objects: int
    bytes: int
    findings: int
    """Number of objects that should not exist. Not listed, because a foreign file's name may be personal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreEvidence:
    """The store that held the objects."""

    kind: str
    """Such as ``folder`` or ``s3``; no path, because one may hold a person's name."""
    properties: Mapping[str, Json] = field(default_factory=dict)
    """Properties that affect erasure: versioning, object lock, replication, encryption."""
    exceptions: tuple[str, ...] = ()
    """Sentences about what an erasure cannot reach in this kind of store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureEvidence:
    """All facts of one erasure, or of one rectification, that a receipt states."""

    federation: str
    is_rectification: bool = False
    """Whether data points were corrected instead of erased."""
    request_id: str
    """The id that the requester chose; it must not contain personal data."""
    request_digest: Sha256
    """SHA-256 over the keyed digests that the request names."""
    commitment: Sha256 | None = None
    """Commitment to the names (``coordinator.receipts.openings``); None if an earlier release accepted the request."""
    subjects: int
    ids: int
    points: int
    """Data points erased, or corrected."""
    unknown: int = 0
    """Named subjects and ids that have no data point here, perhaps because they were erased before."""
    state: RequestState
    due_at: str
    times: Mapping[str, str]
    """When each state was reached, UTC, ISO 8601."""
    shared_with: int
    """Number of other requests carried out meanwhile: the shards' differences include their data points."""
    shards: tuple[ShardEvidence, ...]
    holdout: HoldoutEvidence | None = None
    """None if none of the request's data points is a hold-out point."""
    purged: tuple[ObjectEvidence, ...]
    keyrings: tuple[KeyringEvidence, ...] = ()
    generation: int
    """Number of the new ensemble."""
    floor: int
    """No older generation is served, ever."""
    profile: NumericsProfile | None
    guarantee: Certified | None = None
    """What the learner promises about erased data points; None: exact."""
    manifests: Mapping[str, int]
    """Numbers of the manifests that committed each step: ``quarantined``, ``published``, ``purged``."""
    scan: ScanEvidence
    store: StoreEvidence
    exceptions: tuple[str, ...] = STANDING_EXCEPTIONS
    """What the erasure does not reach, in sentences without paths and names."""

    def __post_init__(self) -> None:
        if self.state not in (RequestState.PURGED, RequestState.COMPLETE):
            raise Invalid(
                "a receipt is for an erasure that was carried out",
                "Wait until 'sisa status' says that the request is complete.",
                request=self.request_id,
                state=self.state.value,
            )

    @property
    def predicate_type(self) -> str:
        """See ``Evidence.predicate_type``."""
        return RECTIFICATION_TYPE if self.is_rectification else PREDICATE_TYPE

    def predicate(self, issued_at: str) -> dict[str, Any]:
        """See ``Evidence.predicate``."""
        return _predicate(self, issued_at)


def collect_evidence(
    request_id: str,
    before: FederationState,
    after: FederationState,
    *,
    manifests: Mapping[str, int],
    scan: ScanEvidence,
    store: StoreEvidence,
    kept: Collection[str] | None = None,
    further_purged: Sequence[ObjectEvidence] = (),
    keyrings: Sequence[KeyringEvidence] = (),
) -> ErasureEvidence:
    """Return what the request did, from the states before its quarantine and after its purge.

    ``kept`` are the objects that ``after`` refers to, for a caller that knows them already.
    ``further_purged`` are objects that neither state refers to, such as those of abandoned attempts.
    Raises ``Invalid`` when ``after`` does not have the request, or has it in a state before *purged*.
    """
    request = after.request(request_id)
    if request is None:
        raise Invalid(
            "the federation has no such request", "See 'sisa status' for the requests that it has.", request=request_id
        )
    kept = after.referenced() if kept is None else kept
    gone = (each for each in _objects(before, request) if each.key not in kept)
    purged = {each.key: each for each in (*gone, *further_purged)}
    return ErasureEvidence(
        federation=after.name,
        is_rectification=request.correction is not None,
        request_id=request_id,
        request_digest=request.body,
        commitment=request.commitment,
        subjects=request.subjects,
        ids=request.ids,
        points=request.found.points,
        unknown=request.found.unknown,
        state=request.state,
        due_at=request.due_at,
        times=dict(request.times),
        shared_with=_carried_out(after) - _carried_out(before) - _is_carried_out(request),
        shards=tuple(_shard_evidence(shard, before, after) for shard in request.found.shards),
        holdout=_holdout_evidence(request.found.held_out, before, after) if request.found.held_out else None,
        purged=tuple(sorted(purged.values(), key=lambda each: each.key)),
        keyrings=tuple(keyrings),
        generation=after.generation,
        floor=after.floor,
        profile=after.configuration.profile if after.configuration else None,
        guarantee=after.configuration.guarantee if after.configuration else None,
        manifests=dict(manifests),
        scan=scan,
        store=store,
        exceptions=(*STANDING_EXCEPTIONS, *store.exceptions),
    )


def statement(evidence: Evidence, issued_at: str) -> bytes:
    """Return the in-toto Statement (v1) as canonical JSON. Raises ``Invalid`` when a field cannot be JSON."""
    record: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": SUBJECT_NAME, "digest": {"sha256": evidence.request_digest}}],
        "predicateType": evidence.predicate_type,
        "predicate": evidence.predicate(issued_at),
    }
    try:
        return canonical_json(record)
    except (TypeError, ValueError) as error:
        raise Invalid(
            "a receipt's evidence holds a value that JSON cannot hold", "Use text, numbers and lists."
        ) from error


def _predicate(evidence: ErasureEvidence, issued_at: str) -> dict[str, Any]:
    done = "rectified" if evidence.is_rectification else "erased"
    opening = {"commitment": evidence.commitment, "commitment_is": RECIPE} if evidence.commitment else {}
    return {
        "format_version": FORMAT_VERSION,
        "proves": _proves(evidence),
        "does_not_prove": DOES_NOT_PROVE_TO_OTHERS if opening else DOES_NOT_PROVE,
        "exceptions": list(evidence.exceptions),
        "issued_at": issued_at,
        "federation": evidence.federation,
        "request": {
            "id": evidence.request_id,
            "digest": evidence.request_digest,
            **opening,
            "subjects": evidence.subjects,
            "ids": evidence.ids,
            "unknown": evidence.unknown,
            "state": evidence.state.value,
            "due_at": evidence.due_at,
            "times": dict(evidence.times),
        },
        done: {
            "points": evidence.points,
            "other_requests_in_between": evidence.shared_with,
        },
        "shards": [_of_shard(each) for each in evidence.shards],
        **({"holdout": _held_out(done, evidence.holdout)} if evidence.holdout else {}),
        "purged": [asdict(each) for each in evidence.purged],
        "keyrings": [asdict(each) for each in evidence.keyrings],
        "generation": evidence.generation,
        "erasure_floor": evidence.floor,
        "numerics_profile": evidence.profile.record() if evidence.profile else None,
        **({"guarantee": asdict(evidence.guarantee) | {"budget": BUDGET}} if evidence.guarantee else {}),
        "manifests": dict(evidence.manifests),
        "scan": asdict(evidence.scan),
        "store": {"kind": evidence.store.kind, "properties": dict(evidence.store.properties)},
    }


def _held_out(done: str, evidence: HoldoutEvidence) -> dict[str, Any]:
    facts = asdict(evidence)
    return {done: facts.pop("points"), **facts}


def _of_shard(evidence: ShardEvidence) -> dict[str, Any]:
    facts = asdict(evidence)
    return {name: value for name, value in facts.items() if name != "budget_used" or value is not None}


def _proves(evidence: ErasureEvidence) -> str:
    if evidence.guarantee is not None:
        return PROVES_CERTIFIED_CORRECTION if evidence.is_rectification else PROVES_CERTIFIED
    return PROVES_CORRECTION if evidence.is_rectification else PROVES


def _shard_evidence(number: ShardId, before: FederationState, after: FederationState) -> ShardEvidence:
    was, now = before.shards[number], after.shards[number]
    slices = tuple(
        SliceIndex(index)
        for index, (old, new) in enumerate(zip(was.slices, now.slices, strict=True), start=1)
        if old.content_digest != new.content_digest
    )
    kept = after.portion_of(slices[0]) - 1 if slices else after.full_chain(number)
    return ShardEvidence(
        shard=number,
        slices=slices,
        points_before=was.points,
        points_after=now.points,
        lineages_before=tuple(each.digest() for each in before.lineages(number)[kept:]),
        lineages_after=tuple(each.digest() for each in after.lineages(number)[kept:]),
        superseded=tuple(_superseded(was, now)),
        constituent=now.chain[-1].digest if after.is_trained(number) and now.chain else None,
        budget_used=now.chain[-1].accounted.share if now.chain and now.chain[-1].accounted else None,
    )


def _holdout_evidence(points: int, before: FederationState, after: FederationState) -> HoldoutEvidence:
    now = dict(enumerate(after.holdout, start=1))  # without any if hold-out points were given up since
    return HoldoutEvidence(
        points=points,
        slices=tuple(
            SliceIndex(index)
            for index, old in enumerate(before.holdout, start=1)
            if index not in now or now[index].content_digest != old.content_digest
        ),
        points_before=before.held_out,
        points_after=after.held_out,
    )


def _superseded(was: ShardState, now: ShardState) -> Iterator[SupersededCheckpoint]:
    kept = {each.key for each in now.chain}
    # An earlier request of the same batch has cut the chain: what is taken out directly is in the base.
    seen = was.chain if was.base is None else (*was.chain, was.base.checkpoint)
    for each in seen:
        if each.key not in kept:
            yield SupersededCheckpoint(slice=each.slice, sha256=each.sha256, digest=each.digest)


def _objects(state: FederationState, request: ErasureRequest) -> Iterator[ObjectEvidence]:
    """Yield the objects in which the request's data points or names may be: those of its shards, and its own.

    Not those of the other requests of its batch: each has a receipt, and with all in each of them the receipts of a
    large batch would be as many times as large.
    """
    for shard in (state.shards[number] for number in request.found.shards):
        # A base is on the purge list since an earlier request, and has seen these data points, too.
        old, slices = ((), ()) if shard.base is None else ((shard.base.checkpoint,), shard.base.slices)
        yield from _slice_objects((*shard.slices, *slices))
        yield from map(_checkpoint_object, (*shard.chain, *old))
    if request.found.held_out:
        yield from _slice_objects(state.holdout)
    own = state.request(request.request_id)
    if own is not None and isinstance(own.names, ObjectRef):  # other names are in the state itself, not in an object
        yield ObjectEvidence(key=own.names.key, sha256=own.names.sha256, what="names")
    for part in (part for rows in (own.drafts if own else ()) for part in rows.record.parts):
        yield ObjectEvidence(key=part.key, sha256=part.sha256, what="draft")
    for ref in state.tombstone_objects():
        yield ObjectEvidence(key=ref.key, sha256=ref.sha256, what="tombstones")


def _slice_objects(slices: Sequence[SliceRecord]) -> Iterator[ObjectEvidence]:
    for part in (part for record in slices for part in record.parts):
        yield ObjectEvidence(key=part.key, sha256=part.sha256, what="slice")


def _checkpoint_object(checkpoint: CheckpointRecord) -> ObjectEvidence:
    return ObjectEvidence(key=checkpoint.key, sha256=checkpoint.sha256, what="checkpoint")


def _carried_out(state: FederationState) -> int:
    """Return how many requests have had their data points removed; all complete ones that left the state have."""
    return state.ended.complete + sum([_QUARANTINED in request.times for request in state.requests])


def _is_carried_out(request: ErasureRequest) -> bool:
    return _QUARANTINED in request.times
