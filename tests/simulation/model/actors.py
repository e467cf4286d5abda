"""The actors of a simulation: operators that run processes, their clients, and readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cluster.config.specification import FederationSpecification, settings_record
from cluster.writer.drafting import readmission_of, request_of
from coordinator.decisions.events import Event
from coordinator.decisions.policy import ruling
from coordinator.engine.engine import Engine
from coordinator.engine.ledger import read_ledger
from coordinator.interventions import Cancel, Extend, Hold, Intervention, Release
from coordinator.requests import ErasureRequest
from coordinator.state import FederationState
from shards.tombstones import DigestSet
from storage.digests import sha256
from storage.errors import Conflict, Fenced, Invalid, OutcomeUnknown, SisaError, Unavailable
from storage.objects import ObjectStore
from tests.coordinator.records import paused
from tests.doubles.federation import KEY, names_of, plain_conditions, source_of
from tests.doubles.stores.faulty_store import Crash
from tests.simulation.model.auditor import Auditor
from tests.simulation.model.processes import OperatorProcess, SimulationEnvironment
from tests.simulation.model.scenario import IMMEDIATE, Command, PlannedRequest, Scenario, identities_of, specification

_INTERVENTIONS: Final[Mapping[str, Intervention]] = {
    "hold": Hold(reason="a lawsuit"),
    "release": Release(),
    "extend": Extend(days=10, reason="many"),
    "cancel": Cancel(reason="withdrawn"),
}
"""By kind of command."""

_MOST_TRIES = 4
_MOST_ROUNDS = 3
_LOST = "this writer has lost its place in the journal"
"""The error in a thread whose process learned, in another thread, that an entry's outcome is unknown."""

_LONGEST_THOUGHT = 300
"""Maximal number of operations by others before an actor's next command."""

_OVERTAKEN = (Fenced, Conflict)
"""Errors that a superseded writer may see, but never a writer that is alone."""


_LONGEST_PAUSE = 400
"""The same after a failed command."""


@contextmanager
def _used_before() -> Iterator[None]:
    """Expect that an id is refused because it was used for another request."""
    try:
        yield
    except Conflict as error:
        if "used before" not in error.fact:
            raise
    else:
        raise AssertionError("an id was accepted for two requests")


class RefusedByPolicy(Exception):
    """The command is no longer possible; this is not a conflict between writers."""


