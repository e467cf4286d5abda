"""A whole federation in one process: the real engine, store and trainer, without Ray.

For measurements and for federations that are thrown away. Everything but the workers' processes is that of any
federation: routing by keyed digest, slices, checkpoints after each slice, journal, quarantine, retraining from the
affected slice, purge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from cluster.config.specification import FederationSpecification, settings_record
from cluster.runtime.system import SystemClock, timed
from cluster.training.own_process import OwnPool
from cluster.training.workers import worker_setup
from cluster.writer.drafting import request_of
from cluster.writer.identity import fresh_state
from coordinator.engine.engine import Engine, Tools
from coordinator.engine.removal import put_digests
from coordinator.receipts.evidence import StoreEvidence
from coordinator.receipts.issuer import Registrar
from coordinator.state import FederationState, servable
from shards.data.sources import Source
from shards.learners.measuring import MeasureTask
from shards.measures import Measures
from shards.routing import Naming, PartitionKey
from shards.slices.ingest import ingest
from shards.tombstones import NOTHING, DigestSet
from storage.objects import ObjectStore, new_name

NEW_NAMING: Final = Naming(form="trimmed", by_skeleton=True)
"""The naming of new federations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a piece of work took."""

    seconds: float
    """All processor time of this process: reading, training, writing checkpoints and everything else."""
    worker_seconds: float
    """The part of it that a worker takes: reading slices, training, writing checkpoints. The rest is the coordinator's:
    journal, manifests, rewriting of slice files, purge."""
    point_epochs: int
    """Data points times epochs in training; of learners that took points out directly, the points taken out."""
    slices: int
    """How many slices were trained on."""


class OneProcessFederation:
    """A new federation in ``store``, which is empty."""

    def __init__(
        self,
        specification: FederationSpecification,
        key: PartitionKey,
        store: ObjectStore,
        *,
        naming: Naming | None = None,
        erased: DigestSet = NOTHING,
    ) -> None:
        """Data points of ``erased`` stay out; their digests are those under ``key`` and ``naming``."""
        self.specification = specification
        self.key = key
        self.store = store
        self._pool = OwnPool(worker_setup(specification, store))
        self._clock = SystemClock()
        admitted = specification.model.admitted
        tools = Tools(
            store=store,
            clock=self._clock,
            new_name=new_name,
            listener=lambda _: None,
            pool=lambda: self._pool,
            registrar=Registrar(store, self._clock, new_name),
            described=lambda: StoreEvidence(kind="memory"),
            ingest=lambda task: ingest(replace(task, admitted=admitted)),
        )
        fresh = fresh_state(specification, key)
        if naming is not None:
            fresh = replace(fresh, naming=naming)
        if len(erased):
            fresh = replace(fresh, tombstones=put_digests(store, new_name, "tombstones", erased))
        self._engine = Engine.start(tools, fresh)
        self._requests = count()

    @property
    def state(self) -> FederationState:
        """The coordinator's state."""
        return self._engine.state

    def ingest(self, source: Source, holdout: Source | None = None) -> None:
        """Read the data points. Raises as training does."""
        specification = self.specification
        self._engine.ingest(source, specification.data, specification.partition, self.key, holdout=holdout)

    def train(self) -> Spent:
        """Train on the data points that were read; the time is that of training alone."""
        data = self._engine.state.data
        assert data is not None
        configuration = self._pool.configuration(data.layout.width, 1)
        self._engine.configure(settings_record(self.specification), configuration)
        return self._spent(self._engine.settle)

    def erase(self, *requests: DigestSet) -> Spent:
        """Erase what the requests name, all of them in one batch."""
        drafted = [
            (request_of(self.specification, names, f"own-{next(self._requests)}", self._clock.now()), names)
            for names in requests
        ]

        def act() -> None:
            for request, names in drafted:
                self._engine.accept(request, names)
            self._engine.settle()

        return self._spent(act)

    def measures(self) -> Measures:
        """Return how good the answers to the hold-out points are; without any there are no metrics."""
        state, specification = self.state, self.specification
        assert state.data is not None
        assert state.configuration is not None
        return self._pool.measure(
            MeasureTask(
                constituents=tuple((each.shard, each.checkpoint) for each in servable(state)),
                holdout=state.holdout,
                width=state.data.layout.width,
                scale=specification.data.scale,
                target=specification.predicted,
                rule=specification.aggregation.rule,
                configuration=state.configuration,
            )
        )

    def _spent(self, act: Callable[[], object]) -> Spent:
        before = (self._pool.worker_seconds, self._pool.point_epochs, self._pool.slices)
        _, seconds = timed(act)
        return Spent(
            seconds=seconds,
            worker_seconds=self._pool.worker_seconds - before[0],
            point_epochs=self._pool.point_epochs - before[1],
            slices=self._pool.slices - before[2],
        )


def total_spent(parts: Sequence[Spent]) -> Spent:
    """Return what all the pieces of work took."""
    return Spent(
        seconds=sum(part.seconds for part in parts),
        worker_seconds=sum(part.worker_seconds for part in parts),
        point_epochs=sum(part.point_epochs for part in parts),
        slices=sum(part.slices for part in parts),
    )
