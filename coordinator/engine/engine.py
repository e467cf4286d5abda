"""The engine: performs the effects of ``decide``, and makes every event durable before it acts on the new state.

One engine writes at a time (the store's exclusive lock); fencing tokens stop a stale one at its next commit (D3).
Requests may be accepted from any thread, at any time; one thread does everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from coordinator.decisions.batching import retrain_start
from coordinator.decisions.decide import is_measure_due, outstanding
from coordinator.decisions.events import (
    AttemptFailed,
    CheckpointLost,
    CheckpointWritten,
    ConstituentRefuted,
    Effect,
    ErasureAccepted,
    Event,
    HistoryKept,
    HoldoutMeasured,
    Ingested,
    IssueReceipt,
    Purge,
    Purged,
    ReceiptIssued,
    RemovePoints,
    SubjectsReadmitted,
    Train,
    TrainingConfigured,
    ValuesKept,
)
from coordinator.delays import reason_of
from coordinator.effects import HoldoutMeasure
from coordinator.engine.corrections import (
    are_intact,
    check_comparable,
    drafts_gone,
    drafts_without,
    lost,
    with_corrected,
)
from coordinator.engine.ended import all_requests, find_known, keep_ended, used_before
from coordinator.engine.evidence import EvidenceOfBatch, scan_store
from coordinator.engine.history import keep_old
from coordinator.engine.intake import (
    by_slice,
    every_slice,
    holdout_of,
    holdout_without_erased,
    read_sources,
    without_erased,
)
from coordinator.engine.ledger import Change, Ledger
from coordinator.engine.lookup import is_intact, load_digests, load_tombstones
from coordinator.engine.removal import (
    ids_are_subjects,
    kept_names,
    put_digests,
    removal_events,
    without_tombstones,
)
from coordinator.engine.sweep import GONE, Drafts, sweep
from coordinator.engine.tasks import check_configuration, train_task
from coordinator.ports import (
    Clock,
    Ingestion,
    IngestProgress,
    Listener,
    Notice,
    Remark,
    RequestMoved,
    TrainingStarted,
    WorkerPool,
)
from coordinator.receipts.evidence import ScanEvidence, StoreEvidence
from coordinator.receipts.issuer import Registrar
from coordinator.receipts.statements import statement_owed
from coordinator.requests import (
    MOST_INLINE,
    Correction,
    ErasureRequest,
    InlineDigests,
    Readmission,
    Refutation,
    RequestState,
)
from coordinator.settings import ErasureSettings
from coordinator.state import DataState, FederationState
from shards.data.sources import Source
from shards.learners.trainer import SliceLearned
from shards.lineage import Configuration
from shards.measures import Measures
from shards.routing import PartitionKey, SliceId
from shards.slices.files import SliceRecord
from shards.slices.ingest import IngestTask, ingest, taken_from
from shards.specification import DataSettings, PartitionSettings, ShardId
from shards.tombstones import DigestSet
from storage.errors import Fenced, Invalid, InvariantBroken, OutcomeUnknown, SisaError, Unavailable
from storage.objects import NewName, ObjectKey, ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The components that an engine uses."""

    store: ObjectStore
    clock: Clock
    new_name: NewName
    listener: Listener
    pool: Callable[[], WorkerPool]
    """Returns the workers, starting them at the first call."""
    registrar: Registrar
    """Issues receipts."""
    described: Callable[[], StoreEvidence]
    """Returns the facts about the store that receipts state, as of now."""
    erasure: ErasureSettings = field(default_factory=ErasureSettings)
    """When retraining for erasures may start."""
    ingest: Ingestion = ingest
    """Reads the source, in one or several processes."""
    prepare: Callable[[FederationState, int, datetime], None] = lambda *_: None
    """Starts in advance what a retrain of this many shards will need; the retrain itself waits until the given
    moment."""
    measure: Callable[[FederationState], Measures] | None = None
    """Measures the ensemble of a state on its hold-out points; None: they are not measured."""


