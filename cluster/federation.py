"""The Python front door: an object to train a federation, ask it for predictions, and erase people from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import numpy.typing as npt

from cluster.config.specification import FederationSpecification, read_specification, specification_from
from cluster.coordinator_actor.record import read_record, releases_of
from cluster.ensemble.reader import Reading
from cluster.results.federation import (
    Answers,
    ErasureAnswer,
    Evaluation,
    ReadmissionAnswer,
    Search,
    SubjectFound,
    Verification,
)
from cluster.results.traces import SubjectTraces
from cluster.runtime.system import cpus
from cluster.sources import find_source_faults
from cluster.writer.corrections import correction_reader, draft_correction
from cluster.writer.drafting import RequestDraft, Roll, new_request_id, readmission_of, roll_of
from cluster.writer.identity import no_federation
from cluster.writer.keys_owner import check_owner
from cluster.writer.training_data import open_train, source_of
from cluster.writer.writer import Writer, Writing, draft, drafted_for_all, writer_setup, writing
from coordinator.decisions.plan import RetrainPlan, plan_retrain
from coordinator.decisions.times import latest_time
from coordinator.delays import check_reason
from coordinator.engine.ended import find_request
from coordinator.engine.history import generations
from coordinator.engine.ledger import read_state
from coordinator.interventions import Cancel, Extend, Hold, Intervention, Release
from coordinator.ports import Clock, Listener, Remark, ignore_notice
from coordinator.receipts.issuer import Registrar
from coordinator.receipts.rollback import refuse_restoring
from coordinator.requests import NONE_SIMILAR, ErasureRequest, check_own_request_id
from coordinator.state import FederationState, GenerationRecord
from coordinator.status import FederationStatus, RequestStatus, describe_request
from shards.data.sources import Source
from shards.slices.survey import DataFault
from storage.encryption.store import SealedStore
from storage.errors import Conflict, Corrupt, InvariantBroken, ObjectMissing, SisaError, Unavailable
from storage.objects import NewName, new_name

if TYPE_CHECKING:
    from cluster.training.workers import Pool
    from cluster.writer.forecast import Plan
    from cluster.writer.optimising import OptimisedPlan, Wish


ConfigSource = str | Path | Mapping[str, Any] | FederationSpecification
"""What a federation can be opened with."""

_DRAFTED: Final = 3
"""How often the rows of a correction are drafted, if a coordinator that was restarted has deleted the drafts."""


class Federation:
    """One federation, reached through its specification.

    Reading needs only the store. Writing (``train``, ``erase``) holds the store's writer lock, starts Ray when there is
    something to train, and first completes the work that an interrupted writer left undone.
    Use it as a context manager, or call ``close``.
    """

    def __init__(
        self,
        specification: FederationSpecification,
        *,
        listener: Listener = ignore_notice,
        clock: Clock | None = None,
        new_name: NewName = new_name,
    ) -> None:
        self.specification = specification
        self._setup = writer_setup(specification, listener=listener, clock=clock, new_name=new_name)
        self._clock = self._setup.clock
        self._store = self._setup.store
        self._workers = self._setup.workers
        self._listener = listener
        self._joined = False
        self.reading = Reading(specification, self._store, self._clock, self._current, self._remark)

    def __repr__(self) -> str:
        return f"Federation({self.specification.name!r}, store={self._store.location!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def store(self) -> SealedStore:
        """The store that holds the federation."""
        return self._store

    @property
    def registrar(self) -> Registrar:
        """Its receipts."""
        return self._setup.registrar

    def release(self) -> None:
        """Release the workers and their processors; later work starts new ones."""
        self._workers.release()

    def close(self) -> None:
        """Release the workers, and leave Ray if this federation joined it."""
        self._workers.close()
        if self._joined:
            from cluster.runtime.session import leave_ray  # noqa: PLC0415  it loads Ray

            leave_ray()
            self._joined = False

    def workers(self) -> Pool:
        """Return the worker pool, joining Ray at the first call."""
        return self._workers.pool()

    def train(self, data: object = None) -> FederationStatus:
        """Ingest, partition and train; or continue where an earlier run stopped; or retrain what settings changed.

        The source is ``[data] train``, or ``data``, as ``predict`` takes them. It is read again when it has changed.
        Erased subjects stay out even where it still holds them.
        Raises ``Invalid`` for bad data or a bad model, ``Conflict`` when the store belongs to another specification,
        another writer is at work, or ``data`` are given while a coordinator runs, which reads for itself.
        """
        given = None if data is None else source_of(self.specification, data, self._remark)
        with self._writing("train") as writer:
            if given is None:
                writer.train()
            elif isinstance(writer, Writer):
                writer.train(given)
            else:
                raise Conflict(
                    "a coordinator runs, and reads its data itself: other data cannot be sent to it",
                    "Run 'sisa stop' first, or write the data to a file that [data] train names.",
                )
            return self.reading.describe(writer.state)

    def erase(
        self,
        *,
        subjects: Iterable[str | int] = (),
        ids: Iterable[str | int] = (),
        request_id: str | None = None,
        held: str = "",
        wait: bool = True,
        include_similar: bool = False,
        on_accepted: Callable[[ErasureAnswer], None] | None = None,
    ) -> ErasureAnswer:
        """Erase subjects and single data points; return the request when all work that may be done now is done.

        Normally that means that it is complete. With ``[erasure] batch = "until_due"`` the points are removed and
        retraining waits for more requests; a request that is ``held`` for a reason waits until it is released. If a
        coordinator runs, it does the work; without ``wait`` the request is then returned as soon as it is accepted.
        With ``include_similar`` subjects whose names differ only in spelling are erased with those named.
        ``on_accepted`` is called with the answer as soon as the request is durable: an error or interrupt may follow,
        and its salt is not stored.
        The same ``request_id`` with the same subjects and ids is the same request (D4).
        Without one an id is drawn. Raises ``Invalid`` when nothing is named, nothing is trained, the id cannot be
        shown or is one of the names, ``Conflict`` when the id was used for others.
        """
        made = draft(
            self._setup,
            subjects=subjects,
            ids=ids,
            request_id=request_id,
            held=held,
            include_similar=include_similar,
        )
        with self._writing("erase") as writer:
            request = writer.accept(made.request, made.names)
            if on_accepted is not None:
                on_accepted(self.reading.answer_to(made, request))
            if wait or isinstance(writer, Writer):
                request = writer.carry_out(request.request_id, self.specification.erasure.batch)
        return self.reading.answer_to(made, request).naming(subjects, ids)

    def rectify(
        self,
        data: object,
        *,
        request_id: str | None = None,
        held: str = "",
        wait: bool = True,
        on_accepted: Callable[[ErasureAnswer], None] | None = None,
    ) -> ErasureAnswer:
        """Correct data points: put the values in ``data`` in place of those that the federation has.

        ``data`` is a file, folder or glob, or a table in memory, with the columns of the source and only the rows to
        correct. The values are checked and stored, encrypted, before the request is accepted. It is carried out like an
        erasure; ``held``, ``wait`` and ``on_accepted`` are as in ``erase``. ``unknown_ids`` of the answer are positions
        of rows. The source is not changed; training keeps the corrected values. The same ``request_id`` with the same
        rows, in any order, is the same request (D4). Raises ``Invalid`` for values that training would refuse, an id
        that occurs twice, a data point that has another subject here; ``Conflict`` when the id was used for others.
        """
        source = source_of(self.specification, data, self._remark)
        own_id = new_request_id(self._setup.new_name) if request_id is None else request_id
        with self._writing("rectify") as writer:
            made, request = self._proposed(writer, source, own_id, held)
            if on_accepted is not None:
                on_accepted(self.reading.answer_to(made, request))
            if wait or isinstance(writer, Writer):
                request = writer.carry_out(request.request_id, self.specification.erasure.batch)
        return self.reading.answer_to(made, request)

    def _proposed(
        self, writer: Writing, source: Source, request_id: str, held: str
    ) -> tuple[RequestDraft, ErasureRequest]:
        """Write the drafts of a correction, and have the request accepted.

        Drafts that no request names are left to the writer's sweep: a call may have been carried out although its
        answer was lost.
        """
        for attempt in range(_DRAFTED):
            name = writer.reserve()
            try:
                made = draft_correction(self._setup, source, name, request_id=request_id, held=held)
                return made, writer.accept(made.request, made.names)
            except Unavailable:
                if attempt == _DRAFTED - 1 or isinstance(writer, Writer):
                    raise  # else the coordinator may have been restarted, and has deleted the drafts
            finally:
                with suppress(SisaError):  # it ends by itself
                    writer.give_back(name)
        raise InvariantBroken("a correction was neither accepted nor refused")

    def price_correction(self, data: object) -> Search:
        """Return what correcting data points would cost at most, and which rows are not here; changes nothing."""
        rows = correction_reader(self._setup, source_of(self.specification, data, self._remark))
        given = rows.read()
        roll = Roll(subjects=b"", ids=given.ids, ids_are_subjects=False)
        return Search(
            plan=plan_retrain(rows.state, given.places, self.specification.training.epochs, stay=True),
            subjects=0,
            ids=len(given.names),
            unknown=len(given.unknown),
            unknown_subjects=(),
            unknown_ids=roll.positions(given.unknown)[1],
            similar=NONE_SIMILAR,
        )

    def readmit(
        self, *, subjects: Iterable[str | int], reason: str, request_id: str | None = None
    ) -> ReadmissionAnswer:
        """Let subjects who were erased come back: training takes their new data points from now on.

        Data points that were erased stay out by their ids, where those are known (``without_ids``). The same
        ``request_id`` with the same subjects is the same readmission (D4). A signed statement records that it happened,
        and why. The answer names those who were not erased; a repeated one counts those erased again since.
        Raises ``Invalid`` when nobody is named, none of them was erased or the reason cannot be shown, ``Conflict``
        when the id was used for others.
        """
        check_reason(reason)
        if request_id is not None:
            check_own_request_id(request_id)
        state, key = self.reading.trained()
        own_id = new_request_id(self._setup.new_name) if request_id is None else request_id
        roll = roll_of(self.specification, key, state.naming, subjects, (), request_id=own_id)
        with self._writing("readmit") as writer:
            kept_out = self.reading.kept_out(roll, own_id)
            readmitted = writer.readmit(readmission_of(roll.names, own_id, reason, self._clock.now()), roll.names)
            if isinstance(writer, Writer):
                with writer.going_on():
                    writer.settle(hurry=False)
            return ReadmissionAnswer.of(readmitted, subjects, **kept_out)

    def search(
        self,
        *,
        subjects: Iterable[str | int] = (),
        ids: Iterable[str | int] = (),
        include_similar: bool = False,
    ) -> Search:
        """Return what erasing them would remove and cost, and which of them are not here; changes nothing."""
        return self.reading.search(subjects, ids, include_similar=include_similar)

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """Return what the federation holds of each subject, in their order; neither changes nor records anything."""
        return self.reading.lookup(subjects)

    def trace(self, subjects: Iterable[str | int]) -> SubjectTraces:
        """Return what is on record about each subject: slices, checkpoints, generations, requests; records nothing."""
        return self.reading.trace(subjects)

    def generations(self) -> tuple[GenerationRecord, ...]:
        """Return which generations were served, when, and how many slices each shard's checkpoint had seen.

        Where a learner learns all slices at once, they count as one.
        """
        state = self._current()
        return () if state is None else tuple(generations(self._store, state))

    def erase_everyone(self, request_id: str) -> RequestStatus:
        """Erase everybody who has a data point here, as one request; see ``erase``, and ``drafted_for_all``."""
        wanted = drafted_for_all(self._setup, self.reading.trained()[0], request_id)
        with self._writing("erase") as writer:
            if wanted is not None:
                writer.accept(*wanted)
            return self._described(writer.carry_out(request_id, self.specification.erasure.batch))

    def request(self, request_id: str) -> RequestStatus:
        """Return the status of an erasure request. Raises ``ObjectMissing`` when there is no request with this id."""
        found = find_request(self._store, self._current, request_id)
        if found is None:
            raise ObjectMissing(
                "there is no such erasure request", "See 'sisa request list' for all of them.", request=request_id
            )
        self._clock.saw(latest_time(self._current()))
        return self._described(found)

    def requests(self) -> tuple[RequestStatus, ...]:
        """Return the status of all requests ever accepted, in order of acceptance; reads every one of them."""
        return tuple(map(self._described, self.reading.requests()))

    def hold(self, request_id: str, reason: str) -> RequestStatus:
        """Pause a request none of whose points are removed yet, such as for a legal hold; its due date moves along.

        Raises ``Invalid`` when there is no such request or no reason, ``Conflict`` when it is too late.
        """
        return self._intervene("hold", request_id, Hold(reason=reason))

    def release_request(self, request_id: str) -> RequestStatus:
        """End a request's pause and carry it out. Raises ``Invalid``, or ``Conflict`` when it is not paused."""
        with self._writing("release") as writer:
            writer.intervene(request_id, Release())
            return self._described(writer.carry_out(request_id, self.specification.erasure.batch))

    def extend(self, request_id: str, days: int, reason: str) -> RequestStatus:
        """Move a request's due date, once. Raises ``Invalid`` for bad days or no reason, ``Conflict`` when too late."""
        return self._intervene("extend", request_id, Extend(days=days, reason=reason))

    def cancel(self, request_id: str, reason: str) -> RequestStatus:
        """Withdraw a request before its points are removed. Raises ``Invalid``, or ``Conflict`` when it is too late."""
        return self._intervene("cancel", request_id, Cancel(reason=reason))

    def price(self, *, subjects: Iterable[str | int] = (), ids: Iterable[str | int] = ()) -> RetrainPlan:
        """Return what erasing them would cost; changes nothing."""
        return self.search(subjects=subjects, ids=ids).plan

    def predict(self, data: object) -> Answers:
        """Return the ensemble's answers for a file, folder or glob, or a table in memory, batch by batch.

        A table is a ``pyarrow.Table``, a pandas or polars frame, a ``datasets.Dataset``, a structured array of NumPy,
        or any object that supports one of Arrow's protocols.
        """
        return self.reading.predict(data)

    def evaluate(self, data: object = None) -> Evaluation:
        """Return the ensemble's accuracy on labelled data, overall and per class; for ``data`` see ``predict``.

        Without ``data`` it is measured on the hold-out points.
        """
        return self.reading.evaluate(data)

    def centroids(self) -> npt.NDArray[np.float64]:
        """Return the centroids of a federation with the target cluster, shape (K, F): see ``Reading.centroids``."""
        return self.reading.centroids()

    def status(self) -> FederationStatus:
        """Return the status of the federation and its requests; a federation without a store yet has no points."""
        return self.reading.status()

    def check_original(self) -> None:
        """Raise ``Conflict`` when the store is a copy of another one; a copy may only be read and verified."""
        check_owner(self._store)

    def releases(self) -> dict[str, str]:
        """Return the releases of this process and of a running coordinator and server."""
        return releases_of(self._store)

    def require_begun(self) -> None:
        """Raise ``Invalid`` when the store has never held a data point or a request, and has no log of receipts."""
        state = self._current()
        if (state is None or not state.is_begun) and not self.status().forgotten:
            raise no_federation(self.specification, self._store.location)

    def verify(self, shards: Sequence[int] | None = None, *, everything: bool = False) -> Verification:
        """Retrain ``shards`` (default: all) from zero on the remaining data, compare bytes, scan the store for residue.

        Holds the writer lock, so that nothing changes during the verification. Raises ``Invalid`` for a shard that does
        not exist.
        """
        with self._writing("verify") as writer:
            return writer.verify(shards, everything=everything)

    def plan(
        self, *, shards: int | None = None, slices: int | None = None, requests: int = 1, points: int | None = None
    ) -> Plan:
        """Return what training and erasing will cost, for the specification's numbers of shards and slices or others.

        The estimate rests on this federation's own training if there was any, else on a short trial. If the learner
        takes points out directly, that is tried on a constituent from the store, and the result is discarded. Raises
        ``Invalid`` or ``Unavailable`` when the federation's labels do not allow this node to read its data.
        """
        from cluster.writer.forecast import plan_for, stored_basis, trial_basis  # noqa: PLC0415  it loads torch

        state = self._current()
        if state is not None and self.specification.model.is_whole:
            self._workers.check_own_place()
        basis = stored_basis(self.specification, self._store, state, self._clock) if state else None
        if basis is None:
            basis = trial_basis(self.specification, open_train(self.specification), points, self._clock)
        elif points is not None:
            basis = replace(basis, points=points)
        workers = self.specification.cluster.workers or max(1, int(cpus() / self.specification.cluster.cpus_per_worker))
        return plan_for(self.specification, basis, shards=shards, slices=slices, requests=requests, workers=workers)

    def optimise(self, wish: Wish) -> OptimisedPlan:
        """Return which numbers of shards and slices to take, at an expected rate of erasure requests.

        What steps, slices and requests cost is measured with small federations on a sample of the source, in this
        process; ``wish.tries`` are trained on all of it, and measured on its hold-out points. All of them are deleted,
        and the federation's own store is only read. Raises as ``cluster.writer.optimising.optimise`` does.
        """
        from cluster.writer.optimising import optimise  # noqa: PLC0415  it loads torch

        self._workers.check_own_place()
        return optimise(self.specification, self._store, self._current(), wish, remark=self._remark)

    def faults(self) -> tuple[DataFault, ...]:
        """Return everything in the source that ``train`` would refuse; nothing if it is unchanged since its ingest.

        Reads the whole source. Raises as ``open_source`` does when it is missing.
        """
        return find_source_faults(self.specification, self._store, self._current())

    @contextmanager
    def _writing(self, command: str) -> Iterator[Writing]:
        """Yield the coordinator if one runs, else a writer in this process; see ``writing``."""
        coordinator = self._coordinator()
        if coordinator is not None:
            yield coordinator
        else:
            with writing(self._setup, command) as writer:
                yield writer

    def _coordinator(self) -> Writing | None:
        """Return the running coordinator, having joined its Ray; None if there is not one."""
        if read_record(self._store) is None:
            return None
        from cluster.coordinator_actor.launch import find_coordinator  # noqa: PLC0415  it loads Ray
        from cluster.runtime.session import is_joined  # noqa: PLC0415

        was_joined = is_joined()
        try:
            return find_coordinator(self._store, self._listener, self._remark)
        finally:
            self._joined = self._joined or (is_joined() and not was_joined)

    def _remark(self, text: str) -> None:
        self._listener(Remark(text=text))

    def _intervene(self, command: str, request_id: str, wanted: Intervention) -> RequestStatus:
        with self._writing(command) as writer:
            request = writer.intervene(request_id, wanted)
            if request.correction is not None and not request.state.is_open and isinstance(writer, Writer):
                with writer.going_on():
                    writer.settle(hurry=False)  # the new values leave the store
            return self._described(request)

    def _described(self, request: ErasureRequest) -> RequestStatus:
        return describe_request(request, self._clock.now())

    def _current(self) -> FederationState | None:
        """Return the last committed state; None before the first. Raises ``Conflict`` during a restore."""
        try:
            state = read_state(self._store)
        except Corrupt:
            refuse_restoring(self._store)
            raise
        if state is None:
            refuse_restoring(self._store)
        return state


def connect(config: ConfigSource = "sisa.toml", **options: Any) -> Federation:
    """Return the federation that a specification describes; Ray is joined when first needed.

    ``config`` is the specification's file; or its tables as a dictionary, ``{"name": …, "data": {"train": …}, …}``,
    with places relative to the current folder; or a ``FederationSpecification``. Raises ``Invalid`` with everything
    that is wrong in it.
    """
    if isinstance(config, FederationSpecification):
        specification = specification_from(config, Path(config.folder))
    elif isinstance(config, Mapping):
        specification = specification_from(config, Path.cwd())
    else:
        specification = read_specification(Path(config))
    return Federation(specification, **options)


def launch(config: ConfigSource = "sisa.toml", **options: Any) -> Federation:
    """Return the federation, having joined its Ray cluster, so that problems with Ray show immediately.

    For ``config`` see ``connect``.
    """
    federation = connect(config, **options)
    federation.workers()
    return federation
