"""The worker pool on Ray: actors that train, replaced when they die."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from cluster.session import worker_count
from cluster.specification import ClusterSettings
from cluster.worker import WorkerActor, WorkerSetup
from coordinator.tasks import check_configuration
from shards.constituent import SliceLearned, TrainingEvent, TrainTask
from shards.lineage import Configuration
from storage.errors import SisaError, Unavailable

MOST_DEATHS: Final = 3
"""A task whose worker dies so often without learning a slice in between is given up."""

PATIENCE_SECONDS: Final = 20.0
"""After so long without any event it is said what is waited for."""

_DEATHS: Final = (ActorDiedError, ActorUnavailableError, OutOfMemoryError, WorkerCrashedError)


@dataclass(slots=True)
class _Run:
    """A task under way on a worker."""

    actor: Any
    task: TrainTask
    deaths: int
    ready: bool
    """Whether the worker is known to have its processors."""


class RayPool:
    """Workers as Ray actors. Implements ``coordinator.ports.WorkerPool``."""

    def __init__(self, setup: WorkerSetup, settings: ClusterSettings, remark: Callable[[str], None]) -> None:
        self._setup = setup
        self._settings = settings
        self._remark = remark
        self._idle: list[Any] = []

    def configuration(self, width: int, tasks: int) -> Configuration:
        """Return what decides the bits on the workers, having started as many as ``tasks`` tasks will take.

        Raises ``Invalid`` when the model does not fit the data, ``Conflict`` when workers differ.
        """
        stood_idle = bool(self._idle)
        self._idle += [self._start() for _ in range(worker_count(self._settings, tasks) - len(self._idle))]
        try:
            found = self._ask(width)
        except RayTaskError as error:
            raise _cause(error) from error
        except _DEATHS as error:
            self.close()
            if stood_idle:  # it may have been one that died since its last task: ask new ones
                return self.configuration(width, tasks)
            raise Unavailable("a worker died while it started", "look into Ray's logs, then try again") from error
        for other in found[1:]:
            check_configuration(found[0], other)
        return found[0]

    def _ask(self, width: int) -> list[Configuration]:
        """Return what the workers say of themselves; those that get no processors are let go when others are ready."""
        asked = {actor.configuration.remote(width): actor for actor in self._idle}
        self._wait(list(asked), starting=True)
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE_SECONDS)
        for answer in late:
            ray.kill(asked[answer])
        if late:
            self._remark(f"going on with {len(ready)} of {len(asked)} workers: the others got no processors")
        self._idle = [asked[answer] for answer in ready]
        found: list[Configuration] = ray.get(ready)
        return found

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks, largest first, as many at once as there are workers ready (see ``configuration``)."""
        waiting = deque((task, 0) for task in sorted(tasks, key=_work, reverse=True))
        workers = max(1, len(self._idle))
        running: dict[Any, _Run] = {}
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    task, deaths = waiting.popleft()
                    ready = bool(self._idle)
                    actor = self._idle.pop() if ready else self._start()
                    running[actor.train.remote(task)] = _Run(actor, task, deaths, ready)
                starting = not all(run.ready for run in running.values())
                event = self._next(self._wait(list(running), starting=starting), running, waiting)
                if event is not None:
                    yield event
        finally:
            # Left early, by an error or an interrupt: what still runs would write for nobody.
            for run in running.values():
                ray.kill(run.actor)

    def close(self) -> None:
        """Let all workers go; the next task starts new ones."""
        for actor in self._idle:
            ray.kill(actor)
        self._idle.clear()

    def _wait(self, pending: list[Any], *, starting: bool) -> Any:
        """Return the first of ``pending`` that has something to say.

        Where a worker is ``starting`` it is told that it waits for processors: Ray itself would say nothing, for ever.
        """
        while True:
            ready, _ = ray.wait(pending, num_returns=1, timeout=PATIENCE_SECONDS)
            if ready:
                return ready[0]
            free = ray.available_resources().get("CPU", 0)
            if starting and free < self._settings.cpus_per_worker:
                self._remark(
                    f"waiting for workers: {free:g} CPUs are free in the cluster, a worker takes"
                    f" {self._settings.cpus_per_worker:g}"
                )

    def _start(self) -> Any:
        return WorkerActor.options(
            num_cpus=self._settings.cpus_per_worker, num_gpus=self._settings.gpus_per_worker, max_restarts=0
        ).remote(self._setup)

    def _next(
        self, stream: Any, running: dict[Any, _Run], waiting: deque[tuple[TrainTask, int]]
    ) -> TrainingEvent | None:
        """Return the next event of a stream that has one; None when it has ended or its worker died."""
        run = running[stream]
        try:
            event: TrainingEvent = ray.get(next(stream))
        except StopIteration:
            del running[stream]
            self._idle.append(run.actor)
            return None
        except _DEATHS as error:
            del running[stream]
            ray.kill(run.actor)  # one that only seems dead would write for nobody
            if run.deaths + 1 >= MOST_DEATHS:
                raise Unavailable(
                    f"workers died {MOST_DEATHS} times in a row while training one slice",
                    "check memory and Ray's logs, then run 'sisa train' to go on from the last checkpoint",
                    shard=run.task.shard,
                    slice=len(run.task.done) + 1,
                ) from error
            waiting.appendleft((run.task, run.deaths + 1))
            self._remark(
                f"a worker died: another one goes on with shard {run.task.shard} after slice {len(run.task.done)}"
            )
            return None
        except RayTaskError as error:
            raise _cause(error) from error
        run.ready = True
        if isinstance(event, SliceLearned) and event.checkpoint is not None:
            # A successor goes on from here.
            run.task = replace(run.task, done=(*run.task.done, event.checkpoint))
            run.deaths = 0
        return event


def _work(task: TrainTask) -> int:
    return sum(record.points for record in task.slices) * (len(task.slices) - len(task.done))


def _cause(error: RayTaskError) -> BaseException:
    """Return the error that the worker raised, as itself."""
    cause = error.cause
    if isinstance(cause, SisaError):
        return cause
    return SisaError(
        f"a worker failed with {type(cause).__name__}: {cause}",
        "this is likely to come from the model's own code; the worker's traceback is the cause of this error",
    )
