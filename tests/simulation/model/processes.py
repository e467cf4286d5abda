"""Processes of the simulation: an engine each, with workers that run beside it and may be taken for dead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from cluster.config.specification import FederationSpecification
from cluster.writer.identity import fresh_state
from coordinator.engine.engine import Engine, Tools
from coordinator.engine.tasks import revised_task
from coordinator.receipts.evidence import StoreEvidence
from coordinator.receipts.issuer import Registrar
from coordinator.settings import ErasureSettings
from shards.learners.trainer import ConstituentTrainer, EpochsDone, SliceLearned, TrainingEvent, TrainTask
from shards.lineage import Configuration, shared_prefix
from storage.encryption.store import SealedStore
from storage.errors import Fenced, SisaError, Unavailable
from storage.objects import ObjectStore
from storage.transparency.keys import KeyFolder
from tests.doubles.federation import KEY, plain_conditions
from tests.doubles.seeds import CountingSeeds
from tests.doubles.stores.faulty_store import Crash
from tests.doubles.time_and_names import CountingNames, VirtualClock
from tests.doubles.workers.fake_learner import HashLearner, HashState
from tests.simulation.model.scenario import EPOCHS
from tests.simulation.model.weather import Crossing, Life, Sea

_MOST_DEATHS = 3


@dataclass(slots=True, kw_only=True)
class Grounds:
    """What all processes of one simulation stand on."""

    sea: Sea
    clock: VirtualClock
    erasure: ErasureSettings
    sealed: bool
    death_rate: float
    longest_nap: int
    era: str = ""
    """Begins the names of all lives."""
    lives: dict[str, Life] = field(default_factory=dict)
    running: int = 0
    """Processes whose engine has started and that have not ended."""

    def life(self, kind: str, parent: str = "") -> Life:
        """Return a new life."""
        life = Life(f"{self.era}{kind}{len(self.lives)}", parent)
        self.lives[life.name] = life
        return life

    def store(self, life: Life) -> ObjectStore:
        """Return the store as that life reaches it."""
        crossing = Crossing(self.sea, life)
        return SealedStore(crossing) if self.sealed else crossing

    def count(self, what: str) -> None:
        """Note that something has happened."""
        self.sea.counts[what] += 1


@dataclass(slots=True, eq=False)
class Worker:
    """A process that trains one constituent. What it has to tell waits in ``news``."""

    grounds: Grounds
    task: TrainTask
    learner: HashLearner
    life: Life
    news: deque[TrainingEvent] = field(default_factory=deque)
    error: SisaError | None = None
    is_over: bool = False
    _learned: int = 0
    _is_learning: bool = False
    """Whether it is in the middle of a slice."""

    def start(self) -> None:
        """Let it run."""
        self._learned = len(self.task.done)
        self.grounds.sea.baton.spawn(self.life.name, self._live, lambda: self.life.is_dead)

    @property
    def has_news(self) -> bool:
        """Whether there is anything to be said of it."""
        return bool(self.news) or self.is_over

    def _live(self) -> None:
        store = self.grounds.store(self.life)
        trainer: ConstituentTrainer[HashState] = ConstituentTrainer(
            learner=self.learner,
            store=store,
            names=CountingNames(self.life.name),
            clock=self._clock(),
            revised=partial(self._revised, store),
        )
        try:
            for event in trainer.train(self.task):
                self._is_learning = isinstance(event, EpochsDone)
                self._learned += not self._is_learning
                self.news.append(event)
        except SisaError as error:
            self.error = error
            if isinstance(error, Fenced):
                self.grounds.count("workers fenced")
        except Crash:
            pass
        finally:
            self.is_over = True

    def _clock(self) -> Callable[[], float]:
        """Return a clock under which it looks at every epoch whether its slice is still wanted, or at few."""
        pace, readings = self.grounds.sea.random.choice((1.0, 0.25)), count()
        return lambda: next(readings) * pace

    def _revised(self, store: ObjectStore, task: TrainTask) -> TrainTask:
        wanted = revised_task(store, task)
        if wanted.lineages == task.lineages:
            return wanted
        if shared_prefix(task.lineages, wanted.lineages) < self._learned + self._is_learning:
            self.grounds.count("superseded")
            self._learned, self._is_learning = len(wanted.done), False
        elif not self._is_learning:
            self.grounds.count("folded in")
        return wanted


@dataclass(slots=True, kw_only=True)
class MortalPool:
    """Implements ``coordinator.ports.WorkerPool``: workers side by side, each of which may die or be taken for dead."""

    grounds: Grounds
    specification: FederationSpecification
    owner: str
    """Name of the process that it belongs to."""
    _crew: list[Worker] = field(default_factory=list)

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return what decides the bits."""
        return plain_conditions(self.specification)

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks; where a worker dies another one goes on after the last slice told of."""
        for task in tasks:
            self._start(task)
        deaths = 0
        while self._crew:
            worker = self._next()
            if worker.news:
                yield from self._told(worker)
                continue
            self._crew.remove(worker)
            if worker.error is not None:
                raise worker.error
            if worker.life.is_dead:
                deaths += 1
                if deaths == _MOST_DEATHS:
                    raise Unavailable("workers keep dying", "try again")
                self._start(worker.task)

    def leave(self) -> None:
        """Have nothing to do with any worker any more."""
        for worker in self._crew:
            self._leave(worker)
        self._crew.clear()

    def _start(self, task: TrainTask) -> None:
        slices, seed = self.specification.partition.slices, self.specification.training.seed
        learner = HashLearner(slices=slices, training_epochs=EPOCHS, seed=seed)
        worker = Worker(self.grounds, task, learner, self.grounds.life("w", self.owner))
        self._crew.append(worker)
        worker.start()

    def _next(self) -> Worker:
        """Return one of those who have something to say."""
        sea = self.grounds.sea
        sea.baton.wait(lambda: any(worker.has_news for worker in self._crew))
        ready = [worker for worker in self._crew if worker.has_news]
        return ready[sea.random.randrange(len(ready))]

    def _told(self, worker: Worker) -> Iterator[TrainingEvent]:
        """Tell the worker's next event, unless it is lost with the worker."""
        event = worker.news.popleft()
        death = self.grounds.sea.random.random() < self.grounds.death_rate
        if not death or self.grounds.sea.random.random() < 0.5:
            if isinstance(event, SliceLearned) and event.checkpoint is not None:
                worker.task = replace(worker.task, done=(*worker.task.done, event.checkpoint))
            yield event
        if death:
            self._crew.remove(worker)
            self._leave(worker)
            self._start(worker.task)

    def _leave(self, worker: Worker) -> None:
        """Have nothing to do with the worker any more: it dies, or it goes on and writes for nobody."""
        if worker.is_over:
            return
        if self.grounds.sea.random.random() < 0.5:
            worker.life.kill()
            self.grounds.count("workers killed")
        else:
            worker.life.is_forsaken = True
            worker.life.frozen_for = self.grounds.sea.random.choice((0, 0, self.grounds.longest_nap))
            self.grounds.count("workers forsaken")


