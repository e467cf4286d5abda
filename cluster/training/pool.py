"""The worker pool on Ray: actors that train, replaced when they die or their nodes are lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from cluster.release import OtherRelease, Sent, refusal_in
from cluster.runtime.labels import selecting
from cluster.runtime.session import does_head_answer, is_short, worker_count, worker_environment
from cluster.training.actor import WorkerActor, WorkerSetup
from cluster.training.deaths import MOST_MISMATCHES, Deaths, WorkerEnd, end_of_worker
from cluster.training.selection import mismatched_nodes, nodes_text, other_nodes_may_match, select, unused_text
from cluster.training.silence import Place, awaited_workers, hushed, own_place
from coordinator.engine.tasks import OtherConditions
from shards.learners.measuring import MeasureTask
from shards.learners.torch.staging import declared_files
from shards.learners.trainer import SliceLearned, TrainingEvent, TrainTask
from shards.lineage import Configuration, NumericsProfile
from shards.measures import Measures
from storage.digests import Sha256
from storage.errors import Invalid, SisaError, Unavailable

MOST_ROUNDS: Final = 5
"""How often workers are started in search of matching ones; twice as many each time as long as none matches."""

MOST_STARTS: Final = 5
"""After this many attempts in a row in which a worker died at its start, the command gives up."""

PATIENCE_SECONDS: Final = 20.0
"""After this long without any event, a message says what the command waits for."""

MOST_WAITS: Final = 15
"""How many times ``PATIENCE_SECONDS`` to wait for workers that have processors and do not start, when others have."""

_NODE: Final = "a node where a worker was started"

_HEAD_IS_AWAY: Final = "the head of the Ray cluster does not answer, work under way goes on without it"

_DEATHS: Final = (ActorDiedError, ActorUnavailableError, OutOfMemoryError, WorkerCrashedError)


@dataclass(slots=True)
class _Run:
    """A task in progress on a worker."""

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
        self._places: dict[Any, Any] = {}
        """Pending result naming each worker's node; it is ready as soon as the worker has started."""
        self._had_room = False
        self._files: list[Any] | None = None
        """The declared files' contents in Ray; None: not read yet."""
        self._profiles: dict[str, set[NumericsProfile]] = {}
        """Profiles of known workers, by node; they do not change while the node lives."""
        self._avoided: frozenset[str] = frozenset()
        """Nodes where no worker is started, because workers there compute other bits."""
        self._present: Configuration | None = None
        """Configuration of the workers in use; None: not known yet."""

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return what decides the bits on the workers, having started as many as ``tasks`` tasks need.

        A message names workers that do not reproduce ``stored``; they are stopped and replaced by others on other
        nodes. If no worker reproduces it, the largest group of equal workers is used.
        Raises ``Invalid`` when the model does not fit the data or no node can hold a worker, ``Unavailable`` when the
        nodes that could are gone or none has the labels, ``OtherRelease`` when a node's workers run another release.
        """
        stood_idle = len(self._idle)
        for left in reversed(range(MOST_STARTS)):
            try:
                found = self._gather(width, tasks, stored)
            except RayTaskError as error:
                raise self._refused(error) from error
            except _DEATHS as error:
                self._after_death_at_start(error, left, were_idle=stood_idle > 0 and left == MOST_STARTS - 1)
            else:
                return self._use(found, stored, max(1, tasks, stood_idle))
        raise AssertionError  # the last attempt has returned or raised

    def prepare(self, width: int, tasks: int, stored: Configuration | None) -> None:
        """Start as many workers as ``tasks`` tasks need, have them get ready, and return at once.

        They have read no data point (E12). ``configuration`` then queries them like any other workers, and replaces
        those that died or do not match. Raises ``Invalid`` and ``Unavailable`` as ``configuration`` does.
        """
        if self._idle:
            return
        self._avoided = mismatched_nodes(stored, self._profiles)
        self._idle += [self._start() for _ in range(self._room(tasks))]
        for actor in self._idle:
            actor.configuration.remote(width, stored)

    def _after_death_at_start(self, error: RayError, left: int, *, were_idle: bool) -> None:
        """Stop all workers, so that others are started. Raises ``Unavailable`` where no attempt is ``left``.

        The cause may be a node that is lost before Ray notices; if workers ``were_idle``, one may have died long ago.
        """
        self.close()
        if (refused := refusal_in(str(error), _NODE)) is not None:
            raise refused from error
        if not left:
            raise Unavailable(
                f"workers died {MOST_STARTS} times in a row while they started",
                "Check memory and Ray's logs, then try again.",
            ) from error
        if not were_idle:
            self._remark("a worker died while it started: others are started")

    def _gather(self, width: int, tasks: int, stored: Configuration | None) -> dict[Any, Configuration]:
        """Return the workers' configurations: if possible, of as many matching workers as ``tasks`` need."""
        self._present, self._avoided = None, mismatched_nodes(stored, self._profiles)
        if not self._idle and not self._room(tasks):
            self._avoided = frozenset()  # no other node is left: ask these again
        self._idle += [self._start() for _ in range(self._room(tasks) - len(self._idle))]
        wanted = len(self._idle)
        found = self._ask(width, self._idle, stored, patiently=True)
        for again in range(1, MOST_ROUNDS):
            present = select(stored, found.values())
            if present is None and not other_nodes_may_match(stored, found.values()):
                stored, present = None, select(None, found.values())
            if present is not None and len(found) < wanted:
                break  # there are no processors for more
            self._avoided = mismatched_nodes(present or stored, self._profiles)
            more = self._room(tasks if present else tasks << again) - sum(each == present for each in found.values())
            if more <= 0:
                break
            self._idle += (started := [self._start() for _ in range(more)])
            wanted += more
            answered = self._ask(width, started, stored, patiently=False)
            if not answered:
                break
            found |= answered
        return found

    def _use(self, found: dict[Any, Configuration], stored: Configuration | None, most: int) -> Configuration:
        """Keep the workers that compute the same bits; name the others and stop them."""
        present = select(stored, found.values()) or select(None, found.values())
        assert present is not None
        self._present, self._avoided = present, mismatched_nodes(present, self._profiles)
        for other in dict.fromkeys(each for each in found.values() if each != present):
            nodes = {self._node(actor) or "" for actor, each in found.items() if each == other}
            self._remark(unused_text(present, other, nodes, ray.nodes()))
        alike = [actor for actor, each in found.items() if each == present]
        self._idle = alike[: min(most, self._settings.workers or most)]
        for actor in found.keys() - self._idle:
            self._let_go(actor)
        return present

    def _room(self, tasks: int) -> int:
        """Return how many workers have room on the cluster; 0 if only avoided nodes have room."""
        try:
            room = worker_count(self._settings, tasks, self._avoided)
        except Invalid as error:
            if not self._had_room:
                raise
            raise Unavailable(
                "no node is left that can hold a worker",
                "Check 'ray status', and bring nodes back or add others: the work then continues.",
            ) from error
        self._had_room = True
        return room

    def _ask(
        self, width: int, workers: Sequence[Any], stored: Configuration | None, *, patiently: bool
    ) -> dict[Any, Configuration]:
        """Return the workers' configurations; workers that get no processors are dropped once others are ready.

        Unless ``patiently``, they are dropped after a while even if no other is ready.
        """
        asked = {actor.configuration.remote(width, stored): actor for actor in workers}
        if patiently:
            self._wait(asked, starting=True)
        ready = self._come_up(asked)
        found = dict(zip([asked[answer] for answer in ready], ray.get(ready), strict=True))
        for actor, each in found.items():
            if (node := self._node(actor)) is not None:
                self._profiles.setdefault(node, set()).add(each.profile)
        return found

    def _come_up(self, asked: dict[Any, Any]) -> list[Any]:
        """Return the answers, out of ``asked``, of the workers that have started; drop the other workers.

        It waits only for workers that have processors and are slow to start.
        """
        late: list[Any] = []
        for again in range(1, MOST_WAITS + 1):
            _, late = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE_SECONDS)
            without = [answer for answer in late if not self._is_placed(asked[answer])] if late and is_short() else []
            late = [answer for answer in late if answer not in without]
            self._give_up(asked, without, "got no processors")
            if not late:
                break
            self._remark(f"{len(late)} workers are still starting; {again * PATIENCE_SECONDS:g} seconds now")
            self._tell_of([asked[answer] for answer in late], again)
        self._give_up(asked, late, "did not start")
        return list(asked)

    def _give_up(self, asked: dict[Any, Any], late: Sequence[Any], why: str) -> None:
        if late:
            self._remark(f"{len(late)} of {len(asked)} workers {why}: going on without them")
        for answer in late:
            self._let_go(actor := asked.pop(answer))
            self._idle.remove(actor)

    def rehearse(self, width: int) -> Sha256 | None:
        """Have a worker that ``configuration`` has started rehearse the model; see ``Worker.rehearse``."""
        try:
            digest: Sha256 | None = ray.get(self._idle[0].rehearse.remote(width))
            return digest
        except RayTaskError as error:
            raise _cause(error) from error
        except _DEATHS as error:
            self.close()
            raise Unavailable("a worker died while it rehearsed the model", "Try again.") from error

    def measure(self, task: MeasureTask) -> Measures:
        """Have a worker that ``configuration`` has started measure an ensemble; only the measures come back."""
        try:
            found: Measures = ray.get(self._idle[0].measure.remote(task))
            return found
        except RayTaskError as error:
            raise _cause(error) from error
        except _DEATHS as error:
            self.close()
            raise Unavailable("a worker died while it measured the ensemble", "Try again.") from error

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks, largest first, as many at once as there are workers (see ``configuration``)."""
        waiting = deque((task, Deaths()) for task in sorted(tasks, key=_work, reverse=True))
        workers = max(1, len(self._idle))
        running: dict[Any, _Run] = {}
        try:
            while waiting or running:
                self._take_back(running, waiting)
                while waiting and len(running) < workers and (actor := self._next_worker(running)) is not None:
                    task, deaths = waiting.popleft()
                    running[actor.train.remote(task)] = _Run(actor, task, deaths)
                at_work = {stream: run.actor for stream, run in running.items()}
                starting = not all(map(self._is_placed, at_work.values()))
                event = self._next(self._wait(at_work, starting=starting), running, waiting)
                if event is not None:
                    yield event
        finally:
            # After an error or an interrupt some still run, and would write objects that nobody uses.
            for run in running.values():
                self._let_go(run.actor)

    def close(self) -> None:
        """Stop all workers; the next task starts new ones."""
        for actor in self._idle:
            self._let_go(actor)
        self._idle.clear()
        self._files = None

    def _next_worker(self, running: dict[Any, _Run]) -> Any | None:
        """Return an idle worker or a new one; None where only avoided nodes have room and other workers are busy."""
        if self._idle:
            return self._idle.pop()
        if self._avoided and not self._room(1):
            if running:
                return None
            raise Unavailable(
                "no node is left whose workers compute the bits that the constituents were trained with",
                "Check 'ray status', and bring nodes of the same kind back or add some: the work then continues.",
            )
        return self._start()

    def _take_back(self, running: dict[Any, _Run], waiting: deque[tuple[TrainTask, Deaths]]) -> None:
        """Give tasks of workers that wait for processors to idle workers.

        A lost node takes its processors away: the successor of a dead worker could wait for ever for processors that
        idle workers hold.
        """
        late = [stream for stream, run in running.items() if not self._is_placed(run.actor)]
        for stream in late[: max(0, len(self._idle) - len(waiting))]:
            run = running.pop(stream)
            self._let_go(run.actor)
            waiting.append((run.task, run.deaths))

    def _wait(self, pending: dict[Any, Any], *, starting: bool) -> Any:
        """Return the first of ``pending``, a mapping to workers, that has a result.

        Every ``PATIENCE_SECONDS`` a message says what it waits for, and for how long it has.
        """
        again = 0
        while not (ready := ray.wait(list(pending), num_returns=1, timeout=PATIENCE_SECONDS)[0]):
            again += 1
            if not does_head_answer():
                self._remark(f"{_HEAD_IS_AWAY}; {again * PATIENCE_SECONDS:g} seconds now")
                continue
            if starting and (reason := awaited_workers(self._settings, self._avoided)) is not None:
                self._remark(f"{reason}; {again * PATIENCE_SECONDS:g} seconds now")
            self._tell_of(pending.values(), again)
        return ready[0]

    def _tell_of(self, workers: Iterable[Any], again: int) -> None:
        """Report what is known of workers that have been silent ``again`` times ``PATIENCE_SECONDS``."""
        known: list[Place] = ray.get([self._places[actor] for actor in workers if self._is_placed(actor)])
        for each in hushed(known, ray.get_runtime_context().get_node_id(), ray.nodes(), again=again):
            self._remark(f"{each}; {again * PATIENCE_SECONDS:g} seconds now")

    def _start(self) -> Any:
        actor: Any = WorkerActor.options(
            num_cpus=self._settings.cpus_per_worker,
            num_gpus=self._settings.gpus_per_worker,
            max_restarts=0,
            **worker_environment(),
            **selecting(self._settings.labels, self._avoided),
        ).remote(Sent(self._own_setup()), *self._carried())
        self._places[actor] = actor.__ray_call__.remote(own_place)
        return actor

    def _own_setup(self) -> WorkerSetup:
        return replace(self._setup, companions=self._present) if self._present else self._setup

    def _carried(self) -> list[Any]:
        """Return references to the declared files' contents in Ray, read once for all workers.

        Raises ``Invalid`` when a file is missing.
        """
        if self._files is None:
            files = declared_files(self._setup.import_folder, self._setup.files)
            self._files = [ray.put(np.fromfile(file, dtype=np.uint8)) for file in files.values()]
        return self._files

    def _let_go(self, actor: Any) -> None:
        ray.kill(actor)
        self._places.pop(actor, None)

    def _is_placed(self, actor: Any) -> bool:
        """Whether the worker has its processors, or had them."""
        ready, _ = ray.wait([self._places[actor]], timeout=0)
        return bool(ready)

    def _node(self, actor: Any, timeout: float = PATIENCE_SECONDS) -> str | None:
        """Return the worker's node; None where it died, or has not answered in time."""
        try:
            place: Place = ray.get(self._places[actor], timeout=timeout)
        except RayError:
            return None
        return place.node

    def _end(self, actor: Any, error: RayError) -> WorkerEnd:
        lost = {each["NodeID"] for each in ray.nodes() if not each["Alive"]}
        return end_of_worker(error, self._node(actor, timeout=0), lost)

    def _next(
        self, stream: Any, running: dict[Any, _Run], waiting: deque[tuple[TrainTask, Deaths]]
    ) -> TrainingEvent | None:
        """Return the next event of a stream that has one; None when it has ended or its worker died."""
        run = running[stream]
        try:
            reference: ray.ObjectRef[TrainingEvent] = next(stream)
            event = ray.get(reference)
        except StopIteration:
            del running[stream]
            self._idle.append(run.actor)
            return None
        except _DEATHS as error:
            del running[stream]
            self._replace(run, error, waiting)
            return None
        except RayTaskError as error:
            if not isinstance(error.cause, OtherConditions):
                raise self._refused(error) from error
            del running[stream]
            self._skip(run, error.cause, running, waiting)
            return None
        if isinstance(event, SliceLearned) and event.checkpoint is not None:
            # A successor would continue from here.
            run.task = replace(run.task, done=(*run.task.done, event.checkpoint))
            run.deaths = Deaths()
        return event

    def _replace(self, run: _Run, error: RayError, waiting: deque[tuple[TrainTask, Deaths]]) -> None:
        """Have another worker continue the task. Raises ``Unavailable`` when its workers died too often."""
        if (refused := refusal_in(str(error), _NODE)) is not None:
            raise refused from error
        end = self._end(run.actor, error)
        self._let_go(run.actor)  # one that only seems dead would write objects that nobody uses
        deaths = run.deaths.and_one(end)
        if (unavailable := deaths.too_many(run.task)) is not None:
            raise unavailable from error
        waiting.appendleft((run.task, deaths))
        self._remark(f"{end.value}: another one continues with shard {run.task.shard} after slice {len(run.task.done)}")

    def _refused(self, error: RayTaskError) -> BaseException:
        """Return the error that a worker raised; if it runs another release, stop all workers."""
        cause = _cause(error)
        if isinstance(cause, OtherRelease):
            self.close()
        return cause

    def _skip(
        self,
        run: _Run,
        cause: OtherConditions,
        running: dict[Any, _Run],
        waiting: deque[tuple[TrainTask, Deaths]],
    ) -> None:
        """Give the task of a worker that computes other bits to another one; raise ``cause`` if there is no other."""
        node = self._node(run.actor) or ""
        self._let_go(run.actor)
        at_work = [*self._idle, *(each.actor for each in running.values())]
        if not any(self._node(actor, timeout=0) == node for actor in at_work):
            self._avoided |= {node} - {""}
        deaths = replace(run.deaths, mismatches=run.deaths.mismatches + 1)
        if deaths.mismatches >= MOST_MISMATCHES or not (at_work or self._room(1)):
            raise cause
        waiting.appendleft((run.task, deaths))
        self._remark(f"a worker on {nodes_text([node], ray.nodes())} is not used, another one is started: {cause.fact}")


def _work(task: TrainTask) -> int:
    return sum(record.points for record in task.slices) * (len(task.lineages) - len(task.done))


def _cause(error: RayTaskError) -> BaseException:
    """Return the error that the worker raised."""
    cause = error.cause
    if isinstance(cause, SisaError):
        return cause
    if (refused := refusal_in(str(error), _NODE)) is not None:
        return refused
    return SisaError(
        f"a worker failed with {type(cause).__name__}: {cause}",
        "Check the model's own code, the likely cause. The worker's traceback is the cause of this error.",
    )
