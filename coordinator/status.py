"""Status: the state in the form that people and scripts need. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

from coordinator.decisions.batching import plan_batch, retrain_start
from coordinator.decisions.plan import trained_epochs
from coordinator.decisions.policy import is_overdue
from coordinator.decisions.times import steady
from coordinator.delays import EndedPause, Extension
from coordinator.effects import ErasureEffect, HoldoutMeasure
from coordinator.requests import NONE_SIMILAR, Cost, ErasureRequest, Similar
from coordinator.settings import ErasureSettings
from coordinator.state import FederationState, ShardState, servable
from shards.cost import training_point_epochs
from shards.learner_kinds.guarantees import EXACT
from shards.lineage import unrecorded
from shards.schedule import slice_epochs
from shards.specification import ShardId
from storage.digests import Sha256

WHY_BY_ID: Final = "by id: they were erased one by one, or their subject was readmitted, or has another name now"
"""The reason why data points are left out although their subject, as the source names it, is not erased."""


def outdated_text(points: int) -> str:
    """Return that a source has values that were corrected by request, and what to do about it."""
    many = f"{points:,} data points" if points > 1 else "1 data point"
    return (
        f"the source still has the old values of {many} corrected by request: the corrected values are kept."
        " Correct the source; to go back to an old value, use 'sisa rectify'"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstituentStatus:
    """One shard and its constituent."""

    shard: ShardId
    """Its number, from 0."""
    slices: int
    """R."""
    points: int | None
    """None: withheld, because the caller's token has only the role predict."""
    digest: Sha256 | None
    """Digest of parameters and buffers after the last slice; None while it is not trained, or withheld."""
    slice_digests: tuple[Sha256, ...] | None
    """Digests after slices 1..k, as far as it is trained; a single one where all slices are learned at once. None:
    withheld."""
    state: str
    """``trained``, ``training``, ``quarantined`` (serves an earlier slice, or abstains) or ``empty`` (no points)."""
    serving_slice: int
    """The slice whose checkpoint answers; 0: the shard abstains."""
    budget_used: float | None = None
    """Of a learner whose guarantee is certified: the share of its budget that erasures have used, rounded up to
    hundredths; a constituent that would exceed it is retrained with new noise. None: it has no budget
    or abstains, or the share is withheld."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """One erasure request, or one request to correct data points."""

    request_id: str
    """Its id: the ``Idempotency-Key`` or ``--request-id`` it was submitted with, or one that was drawn."""
    kind: str = "erasure"
    """``erasure`` or ``rectification``."""
    state: str
    """Its stage; ``waiting`` while it is paused, ``failed`` after a failed attempt."""
    stage: str
    """The stage that it has reached, even while it waits."""
    subjects: int
    """How many people it names; names themselves are not stored."""
    ids: int
    """How many single data points it names."""
    points: int
    """Data points that it removes; 0 until they are found."""
    held_out: int = 0
    """Those of the points that were hold-out points."""
    effect: ErasureEffect | None = None
    """Measures on hold-out points before and after it; None: there are none, or they are not for the asker."""
    alarms: tuple[str, ...] = ()
    """The classes or labels whose share of recognised points fell by more than ``[erasure] alarm_margin``; for targets
    without classes the measures that grew worse by it."""
    unknown: int
    """Named subjects and ids that have no data point here."""
    include_similar: bool = False
    """Whether subjects whose names differ only in spelling are erased as well."""
    similar: Similar = NONE_SIMILAR
    """Data points that stay, of subjects whose names differ only in spelling."""
    shards: tuple[ShardId, ...]
    """Shards in which its data points are; their constituents are retrained."""
    received_at: str
    """UTC, ISO 8601, as all times here."""
    due_at: str
    """Includes extensions and pauses."""
    overdue: bool
    """Whether the request is open past its due date; a paused request is judged by when its pause began."""
    reason: str
    """Why it was refused or cancelled, or why the last attempt failed and what to do."""
    times: dict[str, str]
    """When it reached each stage."""
    held: str
    """Why it is paused; empty: it is not."""
    held_at: str
    """Since when it is paused; empty: it is not."""
    holds: tuple[EndedPause, ...]
    """Pauses that are over."""
    extensions: tuple[Extension, ...]
    """The extension of its due date, if there was one."""
    failed_at: str
    """When the last attempt failed; empty: it did not."""
    expected: Cost | None
    """The expected cost of retraining for this request alone; None until its points are removed."""
    spent: Cost
    """Its cost so far; work that is shared with other requests counts in full for each."""


_OfRequest = TypeVar("_OfRequest", bound=RequestStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """Requests that share a retrain: their points are removed, their retrained constituents are not published yet."""

    requests: tuple[str, ...]
    """Their ids, in the order of arrival."""
    retrains_from: str
    """The moment until which it waits for more requests, UTC, ISO 8601; empty: it does not wait."""
    expected: Cost
    """Cost of the whole retrain, including the part that is already trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationStatus:
    """The whole federation."""

    name: str
    """Of the federation."""
    store: str
    """Where its objects are; empty: withheld."""
    shards: int
    """S: disjoint parts of the data, with one constituent each."""
    slices: int
    """R: parts of a shard, learned one after the other."""
    points: int
    """Data points in the shards, without hold-out points."""
    held_out: int | None = None
    """Hold-out points; None: ``[data] holdout`` is not set."""
    measure: HoldoutMeasure | None = None
    """The last measure on hold-out points."""
    is_measured: bool = False
    """Whether it is that of the current generation on the current hold-out points."""
    generation: int
    """Number of the ensemble that answers: it grows with every publication."""
    floor: int
    """Erasure floor: no generation below it may answer, because it has seen what was erased."""
    serving: int
    """Constituents that answer, of ``shards``."""
    tombstoned_at_ingest: int
    """Data points that the last ingest left out because they are erased."""
    kept_out_by_id: int = 0
    """Those of them whose subject, as the source now names it, is not erased: see ``WHY_BY_ID``."""
    outdated_at_ingest: int = 0
    """Data points of which the last ingest read values that were corrected by request; the corrected ones stay."""
    respelt_at_ingest: int = 0
    """Data points that the last ingest accepted although their subject differs from an erased one only in spelling."""
    guarantee: str = str(EXACT)
    """What the learner promises about erased data points: ``exact``, or ``certified(epsilon=1.0, delta=0.0001)``."""
    subject_form: str = "exact"
    """Which spellings count as the same subject; see ``[data] subject_form``."""
    similar_subjects: int | None = None
    """Subjects whose names differ from another subject's only in spelling; None: unknown in this federation."""
    constituents: tuple[ConstituentStatus, ...]
    """One for each shard, in order."""
    requests: tuple[RequestStatus, ...]
    """The open requests, and the last ended ones."""
    ended_before: int = 0
    """How many requests ended earlier; ``sisa request list`` lists them too."""
    batch: BatchStatus | None
    """The retrain for erasures that waits or is in progress; None: there is no such retrain."""
    full_point_epochs: int
    """Cost of training all points from nothing, the yardstick of costs; 0 before the first training."""
    differences: tuple[str, ...] = ()
    """Settings of the specification that differ from those it was trained with."""
    unrecorded: tuple[str, ...] = ()
    """Conditions that are not compared, because the release that trained it did not record them: ``probe``,
    ``code_manifest``."""
    forgotten: tuple[str, ...] = ()
    """Requests that the receipts' log states as carried out but the state does not know: the state was set back to an
    earlier moment, and nothing may answer from it."""
    clock_behind_seconds: float = 0.0
    """How far the clock of the reporting machine is behind the newest recorded time; 0: it is not behind. Overdue
    requests are judged by the later of the two."""


