"""Who acts in a simulation: operators who run processes, their clients, and readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from cluster.config.specification import FederationSpecification, settings_record
from cluster.writer.drafting import readmission_of, request_of
from coordinator.decisions.decide import Event
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
from tests.doubles.federation import KEY, names_of, plain_conditions, source_of
from tests.doubles.stores.faulty_store import Crash
from tests.simulation.model.auditor import Auditor
from tests.simulation.model.processes import Grounds, Process
from tests.simulation.model.scenario import BRISK, Command, Demand, Scenario, identities_of, specification

_INTERVENTIONS: Final[Mapping[str, Intervention]] = {
    "hold": Hold(reason="a lawsuit"),
    "release": Release(),
    "extend": Extend(days=10, reason="many"),
    "cancel": Cancel(reason="withdrawn"),
}
"""By the kinds of a scenario's commands."""

_MOST_TRIES = 4
_MOST_ROUNDS = 3
_LOST = "this writer has lost its place in the journal"
"""What a thread hears whose process has heard, in another thread, that an entry's outcome is unknown."""

_LONGEST_THOUGHT = 300
"""Operations that others do at most while someone thinks."""

_OVERTAKEN = (Fenced, Conflict)
"""What a writer may meet that another one has overtaken; alone, never."""


_LONGEST_PAUSE = 400
"""The same, for someone whose command has failed."""


@contextmanager
def _used_before() -> Iterator[None]:
    """Expect that an id is refused because it was used for something else."""
    try:
        yield
    except Conflict as error:
        if "used before" not in error.fact:
            raise
    else:
        raise AssertionError("an id was taken twice, for two things")


