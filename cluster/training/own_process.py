"""A worker pool in this process: does tasks one after another, and measures their cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.runtime.system import timed
from cluster.training.actor import WorkerSetup
from cluster.training.worker import Worker
from shards.learners.measuring import MeasureTask
from shards.learners.trainer import SliceLearned, TrainingEvent, TrainTask
from shards.lineage import Configuration
from shards.measures import Measures


class OwnPool:
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
        """Do the tasks, and measure their cost. As in new workers, nothing is kept from earlier tasks."""
        self._worker.forget_learned()
        for task in tasks:
            events = self._worker.train(task)
            while (event := self._next(events)) is not None:
                if isinstance(event, SliceLearned):
                    self._count(task, event)
                yield event

    def measure(self, task: MeasureTask) -> Measures:
        """Return the measures of an ensemble on hold-out points."""
        return self._worker.measure(task)

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
