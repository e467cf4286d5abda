"""Writing to a federation: what the holder of its writer lock may do, in a command or in a coordinator's actor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol

from cluster.config.specification import FederationSpecification, settings_record
from cluster.results.federation import Verification
from cluster.runtime.system import SteadyClock, SystemClock, holder, many_at_once
from cluster.training.late_workers import LateWorkers
from cluster.writer.drafting import RequestDraft, new_request_id, request_of, roll_of
from cluster.writer.identity import (
    check_identity,
    check_taken,
    check_unchanged,
    describe_store,
    differences,
    fresh_state,
    keep_given_key,
    partition_key,
    require_data,
    side_by_side,
    trained,
)
from cluster.writer.keys_owner import check_owner, own_keys
from cluster.writer.last_verification import LastVerification, keep_verification
from cluster.writer.notices import WitnessNotices
from cluster.writer.place import foreign_place, settle_identity
from cluster.writer.stores import open_objects, open_witness
from cluster.writer.training_data import IN_MEMORY, is_news, open_holdout, open_train
from coordinator.decisions.events import Event
from coordinator.decisions.policy import ruling
from coordinator.decisions.times import latest_time, received_by
from coordinator.delays import check_reason
from coordinator.engine.corrections import LostValues
from coordinator.engine.ended import all_readmissions, all_requests, find_request
from coordinator.engine.engine import Engine, Tools
from coordinator.engine.follower import StateReader
from coordinator.engine.ledger import read_state
from coordinator.engine.removal import everyone
from coordinator.engine.sweep import GONE
from coordinator.engine.tasks import check_configuration, differing
from coordinator.interventions import Intervention
from coordinator.ports import Clock, Listener, Remark
from coordinator.receipts.issuer import Registrar
from coordinator.receipts.rollback import forgotten_by, refuse_restoring
from coordinator.receipts.statements import Commitment
from coordinator.requests import ErasureRequest, Readmission, Refutation, check_own_request_id
from coordinator.settings import BatchUntil
from coordinator.state import FederationState, servable
from coordinator.status import outdated_text
from coordinator.verification import prove_shards, scan_residue
from shards.data.sources import Source, passed_over_text
from shards.lineage import Configuration, in_force
from shards.measures import Measures
from shards.routing import PartitionKey
from shards.slices.ingest import feature_width, taken_from
from shards.specification import ShardId
from shards.tombstones import DigestSet
from storage.encryption.store import SealedStore
from storage.errors import Conflict, Corrupt, Invalid, SisaError, Unavailable
from storage.location import is_on_s3
from storage.objects import NewName, new_name
from storage.stores.probe import probe_store

_START_AHEAD: Final = timedelta(seconds=60)
"""How long before a retrain its workers may start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSetup:
    """What a writer of a federation needs."""

    specification: FederationSpecification
    store: SealedStore
    clock: SteadyClock
    new_name: NewName
    listener: Listener
    workers: LateWorkers
    state: StateReader
    """The state in the store, for callers that are not the writer."""

    def notices(self, federation: str, key: PartitionKey) -> WitnessNotices | None:
        """Return the witness's notices for the federation with this id; None: the specification names no witness."""
        witness = open_witness(self.specification)
        if witness is None:
            return None
        return WitnessNotices(
            witness=witness, federation=federation, key=key, tell=lambda text: self.listener(Remark(text=text))
        )

    @property
    def registrar(self) -> Registrar:
        """The federation's receipts."""
        return Registrar(
            self.store,
            self.clock,
            self.new_name,
            witness=open_witness(self.specification),
            tell=lambda text: self.listener(Remark(text=text)),
            each=many_at_once,
        )


def drafted(
    setup: WriterSetup,
    *,
    subjects: Iterable[str | int],
    ids: Iterable[str | int],
    request_id: str | None,
    held: str,
) -> tuple[ErasureRequest, DigestSet]:
    """Return the part of ``draft`` that the coordinator needs to carry out the request."""
    made = draft(setup, subjects=subjects, ids=ids, request_id=request_id, held=held)
    return made.request, made.names


