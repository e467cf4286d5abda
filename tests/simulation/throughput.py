"""How many erasures a coordinator completes with many workers: the real engine, and workers in virtual time.

The engine, its ledger, the receipts and the slices are those of a federation; the store is in memory. Workers train
nothing: each slice takes them the same virtual time. The coordinator's own processor time is measured and passes in
virtual time, and so does a fixed time for each write of the store. So a run with a thousand workers takes the
processor time of the coordinator alone, and shows what the coordinator does while they wait.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Self

from cluster.config.specification import FederationSpecification, settings_record
from cluster.writer.drafting import request_of
from cluster.writer.identity import fresh_state
from coordinator.engine.engine import Engine, Tools
from coordinator.receipts.evidence import StoreEvidence
from coordinator.receipts.issuer import Registrar
from coordinator.requests import RequestState
from shards.learners.trainer import SliceLearned, TrainingEvent, TrainTask, checkpoint_key
from shards.lineage import CheckpointRecord, Configuration
from shards.specification import SliceIndex, TrainingSettings
from storage.digests import sha256
from storage.objects import ObjectInfo, ObjectKey, ObjectStore, StoredObject, VersionTag
from storage.stores.memory import MemoryStore
from tests.doubles.federation import KEY, Point, names_of, plain_conditions, source_of, specification_of
from tests.doubles.time_and_names import CountingNames, VirtualClock

SLICE_SECONDS: Final = 1.0
"""How long a worker trains on a slice, writing its checkpoint included."""
WRITE_SECONDS: Final = 0.002
"""How long a durable write or deletion takes the coordinator."""

_PHASES: Final = {
    "_remove_points": "removing points",
    "_train": "training",
    "_sweep": "purging",
    "_try_to_issue": "receipts",
}
_WORLDS = count()


@dataclass(slots=True)
class SimulatedSeconds:
    """Virtual time of the coordinator: its processor time, its writes, and its waiting for workers."""

    now: float = 0.0
    waited: float = 0.0
    """The part of it in which there was nothing to do."""
    _mark: float = field(default_factory=time.process_time)

    def work(self) -> None:
        """Let the processor time since the last call pass."""
        reading = time.process_time()
        self.now += reading - self._mark
        self._mark = reading

    def spend(self, seconds: float) -> None:
        """Let these seconds pass, too."""
        self.work()
        self.now += seconds

    def wait_until(self, moment: float) -> None:
        """Wait, if ``moment`` has not come."""
        self.waited += max(0.0, moment - self.now)
        self.now = max(self.now, moment)

    def leave_out(self) -> None:
        """Forget the processor time since the last call: it was the simulation's."""
        self._mark = time.process_time()