@dataclass(slots=True, kw_only=True)
class SimulationContext:
    """What all actors of one simulation share."""

    environment: SimulationEnvironment
    scenario: Scenario

    @property
    def auditor(self) -> Auditor:
        """The auditor of the simulation."""
        return self.environment.injector.auditor

    def check_error(self, error: SisaError) -> None:
        """Count the error that ended a process. Raises ``AssertionError`` when nothing that happened explains it."""
        self.environment.count(type(error).__name__)
        explained = isinstance(error, OutcomeUnknown | Unavailable)
        explained |= isinstance(error, _OVERTAKEN) and len(self.scenario.operators) > 1
        explained |= isinstance(error, Fenced) and error.fact == _LOST
        if not explained:
            raise AssertionError(f"unexplained: {error!r}") from error

    def continues(self, error: SisaError) -> bool:
        """Return whether the process continues after the error: some do, and their state must stay correct."""
        return isinstance(error, OutcomeUnknown | Unavailable) and self.environment.injector.random.random() < 0.5

    def do(self, engine: Engine, command: Command) -> None:
        """Carry out a command like the front door."""
        match command.kind:
            case "train":
                self._train(engine, command)
            case "settle":
                engine.settle()
            case "wait":
                self._wait(engine)
            case "erase" | "submit" | "announce" | "repeat otherwise":
                self._erase(engine, command)
            case "readmit":
                self._readmit(engine, command)
            case _:
                self._intervene(engine, command)

    def _train(self, engine: Engine, command: Command) -> None:
        own = specification(self.scenario.shards, self.scenario.slices, command.seed, self.scenario.holdout)
        lost = engine.audit()
        if not lost:
            engine.remove_points()
        if command.points is not None:
            self.auditor.reads(identities_of(command.points), engine._ledger)
            engine.ingest(source_of(command.points), own.data, own.partition, KEY, lost)
        if engine.state.data is not None:
            engine.configure(settings_record(own), plain_conditions(own))
            engine.settle()

    def _wait(self, engine: Engine) -> None:
        """Advance the clock until retraining may start, or half as far."""
        for _ in range(_MOST_ROUNDS):
            until = engine.settle(hurry=False)
            if until is None:
                return
            self.environment.count("waits for a batch")
            now = self.environment.clock.now()
            half = self.environment.injector.random.random() < 0.5
            self.environment.clock.advance_to(now + (until - now) / 2 if half else until)

    def _erase(self, engine: Engine, command: Command) -> None:
        if engine.state.data is None:
            self.environment.count("nothing there yet")
            return
        planned = self.scenario.requests[command.request]
        if command.kind == "repeat otherwise":
            self._repeat_otherwise(engine, planned)
            return
        names = names_of(planned.subjects, planned.ids)
        request = self._request(planned.request_id, names, include_similar=planned.include_similar)
        accepted = engine.accept(paused(request, planned.held) if planned.held else request, names)
        assert accepted.body == request.body
        self.auditor.acknowledged.add(planned.request_id)
        self.environment.count("acknowledged")
        if command.kind == "announce":
            return
        engine.remove_points()
        if command.kind == "erase":
            engine.settle()

    def _repeat_otherwise(self, engine: Engine, planned: PlannedRequest) -> None:
        """The same id with other names, with the opposite ``include_similar``, or for a readmission is refused (D4)."""
        if not isinstance(engine.find(planned.request_id), ErasureRequest):
            return
        names = names_of(planned.subjects, planned.ids)
        more = names_of([*planned.subjects, "somebody else"], planned.ids)
        for body, include_similar in ((more, planned.include_similar), (names, not planned.include_similar)):
            with _used_before():
                engine.accept(self._request(planned.request_id, body, include_similar=include_similar), body)
        with _used_before():
            engine.readmit(readmission_of(names, planned.request_id, "asked", self.environment.clock.now()), names)
        self.environment.count("refused another body")

    def _request(self, request_id: str, names: DigestSet, *, include_similar: bool = False) -> ErasureRequest:
        own = specification(self.scenario.shards, self.scenario.slices, 0, self.scenario.holdout)
        now, committed = self.environment.clock.now(), sha256(request_id.encode())
        return request_of(own, names, request_id, now, commitment=committed, include_similar=include_similar)

    def _readmit(self, engine: Engine, command: Command) -> None:
        """Readmit people, if they were erased."""
        comeback, now = self.scenario.returns[command.request], self.environment.clock.now()
        names = names_of(comeback.subjects, ())
        asked = readmission_of(names, comeback.request_id, "asked", now)
        is_known = engine.find(comeback.request_id) is not None
        before = engine._ledger._position.number
        try:
            done = engine.readmit(asked, names)
        except Invalid:
            if engine._ledger._position.number == before:
                erased = self.auditor.barred[before].intersection(names.subject_digests())
                assert not erased, f"{comeback.request_id} is refused, and they were erased"
            self.environment.count("nobody to readmit")
            return
        assert done.body == asked.body
        self.auditor.acknowledged.add(comeback.request_id)
        self.environment.count("readmitted again" if is_known else "readmitted")
        self._readmit_otherwise(engine, comeback.request_id)

    def _readmit_otherwise(self, engine: Engine, request_id: str) -> None:
        """The same id with other names, or for an erasure, is refused (D4)."""
        others = names_of(["s0"], ())
        with _used_before():
            engine.readmit(readmission_of(others, request_id, "asked", self.environment.clock.now()), others)
        with _used_before():
            engine.accept(self._request(request_id, others), others)

    def _intervene(self, engine: Engine, command: Command) -> None:
        try:
            engine.intervene(lambda state: self._ruling(state, command, engine.now()))
        except (Invalid, RefusedByPolicy):
            self.environment.count("refused by policy")
            return
        self.environment.count(command.kind)
        engine.remove_points()

    def _ruling(self, state: FederationState, command: Command, at: str) -> Event:
        """Return the event for the command. Raises ``RefusedByPolicy`` or ``Invalid``."""
        request_id, settings = self.scenario.requests[command.request].request_id, self.environment.erasure
        wanted = _INTERVENTIONS[command.kind]
        try:
            return ruling(state, request_id, wanted, settings=settings, at=at)
        except Conflict as error:
            raise RefusedByPolicy(error.fact) from error


