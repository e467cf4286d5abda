"""The coordinator as a Ray actor, and the writer's side of it in other processes.

The actor is detached: it outlives the command that launched it, and Ray restarts it when its process dies. Ray may lose
a call or run it twice; every call may be repeated (D4, D5), and this module repeats them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Any, Final

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayTaskError

from cluster.config.specification import FederationSpecification
from cluster.coordinator_actor.ownership import Prover, Shown
from cluster.coordinator_actor.ray_metrics import observer_of
from cluster.coordinator_actor.resident import Heard, Resident
from cluster.release import OtherRelease, Sent, refusal_in
from cluster.results.federation import Verification
from cluster.runtime.guard import check_rooms
from cluster.runtime.process import leave_no_core
from cluster.writer.stores import open_objects
from cluster.writer.writer import WriterSetup, writer_setup
from coordinator.engine.ledger import read_state
from coordinator.interventions import Intervention
from coordinator.ports import Listener, Notice, RequestMoved
from coordinator.requests import ErasureRequest, Readmission
from coordinator.settings import BatchUntil
from coordinator.state import FederationState
from shards.tombstones import DigestSet
from storage.errors import Fenced, InvariantBroken, OutcomeUnknown, SisaError, Unavailable, WriterBusy
from storage.objects import ObjectStore

ACTOR_NAME: Final = "coordinator"

PATIENCE_SECONDS: Final = 60.0
"""How long a caller waits for a coordinator that is being restarted."""

ANSWER_SECONDS: Final = 60.0
"""How long a caller waits for an answer, which takes a moment unless the process is suspended."""

LISTENING_SECONDS: Final = 1.0
"""How long the coordinator keeps a listener waiting when there is no notice."""

_RETRY_SECONDS: Final = 0.2

_BUSY: Final = (WriterBusy,)
"""What it raises until it holds the writer lock again; the lease of a process that died may delay that."""

_PASSING: Final = (Fenced, OutcomeUnknown, Unavailable, WriterBusy)
"""Errors from which the coordinator recovers by itself; a caller that only waits for a result can ignore them."""


class _Made:
    """The parts of a coordinator's process, made once it knows its specification."""

    def __init__(self, specification: FederationSpecification) -> None:
        self.specification = specification
        self.prover = Prover(open_objects(specification))
        self.resident = Resident(partial(_setup, specification), observer_of(specification.name))


class CoordinatorShell:
    """The actor: forwards each call. Requests, questions and work have separate groups of threads."""

    def __init__(self, sent: Sent[FederationSpecification]) -> None:
        check_rooms()
        leave_no_core()
        self._made: _Made | OtherRelease
        try:
            self._made = _Made(sent.opened("coordinator"))
        except OtherRelease as error:  # Ray started it on a node, or from a package, of another release
            self._made = error

    @property
    def _at_work(self) -> _Made:
        if isinstance(self._made, OtherRelease):
            raise self._made
        return self._made

    @property
    def _resident(self) -> Resident:
        return self._at_work.resident

    @ray.method(concurrency_group="requests")
    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """See ``Resident.accept``."""
        return self._resident.accept(request, names)

    @ray.method(concurrency_group="requests")
    def reserve(self) -> str:
        """See ``Resident.reserve``."""
        return self._resident.reserve()

    @ray.method(concurrency_group="requests")
    def give_back(self, name: str) -> None:
        """See ``Resident.give_back``."""
        self._resident.give_back(name)

    @ray.method(concurrency_group="requests")
    def readmit(self, readmission: Readmission, names: DigestSet) -> Readmission:
        """See ``Resident.readmit``."""
        return self._resident.readmit(readmission, names)

    @ray.method(concurrency_group="requests")
    def intervene(self, request_id: str, wanted: Intervention) -> ErasureRequest:
        """See ``Resident.intervene``."""
        return self._resident.intervene(request_id, wanted)

    @ray.method(concurrency_group="questions")
    def ready(self) -> None:
        """Return when requests can be accepted. Raises the error that keeps the coordinator from working."""
        self._resident.state()

    @ray.method(concurrency_group="questions")
    def specification(self) -> FederationSpecification:
        """Return the specification that it was launched with."""
        return self._at_work.specification

    @ray.method(concurrency_group="questions")
    def show(self, nonce: str) -> Shown:
        """See ``Prover.show``."""
        return self._at_work.prover.show(nonce)

    @ray.method(concurrency_group="questions")
    def request(self, request_id: str) -> ErasureRequest:
        """See ``Resident.request``."""
        return self._resident.request(request_id)

    @ray.method(concurrency_group="questions")
    def hear(self, after: int | None, timeout_seconds: float, *, until_idle: bool = True) -> Heard:
        """See ``Resident.hear``."""
        return self._resident.hear(after, timeout_seconds, until_idle=until_idle)

    @ray.method(concurrency_group="work")
    def train(self) -> None:
        """See ``Resident.train``."""
        self._resident.train()

    @ray.method(concurrency_group="work")
    def verify(self, shards: Sequence[int] | None, everything: bool) -> Verification:  # noqa: FBT001  as Ray passes it
        """See ``Resident.verify``."""
        return self._resident.verify(shards, everything=everything)

    @ray.method(concurrency_group="work")
    def stop(self) -> None:
        """See ``Resident.stop``."""
        self._resident.stop()