@dataclass(frozen=True, slots=True)
class SlowStore:
    """An ``ObjectStore`` whose writes take virtual time."""

    inner: MemoryStore
    seconds: SimulatedSeconds
    writes: Counter[str]

    @property
    def location(self) -> str:
        """Where the objects are."""
        return self.inner.location

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object."""
        self._spend(key)
        return self.inner.put_if_absent(key, payload)

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object."""
        self._spend(key)
        return self.inner.put_if_match(key, payload, expected)

    def delete(self, key: ObjectKey) -> None:
        """Remove the object."""
        self._spend(key)
        self.inner.delete(key)

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Remove the objects one after another."""
        for key in keys:
            self.delete(key)

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object."""
        return self.inner.get(key)

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Return the object."""
        return self.inner.get(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects."""
        return self.inner.list(prefix)

    def unfinished(self, prefix: str) -> Iterator[str]:
        """Yield nothing."""
        return self.inner.unfinished(prefix)

    def remove_unfinished(self, prefix: str) -> int:
        """Return 0."""
        return self.inner.remove_unfinished(prefix)

    def foreign(self) -> Iterator[str]:
        """Yield nothing."""
        return self.inner.foreign()

    def exclusive(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Hold the right."""
        return self.inner.exclusive(name, holder)

    def _spend(self, key: ObjectKey) -> None:
        self.writes[key.partition("/")[0]] += 1
        self.seconds.spend(WRITE_SECONDS)


@dataclass(slots=True)
class VirtualPool:
    """Implements ``coordinator.ports.WorkerPool``: workers that only let time pass."""

    specification: FederationSpecification
    seconds: SimulatedSeconds
    workers: int = 1
    checkpoints: int = 0
    """How many checkpoints they have reported."""
    _due: list[tuple[float, int, TrainTask, int]] = field(default_factory=list)
    """When each busy worker reports next, and of which portion of which task, as a heap."""
    _names: CountingNames = field(default_factory=CountingNames)

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return the configuration of a learner without numerics."""
        del width, tasks, stored
        return plain_conditions(self.specification)

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks, as many at once as there are workers; a worker gets its next task from the coordinator."""
        waiting = deque(sorted(tasks, key=lambda task: len(task.done) - len(task.lineages)))
        self._due = []
        while waiting or self._due:
            while waiting and len(self._due) < self.workers:
                self._begin(waiting.popleft(), 0)
            due, _, task, learned = heapq.heappop(self._due)
            self.seconds.work()
            self.seconds.wait_until(due)
            if len(task.done) + learned < len(task.lineages):
                self._begin(task, learned, due)
            event = self._learned(task, len(task.done) + learned)
            self.seconds.leave_out()
            yield event

    def _begin(self, task: TrainTask, learned: int, at: float | None = None) -> None:
        begun = self.seconds.now if at is None else at
        heapq.heappush(self._due, (begun + SLICE_SECONDS, task.shard, task, learned + 1))

    def _learned(self, task: TrainTask, portion: int) -> SliceLearned:
        self.checkpoints += 1
        name = self._names()
        lineage = task.lineages[portion - 1]
        digest = sha256(f"{lineage.digest()}".encode())
        checkpoint = CheckpointRecord(
            slice=SliceIndex(portion),
            key=checkpoint_key(task.shard, SliceIndex(portion), name),
            sha256=sha256(name.encode()),
            digest=digest,
            lineage=lineage.digest(),
            payload_bytes=1,
            steps=1,
            seconds=SLICE_SECONDS,
        )
        return SliceLearned(shard=task.shard, slice=SliceIndex(portion), digest=digest, checkpoint=checkpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What a batch of erasures took."""

    workers: int
    erasures: int
    checkpoints: int
    seconds: float
    """Virtual, from the first removed point to the last receipt."""
    waited: float
    """The part of it in which the coordinator waited for workers."""
    phases: dict[str, float]
    """Virtual seconds of each phase, without waiting."""
    writes: dict[str, int]
    """The coordinator's writes and deletions, by folder."""


class ThroughputSimulation:
    """One federation, whose batches of erasures are carried out by any number of workers."""

    def __init__(self, *, shards: int, slices: int, people: int) -> None:
        """Ingest ``people``, a data point each, and let workers train all shards."""
        self.seconds = SimulatedSeconds()
        self.writes: Counter[str] = Counter()
        self._specification = specification_of(
            shards=shards, slices=slices, training=TrainingSettings(epochs=slices, batch_size=16, learning_rate=0.1)
        )
        self._objects = MemoryStore(f"throughput-{next(_WORLDS)}")
        store: ObjectStore = SlowStore(self._objects, self.seconds, self.writes)
        self.pool = VirtualPool(self._specification, self.seconds, workers=shards)
        self._clock, names = VirtualClock(), CountingNames()
        tools = Tools(
            store=store,
            clock=self._clock,
            new_name=names,
            listener=lambda _: None,
            pool=lambda: self.pool,
            registrar=Registrar(store, self._clock, names),
            described=lambda: StoreEvidence(kind="memory"),
        )
        self._phases: dict[str, float] = defaultdict(float)
        self.engine = Engine.start(tools, fresh_state(self._specification, KEY))
        for method, phase in _PHASES.items():
            setattr(self.engine, method, self._timed(getattr(self.engine, method), phase))
        self._people = iter(range(people))
        points = [Point(id=f"p{n}", subject=f"s{n}", label="ab"[n % 2], features=(1.0, 2.0)) for n in range(people)]
        partition = self._specification.partition
        self.engine.ingest(source_of(points), self._specification.data, partition, KEY)
        self.engine.configure(settings_record(self._specification), plain_conditions(self._specification))
        self.engine.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._objects.forget()

    def erase(self, erasures: int, workers: int) -> Throughput:
        """Return what it takes to carry out so many requests that wait, of a person each."""
        for _ in range(erasures):
            number = next(self._people)
            names = names_of([f"s{number}"], ())
            self.engine.accept(request_of(self._specification, names, f"r{number}", self._clock.now()), names)
        self.pool.workers = workers
        self.writes.clear()
        self._phases.clear()
        self.seconds.leave_out()
        began, waited, checkpoints = self.seconds.now, self.seconds.waited, self.pool.checkpoints
        self.engine.settle()
        self.seconds.work()
        assert all(each.state is RequestState.COMPLETE for each in self.engine.state.requests)
        return Throughput(
            workers=workers,
            erasures=erasures,
            checkpoints=self.pool.checkpoints - checkpoints,
            seconds=self.seconds.now - began,
            waited=self.seconds.waited - waited,
            phases=dict(self._phases),
            writes=dict(self.writes),
        )

    def _timed(self, act: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            self.seconds.work()
            began, waited = self.seconds.now, self.seconds.waited
            try:
                return act(*args)
            finally:
                self.seconds.work()
                self._phases[phase] += (self.seconds.now - began) - (self.seconds.waited - waited)

        return timed