@dataclass(slots=True, eq=False)
class OperatorActor:
    """Gives commands, one after another, and repeats a failed command with a new process."""

    context: SimulationContext
    number: int
    process: OperatorProcess | None = None
    is_done: bool = False

    @property
    def serves(self) -> bool:
        """Whether clients can reach a process with data."""
        engine = self.process.engine if self.process else None
        return engine is not None and engine.state.data is not None

    def has_died(self) -> bool:
        """Return whether its process has died."""
        return self.process is not None and self.process.status.is_dead

    def work(self) -> None:
        """Give all commands."""
        environment, scenario = self.context.environment, self.context.scenario
        environment.injector.scheduler.sleep(scenario.starts[self.number])
        for command in scenario.operators[self.number]:
            self._insist(command)
            if environment.injector.random.random() < 0.5:
                self._end()
        self._end()
        self.is_done = True

    def _insist(self, command: Command) -> None:
        injector = self.context.environment.injector
        for _ in range(_MOST_TRIES):
            try:
                process = self._process(command)
                self.context.do(process.engine or process.start(), command)
                process.check()
            except Crash:
                self.context.environment.count("processes died")
            except SisaError as error:
                self.context.check_error(error)
                if self.context.continues(error):
                    continue
            else:
                return
            self._end()
            injector.scheduler.sleep(
                injector.random.randrange(_LONGEST_PAUSE)
            )  # else two operators could fence each other forever
        self.context.environment.count("commands given up")

    def _process(self, command: Command) -> OperatorProcess:
        """Return a process with the specification of the command if it trains, else of the last training."""
        wanted = self._wanted(command)
        if self.process is None or (command.kind == "train" and self.process.specification != wanted):
            self._end()
            self.process = OperatorProcess(self.context.environment, wanted)
        return self.process

    def _wanted(self, command: Command) -> FederationSpecification:
        state, scenario = self.context.auditor.state, self.context.scenario
        current = state.configuration.seed if state and state.configuration else 0
        seed = command.seed if command.kind == "train" else current
        return specification(scenario.shards, scenario.slices, seed, scenario.holdout)

    def _end(self) -> None:
        if self.process is not None:
            self.process.end()
            self.process = None


@dataclass(slots=True, eq=False)
class ClientActor:
    """Sends commands to an operator's process, from its own thread."""

    context: SimulationContext
    operator: OperatorActor
    commands: tuple[Command, ...]
    process: OperatorProcess | None = None

    def has_died(self) -> bool:
        """Return whether the process it uses has died."""
        return self.process is not None and self.process.status.is_dead

    def work(self) -> None:
        """Send all commands, as soon as a process can take them."""
        scheduler, random = self.context.environment.injector.scheduler, self.context.environment.injector.random
        for command in self.commands:
            if command.kind not in IMMEDIATE:
                scheduler.sleep(random.randrange(_LONGEST_THOUGHT))
            for _ in range(_MOST_TRIES):
                scheduler.wait(lambda: self.operator.serves or self.operator.is_done)
                if self.operator.is_done or self._ask(command):
                    break

    def _ask(self, command: Command) -> bool:
        """Send the command; return whether it was carried out."""
        self.process = process = self.operator.process
        assert process is not None
        assert process.engine is not None
        try:
            self.context.do(process.engine, command)
            process.check()
        except Crash:
            self.context.environment.count("clients cut off")
        except SisaError as error:
            self.context.check_error(error)
            if not self.context.continues(error):
                process.kill()
        else:
            return True
        finally:
            self.process = None
        return False


@dataclass(slots=True, eq=False)
class ReaderActor:
    """Reads the state now and then, as for serving it."""

    context: SimulationContext
    times: int

    def work(self) -> None:
        """Read the state and compare it with the durable one."""
        injector = self.context.environment.injector
        store = self.context.environment.store(self.context.environment.new_status("r"))
        for _ in range(self.times):
            injector.scheduler.sleep(injector.random.randrange(_LONGEST_THOUGHT))
            try:
                self._read(store)
            except (Crash, Unavailable):
                return

    def _read(self, store: ObjectStore) -> None:
        auditor, gone, latest = self.context.auditor, self.context.auditor.gone, max(self.context.auditor.states)
        reading = read_ledger(store)
        assert reading.position.number >= latest, "a reader got a state that is older than the durable one"
        known = auditor.states[reading.position.number]
        is_begun = known is not None and known.is_begun  # before that, the first manifest defines the state
        assert not is_begun or reading.state == known, "a reader got a state that never existed"
        self.context.environment.count("readings")
        if reading.state is not None:
            auditor.check_serving(auditor.view(self.context.environment.injector.objects), reading.state, gone)
