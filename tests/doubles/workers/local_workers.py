"""The command's workers without Ray: the same ``Worker`` as in Ray's actors, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

import cluster.training.workers
from cluster.config.specification import ClusterSettings
from cluster.training.actor import WorkerSetup
from cluster.training.worker import Worker
from shards.learners.measuring import MeasureTask
from shards.learners.trainer import TrainingEvent, TrainTask
from shards.lineage import Configuration
from shards.measures import Measures
from storage.digests import Sha256


@dataclass(slots=True)
class LocalWorkers:
    """Constructed like ``cluster.training.pool.RayPool``; implements ``coordinator.ports.WorkerPool``."""

    setup: WorkerSetup
    settings: ClusterSettings
    remark: Callable[[str], None]
    _workers: list[Worker] = field(default_factory=list)

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return the configuration."""
        return self._worker().configuration(width, stored)

    def prepare(self, width: int, tasks: int, stored: Configuration | None) -> None:
        """Make the worker."""
        del width, tasks, stored
        self._worker()

    def rehearse(self, width: int) -> Sha256 | None:
        """Rehearse the model."""
        return self._worker().rehearse(width)

    def measure(self, task: MeasureTask) -> Measures:
        """Measure an ensemble."""
        return self._worker().measure(task)

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Perform the tasks one after another."""
        for task in tasks:
            yield from self._worker().train(task)

    def close(self) -> None:
        """Drop the worker."""
        self._workers.clear()

    def _worker(self) -> Worker:
        if not self._workers:
            self._workers.append(Worker(self.setup))
        return self._workers[0]


@contextmanager
def without_ray() -> Iterator[None]:
    """Let federations train in this process while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        yield
