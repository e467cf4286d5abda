"""Taking a few data points out in this process: it takes less time than a worker takes to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from shards.learners.measuring import MeasureTask
from shards.learners.trainer import TrainingEvent, TrainTask
from shards.lineage import Configuration
from shards.measures import Measures
from shards.slices.files import SliceRecord
from storage.digests import Sha256

if TYPE_CHECKING:
    from cluster.training.worker import Worker
    from cluster.training.workers import Pool

_MOST_VALUES: Final = 1 << 24
"""Features of all data points of a shard that this process may hold: 64 MB."""

_MOST_POINTS: Final = 100
_MOST_SHARE: Final = 0.01
"""If more points than both are removed, added or corrected, a worker does it, so that this process keeps accepting
requests."""


class NearPool:
    """Does direct tasks with few points by itself; workers do all others. Implements ``Pool``.

    Workers also do tasks that were superseded, or where the learner has to learn from nothing. For learners whose
    constituents are the same wherever they are computed.
    """

    def __init__(self, worker: Worker, workers: Callable[[], Pool]) -> None:
        """``workers`` returns the pool of workers, which start when the pool is first used."""
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
        """Do the tasks, those of this process first; workers do those that turn out to be too large for it."""
        far = list[TrainTask]()
        for task in tasks:
            left: TrainTask | None = task
            if _is_near(task):
                left = yield from self._worker.take_out(task, _most_changes(task))
            if left is not None:
                far.append(left)
        if far:
            pool = self._workers()
            pool.configuration(far[0].width, len(far), far[0].lineages[0].configuration)
            yield from pool.train(far)

    def close(self) -> None:
        """Do nothing: the workers are closed by their owner."""


def _is_near(task: TrainTask) -> bool:
    if task.base is None or task.done or task.token is None:
        return False
    before, after = _points(task.base.slices), _points(task.slices)
    # That as many are left does not say that few changed: they may have been corrected.
    return max(before, after) * task.width <= _MOST_VALUES and abs(before - after) <= _most_changes(task)


def _most_changes(task: TrainTask) -> int:
    return max(_MOST_POINTS, int(_MOST_SHARE * _points(() if task.base is None else task.base.slices)))


def _points(slices: Sequence[SliceRecord]) -> int:
    return sum(record.points for record in slices)
