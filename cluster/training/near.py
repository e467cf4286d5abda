"""Taking a few data points out in this process: it takes less time than a worker takes to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from cluster.training.worker import Worker
from shards.learners.measuring import MeasureTask
from shards.learners.trainer import TrainingEvent, TrainTask
from shards.lineage import Configuration
from shards.measures import Measures
from storage.digests import Sha256

if TYPE_CHECKING:
    from cluster.training.workers import Pool

_MOST_VALUES: Final = 1 << 24
"""Features of all data points of a shard that this process may hold: 64 MB."""

_MOST_LEARNED: Final = 1 << 20
"""The same of a learner that may have to learn all of them again."""

_MOST_POINTS: Final = 100
_MOST_SHARE: Final = 0.01
"""More points than both are taken out by a worker, so that this process goes on accepting requests."""


class NearPool:
    """Does direct tasks with few points by itself; workers do all others. Implements ``Pool``.

    For learners whose constituents are the same wherever they are computed.
    """

    def __init__(self, worker: Worker, workers: Callable[[], Pool]) -> None:
        """``workers`` returns the pool of workers; they start when it is first asked for something."""
        self._worker = worker
        self._workers = workers

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return the configuration, which is that of every worker."""
        del tasks
        return self._worker.configuration(width, stored)

    def rehearse(self, width: int) -> Sha256 | None:
        """Return None: the learner comes with this system."""
        return self._worker.rehearse(width)

    def measure(self, task: MeasureTask) -> Measures:
        """Have a worker measure."""
        pool = self._workers()
        pool.configuration(task.width, 1, task.configuration)
        return pool.measure(task)

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks, those of this process first."""
        near = [task for task in tasks if _is_near(task)]
        for task in near:
            yield from self._worker.train(task)
        if far := [task for task in tasks if task not in near]:
            pool = self._workers()
            pool.configuration(far[0].width, len(far), far[0].lineages[0].configuration)
            yield from pool.train(far)

    def close(self) -> None:
        """Do nothing: the workers are closed by their owner."""


def _is_near(task: TrainTask) -> bool:
    if task.base is None or task.done or task.token is None:
        return False
    before, after = (sum(record.points for record in slices) for slices in (task.base.slices, task.slices))
    most = max(_MOST_POINTS, _MOST_SHARE * before)
    most_values = _MOST_VALUES if task.lineages[0].configuration.is_sure else _MOST_LEARNED
    return max(before, after) * task.width <= most_values and abs(before - after) <= most
