"""A fake Ray: nodes with one processor each, workers on them, and a planned result for each attempt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Self

from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError

from cluster.release import Sent
from cluster.training.silence import Place
from coordinator.engine.tasks import check_configuration
from shards.learners.trainer import SliceLearned, TrainTask
from shards.lineage import CheckpointRecord, Configuration
from shards.specification import SliceIndex
from storage.digests import Sha256
from storage.errors import SisaError
from storage.objects import object_key


@dataclass(eq=False)
class FakeActor:
    """A worker, which starts once there is a processor for it."""

    world: FakeRayModule
    setup: Any
    avoided: Collection[str]
    node: str | None = None
    is_dead: bool = False

    def __post_init__(self) -> None:
        self.__ray_call__ = _Method(lambda _: _Answer(actor=self, of="place"))
        self.configuration = _Method(lambda *_: _Answer(actor=self, of="configuration"))
        self.train = _Method(lambda task: _Answer(actor=self, of=task))


@dataclass(frozen=True)
class _Method:
    remote: Callable[..., _Answer]


@dataclass(eq=False)
class _Answer:
    """A worker's pending answer: its node, its configuration, or the events of a task."""

    actor: FakeActor
    of: str | TrainTask
    is_over: bool = False

    def __next__(self) -> Self:
        if self.is_over:
            raise StopIteration
        return self


@dataclass
class FakeRayModule:
    """Replaces the module ``ray`` and ``WorkerActor``."""

    nodes_alive: dict[str, bool]
    fates: dict[int, deque[RayError | None]]
    """The results of attempts, by shard; None: the slice is trained. A node whose worker is away is lost."""
    computing: Mapping[str, Configuration | SisaError] = field(default_factory=dict)
    """By node, the configuration that its workers report, or the error that they raise."""
    actors: list[FakeActor] = field(default_factory=list)
    avoided: Collection[str] = ()
    is_short: bool = True
    """Whether other work on the cluster waits for processors."""
    slow: dict[str, int] = field(default_factory=dict)
    """By node, the number of waits for which a worker with a processor does not answer."""

    def options(self, label_selector: dict[str, str] | None = None, **_: object) -> FakeRayModule:
        """Return a factory of actors that are not placed on the nodes that the selector excludes."""
        avoided = (label_selector or {}).get("ray.io/node-id", "!in()").removeprefix("!in(").removesuffix(")")
        return replace(self, avoided=avoided.split(","))

    def remote(self, setup: Sent[Any], *_contents: object) -> FakeActor:
        """Create an actor."""
        self.actors.append(FakeActor(self, setup.opened("worker"), self.avoided))
        self._place()
        return self.actors[-1]

    def wait(self, answers: Sequence[_Answer], *, timeout: float, num_returns: int = 1) -> tuple[list[_Answer], object]:
        """Return the answers of workers that have a processor, and the remaining ones."""
        ready = [answer for answer in answers if answer.actor.node is not None and not self._is_slow(answer, timeout)]
        assert ready or not timeout or num_returns > 1, "this would wait forever"
        return ready[:num_returns], [answer for answer in answers if answer not in ready[:num_returns]]

    def get(self, answer: _Answer | list[_Answer], timeout: float = 1.0) -> object:
        """Return the content of the answer."""
        if isinstance(answer, list):
            return [self.get(each) for each in answer]
        node = answer.actor.node
        if node is None:
            raise GetTimeoutError
        if isinstance(answer.of, TrainTask):
            return self._learn(answer, answer.of, node)
        if answer.of == "place":
            return Place(node, 0)
        found = self.computing[node]
        if isinstance(found, SisaError):
            raise RayTaskError("configuration", "", found)
        return found

    def _learn(self, answer: _Answer, task: TrainTask, node: str) -> SliceLearned:
        try:
            own: Any = self.computing.get(node)
            check_configuration(answer.actor.setup and answer.actor.setup.companions, own)
        except SisaError as error:
            raise RayTaskError("train", "", error) from None
        fate = self.fates[task.shard].popleft()
        answer.is_over = not self.fates[task.shard]
        if isinstance(fate, ActorUnavailableError):
            self.nodes_alive[node] = False
        if fate is not None:
            raise fate
        return _learned(task)

    def _is_slow(self, answer: _Answer, timeout: float) -> bool:
        """Return whether its worker is still starting; each wait with a timeout brings it closer."""
        node = answer.actor.node or ""
        left = self.slow.get(node, 0)
        if timeout and left:
            self.slow[node] = left - 1
        return left > 0

    def get_runtime_context(self) -> SimpleNamespace:
        """Return this process's context."""
        return SimpleNamespace(get_node_id=lambda: "here")

    def kill(self, actor: FakeActor) -> None:
        """End an actor, which frees its processor."""
        actor.is_dead = True
        self._place()

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes in Ray's format."""
        return [
            {
                "NodeID": node,
                "NodeManagerAddress": f"at-{node}",
                "Alive": is_alive,
                "Resources": {"CPU": 1.0},
            }
            for node, is_alive in self.nodes_alive.items()
        ]

    def _place(self) -> None:
        for actor in self.actors:
            if actor.node is None and not actor.is_dead:
                taken = {each.node for each in self.actors if not each.is_dead}
                free = (node for node, is_alive in self.nodes_alive.items() if is_alive and node not in taken)
                actor.node = next((node for node in free if node not in actor.avoided), None)


def _learned(task: TrainTask) -> SliceLearned:
    digest, slice_ = Sha256("0" * 64), SliceIndex(len(task.done) + 1)
    record = CheckpointRecord(
        slice=slice_,
        key=object_key("shards/0000/checkpoints/0001/x"),
        sha256=digest,
        digest=digest,
        lineage=digest,
        payload_bytes=0,
        steps=0,
        seconds=0.0,
    )
    return SliceLearned(shard=task.shard, slice=slice_, digest=digest, checkpoint=record)
