"""The resident coordinator: a federation's one writer, at work for as long as its process lives. No Ray in here.

Three kinds of threads share one ``Writer``. Callers' threads accept requests and answer questions. One thread removes
points, so that nothing tainted is served a moment after a request is acknowledged, regardless of other work. One thread
trains, publishes, purges and does callers' jobs, one after another. All durable state is in the store: after a crash
the next process continues from the end of the journal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from threading import Condition, Thread
from typing import Any, Final, TypeVar

from cluster.coordinator_actor.observer import REPORT_SECONDS, Observer
from cluster.coordinator_actor.store_size import StoreCount
from cluster.results.federation import Verification
from cluster.writer.writer import Writer, WriterSetup, writing
from coordinator.engine.corrections import LostValues
from coordinator.interventions import Intervention
from coordinator.ports import Notice, Remark
from coordinator.requests import ErasureRequest, Readmission
from coordinator.state import FederationState
from shards.tombstones import DigestSet
from storage.errors import Fenced, InvariantBroken, OutcomeUnknown, SisaError, Unavailable, WriterBusy

MOST_NOTICES: Final = 1_000
"""How many notices are kept for callers that follow the work; older ones are dropped."""

RETRY_SECONDS: Final = 2.0
"""How long to wait before the next attempt to reach a store that is away, or to take a writer lock that is held."""

MOST_RETRY_SECONDS: Final = 300.0
"""The wait doubles with each failure in a row, up to this."""

STARTING_SECONDS: Final = 30.0
"""How long a caller waits for the writer to be ready."""

_AGAIN: Final = (Fenced, OutcomeUnknown, Unavailable, WriterBusy)
"""Errors that a restart may fix."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Notices, and where to continue listening."""

    notices: tuple[Notice, ...]
    upto: int
    """Pass it as ``after`` to receive the notices that follow."""
    idle: bool
    """Whether all work that may be done now is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    act: Callable[[Writer], Any]
    outcome: Future[Any]


class Resident:
    """One federation's coordinator. Its threads start when it is made and end with ``stop``."""

    def __init__(
        self, setup: Callable[[Callable[[Notice], None]], WriterSetup], observer: Observer | None = None
    ) -> None:
        """``setup`` returns what a writer needs, given a listener for its notices; ``observer`` receives them, too."""
        self._observer = observer
        self._setup = setup(self._hear)
        self._changed = Condition()
        """Guards all fields below but ``_threads``; the worker alone sets ``_is_settling`` back, without it."""
        self._notices: deque[tuple[int, Notice]] = deque(maxlen=MOST_NOTICES)
        self._heard = int(self._setup.clock.now().timestamp() * 1e6)  # above the numbers of any earlier coordinator
        self._numbers = count(self._heard + 1)
        self._writer: Writer | None = None
        self._is_settling = False
        self._last_writer: Writer | None = None
        """The writer, or the last one while there is none: its state is the durable one."""
        self._jobs: deque[_Job] = deque()
        self._arrivals = 0
        """Count of events that may call for work."""
        self._settled = -1
        """The value of ``_arrivals`` for which all work that may be done now is done."""
        self._trouble: SisaError | None = None
        self._failures = 0
        """Failed attempts in a row."""
        self._is_stopping = False
        self._threads = (
            Thread(target=self._work, name="sisa-work", daemon=True),
            Thread(target=self._quarantine, name="sisa-quarantine", daemon=True),
            *((Thread(target=self._report, args=(observer,), name="sisa-report", daemon=True),) if observer else ()),
        )
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------------------------------------------------- what callers do

    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """Accept an erasure request, durably; its points are removed a moment later. See ``Writer.accept``."""
        return self._at_once(lambda writer: writer.accept(request, names))

    def reserve(self) -> str:
        """See ``Writer.reserve``."""
        return self._at_once(lambda writer: writer.reserve())  # the work thread notes when the name expires

    def give_back(self, name: str) -> None:
        """See ``Writer.give_back``."""
        self._at_once(lambda writer: writer.give_back(name))

    def readmit(self, readmission: Readmission, names: DigestSet) -> Readmission:
        """See ``Writer.readmit``."""
        return self._at_once(lambda writer: writer.readmit(readmission, names))

    def intervene(self, request_id: str, wanted: Intervention) -> ErasureRequest:
        """See ``Writer.intervene``."""
        return self._at_once(lambda writer: writer.intervene(request_id, wanted))

    def request(self, request_id: str) -> ErasureRequest:
        """See ``Writer.request``."""
        return self._ready().request(request_id)

    def state(self) -> FederationState:
        """Return the state as of the last durable event. Raises ``Unavailable`` while the coordinator starts."""
        return self._ready().state

    def train(self) -> None:
        """Ingest and train; returns when all is done. See ``Writer.train``."""
        self._in_turn(Writer.train)

    def verify(self, shards: Sequence[int] | None, *, everything: bool = False) -> Verification:
        """Verify the federation while no other work is done. See ``Writer.verify``."""
        return self._in_turn(lambda writer: writer.verify(shards, everything=everything))

    def hear(self, after: int | None, timeout_seconds: float, *, until_idle: bool = True) -> Heard:
        """Return the notices since ``after``; wait for one, or until all work that may be done now is done.

        Without ``until_idle`` it waits for a notice alone. If ``after`` is from an earlier coordinator, all notices of
        this one are returned; if it is None, no notices, only the number to begin with. Raises the error that keeps the
        coordinator from working, if any.
        """
        with self._changed:
            if after is None:
                return Heard(notices=(), upto=self._heard, idle=self._is_idle)
            after = after if after <= self._heard else 0  # from a coordinator whose clock was ahead
            self._changed.wait_for(
                lambda: self._heard > after or (until_idle and self._is_idle) or self._trouble, timeout_seconds
            )
            notices = tuple(notice for number, notice in self._notices if number > after)
            if not notices and self._trouble is not None:
                raise self._trouble
            return Heard(notices=notices, upto=self._heard, idle=self._is_idle)

    def stop(self) -> None:
        """End the work after the current step and release the writer lock; returns when that is done."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._setup.workers.close()

    # -------------------------------------------------------------------------------------------- inside

    @property
    def _is_idle(self) -> bool:
        return self._settled == self._arrivals and not self._jobs and not self._is_settling

    def _is_news(self, was: int, *, writable: bool = False) -> bool:
        """Whether something arrived after ``was`` (with ``writable``: and there is a writer), or all is stopping."""
        return self._is_stopping or (self._arrivals > was and not (writable and self._writer is None))

    def _ready(self) -> Writer:
        with self._changed:
            self._changed.wait_for(lambda: self._writer or self._trouble or self._is_stopping, STARTING_SECONDS)
            if self._writer is not None:
                return self._writer
            if self._trouble is not None:
                raise self._trouble
        raise Unavailable("the coordinator is starting or stopping", "Try again in a moment.")

    def _at_once(self, act: Callable[[Writer], _Result]) -> _Result:
        writer = self._ready()
        try:
            result = act(writer)
        except (Fenced, OutcomeUnknown):
            self._dismiss(writer)
            raise
        self._arrive()
        return result

    def _dismiss(self, writer: Writer) -> None:
        """Withdraw this writer, which can no longer record anything: the work thread then opens another one."""
        with self._changed:
            if self._writer is writer:
                self._writer = None
                self._arrivals += 1
                self._changed.notify_all()

    def _in_turn(self, act: Callable[[Writer], _Result]) -> _Result:
        outcome: Future[_Result] = Future()
        with self._changed:
            if self._is_stopping:
                raise Unavailable("the coordinator is stopping", "Launch it again.")
            self._jobs.append(_Job(act=act, outcome=outcome))
        self._arrive()
        return outcome.result()

    def _arrive(self) -> None:
        with self._changed:
            self._arrivals += 1
            self._changed.notify_all()

    def _hear(self, notice: Notice) -> None:
        if self._observer is not None:
            self._observer.hear(notice)
        with self._changed:
            self._heard = next(self._numbers)
            self._notices.append((self._heard, notice))
            self._changed.notify_all()

    def _quarantine(self) -> None:
        """Remove points as soon as requests for them have arrived."""
        seen = 0
        while True:
            with self._changed:
                self._changed.wait_for(partial(self._is_news, seen, writable=True))
                if self._is_stopping:
                    return
                writer, arrivals = self._writer, self._arrivals
            if writer is None:
                continue
            try:
                writer.quarantine()
                seen = arrivals
            except _AGAIN as error:  # the work thread meets it as well, and restarts
                self._tell(error)
                self._pause()
            except SisaError as error:
                self._tell(error)  # it is recorded with the requests; the next arrival is another attempt
                seen = arrivals
            except Exception as error:  # noqa: BLE001  without this thread tainted constituents would stay in service
                self._tell(_broken(error))
                self._pause()

    def _work(self) -> None:
        """Hold the writer lock and work; open another writer after an error that this may fix."""
        while not self._is_stopping:
            try:
                with writing(self._setup, "launch") as writer:
                    self._open(writer)
                    self._serve(writer)
            except SisaError as error:
                self._rest(error, is_curable=isinstance(error, _AGAIN))
            except Exception as error:  # noqa: BLE001  without this thread requests would silently stay open
                self._rest(_broken(error), is_curable=True)
        with self._changed:
            self._writer = None
        self._refuse_jobs(Unavailable("the coordinator was stopped", "Launch it again."))

    def _rest(self, error: SisaError, *, is_curable: bool) -> None:
        """Report the error, and wait for the next attempt: for a while if it is curable, or until something arrives."""
        patience_seconds = self._fail(error)
        if isinstance(error, WriterBusy):
            patience_seconds = RETRY_SECONDS  # an attempt costs little, and nothing announces that the lock is free
        with self._changed:
            self._writer = None
            self._changed.wait_for(partial(self._is_news, self._arrivals), patience_seconds if is_curable else None)

    def _open(self, writer: Writer) -> None:
        with self._changed:
            self._writer = self._last_writer = writer
            self._trouble = None
            self._arrivals += 1
            self._changed.notify_all()

    def _serve(self, writer: Writer) -> None:
        """Do jobs and outstanding work until ``stop`` is called. Raises errors that another writer may fix."""
        while not self._is_stopping:
            with self._changed:
                arrivals = self._arrivals
                if self._writer is not writer:
                    raise Unavailable(
                        "the coordinator could not be sure of the journal's last entry and is restarting",
                        "Try again in a moment.",
                    )
                job = self._jobs.popleft() if self._jobs else None
                self._is_settling = job is None  # also where nothing has arrived, and a batch has waited long enough
            if job is not None:
                self._do(job, writer)
                continue
            try:
                wakes = self._settle(writer)
            finally:
                self._is_settling = False
            with self._changed:
                self._settled = arrivals
                self._changed.notify_all()
                self._changed.wait_for(partial(self._is_news, arrivals), self._until(wakes))

    def _until(self, moment: datetime | None) -> float | None:
        """Return the seconds until ``moment``; None: only an arrival calls for work."""
        return None if moment is None else max(0.0, (moment - self._setup.clock.now()).total_seconds())

    def _do(self, job: _Job, writer: Writer) -> None:
        try:
            job.outcome.set_result(job.act(writer))
        except _AGAIN as error:
            job.outcome.set_exception(error)
            raise
        except SisaError as error:
            job.outcome.set_exception(error)

    def _settle(self, writer: Writer) -> datetime | None:
        """Do the outstanding work. An error that stops it is shown to callers until the work continues."""
        owed = _open_requests(writer.state)
        try:
            wakes = writer.settle(hurry=False)
        except _AGAIN:
            raise
        except LostValues as error:
            # Of one request, whose failure is on record: it keeps no other request from being carried out.
            wakes = self._setup.clock.now() + timedelta(seconds=self._fail(error))
            with self._changed:
                self._trouble = None
            return wakes
        except SisaError as error:
            # A person has to fix it, or nodes have to come back; retry, because no event may announce either.
            return self._setup.clock.now() + timedelta(seconds=self._fail(error))
        finally:
            if owed - _open_requests(writer.state):
                self._setup.workers.release()  # erased data in the workers' memory ends with them (E12)
        with self._changed:
            self._trouble, self._failures = None, 0
        return wakes

    def _fail(self, error: SisaError) -> float:
        """Report the error; return how many seconds to wait before the next attempt."""
        self._tell(error)
        with self._changed:
            self._trouble = error
            patience_seconds = min(RETRY_SECONDS * 2.0 ** min(self._failures, 16), MOST_RETRY_SECONDS)
            self._failures += 1
            self._changed.notify_all()
        return patience_seconds

    def _report(self, observer: Observer) -> None:
        """Report the state to the observer every few seconds, and once more at the end."""
        count = StoreCount(self._setup.store, self._setup.clock)
        size = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_stopping, REPORT_SECONDS)
                writer = self._last_writer
                is_troubled, is_over = self._trouble is not None, self._is_stopping
            if writer is not None:
                observer.show(writer.state, journal_entries=writer.journal_entries, troubled=is_troubled, size=size)
            if is_over:
                return
            if writer is not None:  # until then a new store is empty
                size = count.step()  # after the report, because a store that is away is slow to fail

    def _tell(self, error: SisaError) -> None:
        if self._observer is not None:
            self._observer.trouble(error)
        self._hear(Remark(text=str(error)))

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, RETRY_SECONDS)

    def _refuse_jobs(self, error: SisaError) -> None:
        with self._changed:
            jobs, self._jobs = list(self._jobs), deque()
        for job in jobs:
            job.outcome.set_exception(error)


def _open_requests(state: FederationState) -> frozenset[str]:
    return frozenset(request.request_id for request in state.requests if request.state.is_open)


def _broken(error: Exception) -> InvariantBroken:
    """Return an error for an unforeseen exception, without its text, which may hold personal data."""
    return InvariantBroken(
        f"the coordinator met an error that it does not know: {type(error).__name__}",
        "This is a bug: please report it. The coordinator tries again.",
    )