def _setup(specification: FederationSpecification, listener: Callable[[Notice], None]) -> WriterSetup:
    return writer_setup(specification, listener=listener)


_remote: Any = ray.remote  # its types know no concurrency groups
CoordinatorActor = _remote(
    num_cpus=0, max_restarts=-1, concurrency_groups={"requests": 16, "questions": 16, "work": 4}
)(CoordinatorShell)


class RemoteWriter:
    """Calls the ``Writer`` in the coordinator's process from another one, and passes its notices to a listener."""

    def __init__(self, handle: Any, store: ObjectStore, listener: Listener) -> None:
        """``handle`` is that of the coordinator's actor."""
        self._handle = handle
        self._store = store
        self._listener = listener

    @property
    def state(self) -> FederationState:
        """The state that the store holds."""
        state = read_state(self._store)
        if state is None:
            raise InvariantBroken("a coordinator is at work, and the store holds no state")
        return state

    def train(self) -> None:
        """See ``Writer.train``."""
        self._follow(self._handle.train.remote)

    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """See ``Writer.accept``."""
        answer: ErasureRequest = patiently(lambda: self._handle.accept.remote(request, names), _BUSY)
        return answer

    def reserve(self) -> str:
        """See ``Writer.reserve``."""
        name: str = patiently(self._handle.reserve.remote, _BUSY)
        return name

    def give_back(self, name: str) -> None:
        """See ``Writer.give_back``."""
        patiently(lambda: self._handle.give_back.remote(name), _BUSY)

    def carry_out(self, request_id: str, batch: BatchUntil) -> ErasureRequest:
        """Wait until the request is closed, paused or failed, or until it waits for its due date in a batch."""
        heard, is_left = self._hear(None, 0.0, _PASSING), batch == "until_due"
        while True:
            request = self.request(request_id)
            if request.shown is not request.state or not request.state.is_open or (heard.idle and is_left):
                self._pass_on_rest(heard, request)
                return request
            # In a batch window the coordinator is idle as well: waiting for notices keeps this loop from spinning.
            heard = self._tell(self._hear(heard.upto, LISTENING_SECONDS, _PASSING, until_idle=is_left))

    def readmit(self, readmission: Readmission, names: DigestSet) -> Readmission:
        """See ``Writer.readmit``."""
        answer: Readmission = patiently(lambda: self._handle.readmit.remote(readmission, names), _BUSY)
        return answer

    def intervene(self, request_id: str, wanted: Intervention) -> ErasureRequest:
        """See ``Writer.intervene``."""
        answer: ErasureRequest = patiently(lambda: self._handle.intervene.remote(request_id, wanted), _BUSY)
        return answer

    def request(self, request_id: str) -> ErasureRequest:
        """See ``Writer.request``."""
        answer: ErasureRequest = patiently(lambda: self._handle.request.remote(request_id), _PASSING)
        return answer

    def verify(self, shards: Sequence[int] | None = None, *, everything: bool = False) -> Verification:
        """See ``Writer.verify``."""
        answer: Verification = self._follow(lambda: self._handle.verify.remote(shards, everything))
        return answer

    def _follow(self, call: Callable[[], Any]) -> Any:
        """Return the call's result, passing notices to the listener meanwhile."""
        heard = self._hear(None, 0.0)
        answer = call()
        while True:
            ready, _ = ray.wait([answer], timeout=0)
            if ready:
                self._tell(self._hear(heard.upto, 0.0))
                try:
                    return unwrapped(answer)
                except (ActorUnavailableError, ActorDiedError):
                    answer = call()  # it was restarted and continues from the journal, so the call may be repeated
            heard = self._tell(self._hear(heard.upto, LISTENING_SECONDS))

    def _hear(
        self,
        after: int | None,
        timeout_seconds: float,
        passing: tuple[type[SisaError], ...] = _BUSY,
        *,
        until_idle: bool = True,
    ) -> Heard:
        call = partial(self._handle.hear.remote, after, timeout_seconds, until_idle=until_idle)
        heard: Heard = patiently(call, passing)
        return heard

    def _pass_on_rest(self, heard: Heard, request: ErasureRequest) -> None:
        """Pass on the remaining notices, up to that of the request's current state, which may come a moment later."""
        until = monotonic() + LISTENING_SECONDS
        heard = self._tell(self._hear(heard.upto, 0.0))
        while not (heard.idle or _is_passed_on(heard, request) or monotonic() > until):
            heard = self._tell(self._hear(heard.upto, LISTENING_SECONDS))

    def _tell(self, heard: Heard) -> Heard:
        for notice in heard.notices:
            self._listener(notice)
        return heard


