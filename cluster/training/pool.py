"""The worker pool on Ray: actors that train, replaced when they die or their nodes are lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

import numpy as np
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from cluster.config.specification import ClusterSettings
from cluster.runtime.labels import selecting
from cluster.runtime.session import waited_for, worker_count, worker_environment
from cluster.training.worker import WorkerActor, WorkerSetup
from coordinator.engine.tasks import check_configuration
from shards.learners.trainer import SliceLearned, TrainingEvent, TrainTask
from shards.lineage import Configuration
from storage.digests import Sha256
from storage.errors import Invalid, SisaError, Unavailable

MOST_DEATHS: Final = 3
"""A task whose worker dies so often without learning a slice in between is given up."""

MOST_LOSSES: Final = 30
"""So for a task that loses its worker by no fault of its own: nodes are taken away for reasons of others."""

PATIENCE_SECONDS: Final = 20.0
"""After so long without any event it is said what is waited for."""

_DEATHS: Final = (ActorDiedError, ActorUnavailableError, OutOfMemoryError, WorkerCrashedError)


class Fate(Enum):
    """What became of a worker, in words."""

    DIED = "a worker died"
    LOST = "a worker was lost with its node"
    ABSENT = "a worker did not come up"


def fate_of(error: RayError, node: str | None, lost: Collection[str]) -> Fate:
    """Return what became of a worker that failed with ``error``.

    ``node`` is where it was, None when it died before it could say so; ``lost`` are the nodes that the cluster lost.
    """
    if isinstance(error, ActorUnavailableError):
        return Fate.LOST  # the node of a worker that died alone would have said so
    if node in lost or (isinstance(error, ActorDiedError) and error.preempted):
        return Fate.LOST
    return Fate.ABSENT if node is None else Fate.DIED


@dataclass(frozen=True, slots=True, kw_only=True)
class Deaths:
    """How often a task lost its worker since it last learned a slice."""

    crashes: int = 0
    """Of workers that had begun, on nodes that lived on: the task may be the cause."""
    losses: int = 0
    """All others."""

    def and_one(self, fate: Fate) -> Deaths:
        """Return what it comes to with another one."""
        if fate is Fate.DIED:
            return replace(self, crashes=self.crashes + 1)
        return replace(self, losses=self.losses + 1)

    def too_many(self, task: TrainTask) -> Unavailable | None:
        """Return why ``task`` is given up; None while it is not."""
        if self.crashes >= MOST_DEATHS:
            fact, where = f"workers died {MOST_DEATHS} times in a row", "memory and Ray's logs"
        elif self.losses >= MOST_LOSSES:
            fact, where = f"workers were lost {MOST_LOSSES} times in a row", "the cluster's nodes with 'ray status'"
        else:
            return None
        return Unavailable(
            f"{fact} while training one slice",
            f"check {where}, then run 'sisa train' to go on from the last checkpoint",
            shard=task.shard,
            slice=len(task.done) + 1,
        )


@dataclass(slots=True)
class _Run:
    """A task under way on a worker."""

    actor: Any
    task: TrainTask
    deaths: Deaths


class RayPool:
    """Workers as Ray actors. Implements ``coordinator.ports.WorkerPool``."""

    def __init__(self, setup: WorkerSetup, settings: ClusterSettings, remark: Callable[[str], None]) -> None:
        self._setup = setup
        self._settings = settings
        self._remark = remark
        self._idle: list[Any] = []
        self._nodes: dict[Any, Any] = {}
        """Of each worker the answer, to be, on which node it is: there as soon as it has its processors."""
        self._had_room = False
        self._files: list[Any] | None = None

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return what decides the bits on the workers, having started as many as ``tasks`` tasks will take.

        ``stored`` is what the constituents were trained with; see ``Worker.configuration``.

        Raises ``Invalid`` when the model does not fit the data or no node can hold a worker, ``Unavailable`` when none
        can any more or none has the labels, ``Conflict`` when workers differ.
        """
        stood_idle = bool(self._idle)
        self._idle += [self._start() for _ in range(self._room(tasks) - len(self._idle))]
        try:
            found = self._ask(width, stored)
        except RayTaskError as error:
            raise _cause(error) from error
        except _DEATHS as error:
            self.close()
            if stood_idle:  # it may have been one that died since its last task: ask new ones
                return self.configuration(width, tasks, stored)
            raise Unavailable("a worker died while it started", "look into Ray's logs, then try again") from error
        for other in found[1:]:
            check_configuration(found[0], other)
        return found[0]

    def _room(self, tasks: int) -> int:
        """Return for how many workers there is room."""
        try:
            room = worker_count(self._settings, tasks)
        except Invalid as error:
            if not self._had_room:
                raise
            raise Unavailable(
                "no node is left that can hold a worker",
                "look at 'ray status'; it goes on when nodes have come back or others were added",
            ) from error
        self._had_room = True
        return room

    def _ask(self, width: int, stored: Configuration | None) -> list[Configuration]:
        """Return what the workers say of themselves; those that get no processors are let go when others are ready."""
        asked = {actor.configuration.remote(width, stored): actor for actor in self._idle}
        self._wait(list(asked), starting=True)
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE_SECONDS)
        for answer in late:
            self._let_go(asked[answer])
        if late:
            self._remark(f"going on with {len(ready)} of {len(asked)} workers: the others got no processors")
        self._idle = [asked[answer] for answer in ready]
        found: list[Configuration] = ray.get(ready)
        return found

    def rehearse(self, width: int) -> Sha256 | None:
        """Have a worker that ``configuration`` made ready rehearse the model; see ``Worker.rehearse``."""
        try:
            digest: Sha256 | None = ray.get(self._idle[0].rehearse.remote(width))
            return digest
        except RayTaskError as error:
            raise _cause(error) from error
        except _DEATHS as error:
            self.close()
            raise Unavailable("a worker died while it rehearsed the model", "try again") from error

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks, largest first, as many at once as there are workers ready (see ``configuration``)."""
        waiting = deque((task, Deaths()) for task in sorted(tasks, key=_work, reverse=True))
        workers = max(1, len(self._idle))
        running: dict[Any, _Run] = {}
        try:
            while waiting or running:
                self._take_back(running, waiting)
                while waiting and len(running) < workers:
                    task, deaths = waiting.popleft()
                    actor = self._idle.pop() if self._idle else self._start()
                    running[actor.train.remote(task)] = _Run(actor, task, deaths)
                starting = not all(self._is_placed(run.actor) for run in running.values())
                event = self._next(self._wait(list(running), starting=starting), running, waiting)
                if event is not None:
                    yield event
        finally:
            # Left early, by an error or an interrupt: what still runs would write for nobody.
            for run in running.values():
                self._let_go(run.actor)

    def close(self) -> None:
        """Let all workers go; the next task starts new ones."""
        for actor in self._idle:
            self._let_go(actor)
        self._idle.clear()
        self._files = None

    def _take_back(self, running: dict[Any, _Run], waiting: deque[tuple[TrainTask, Deaths]]) -> None:
        """Have idle workers do what was given to workers that wait for processors.

        With a node its processors are lost: a dead worker's successor would wait for ever for those idle ones keep.
        """
        late = [stream for stream, run in running.items() if not self._is_placed(run.actor)]
        for stream in late[: max(0, len(self._idle) - len(waiting))]:
            run = running.pop(stream)
            self._let_go(run.actor)
            waiting.append((run.task, run.deaths))

    def _wait(self, pending: list[Any], *, starting: bool) -> Any:
        """Return the first of ``pending`` that has something to say.

        Where a worker is ``starting`` it is told what it waits for.
        """
        while True:
            ready, _ = ray.wait(pending, num_returns=1, timeout=PATIENCE_SECONDS)
            if ready:
                return ready[0]
            if starting and (told := waited_for(self._settings)) is not None:
                self._remark(told)

    def _start(self) -> Any:
        actor: Any = WorkerActor.options(
            num_cpus=self._settings.cpus_per_worker,
            num_gpus=self._settings.gpus_per_worker,
            max_restarts=0,
            **worker_environment(),
            **selecting(self._settings.labels),
        ).remote(self._setup, *self._carried())
        self._nodes[actor] = actor.__ray_call__.remote(_node_of)
        return actor

    def _carried(self) -> list[Any]:
        """Return the declared files' contents, in Ray; read once for all workers."""
        if self._files is None:
            folder = self._setup.import_folder
            self._files = [ray.put(np.fromfile(folder / name, dtype=np.uint8)) for name in self._setup.files]
        return self._files

    def _let_go(self, actor: Any) -> None:
        ray.kill(actor)
        self._nodes.pop(actor, None)

    def _is_placed(self, actor: Any) -> bool:
        """Whether the worker has its processors, or had them."""
        ready, _ = ray.wait([self._nodes[actor]], timeout=0)
        return bool(ready)

    def _fate(self, actor: Any, error: RayError) -> Fate:
        try:
            node: str | None = ray.get(self._nodes[actor], timeout=0)
        except RayError:
            node = None
        return fate_of(error, node, {each["NodeID"] for each in ray.nodes() if not each["Alive"]})

    def _next(
        self, stream: Any, running: dict[Any, _Run], waiting: deque[tuple[TrainTask, Deaths]]
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
            self._replace(run, error, waiting)
            return None
        except RayTaskError as error:
            raise _cause(error) from error
        if isinstance(event, SliceLearned) and event.checkpoint is not None:
            # A successor goes on from here.
            run.task = replace(run.task, done=(*run.task.done, event.checkpoint))
            run.deaths = Deaths()
        return event

    def _replace(self, run: _Run, error: RayError, waiting: deque[tuple[TrainTask, Deaths]]) -> None:
        """Let another worker go on with the task. Raises ``Unavailable`` when its workers died too often."""
        fate = self._fate(run.actor, error)
        self._let_go(run.actor)  # one that only seems dead would write for nobody
        deaths = run.deaths.and_one(fate)
        if (unavailable := deaths.too_many(run.task)) is not None:
            raise unavailable from error
        waiting.appendleft((run.task, deaths))
        self._remark(f"{fate.value}: another one goes on with shard {run.task.shard} after slice {len(run.task.done)}")


def _node_of(_: object) -> str:
    """Return the node on which this is called."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


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