def describe_federation(
    state: FederationState,
    store: str,
    now: datetime,
    differences: tuple[str, ...] = (),
    erasure: ErasureSettings | None = None,
) -> FederationStatus:
    """Return the status of ``state`` at ``now``; ``erasure`` says when retraining may start (default: the defaults)."""
    constituents = tuple(_constituent(state, ShardId(number), shard) for number, shard in enumerate(state.shards))
    moment = steady(now, state)
    return FederationStatus(
        name=state.name,
        store=store,
        shards=len(state.shards),
        slices=len(state.shards[0].slices),
        points=sum(shard.points for shard in state.shards),
        held_out=state.held_out if state.holdout else None,
        measure=state.measure,
        is_measured=state.has_current_measure,
        generation=state.generation,
        floor=state.floor,
        serving=len(servable(state)),
        tombstoned_at_ingest=state.data.refused if state.data else 0,
        kept_out_by_id=state.data.by_id if state.data else 0,
        outdated_at_ingest=state.data.outdated if state.data else 0,
        respelt_at_ingest=state.data.respelt if state.data else 0,
        guarantee=str(state.promise),
        subject_form=state.naming.form,
        similar_subjects=similar_subjects(state),
        constituents=constituents,
        requests=tuple(describe_request(request, moment) for request in state.requests),
        ended_before=state.ended.requests,
        batch=_batch(state, erasure or ErasureSettings(), moment),
        full_point_epochs=_full_point_epochs(state),
        differences=differences,
        unrecorded=_unrecorded(state),
        clock_behind_seconds=round((moment - now).total_seconds(), 3),
    )