def _is_passed_on(heard: Heard, request: ErasureRequest) -> bool:
    moved = [each.request for each in heard.notices if isinstance(each, RequestMoved)]
    return any(each.request_id == request.request_id and each.shown is request.shown for each in moved)


def patiently(
    call: Callable[[], Any],
    passing: tuple[type[SisaError], ...] = (),
    patience_seconds: float = PATIENCE_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> Any:
    """Return the result of a call to the coordinator; repeat it during a restart and after errors in ``passing``.

    Raises what the coordinator raised, and ``Unavailable`` when it is not back after ``patience_seconds`` or a call has
    no answer after ``answer_seconds``.
    """
    until = monotonic() + patience_seconds
    while True:
        try:
            return unwrapped(call(), answer_seconds)
        except GetTimeoutError as error:
            raise Unavailable(
                f"the coordinator gives no answer, {answer_seconds:g} seconds now",
                "Its machine is very busy, or its process (ray::CoordinatorShell) is suspended. Resume the process with"
                " 'kill -CONT', or run 'sisa stop' and 'sisa launch'. Nothing that was accepted is lost, and a request"
                " may be repeated under its --request-id.",
            ) from error
        except passing:
            if monotonic() > until:
                raise
        except (ActorUnavailableError, ActorDiedError) as error:
            if (refused := refusal_in(str(error), "the coordinator's node")) is not None:
                raise refused from error
            if monotonic() > until:
                raise Unavailable(
                    "the coordinator does not answer",
                    "Check 'ray status', and restart it with 'sisa launch'. Nothing that was accepted is lost.",
                ) from error
        sleep(_RETRY_SECONDS)


def unwrapped(answer: Any, timeout_seconds: float | None = None) -> Any:
    """Return the answer, or raise what the actor raised. Raises ``GetTimeoutError`` after ``timeout_seconds``."""
    try:
        return ray.get(answer, timeout=timeout_seconds)
    except RayTaskError as error:
        if isinstance(error.cause, SisaError):
            raise error.cause from error
        if (refused := refusal_in(str(error), "a node of the cluster")) is not None:
            raise refused from error
        raise
