"""A whole federation in one process, for measurements: the real engine, store and trainer, without Ray.

Everything but the workers' processes is that of any federation: routing by keyed digest, slices, checkpoints after each
slice, journal, quarantine, retraining from the affected slice, purge.
Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from cluster.config.specification import FederationSpecification, settings_record, specification_from
from cluster.ensemble.loaded import Ensemble
from cluster.experiments.measured import timed
from cluster.runtime.system import SystemClock
from cluster.training.worker import Worker, WorkerSetup
from cluster.training.workers import worker_setup
from cluster.writer.drafting import request_of
from cluster.writer.identity import fresh_state
from coordinator.engine.engine import Engine, Tools
from coordinator.receipts.evidence import StoreEvidence
from coordinator.receipts.issuer import Registrar
from coordinator.state import FederationState
from shards.data.arrays import MATRIX, column_of, features_of
from shards.data.sources import Source, table_source
from shards.learners.trainer import SliceLearned, TrainingEvent, TrainTask
from shards.lineage import Configuration
from shards.routing import Naming, PartitionKey, slice_of, subject_digest
from shards.specification import PartitionSettings, ShardId
from shards.tombstones import DigestSet
from storage.digests import Sha256
from storage.objects import new_name
from storage.stores.memory import MemoryStore

KEY: Final = PartitionKey(b"the laboratory's partition key..")
NAMING: Final = Naming(form="trimmed", by_skeleton=True)
"""That of new federations."""

_WORLDS = count()


def key_of_round(number: int) -> PartitionKey:
    """Return the partition key of a repetition: each routes the same data points elsewhere."""
    return PartitionKey(b"the laboratory's key, round %04d" % number)


def places_by_name(names: Iterable[str], partition: PartitionSettings, key: PartitionKey) -> list[tuple[int, int]]:
    """Return the shard (from 0) and slice (from 1) in which each person's data points are."""
    found = (slice_of(subject_digest(key, name, NAMING), partition.shards, partition.slices, NAMING) for name in names)
    return [(each.shard, each.slice) for each in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a piece of work took."""

    seconds: float
    """Of this process's processor time: reading, training, writing checkpoints, everything."""
    worker_seconds: float
    """The part of it that a worker takes: reading slices, training, writing checkpoints. The rest is the coordinator's:
    journal, manifests, rewriting of slice files, purge."""
    point_epochs: int
    """Data points times epochs in training; of learners that took points out directly, the points taken out."""
    slices: int
    """How many slices were trained on."""


class OwnFederation:
    """A federation over arrays, whose data points are persons of their own, named by their row: "0", "1", ..."""

    def __init__(
        self,
        features_NF: npt.NDArray[np.float32],
        labels_N: npt.NDArray[np.int64],
        *,
        classes: int,
        tables: Mapping[str, Mapping[str, Any]],
        rows: npt.NDArray[np.int64] | None = None,
        key: PartitionKey = KEY,
    ) -> None:
        """``tables`` are those of a specification, such as model, training and partition.

        ``rows`` names the data points by their rows elsewhere (default: here), so that a federation of the remaining
        data points names each as the one with all of them did. Raises ``Invalid`` as a specification does.
        """
        named = np.arange(len(labels_N)) if rows is None else rows
        self._key = key
        self._source = _source(features_NF, labels_N, named)
        self.specification = _specification(classes, tables)
        self._store = MemoryStore(f"laboratory-{next(_WORLDS)}")
        self._pool = _OwnPool(worker_setup(self.specification, self._store))
        clock = SystemClock()
        tools = Tools(
            store=self._store,
            clock=clock,
            new_name=new_name,
            listener=lambda _: None,
            pool=lambda: self._pool,
            registrar=Registrar(self._store, clock, new_name),
            described=lambda: StoreEvidence(kind="memory"),
        )
        self._engine = Engine.start(tools, fresh_state(self.specification, key))
        self._clock = clock
        self._requests = count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.forget()

    def train(self) -> Spent:
        """Ingest and train on all data points that were not erased; the time is that of training alone."""
        specification = self.specification
        self._engine.ingest(self._source, specification.data, specification.partition, self._key)
        data = self._engine.state.data
        assert data is not None
        self._engine.configure(settings_record(specification), self._pool.configuration(data.layout.width, 1))
        return self._spent(self._engine.settle)

    def erase(self, rows: Sequence[int]) -> Spent:
        """Erase these data points with one request."""
        names = DigestSet.of(subjects=(subject_digest(self._key, str(row), NAMING) for row in rows), points=())
        request = request_of(self.specification, names, f"lab-{next(self._requests)}", self._clock.now())

        def act() -> None:
            self._engine.accept(request, names)
            self._engine.settle()

        return self._spent(act)

    def probabilities(self, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the ensemble's scores, shape (N, C)."""
        return Ensemble.load(self._store, self._engine.state, self.specification).answer(features_NF)

    def constituents(self) -> tuple[Any, ...]:
        """Return the learner's states, one for each shard that has data points."""
        return Ensemble.load(self._store, self._engine.state, self.specification).constituents

    def constituent_probabilities(self, shard: int, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return what one shard's constituent answers. Raises ``KeyError`` when the shard is empty."""
        found = Ensemble.load(self._store, self._engine.state, self.specification)
        states = {each: state for (each, _), state in zip(found.checkpoints, found.constituents, strict=True)}
        answers: npt.NDArray[np.float64] = found.learner.probabilities(states[ShardId(shard)], features_NF)
        return answers

    def places(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return the shard (from 0) and slice (from 1) of each data point."""
        return places_by_name([str(row) for row in rows], self.specification.partition, self._key)

    @property
    def state(self) -> FederationState:
        """The coordinator's state."""
        return self._engine.state

    @property
    def digests(self) -> tuple[Sha256 | None, ...]:
        """The digest of each shard's constituent: equal ones are equal to the byte."""
        return tuple(shard.chain[-1].digest if shard.chain else None for shard in self._engine.state.shards)

    @property
    def checkpoint_bytes(self) -> int:
        """Size of all checkpoints in the store."""
        return sum(each.payload_bytes for each in self._store.list("shards/") if "/checkpoints/" in each.key)

    def _spent(self, act: Callable[[], object]) -> Spent:
        before = (self._pool.worker_seconds, self._pool.point_epochs, self._pool.slices)
        _, seconds = timed(act)
        return Spent(
            seconds=seconds,
            worker_seconds=self._pool.worker_seconds - before[0],
            point_epochs=self._pool.point_epochs - before[1],
            slices=self._pool.slices - before[2],
        )


class _OwnPool:
    """Does tasks one after another in this process. Implements ``coordinator.ports.WorkerPool``."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._worker = Worker(setup)
        self.worker_seconds = 0.0
        self.point_epochs = 0
        self.slices = 0

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return the configuration of this process."""
        del tasks
        return self._worker.configuration(width, stored)

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks, and count what they take."""
        for task in tasks:
            events = self._worker.train(task)
            while (event := self._next(events)) is not None:
                if isinstance(event, SliceLearned):
                    self._count(task, event)
                yield event

    def _next(self, events: Iterator[TrainingEvent]) -> TrainingEvent | None:
        event, seconds = timed(lambda: next(events, None))
        self.worker_seconds += seconds
        return event

    def _count(self, task: TrainTask, event: SliceLearned) -> None:
        self.slices += 1
        if task.base is not None and not task.done:  # it has changed only what left
            self.point_epochs += event.checkpoint.steps if event.checkpoint is not None else 0
            return
        seen = sum(record.points for record in task.slices[: event.slice if len(task.lineages) > 1 else None])
        self.point_epochs += seen * self._worker.epochs(task.width, event.slice)


def _source(
    features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64], rows_N: npt.NDArray[np.int64]
) -> Source:
    table, _ = features_of(features_NF)
    names = column_of([str(row) for row in rows_N], "rows", len(labels_N))
    table = table.append_column("id", names)
    return table_source(table.append_column("label", column_of([str(each) for each in labels_N], "labels", len(names))))


def _specification(classes: int, tables: Mapping[str, Mapping[str, Any]]) -> FederationSpecification:
    data = {
        "train": "memory",
        "id": "id",
        "label": "label",
        "features": [MATRIX],
        "classes": [str(number) for number in range(classes)],
    }
    given = {name: dict(table) for name, table in tables.items()}
    return specification_from(
        {"name": "laboratory", "store": "memory", **given, "data": data | given.get("data", {})}, Path.cwd()
    )