@dataclass(slots=True, eq=False)
class Process:
    """One process of an operator: it starts an engine and ends with its first failure."""

    grounds: Grounds
    specification: FederationSpecification
    life: Life = field(init=False)
    store: ObjectStore = field(init=False)
    pool: MortalPool = field(init=False)
    engine: Engine | None = None

    def __post_init__(self) -> None:
        self.life = self.grounds.life("p")
        self.store = self.grounds.store(self.life)
        self.pool = MortalPool(grounds=self.grounds, specification=self.specification, owner=self.life.name)

    def start(self) -> Engine:
        """Start the engine: from here on every older one is fenced."""
        grounds, names = self.grounds, CountingNames(self.life.name)
        registrar = Registrar(self.store, grounds.clock, names)
        registrar.keys = KeyFolder(self.store, self.store, CountingSeeds(self.life.name))
        tools = Tools(
            store=self.store,
            clock=grounds.clock,
            names=names,
            listener=lambda _: None,
            pool=lambda: self.pool,
            registrar=registrar,
            described=lambda: StoreEvidence(kind="memory"),
            erasure=grounds.erasure,
        )
        self.engine = Engine.start(tools, fresh_state(self.specification, KEY))
        grounds.count("engines started")
        if grounds.running:
            grounds.count("engines started beside others")
        grounds.running += 1
        return self.engine

    def kill(self) -> None:
        """End it where it stands, with all its threads."""
        self.life.kill()
        self.end()

    def end(self) -> None:
        """Let it be over: its engine has said its last word."""
        if self.engine is not None:
            self.grounds.running -= 1
            self.engine = None
        self.life.is_dead = True
        self.pool.leave()

    def check(self) -> None:
        """Check that what it believes is what is durable."""
        if self.engine is not None:
            self.grounds.sea.auditor.check_writer(self.engine._ledger)