def draft(
    setup: WriterSetup,
    *,
    subjects: Iterable[str | int],
    ids: Iterable[str | int],
    request_id: str | None,
    held: str,
    include_similar: bool = False,
) -> RequestDraft:
    """Return an erasure request and the keyed digests that it names, so that no name leaves this process.

    The same ``request_id`` with the same subjects and ids is the same request (D4); without one an id is drawn. With
    ``held``, the reason of a pause, it will wait to be released.
    With ``include_similar`` subjects whose names differ only in spelling are meant as well.
    Raises ``Invalid`` when nothing is named, nothing is trained, id or reason cannot be shown, or the id is one of the
    names, ``Conflict`` when the store is another federation's or settings have changed.
    """
    if request_id is not None:
        check_own_request_id(request_id)
    if held:
        check_reason(held)
    specification = setup.specification
    state, key = trained(setup.state(), setup.store, specification)
    setup.clock.saw(latest_time(state))
    if include_similar:
        check_skeletons(state)
    own_id = new_request_id(setup.new_name) if request_id is None else request_id
    salt = setup.new_name()
    commitment = Commitment(salt)
    roll = roll_of(specification, key, state.naming, subjects, ids, request_id=own_id, commitment=commitment)
    names = roll.names
    request = request_of(
        specification,
        names,
        own_id,
        setup.clock.now(),
        held=held,
        include_similar=include_similar,
        commitment=commitment.value(),
    )
    return RequestDraft(request=request, names=names, roll=roll, salt=salt)


def check_skeletons(state: FederationState) -> None:
    """Raise ``Invalid`` for a federation that cannot find similar names."""
    if not state.naming.by_skeleton:
        raise Invalid(
            "this federation was made by a release that kept no skeletons of names: it cannot find similar names",
            "Name every spelling. Only federations begun with a later release can find similar names.",
            federation=state.name,
        )


def drafted_for_all(
    setup: WriterSetup, state: FederationState, request_id: str
) -> tuple[ErasureRequest, DigestSet] | None:
    """Return the request that erases everybody who has a data point here now; None: it was accepted before.

    It is not known whom an earlier request named. So if a request with this id is over and data points are left, it
    counts as another request: raises ``Conflict``. ``state`` is the current one, of a trained federation.
    """
    check_own_request_id(request_id)
    earlier = find_request(setup.store, lambda: read_state(setup.store), request_id)
    if earlier is None:
        names = everyone(setup.store, state)
        return request_of(setup.specification, names, request_id, setup.clock.now()), names
    if not earlier.state.is_open and any(record.points for _, record in state.slices()):
        raise Conflict(
            "the request id was used before, and there are data points here", "Choose another.", id=request_id
        )
    return None


def writer_setup(
    specification: FederationSpecification,
    *,
    listener: Listener,
    clock: Clock | None = None,
    new_name: NewName = new_name,
) -> WriterSetup:
    """Return what a writer in this process needs."""
    store = open_objects(specification)
    return WriterSetup(
        specification=specification,
        store=store,
        clock=SteadyClock(clock or SystemClock(), lambda text: listener(Remark(text=text))),
        new_name=new_name,
        listener=listener,
        workers=LateWorkers(specification, store, lambda text: listener(Remark(text=text))),
        state=StateReader(store),
    )


@contextmanager
def writing(setup: WriterSetup, command: str) -> Iterator[Writer]:
    """Hold the federation's writer lock, and complete the work that an interrupted writer left undone.

    ``command`` names the holder in other processes' errors; "train" and "launch" may begin a federation. Raises
    ``WriterBusy`` when another process is writing, ``Conflict`` when the store is another federation's, or a copy
    (which may be verified), ``Invalid`` or ``Unavailable`` when by the federation's labels this node must not read its
    data.
    """
    may_begin = command in {"train", "launch"}
    setup.workers.check_own_place()
    if command != "restore":
        refuse_restoring(setup.store)
    if command not in {"verify", "restore"}:  # verifying destroys no key, and writes its findings only into the copy
        check_owner(setup.store)
    with setup.store.exclusive("writer", holder=holder(command, setup.clock.now())):
        state = read_state(setup.store)
        if may_begin and state is None and is_on_s3(setup.store.location):
            probe_store(setup.store)  # many servers fail to keep conditions under concurrent writes
        key = partition_key(setup.store, setup.specification, draw=may_begin)
        if state is not None and state.is_begun:
            check_identity(state, setup.specification, key)
        if may_begin:
            keep_given_key(setup.store, setup.specification)  # servers, which may only read, find it there
        setup.clock.saw(latest_time(state))
        engine = Engine.start(_tools(setup), fresh_state(setup.specification, key))
        identity = settle_identity(setup.store)
        own_keys(setup.store)
        try:
            yield Writer(setup, engine, key, setup.notices(identity.id, key))
        except GONE:
            engine.refuse_superseded()  # an object that another writer has purged is not damaged
            raise