class RefusedByPolicy(Exception):
    """What was asked for cannot be done any more: no conflict between writers."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """What all actors of one simulation share."""

    grounds: Grounds
    scenario: Scenario

    @property
    def auditor(self) -> Auditor:
        """Who watches them."""
        return self.grounds.sea.auditor

    def judge(self, error: SisaError) -> None:
        """Count what a process ended with. Raises it when nothing that happened explains it."""
        self.grounds.count(type(error).__name__)
        explained = isinstance(error, OutcomeUnknown | Unavailable)
        explained |= isinstance(error, _OVERTAKEN) and len(self.scenario.operators) > 1
        explained |= isinstance(error, Fenced) and error.fact == _LOST
        if not explained:
            raise AssertionError(f"unexplained: {error!r}") from error

    def goes_on(self, error: SisaError) -> bool:
        """Return whether a process goes on after an error, as some may: what they believe must stay true."""
        return isinstance(error, OutcomeUnknown | Unavailable) and self.grounds.sea.random.random() < 0.5

    def do(self, engine: Engine, command: Command) -> None:
        """Carry out a command as the front door does."""
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
        own = specification(self.scenario.shards, self.scenario.slices, command.seed)
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
        """Let time pass until retraining may start, or half of it."""
        for _ in range(_MOST_ROUNDS):
            until = engine.settle(hurry=False)
            if until is None:
                return
            self.grounds.count("waits for a batch")
            now = self.grounds.clock.now()
            half = self.grounds.sea.random.random() < 0.5
            self.grounds.clock.advance_to(now + (until - now) / 2 if half else until)

    def _erase(self, engine: Engine, command: Command) -> None:
        if engine.state.data is None:
            self.grounds.count("nothing there yet")
            return
        demand = self.scenario.demands[command.request]
        if command.kind == "repeat otherwise":
            self._repeat_otherwise(engine, demand)
            return
        names = names_of(demand.subjects, demand.ids)
        request = self._request(demand.request_id, names, include_similar=demand.include_similar)
        accepted = engine.accept(replace(request, held=demand.held), names)
        assert accepted.body == request.body
        self.auditor.acknowledged.add(demand.request_id)
        self.grounds.count("acknowledged")
        if command.kind == "announce":
            return
        engine.remove_points()
        if command.kind == "erase":
            engine.settle()

    def _repeat_otherwise(self, engine: Engine, demand: Demand) -> None:
        """The same id is refused with other names, with those spelt alike or without, or to let people back (D4)."""
        if not isinstance(engine.find(demand.request_id), ErasureRequest):
            return
        names = names_of(demand.subjects, demand.ids)
        more = names_of([*demand.subjects, "somebody else"], demand.ids)
        for body, include_similar in ((more, demand.include_similar), (names, not demand.include_similar)):
            with _used_before():
                engine.accept(self._request(demand.request_id, body, include_similar=include_similar), body)
        with _used_before():
            engine.readmit(readmission_of(names, demand.request_id, "asked", self.grounds.clock.now()), names)
        self.grounds.count("refused another body")

    def _request(self, request_id: str, names: DigestSet, *, include_similar: bool = False) -> ErasureRequest:
        own = specification(self.scenario.shards, self.scenario.slices, 0)
        now, committed = self.grounds.clock.now(), sha256(request_id.encode())
        return request_of(own, names, request_id, now, commitment=committed, include_similar=include_similar)

    def _readmit(self, engine: Engine, command: Command) -> None:
        """Let people back who were erased, if they were."""
        comeback, now = self.scenario.returns[command.request], self.grounds.clock.now()
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
            self.grounds.count("nobody to readmit")
            return
        assert done.body == asked.body
        self.auditor.acknowledged.add(comeback.request_id)
        self.grounds.count("readmitted again" if is_known else "readmitted")
        self._readmit_otherwise(engine, comeback.request_id)

    def _readmit_otherwise(self, engine: Engine, request_id: str) -> None:
        """The same id with other names, or to erase, is refused (D4)."""
        others = names_of(["s0"], ())
        with _used_before():
            engine.readmit(readmission_of(others, request_id, "asked", self.grounds.clock.now()), others)
        with _used_before():
            engine.accept(self._request(request_id, others), others)

    def _intervene(self, engine: Engine, command: Command) -> None:
        try:
            engine.intervene(lambda state: self._ruling(state, command, engine.now()))
        except (Invalid, RefusedByPolicy):
            self.grounds.count("refused by policy")
            return
        self.grounds.count(command.kind)
        engine.remove_points()

    def _ruling(self, state: FederationState, command: Command, at: str) -> Event:
        """Return the event that does what is asked for. Raises ``RefusedByPolicy`` or ``Invalid``."""
        request_id, settings = self.scenario.demands[command.request].request_id, self.grounds.erasure
        wanted = _INTERVENTIONS[command.kind]
        try:
            return ruling(state, request_id, wanted, settings=settings, at=at)
        except Conflict as error:
            raise RefusedByPolicy(error.fact) from error


@dataclass(slots=True, eq=False)
class Operator:
    """Gives commands, one after another; after a failure to a new process."""

    stage: Stage
    number: int
    process: Process | None = None
    is_done: bool = False

    @property
    def serves(self) -> bool:
        """Whether clients can speak to a process that holds data."""
        engine = self.process.engine if self.process else None
        return engine is not None and engine.state.data is not None

    def has_died(self) -> bool:
        """Return whether its process has."""
        return self.process is not None and self.process.life.is_dead

    def work(self) -> None:
        """Give all commands."""
        grounds, scenario = self.stage.grounds, self.stage.scenario
        grounds.sea.baton.sleep(scenario.starts[self.number])
        for command in scenario.operators[self.number]:
            self._insist(command)
            if grounds.sea.random.random() < 0.5:
                self._end()
        self._end()
        self.is_done = True

    def _insist(self, command: Command) -> None:
        sea = self.stage.grounds.sea
        for _ in range(_MOST_TRIES):
            try:
                process = self._process(command)
                self.stage.do(process.engine or process.start(), command)
                process.check()
            except Crash:
                self.stage.grounds.count("processes died")
            except SisaError as error:
                self.stage.judge(error)
                if self.stage.goes_on(error):
                    continue
            else:
                return
            self._end()
            sea.baton.sleep(sea.random.randrange(_LONGEST_PAUSE))  # or two operators fence each other for ever
        self.stage.grounds.count("commands given up")

    def _process(self, command: Command) -> Process:
        """Return a process under the specification of the training that is current, or that is asked for."""
        wanted = self._wanted(command)
        if self.process is None or (command.kind == "train" and self.process.specification != wanted):
            self._end()
            self.process = Process(self.stage.grounds, wanted)
        return self.process

    def _wanted(self, command: Command) -> FederationSpecification:
        state, scenario = self.stage.auditor.state, self.stage.scenario
        current = state.configuration.seed if state and state.configuration else 0
        return specification(scenario.shards, scenario.slices, command.seed if command.kind == "train" else current)

    def _end(self) -> None:
        if self.process is not None:
            self.process.end()
            self.process = None


@dataclass(slots=True, eq=False)
class Client:
    """Speaks to an operator's process, from a thread of its own."""

    stage: Stage
    operator: Operator
    commands: tuple[Command, ...]
    process: Process | None = None

    def has_died(self) -> bool:
        """Return whether the process has that it speaks to."""
        return self.process is not None and self.process.life.is_dead

    def work(self) -> None:
        """Ask for everything, once there is someone to ask."""
        baton, random = self.stage.grounds.sea.baton, self.stage.grounds.sea.random
        for command in self.commands:
            if command.kind not in BRISK:
                baton.sleep(random.randrange(_LONGEST_THOUGHT))
            for _ in range(_MOST_TRIES):
                baton.wait(lambda: self.operator.serves or self.operator.is_done)
                if self.operator.is_done or self._ask(command):
                    break

    def _ask(self, command: Command) -> bool:
        """Return whether it is done with."""
        self.process = process = self.operator.process
        assert process is not None
        assert process.engine is not None
        try:
            self.stage.do(process.engine, command)
            process.check()
        except Crash:
            self.stage.grounds.count("clients cut off")
        except SisaError as error:
            self.stage.judge(error)
            if not self.stage.goes_on(error):
                process.kill()
        else:
            return True
        finally:
            self.process = None
        return False


@dataclass(slots=True, eq=False)
class Reader:
    """Reads the state now and then, and would serve it."""

    stage: Stage
    times: int

    def work(self) -> None:
        """Read, and compare with what is durable."""
        sea = self.stage.grounds.sea
        store = self.stage.grounds.store(self.stage.grounds.life("r"))
        for _ in range(self.times):
            sea.baton.sleep(sea.random.randrange(_LONGEST_THOUGHT))
            try:
                self._read(store)
            except (Crash, Unavailable):
                return

    def _read(self, store: ObjectStore) -> None:
        auditor, gone, latest = self.stage.auditor, self.stage.auditor.gone, max(self.stage.auditor.states)
        reading = read_ledger(store)
        assert reading.position.number >= latest, "a reader was shown the past"
        known = auditor.states[reading.position.number]
        is_begun = known is not None and known.is_begun  # before that, the first manifest says what there is
        assert not is_begun or reading.state == known, "a reader was shown what never was"
        self.stage.grounds.count("readings")
        if reading.state is not None:
            auditor.check_serving(auditor.view(self.stage.grounds.sea.objects), reading.state, gone)
