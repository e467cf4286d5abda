"""Processes of the simulation: engines with concurrent workers, which may die or be given up although they run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from cluster.config.specification import FederationSpecification
from cluster.writer.identity import fresh_state
from coordinator.engine.engine import Engine, Tools
from coordinator.engine.tasks import Revisions
from coordinator.receipts.evidence import StoreEvidence
from coordinator.receipts.issuer import Registrar
from coordinator.settings import ErasureSettings
from shards.learners.trainer import ConstituentTrainer, EpochsDone, SliceLearned, TrainingEvent, TrainTask
from shards.lineage import Configuration, shared_prefix
from storage.encryption.store import SealedStore
from storage.errors import Fenced, SisaError, Unavailable
from storage.objects import ObjectStore
from storage.registers.manifest import ManifestRegister
from storage.transparency.keys import KeyFolder
from tests.doubles.federation import KEY, plain_conditions
from tests.doubles.seeds import CountingSeeds
from tests.doubles.stores.faulty_store import Crash
from tests.doubles.time_and_names import CountingNames, VirtualClock
from tests.doubles.workers.fake_learner import HashLearner, HashState
from tests.simulation.model.faults import FaultInjector, InjectedStore, ProcessStatus
from tests.simulation.model.scenario import EPOCHS

_MOST_DEATHS = 3


@dataclass(slots=True, kw_only=True)
class SimulationEnvironment:
    """What all processes of one simulation share."""

    injector: FaultInjector
    clock: VirtualClock
    erasure: ErasureSettings
    sealed: bool
    death_rate: float
    longest_sleep: int
    era: str = ""
    """Prefix of all process names."""
    statuses: dict[str, ProcessStatus] = field(default_factory=dict)
    running: int = 0
    """Number of processes whose engine has started and that have not ended."""

    def new_status(self, kind: str, parent: str = "") -> ProcessStatus:
        """Return the status of a new process."""
        status = ProcessStatus(f"{self.era}{kind}{len(self.statuses)}", parent)
        self.statuses[status.name] = status
        return status

    def store(self, status: ProcessStatus) -> ObjectStore:
        """Return the store as the process with that status reaches it."""
        store = InjectedStore(self.injector, status)
        return SealedStore(store) if self.sealed else store

    def count(self, what: str) -> None:
        """Count an event."""
        self.injector.counts[what] += 1


@dataclass(slots=True, eq=False)
class SimulatedWorker:
    """A process that trains one constituent. Its events wait in ``events``."""

    environment: SimulationEnvironment
    task: TrainTask
    learner: HashLearner
    status: ProcessStatus
    events: deque[TrainingEvent] = field(default_factory=deque)
    error: SisaError | None = None
    is_over: bool = False
    _learned: int = 0
    _is_learning: bool = False
    """Whether it is in the middle of a slice."""

    def start(self) -> None:
        """Start its thread."""
        self._learned = len(self.task.done)
        self.environment.injector.scheduler.spawn(self.status.name, self._live, lambda: self.status.is_dead)

    @property
    def has_events(self) -> bool:
        """Whether it has an event or has ended."""
        return bool(self.events) or self.is_over

    def _live(self) -> None:
        store = self.environment.store(self.status)
        trainer: ConstituentTrainer[HashState] = ConstituentTrainer(
            learner=self.learner,
            store=store,
            new_name=CountingNames(self.status.name),
            seconds=self._clock(),
            revised=partial(self._revised, store),
            highest_token=ManifestRegister(store).highest_token,  # for the same reason
        )
        try:
            for event in trainer.train(self.task):
                self._is_learning = isinstance(event, EpochsDone)
                self._learned += not self._is_learning
                self.events.append(event)
        except SisaError as error:
            self.error = error
            if isinstance(error, Fenced):
                self.environment.count("workers fenced")
        except Crash:
            pass
        finally:
            self.is_over = True

    def _clock(self) -> Callable[[], float]:
        """Return a clock that makes the worker check at every epoch, or every fourth, whether its slice is needed."""
        pace, readings = self.environment.injector.random.choice((1.0, 0.25)), count()
        return lambda: next(readings) * pace

    def _revised(self, store: ObjectStore, task: TrainTask) -> TrainTask:
        # Each look reads all, so that the recorded seeds keep their schedules.
        wanted = Revisions(store)(replace(task, after=None))
        if wanted.lineages == task.lineages:
            return wanted
        if shared_prefix(task.lineages, wanted.lineages) < self._learned + self._is_learning:
            self.environment.count("superseded")
            self._learned, self._is_learning = len(wanted.done), False
        elif not self._is_learning:
            self.environment.count("folded in")
        return wanted


@dataclass(slots=True, kw_only=True)
class FailingPool:
    """Implements ``coordinator.ports.WorkerPool``: concurrent workers, which may die or be given up while they run."""

    environment: SimulationEnvironment
    specification: FederationSpecification
    owner: str
    """Name of the process to which it belongs."""
    _workers: list[SimulatedWorker] = field(default_factory=list)

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return what decides the bits."""
        return plain_conditions(self.specification)

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Perform the tasks; when a worker dies, another one continues after the last slice reported."""
        for task in tasks:
            self._start(task)
        deaths = 0
        while self._workers:
            worker = self._next()
            if worker.events:
                yield from self._report(worker)
                continue
            self._workers.remove(worker)
            if worker.error is not None:
                raise worker.error
            if worker.status.is_dead:
                deaths += 1
                if deaths == _MOST_DEATHS:
                    raise Unavailable("workers keep dying", "Try again")
                self._start(worker.task)

    def leave(self) -> None:
        """Give up all workers."""
        for worker in self._workers:
            self._leave(worker)
        self._workers.clear()

    def _start(self, task: TrainTask) -> None:
        slices, seed = self.specification.partition.slices, self.specification.training.seed
        learner = HashLearner(slices=slices, training_epochs=EPOCHS, seed=seed)
        worker = SimulatedWorker(self.environment, task, learner, self.environment.new_status("w", self.owner))
        self._workers.append(worker)
        worker.start()

    def _next(self) -> SimulatedWorker:
        """Return a worker that has an event or has ended."""
        injector = self.environment.injector
        injector.scheduler.wait(lambda: any(worker.has_events for worker in self._workers))
        ready = [worker for worker in self._workers if worker.has_events]
        return ready[injector.random.randrange(len(ready))]

    def _report(self, worker: SimulatedWorker) -> Iterator[TrainingEvent]:
        """Yield the worker's next event, unless it is lost with the worker."""
        event = worker.events.popleft()
        death = self.environment.injector.random.random() < self.environment.death_rate
        if not death or self.environment.injector.random.random() < 0.5:
            if isinstance(event, SliceLearned) and event.checkpoint is not None:
                worker.task = replace(worker.task, done=(*worker.task.done, event.checkpoint))
            yield event
        if death:
            self._workers.remove(worker)
            self._leave(worker)
            self._start(worker.task)

    def _leave(self, worker: SimulatedWorker) -> None:
        """Give up the worker: it dies, or it continues and its writes are useless."""
        if worker.is_over:
            return
        if self.environment.injector.random.random() < 0.5:
            worker.status.kill()
            self.environment.count("workers killed")
        else:
            worker.status.is_abandoned = True
            worker.status.frozen_for = self.environment.injector.random.choice((0, 0, self.environment.longest_sleep))
            self.environment.count("workers abandoned")