class Writing(Protocol):
    """A writer, in this process or another one. See ``Writer``."""

    @property
    def state(self) -> FederationState:
        """The state as of the last durable event."""
        ...

    def train(self) -> None:
        """Ingest, partition and train."""
        ...

    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """Accept an erasure request or a correction, durably."""
        ...

    def reserve(self) -> str:
        """Return a name for the drafts of a correction."""
        ...

    def give_back(self, name: str) -> None:
        """End the reservation of a name."""
        ...

    def carry_out(self, request_id: str, batch: BatchUntil) -> ErasureRequest:
        """Do, or wait for, all that may be done for the request now; return it afterwards."""
        ...

    def readmit(self, readmission: Readmission, names: DigestSet) -> Readmission:
        """Let subjects who were erased come back."""
        ...

    def intervene(self, request_id: str, wanted: Intervention) -> ErasureRequest:
        """Pause a request, release it, move its due date or withdraw it; see ``policy.ruling``."""
        ...

    def request(self, request_id: str) -> ErasureRequest:
        """Return a request that was accepted."""
        ...

    def verify(self, shards: Sequence[int] | None = None, *, everything: bool = False) -> Verification:
        """Verify the federation."""
        ...


class Writer:
    """Writes to a federation. ``accept`` and the methods for single requests may be called from any thread."""

    def __init__(
        self, setup: WriterSetup, engine: Engine, key: PartitionKey, notices: WitnessNotices | None = None
    ) -> None:
        self._setup = setup
        self._notices = notices
        self._engine = engine
        self._key = key

    @property
    def state(self) -> FederationState:
        """The state as of the last durable event."""
        return self._engine.state

    @property
    def journal_entries(self) -> int:
        """How many entries the journal has since the last manifest."""
        return self._engine.journal_entries

    def train(self, given: Source | None = None) -> None:
        """Ingest, partition and train; or continue where an earlier run stopped; or retrain what settings changed.

        The source, ``given`` or the one that ``[data] train`` names, is read again when it has changed. Erased subjects
        stay out even where it still holds them.
        Raises ``Invalid`` for bad data or a bad model, ``Corrupt`` when slices are damaged and there is no source.
        """
        engine, specification = self._engine, self._setup.specification
        lost = engine.audit()
        if not lost:  # else after reading the source: a damaged slice cannot be searched
            with self.going_on():
                engine.remove_points()
        self._tell_changes()
        source, holdout = self._sources(given)
        width = feature_width(source, specification.data) if source else _width(engine.state)
        pool = self._setup.workers.pool()
        stored = engine.state.configuration
        configuration = in_force(stored, pool.configuration(width, specification.partition.shards, stored))
        if configuration != stored:  # else a worker rehearses the model, if there is anything to train
            configuration = replace(configuration, code_manifest=pool.rehearse(width))
            self._tell_conditions(configuration)
        if lost and source is None:
            raise Corrupt(
                f"{len(lost)} slice files are damaged and the source is not there to read them again",
                "Bring back the files named by [data] train, or restore the store from a copy.",
                source=specification.data.train,
            )
        if source is None:
            check_taken(engine.state, specification)
        elif lost or is_news(specification, engine.state, source, holdout):
            self._tell_holdout()
            engine.ingest(source, specification.data, specification.partition, self._key, lost, holdout)
            own_keys(self._setup.store)  # the first data points made the keys
            self._tell_nobody()
        self._tell_outdated()
        engine.configure(settings_record(specification), configuration)
        with self.going_on():
            engine.settle()

    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """Accept an erasure request, as ``drafted``, durably; raises as ``Engine.accept`` does.

        Its time of receipt is now at the latest, because the clock of the machine that drafted it may be ahead.
        """
        received = received_by(request, self._setup.clock.now())
        if self._notices is not None and request.correction is None:  # the values of a correction stay in the store
            self._notices.accepted(received, names)
        return self._engine.accept(received, names)

    def reserve(self) -> str:
        """See ``Engine.reserve``."""
        return self._engine.reserve()

    def give_back(self, name: str) -> None:
        """See ``Engine.give_back``."""
        self._engine.give_back(name)

    def readmit(self, readmission: Readmission, names: DigestSet) -> Readmission:
        """Let erased subjects come back; raises as ``Engine.readmit`` does. ``settle`` issues the statement."""
        return self._engine.readmit(readmission, names)

    def quarantine(self) -> None:
        """Remove the points of all accepted requests; then no prediction uses a model that has seen them (E10)."""
        self._engine.remove_points()

    def settle(self, *, hurry: bool = True) -> datetime | None:
        """Do the outstanding work; see ``Engine.settle``."""
        return self._engine.settle(hurry=hurry)

    @contextmanager
    def going_on(self, request_id: str = "") -> Iterator[None]:
        """Report requests whose new values are lost, and go on: what could be done was done before the error.

        Raises it nevertheless where it is about ``request_id``.
        """
        try:
            yield
        except LostValues as error:
            if error.context["request"] == request_id:
                raise
            self._tell(str(error))

    def carry_out(self, request_id: str, batch: BatchUntil) -> ErasureRequest:
        """Do what may be done for the request now, and all other outstanding work; return the request afterwards."""
        # No further request can join a window of seconds while this process holds the writer lock.
        with self.going_on(request_id):
            self.settle(hurry=batch == "window")
        return self.request(request_id)

    def intervene(self, request_id: str, wanted: Intervention) -> ErasureRequest:
        """Change a request as ``wanted``, even one that ended so long ago that it left the state.

        Raises as ``coordinator.decisions.policy.ruling`` does.
        """
        settings, at = self._setup.specification.erasure, self._engine.now()

        def ruled(state: FederationState) -> Event:
            found = self._engine.find(request_id)
            if state.request(request_id) is None and isinstance(found, ErasureRequest):
                state = replace(state, requests=(*state.requests, found))
            return ruling(state, request_id, wanted, settings=settings, at=at)

        self._engine.intervene(ruled)
        request = self.request(request_id)
        if self._notices is not None and request.correction is None:
            self._notices.ruled(request)
        return request

    def request(self, request_id: str) -> ErasureRequest:
        """Return a request that was accepted. Raises ``Invalid`` when there is no request with this id."""
        found = self._engine.find(request_id)
        if not isinstance(found, ErasureRequest):
            raise Invalid(
                "there is no such erasure request", "See 'sisa request list' for all of them.", request=request_id
            )
        return found

    def verify(self, shards: Sequence[int] | None = None, *, everything: bool = False) -> Verification:
        """Retrain ``shards`` (default: all) from zero on the remaining data, compare bytes, scan the store for residue.

        Packs of receipts that an earlier call has found sound, and records of finished requests, are read only with
        ``everything``.

        A constituent that is found wrong is durably withdrawn, and the next training retrains it.
        Raises ``Invalid`` for a shard that does not exist.
        """
        setup = self._setup
        state = require_data(self.state, setup.specification)
        check_unchanged(state, setup.specification)
        chosen = _chosen(shards, len(state.shards))
        pool = setup.workers.pool()
        stored = state.configuration
        check_configuration(stored, pool.configuration(_width(state), len(chosen), stored))
        residue = scan_residue(setup.store, state, everything=everything, known=self._engine.are_reserved)
        proofs = prove_shards(state, chosen, pool, setup.listener)
        # A statement that is still owed does not count as missing, since settling issues it.
        ended: tuple[ErasureRequest | Readmission | Refutation, ...]
        ended = (*state.requests, *state.readmissions, *state.refuted)
        if everything:
            ended = (*all_requests(setup.store, state), *all_readmissions(setup.store, state), *state.refuted)
        expected = {each.request_id: each.receipt for each in ended if each.receipt is not None}
        refuse = self._engine.refuse_superseded
        receipts = setup.registrar.verify_all(expected, everything=everything, refuse=refuse)
        forgotten = forgotten_by(setup.store, lambda: self.state)
        unknown = (f"request {each}: the log states it, and the state does not know it" for each in forgotten)
        receipts = replace(receipts, broken=(*receipts.broken, *unknown))
        self._engine.refuse_superseded()  # else another writer's changes could look like differences
        if wrong := [proof.refutation for proof in proofs if proof.refutation is not None]:
            self._engine.refute(wrong)
        found = Verification(shards=proofs, residue=residue, receipts=receipts, guarantee=str(state.promise))
        self._keep(found, state, everything=everything)
        return found

    def _keep(self, found: Verification, state: FederationState, *, everything: bool) -> None:
        """Record a verification for people to see, if anything may be written here: a copy is only read."""
        setup = self._setup
        try:
            if foreign_place(setup.store) is None:
                at, shards = setup.clock.now().isoformat(timespec="seconds"), len(state.shards)
                kept = LastVerification.of(
                    found, at=at, generation=state.generation, shards=shards, everything=everything
                )
                keep_verification(setup.store, kept)
        except SisaError as error:
            setup.listener(Remark(text=f"the result could not be recorded for the console: {error.fact}"))

    def _sources(self, given: Source | None) -> tuple[Source | None, Source | None]:
        """Return the source, ``given`` or named, and that of the hold-out points, if it is another one.

        The first is None if either is gone but was ingested before, so that the work can continue.
        """
        try:
            source = given or open_train(self._setup.specification)
            holdout = open_holdout(self._setup.specification)
        except (Invalid, Unavailable) as error:
            if self.state.data is None:
                raise
            if given is None and self._setup.specification.data.train == IN_MEMORY:
                return None, None
            self._tell(f"{error.message}: continuing with the data ingested before")
            return None, None
        for each in (source, holdout):
            if each is not None and (passed_over := passed_over_text(each)):
                self._tell(passed_over)
        return source, holdout

    def _tell_holdout(self) -> None:
        """Report that data points are about to move between shards and hold-out points."""
        data, now = self.state.data, taken_from(self._setup.specification.data).get("holdout")
        if data is None or (was := data.taken.get("holdout")) == now:
            return
        self._tell(
            f"[data] holdout was {'not set' if was is None else was} and is {'not set' if now is None else now}: data"
            " points that become hold-out points are taken out of their shards, which are retrained without them; the"
            " others are trained on"
        )

    def _tell_nobody(self) -> None:
        """Report that the share of hold-out points is too small for so few subjects."""
        share, state = self._setup.specification.data.held_out_share, self.state
        if share and not state.held_out and (people := len(everyone(self._setup.store, state))):
            self._tell(
                f"[data] holdout = {share:g} holds out none of the {people:,} subjects, so nothing is measured: set a"
                " larger share, or name files"
            )

    def _tell_outdated(self) -> None:
        data = self.state.data
        if data is not None and data.outdated:
            self._tell(outdated_text(data.outdated))

    def _tell_changes(self) -> None:
        if self.state.configuration and (changed := differences(self.state, self._setup.specification)):
            self._tell(f"settings changed, so constituents are retrained:\n{side_by_side(changed)}")

    def _tell_conditions(self, now: Configuration) -> None:
        before = self.state.configuration
        if before is None or before.settings != now.settings:
            return  # nothing was trained, or the changed settings are reported
        if changed := differing(before, now):
            self._tell(f"all constituents are retrained because conditions differ: {'; '.join(changed)}")

    def _tell(self, text: str) -> None:
        self._setup.listener(Remark(text=text))