def for_the_public(status: FederationStatus) -> FederationStatus:
    """Return the parts of a status that a token with the role to predict may see.

    Left out are the requests, the store's location, everything about names, and the points and digests of each
    constituent: a comparison with earlier ones would reveal in which shard somebody was erased.
    """
    constituents = (
        replace(each, points=None, digest=None, slice_digests=None, budget_used=None) for each in status.constituents
    )
    return replace(
        status,
        store="",
        measure=None,
        is_measured=False,
        constituents=tuple(constituents),
        requests=(),
        ended_before=0,
        batch=None,
        kept_out_by_id=0,
        outdated_at_ingest=0,
        respelt_at_ingest=0,
        similar_subjects=None,
        forgotten=(),
        clock_behind_seconds=0.0,
    )


def without_effects(status: FederationStatus) -> FederationStatus:
    """Return a status without the measures around each request: they say how the erased people were recognised."""
    return replace(status, requests=tuple(without_effect(each) for each in status.requests))


def without_effect(status: _OfRequest) -> _OfRequest:
    """Return a request's status without the measures before and after it."""
    return replace(status, effect=None, alarms=())


def for_the_federation(status: FederationStatus) -> FederationStatus:
    """Return the parts of a site's status that its federation may see: all but what was measured on hold-out points."""
    return replace(without_effects(status), measure=None, is_measured=False)


def describe_request(request: ErasureRequest, now: datetime) -> RequestStatus:
    """Return the status of one request at ``now``."""
    return RequestStatus(
        request_id=request.request_id,
        kind=request.kind,
        state=request.shown.value,
        stage=request.state.value,
        subjects=request.subjects,
        ids=request.ids,
        points=request.found.points,
        held_out=request.found.held_out,
        effect=request.effect,
        alarms=request.effect.alarms if request.effect else (),
        unknown=request.found.unknown,
        include_similar=request.include_similar,
        similar=request.found.similar,
        shards=request.found.shards,
        received_at=request.received_at,
        due_at=request.due_at,
        overdue=is_overdue(request, now),
        reason=request.failure.reason if request.failure else request.reason or "",
        times=dict(request.times),
        held=request.pause.reason if request.pause else "",
        held_at=request.pause.held_at if request.pause else "",
        holds=request.holds,
        extensions=(request.extension,) if request.extension else (),
        failed_at=request.failure.at if request.failure else "",
        expected=request.found.expected,
        spent=request.spent,
    )


def similar_subjects(state: FederationState) -> int | None:
    """Return how many subjects have names that differ from another subject's only in spelling; None: unknown."""
    if not state.naming.by_skeleton:
        return None
    return sum(record.similar for shard in state.shards for record in shard.slices)


def _batch(state: FederationState, erasure: ErasureSettings, now: datetime) -> BatchStatus | None:
    epochs = trained_epochs(state)
    batch = plan_batch(state, epochs) if epochs is not None else None
    if batch is None or not batch.requests:
        return None
    start = retrain_start(state, erasure)
    return BatchStatus(
        requests=batch.requests,
        retrains_from=start.isoformat(timespec="milliseconds") if start is not None and start > now else "",
        expected=batch.expected,
    )


def _full_point_epochs(state: FederationState) -> int:
    epochs = trained_epochs(state)
    if epochs is None:
        return 0
    schedule = slice_epochs(epochs, state.full_chain(ShardId(0)))
    points = (state.portions([record.points for record in shard.slices]) for shard in state.shards)
    return sum(training_point_epochs(each, schedule) for each in points)


def _unrecorded(state: FederationState) -> tuple[str, ...]:
    if state.configuration is None:
        return ()
    return unrecorded(state.configuration, state.settings["model"].get("factory"))


def _constituent(state: FederationState, number: ShardId, shard: ShardState) -> ConstituentStatus:
    accounted = shard.chain[-1].accounted if shard.chain else None
    return ConstituentStatus(
        shard=number,
        slices=len(shard.slices),
        points=shard.points,
        digest=shard.chain[-1].digest if state.is_trained(number) else None,
        slice_digests=tuple(checkpoint.digest for checkpoint in shard.chain),
        state=_kind(state, number, shard),
        serving_slice=len(shard.slices) if state.is_whole and shard.serving else shard.serving,
        budget_used=accounted.share if accounted else None,
    )


def _kind(state: FederationState, number: ShardId, shard: ShardState) -> str:
    if not state.is_trained(number):
        open_here = any(request.state.is_open and number in request.found.from_slices for request in state.requests)
        return "quarantined" if open_here else "training"
    return "trained" if shard.points else "empty"