@dataclass(slots=True, eq=False)
class OperatorProcess:
    """One process of an operator; it starts an engine and ends with its first failure."""

    environment: SimulationEnvironment
    specification: FederationSpecification
    status: ProcessStatus = field(init=False)
    store: ObjectStore = field(init=False)
    pool: FailingPool = field(init=False)
    engine: Engine | None = None

    def __post_init__(self) -> None:
        self.status = self.environment.new_status("p")
        self.store = self.environment.store(self.status)
        self.pool = FailingPool(environment=self.environment, specification=self.specification, owner=self.status.name)

    def start(self) -> Engine:
        """Start the engine, which fences every older one."""
        environment, names = self.environment, CountingNames(self.status.name)
        registrar = Registrar(self.store, environment.clock, names)
        registrar.keys = KeyFolder(self.store, self.store, CountingSeeds(self.status.name))
        tools = Tools(
            store=self.store,
            clock=environment.clock,
            new_name=names,
            listener=lambda _: None,
            pool=lambda: self.pool,
            registrar=registrar,
            described=lambda: StoreEvidence(kind="memory"),
            erasure=environment.erasure,
        )
        self.engine = Engine.start(tools, fresh_state(self.specification, KEY))
        environment.count("engines started")
        if environment.running:
            environment.count("engines started beside others")
        environment.running += 1
        return self.engine

    def kill(self) -> None:
        """Kill the process with all its threads."""
        self.status.kill()
        self.end()

    def end(self) -> None:
        """End the process and give up its workers."""
        if self.engine is not None:
            self.environment.running -= 1
            self.engine = None
        self.status.is_dead = True
        self.pool.leave()

    def check(self) -> None:
        """Check that the engine's state is the durable one."""
        if self.engine is not None:
            self.environment.injector.auditor.check_writer(self.engine._ledger)