def _tools(setup: WriterSetup) -> Tools:
    return Tools(
        store=setup.store,
        clock=setup.clock,
        new_name=setup.new_name,
        listener=setup.listener,
        pool=setup.workers.pool,
        registrar=setup.registrar,
        described=lambda: describe_store(setup.store, setup.clock.machine()),
        erasure=setup.specification.erasure,
        ingest=lambda task: setup.workers.ingest(replace(task, admitted=setup.specification.model.admitted)),
        prepare=partial(_prepared, setup),
        measure=partial(_measured, setup),
    )


def _prepared(setup: WriterSetup, state: FederationState, shards: int, begins: datetime) -> None:
    """Have workers for ``shards`` start if a retrain begins soon: they hold processors, and have read no data point."""
    if state.data is not None and begins - setup.clock.now() <= _START_AHEAD:
        setup.workers.prepare(state.data.layout.width, shards, state.configuration)


def _measured(setup: WriterSetup, state: FederationState) -> Measures:
    """Return the measures of the state's ensemble on its hold-out points, computed by a worker.

    Raises ``Conflict`` when settings or workers differ from those that the ensemble was trained with.
    """
    from shards.learners.measuring import MeasureTask  # noqa: PLC0415  only with hold-out points

    specification, stored = setup.specification, state.configuration
    check_unchanged(state, specification)
    assert stored is not None
    pool = setup.workers.pool()
    check_configuration(stored, pool.configuration(_width(state), 1, stored))
    task = MeasureTask(
        constituents=tuple((each.shard, each.checkpoint) for each in servable(state)),
        holdout=state.holdout,
        width=_width(state),
        scale=specification.data.scale,
        target=specification.predicted,
        rule=specification.aggregation.rule,
        configuration=stored,
    )
    return pool.measure(task)


def _width(state: FederationState) -> int:
    assert state.data is not None
    return state.data.layout.width


def _chosen(shards: Sequence[int] | None, count: int) -> tuple[ShardId, ...]:
    wanted = sorted(set(range(count) if shards is None else shards))
    if strange := [shard for shard in wanted if not 0 <= shard < count]:
        raise Invalid(f"there is no shard {strange[0]}", f"Name shards from 0 to {count - 1}.")
    return tuple(ShardId(shard) for shard in wanted)