class Engine:
    """A federation being written to. Made by ``Engine.start`` while the store's writer lock is held."""

    def __init__(self, tools: Tools, ledger: Ledger) -> None:
        self._tools = tools
        self._ledger = ledger
        self._drafts = Drafts(tools.new_name, tools.store, ledger, tools.clock.monotonic)
        self._is_untidy = True
        """Whether the store may hold leftovers, at first those of other writers, then those of this engine."""
        self._not_measured: tuple[int, tuple[SliceRecord, ...]] | None = None
        """The generation and the hold-out points whose measurement failed."""

    @classmethod
    def start(cls, tools: Tools, fresh: FederationState) -> Engine:
        """Return the engine for the federation in the store, or for ``fresh`` when the store holds none.

        Commits an entry under a new fencing token at once, so that every older writer is fenced from then on.
        """
        return cls(tools, Ledger.start(tools.store, tools.new_name, fresh))

    @property
    def state(self) -> FederationState:
        """The state as of the last durable event."""
        return self._ledger.state

    @property
    def journal_entries(self) -> int:
        """See ``Ledger.journal_entries``."""
        return self._ledger.journal_entries

    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """Accept the request durably, or return the one that was accepted before under this id (D1, D4).

        May be called from any thread; concurrent callers share one durable write.
        Raises ``Conflict`` when the id was used for another body.
        """
        while True:
            known, looked = self._find(request.request_id)
            if known is not None:
                if isinstance(known, Readmission) or known.body != request.body:
                    raise used_before(request.request_id)
                return known
            if request.correction is not None:
                self._accept_correction(request, request.correction, names, looked)
                continue
            if len(names) <= MOST_INLINE:
                inline = replace(request, names=InlineDigests.of(names))
                self.record(ErasureAccepted(request=inline, looked=looked))
                continue
            try:
                with self._drafts as drawn:
                    ref = put_digests(self._tools.store, drawn, "requests", names)
                    self.record(ErasureAccepted(request=replace(request, names=ref), looked=looked))
            finally:
                # If the request was accepted before, the object is an orphan. Set last, because a sweep skips drafts.
                self._is_untidy = True

    def reserve(self) -> str:
        """Return a name for objects with the new values of a correction: no sweep deletes objects that contain it.

        Until the request is accepted, the name is given back or ``RESERVED_SECONDS`` have passed. Another process may
        write the objects. May be called from any thread.
        """
        return self._drafts.reserve()

    def give_back(self, name: str) -> None:
        """Give a reserved name back; the next sweep deletes what is left under it. May be called from any thread."""
        self._is_untidy = True
        self._drafts.give_back(name)

    def are_reserved(self, key: ObjectKey) -> bool:
        """Return whether the object may be a draft that is being written under a reserved name."""
        return self._drafts.are_reserved((key,))

    def _accept_correction(
        self, request: ErasureRequest, correction: Correction, names: DigestSet, looked: int
    ) -> None:
        """Accept a correction; people who were erased while it was drafted are taken out of its drafts.

        Raises ``Unavailable`` when the drafts are no longer there.
        """
        store = self._tools.store
        with self._drafts as drawn:  # so that no points are removed during this
            keys = {part.key for rows in request.drafts for part in rows.record.parts}
            if not self._drafts.are_reserved(keys) or not are_intact(store, request):
                raise drafts_gone(request=request.request_id)
            self._is_untidy = True
            erased = load_tombstones(store, self.state.tombstone_objects())
            drafts = drafts_without(store, request.drafts, erased, drawn)
            held = kept_names(store, drawn, names)
            asked = replace(request, names=held, correction=replace(correction, drafts=drafts))
            self.record(ErasureAccepted(request=asked, looked=looked))
            if self.state.request(request.request_id) is None:  # it is then looked up again, and recorded
                self._drafts.tidy()
                return
            kept = self.state.referenced()
            store.delete_all([key for key in keys if key not in kept])

    def find(self, request_id: str) -> ErasureRequest | Readmission | None:
        """Return the request or readmission of this id, even if it ended long ago. May be called from any thread."""
        return self._find(request_id)[0]

    def _find(self, request_id: str) -> tuple[ErasureRequest | Readmission | None, int]:
        """Return the request or readmission of this id, and how many ended ones were searched for it."""
        found, state = find_known(self._tools.store, lambda: self.state, request_id)
        assert state is not None
        return found, state.ended.count

    def readmit(self, readmission: Readmission, names: DigestSet) -> Readmission:
        """Readmit erased subjects, durably, or return the readmission of this id (D4).

        May be called from any thread. Raises ``Conflict`` when the id was used for other subjects or for an erasure,
        ``Invalid`` when none of the subjects was erased.
        """
        with self._drafts as drawn:
            known, looked = self._find(readmission.request_id)
            if known is not None:
                if not isinstance(known, Readmission) or known.body != readmission.body:
                    raise used_before(readmission.request_id)
                return known
            store = self._tools.store
            erased = names.shared(load_tombstones(store, self.state.tombstone_objects()))
            if not len(erased):
                raise Invalid(
                    "none of these subjects was erased here, so nothing keeps them out",
                    "Check the spelling. Data points that were erased by their ids stay out.",
                )
            tombstones, segments = without_tombstones(store, drawn, self.state, erased)
            by_subject = erased.shared(load_digests(store, self.state.tombstones))
            without_ids = len(erased if ids_are_subjects(self.state) else by_subject)
            stated = replace(readmission, subjects=len(erased), without_ids=without_ids)
            self.record(
                SubjectsReadmitted(
                    readmission=stated, tombstones=tombstones, segments=segments, looked=looked, at=readmission.at
                )
            )
            if self.state.readmission(readmission.request_id) is None:  # an erasure with this id was faster
                raise used_before(readmission.request_id)
            return stated

    def refute(self, refutations: Sequence[Refutation]) -> None:
        """Take constituents that a verification found wrong out of service, durably; they are trained again."""
        at = self.now()
        self.record(*(ConstituentRefuted(refutation=replace(each, at=at), at=at) for each in refutations))

    def intervene(self, ruling: Callable[[FederationState], Event]) -> None:
        """Record the event that ``ruling`` returns for the current state, but never while points are being removed.

        For interventions that are allowed only until a request's points are removed. May be called from any thread;
        raises what ``ruling`` raises.
        """
        with self._drafts:
            self.record(ruling(self.state))

    def record(self, *events: Event, notice: Notice | None = None) -> None:
        """Make the events durable together, then notify the listener, with ``notice`` first."""
        # Acceptances alone leave no leftovers: a thousand of them a second must not cause as many manifests.
        if not all(isinstance(event, ErasureAccepted) for event in events):
            self._is_untidy = True  # threads that record set it; only the thread that sweeps clears it
        change = self._ledger.record(*events)
        if notice is not None:
            self._tools.listener(notice)
        self._announce(change)

    def _announce(self, change: Change) -> None:
        """Notify the listener of requests that moved."""
        for request in change.moved():
            self._tools.listener(RequestMoved(request=request))

    def ingest(
        self,
        source: Source,
        data: DataSettings,
        partition: PartitionSettings,
        key: PartitionKey,
        lost: frozenset[SliceId] = frozenset(),
        holdout: Source | None = None,
    ) -> None:
        """Read the source and replace the slices that differ, and those in ``lost``; tombstoned points stay out.

        Hold-out points come from the source ``holdout``, if there is one, or are a share of the other one.
        """
        tools = self._tools
        self._is_untidy = True
        before = self.state  # read once: an erasure or readmission between two reads would be missed by both
        tombstones = before.tombstone_objects()
        # The ingest has drafts of its own, because erasures continue while the source is read. Sweeps do not: the same
        # thread ingests and sweeps, so these objects need no protection from a sweep. Objects that other processes
        # write for this ingest have names that begin with one drawn here; if this writer is fenced, they are deleted
        # with all others.
        with (drafts := Drafts(tools.new_name, tools.store, self._ledger)) as new_name:
            task = IngestTask(
                source=source,
                data=data,
                partition=partition,
                key=key,
                naming=before.naming,
                store=tools.store,
                tombstones=partial(load_tombstones, tools.store, tombstones),
                new_name=new_name,
                held_out=data.held_out_share,
                progress=lambda points: tools.listener(IngestProgress(points=points)),
            )
            try:
                result = read_sources(tools.ingest, task, holdout)
            except SisaError:
                drafts.tidy()
                raise
            state = DataState(
                layout=result.layout,
                inventory=result.inventory,
                taken=taken_from(data),
                refused=result.left_out.refused,
                by_id=result.left_out.by_id,
                respelt=result.left_out.respelt,
            )
            slices = every_slice(result, partition)
            held_out = holdout_of(result, task)
            with self._drafts as drawn:
                try:  # with the current state: data points may have been corrected while the source was read
                    are_comparable = check_comparable(self.state, result.layout, state.taken)
                except SisaError:
                    drafts.tidy()
                    raise
                if self.state.tombstone_objects() != tombstones:  # subjects were erased while the source was read
                    slices = without_erased(tools.store, self.state, slices, drawn)
                    held_out = holdout_without_erased(tools.store, self.state, held_out, drawn)
                if self.state.readmitted != before.readmitted:  # readmitted subjects were left out
                    state = replace(state, inventory=())
                events: list[Event] = []
                if self.state.corrected and are_comparable:
                    every = slices | by_slice(self.state, held_out)
                    every, outdated = with_corrected(tools.store, self.state, every, lost, drawn)
                    slices, held_out = {each: every[each] for each in slices}, tuple(every.values())[len(slices) :]
                    state = replace(state, outdated=outdated)
                elif self.state.corrected:  # the source has the corrected values, which are now read in another way
                    events.append(ValuesKept(corrected=(), drafts={}))
                self.record(Ingested(data=state, slices=slices, holdout=held_out, lost=lost, at=self.now()), *events)
                self._drafts.tidy()
            drafts.tidy()

    def audit(self) -> frozenset[SliceId]:
        """Check every object of the state against its digest; return the slices whose files are lost.

        Lost checkpoints are removed from their chains, so that training rebuilds them.
        """
        lost = {
            place
            for place, record in self.state.slices()
            if not all(is_intact(self._tools.store, part.key, part.sha256) for part in record.parts)
        }
        for number, shard in enumerate(self.state.shards):
            for checkpoint in shard.chain:
                if not is_intact(self._tools.store, checkpoint.key, checkpoint.sha256):
                    self.record(CheckpointLost(shard=ShardId(number), slice=checkpoint.slice, at=self.now()))
                    break
        return frozenset(lost)

    def configure(self, settings: dict[str, Any], configuration: Configuration) -> None:
        """Set the settings of training; checkpoints of another lineage are discarded (E8)."""
        self.record(TrainingConfigured(settings=settings, configuration=configuration, at=self.now()))

    def remove_points(self) -> None:
        """Carry all accepted requests to quarantine, in one commit. May be called from any thread.

        Raises ``Corrupt`` when the new values of a correction are lost, after the others.
        """
        if damaged := self._remove_points():
            raise lost(damaged[0])

    def _remove_points(self) -> list[ErasureRequest]:
        """Do what ``remove_points`` does; return the corrections whose new values are lost."""
        with self._drafts as drawn:
            effects = outstanding(self.state)
            wanted = [effect.request_id for effect in effects if isinstance(effect, RemovePoints)]
            if not wanted:
                return []
            self._is_untidy = True
            store = self._tools.store
            try:
                ready = [request for request in self.state.requests if request.request_id in set(wanted)]
                damaged = [request for request in ready if not are_intact(store, request)]
                batch = [(each, load_digests(store, each.names)) for each in ready if each not in damaged]
                events = tuple(removal_events(store, drawn, self.state, batch, self.now()))
            except SisaError as error:
                self._tell_failure(tuple(wanted), error)
                raise
            self.record(*events)
            for request in damaged:  # the others are still carried out
                self._tell_failure((request.request_id,), lost(request))
            return damaged

    def settle(self, *, hurry: bool = True) -> datetime | None:
        """Do all outstanding work, and delete everything that the state does not name.

        Without ``hurry``, retraining waits for its window. Returns the moment from which there is more to do: a window
        ends, or a reserved name expires; None when nothing waits. Interrupting it is safe: the next engine continues
        from the last event.
        """
        try:
            waits = self._settle(hurry=hurry)
        except GONE:
            self.refuse_superseded()  # objects that another writer has purged are not damaged
            raise
        seconds = self._drafts.expires_in
        expiry = None if seconds is None else self._tools.clock.now() + timedelta(seconds=seconds)
        return min(filter(None, (waits, expiry)), default=None)

    def _settle(self, *, hurry: bool) -> datetime | None:
        waits: datetime | None = None
        unsigned: SisaError | None = None
        damaged: list[ErasureRequest] = []  # other requests do not wait until a person withdraws these
        while effects := [
            each
            for each in outstanding(self.state, [request.request_id for request in damaged])
            if unsigned is None or not isinstance(each, IssueReceipt)
        ]:
            match effects[0]:
                case RemovePoints():
                    damaged = self._remove_points()
                case Train(shards=shards):
                    waits = None if hurry else self._wait_for(self._tools.clock.now())
                    if waits is not None:
                        self._tools.prepare(self.state, len(shards), waits)
                        break
                    self._train(shards)
                case Purge():
                    # With the manifest that the sweep writes, which then names none of the purged objects.
                    self._sweep(lambda: [Purged(at=self.now())])
                case IssueReceipt():
                    unsigned = self._try_to_issue(effects)
        self._measure()
        self._keep_house(unsigned)
        if damaged:
            raise lost(damaged[0])
        return waits

    def _keep_house(self, unsigned: SisaError | None) -> None:
        """Do what no request waits for, and raise the error that kept receipts from being issued, if there is one."""
        if unsigned is None:
            self._keep_ended()
        # No purge list has the objects that an interrupted writer never committed, the manifests that name purged
        # objects, or the files of a repeated ingest that changed nothing.
        if self._drafts.expire() or self._is_untidy:
            self._sweep()
        self._keep_generations()
        if unsigned is not None:
            raise unsigned
        self._tools.registrar.pack()

    def _measure(self) -> None:
        """Measure the ensemble on the hold-out points, if that is due. No request waits for it.

        An error is reported; this engine tries again once the generation or the hold-out points have changed.
        """
        state = self.state
        wanted = (state.generation, state.holdout)
        if self._tools.measure is None or not is_measure_due(state) or wanted == self._not_measured:
            return
        try:
            found = self._tools.measure(state)
        except (Fenced, OutcomeUnknown, InvariantBroken):
            raise
        except SisaError as error:
            self._not_measured = wanted
            self._tools.listener(Remark(text=f"the hold-out points were not measured: {error}"))
            return
        at = self.now()
        measure = HoldoutMeasure.of(found, state.generation, at)
        with self._drafts:  # so that no points are removed during this
            if (self.state.generation, self.state.holdout) == wanted:
                self.record(HoldoutMeasured(measure=measure, margin=self._tools.erasure.alarm_margin, at=at))

    def _keep_ended(self) -> None:
        """Move requests that ended long ago from the state into buckets.

        Not between a purge and its receipts: the replaced buckets stay as leftovers until the next sweep.
        """
        with self._drafts as drawn:
            while (event := keep_ended(self._tools.store, drawn, self.state)) is not None:
                self.record(event)

    def _keep_generations(self) -> None:
        while (through := keep_old(self._tools.store, self.state)) is not None:
            self.record(HistoryKept(through=through))

    def refuse_superseded(self) -> None:
        """Raise ``Fenced`` when another writer has taken over."""
        self._ledger.refuse_superseded()

    def now(self) -> str:
        """Return the current time in the format of events."""
        return self._tools.clock.now().isoformat(timespec="milliseconds")

    def _wait_for(self, now: datetime) -> datetime | None:
        start = retrain_start(self.state, self._tools.erasure)
        return start if start is not None and start > now else None

    def _train(self, shards: Sequence[ShardId]) -> None:
        """Extend the chains of ``shards``, committing every checkpoint as it comes."""
        self._is_untidy = True  # workers that die or are superseded leave objects that no event names
        try:
            pool = self._tools.pool()
            assert self.state.data is not None
            stored, width = self.state.configuration, self.state.data.layout.width
            check_configuration(stored, pool.configuration(width, len(shards), stored))
            after, token, state = self._ledger.position, self._ledger.token, self.state  # which includes the position
            tasks = [train_task(state, shard, token=token, after=after) for shard in shards]
            started = tuple((task.shard, len(task.done)) for task in tasks)
            slices, whole = len(tasks[0].lineages), state.is_whole
            self._tools.listener(TrainingStarted(shards=started, slices=slices, at_once=whole))
            for event in pool.train(tasks):
                if isinstance(event, SliceLearned) and event.checkpoint is not None:
                    written = CheckpointWritten(shard=event.shard, checkpoint=event.checkpoint, at=self.now())
                    self.record(written, notice=event)
                else:
                    self._tools.listener(event)
        except SisaError as error:
            stages = (RequestState.QUARANTINED, RequestState.RETRAINING)
            waiting = tuple(each.request_id for each in self.state.requests if each.state in stages)
            self._tell_failure(waiting, error)
            raise

    def _tell_failure(self, request_ids: tuple[str, ...], error: SisaError) -> None:
        """Record why requests do not advance, unless a simple retry may help."""
        if request_ids and not isinstance(error, Fenced | OutcomeUnknown | Unavailable | InvariantBroken):
            self.record(AttemptFailed(request_ids=request_ids, reason=reason_of(error), at=self.now()))

    def _try_to_issue(self, effects: Sequence[Effect]) -> SisaError | None:
        """Issue receipts, or return the error: retraining and purging continue without the keys and the log."""
        try:
            self._issue_receipts([each.request_id for each in effects if isinstance(each, IssueReceipt)])
        except (Fenced, OutcomeUnknown, InvariantBroken):
            raise
        except SisaError as error:
            return error
        return None

    def _issue_receipts(self, request_ids: Sequence[str]) -> None:
        """Sign and log what was done for the requests; a repetition returns the same receipts."""
        described, store = self._tools.described(), self._tools.store
        every = partial(all_requests, store, self.state)
        owed = [statement_owed(self.state, request_id, described, every) for request_id in request_ids]
        nothing = ScanEvidence(objects=0, bytes=0, findings=0)
        scan = scan_store(store, self.state, self._drafts) if None in owed else nothing
        evidence = EvidenceOfBatch(store, self._ledger.state, self._ledger.manifest, scan, described)
        evidences = [
            statement or evidence.of(request_id) for request_id, statement in zip(request_ids, owed, strict=True)
        ]
        bundles = self._tools.registrar.issue_all(evidences)
        self.record(
            *(
                ReceiptIssued(request_id=request_id, index=bundle.index)
                for request_id, bundle in zip(request_ids, bundles, strict=True)
            )
        )

    def _sweep(self, events: Callable[[], Sequence[Event]] = tuple) -> None:
        self._is_untidy = False  # before the sweep: events that are recorded meanwhile need another one
        try:
            self._announce(sweep(self._tools.store, self._ledger, self._drafts, events))
        except BaseException:
            self._is_untidy = True
            raise
