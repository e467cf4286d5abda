"""The worker pool, on a Ray that is only played: what counts against a task, and who goes on with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, OutOfMemoryError, RayError

from cluster.config.specification import ClusterSettings
from cluster.training import pool
from cluster.training.pool import MOST_DEATHS, MOST_LOSSES, Deaths, Fate, RayPool, fate_of
from shards.learners.trainer import SliceLearned, TrainTask
from shards.lineage import CheckpointRecord
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256
from storage.errors import Invalid, Unavailable
from storage.objects import object_key

Played = Callable[..., tuple[RayPool, list[str]]]

DIED = ActorDiedError()
AWAY = ActorUnavailableError("connection refused", None)


@dataclass(eq=False)
class _Actor:
    """A worker, which begins once there is a processor for it."""

    world: _World
    node: str | None = None
    is_dead: bool = False

    def __post_init__(self) -> None:
        self.__ray_call__ = _Method(lambda _: _Answer(actor=self))
        self.train = _Method(lambda task: _Answer(actor=self, task=task))


@dataclass(frozen=True)
class _Method:
    remote: Callable[[Any], _Answer]


@dataclass(eq=False)
class _Answer:
    """What a worker will have said: where it is, or what it has learned."""

    actor: _Actor
    task: TrainTask | None = None
    is_over: bool = False

    def __next__(self) -> Self:
        if self.is_over:
            raise StopIteration
        return self


@dataclass
class _World:
    """A cluster of nodes with a processor each, and what becomes of each attempt at a shard."""

    nodes_alive: dict[str, bool]
    fates: dict[int, deque[RayError | None]]
    """By shard; None: the slice is learned. A node whose worker is away is lost."""
    actors: list[_Actor] = field(default_factory=list)

    def remote(self, _setup: object, *_contents: object) -> _Actor:
        self.actors.append(_Actor(self))
        self._place()
        return self.actors[-1]

    def options(self, **_: object) -> Self:
        return self

    def wait(self, answers: Sequence[_Answer], *, timeout: float, num_returns: int = 1) -> tuple[list[_Answer], object]:
        ready = [answer for answer in answers if answer.actor.node is not None]
        assert ready or not timeout, "this would wait for ever"
        return ready[:num_returns], None

    def get(self, answer: _Answer, timeout: float = 1.0) -> object:
        if answer.task is None:
            if answer.actor.node is None:
                raise GetTimeoutError
            return answer.actor.node
        fate = self.fates[answer.task.shard].popleft()
        answer.is_over = not self.fates[answer.task.shard]
        if fate is None:
            return _learned(answer.task)
        if isinstance(fate, ActorUnavailableError):
            assert answer.actor.node is not None
            self.nodes_alive[answer.actor.node] = False
        raise fate

    def kill(self, actor: _Actor) -> None:
        actor.is_dead = True
        self._place()

    def nodes(self) -> list[dict[str, object]]:
        return [{"NodeID": node, "Alive": is_alive} for node, is_alive in self.nodes_alive.items()]

    def _place(self) -> None:
        taken = {actor.node for actor in self.actors if not actor.is_dead}
        free = iter([node for node, is_alive in self.nodes_alive.items() if is_alive and node not in taken])
        for actor in self.actors:
            if actor.node is None and not actor.is_dead:
                actor.node = next(free, None)


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


def _task(shard: int) -> TrainTask:
    return TrainTask(shard=ShardId(shard), slices=(), lineages=(), width=1, scale=1.0, token=1)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    """Returns a pool with a worker on each of so many nodes, given what becomes of each attempt at each shard."""

    def play(nodes: int, *fates: Sequence[RayError | None]) -> tuple[RayPool, list[str]]:
        names = [f"node-{number}" for number in range(nodes)]
        world = _World(dict.fromkeys(names, True), {shard: deque(each) for shard, each in enumerate(fates)})
        monkeypatch.setattr(pool, "ray", world)
        monkeypatch.setattr(pool, "WorkerActor", world)
        remarks: list[str] = []
        setup: Any = SimpleNamespace(files=())
        made = RayPool(setup, ClusterSettings(), remarks.append)
        made._idle = [made._start() for _ in names]
        return made, remarks

    return play


def test_lost_nodes_are_no_crashes(played: Played) -> None:
    """Many nodes may be lost under a task; each loss is told, and none counts as a death of its own."""
    made, remarks = played(MOST_LOSSES + 1, [DIED] * (MOST_DEATHS - 1) + [AWAY] * (MOST_LOSSES - 1) + [None])
    assert len(list(made.train([_task(0)]))) == 1
    assert remarks[0] == "a worker died: another one goes on with shard 0 after slice 0"
    assert remarks[-1] == "a worker was lost with its node: another one goes on with shard 0 after slice 0"


@pytest.mark.parametrize(
    ("error", "most", "match"),
    [
        (DIED, MOST_DEATHS, f"workers died {MOST_DEATHS} times in a row .*memory and Ray's logs"),
        (OutOfMemoryError("too large"), MOST_DEATHS, f"workers died {MOST_DEATHS} times in a row"),
        (AWAY, MOST_LOSSES, f"workers were lost {MOST_LOSSES} times in a row .*'ray status'"),
    ],
)
def test_both_have_an_end(error: RayError, most: int, match: str, played: Played) -> None:
    """A task that kills its workers is given up soon, one whose nodes are taken away late; each names where to look."""
    made, remarks = played(most + 1, [error] * most)
    with pytest.raises(Unavailable, match=match):
        list(made.train([_task(0)]))
    assert len(remarks) == most - 1


def test_a_slice_learned_begins_a_new_count(played: Played) -> None:
    """Deaths count from the last slice learned."""
    almost = [DIED] * (MOST_DEATHS - 1)
    made, remarks = played(MOST_DEATHS, [*almost, None, *almost, None])
    assert len(list(made.train([_task(0)]))) == 2
    assert remarks[-1].endswith("after slice 1")
    assert Deaths(crashes=1).and_one(Fate.LOST).and_one(Fate.ABSENT) == Deaths(crashes=1, losses=2)


def test_the_idle_take_over_from_who_waits(played: Played) -> None:
    """With a node its processor is lost: its task is done by the worker that has one and nothing else to do."""
    made, remarks = played(2, [AWAY, None], [None])
    events = list(made.train([_task(0), _task(1)]))
    assert sorted(event.shard for event in events) == [0, 1]
    assert len(remarks) == 1


def test_nodes_that_are_gone_may_come_back(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Demands that no node ever met are a mistake; those that none meets any more are worth another attempt."""
    made, _ = played(1, [])

    def refuse(*_: object) -> int:
        raise Invalid("no node can hold a worker", "add a node")

    monkeypatch.setattr(pool, "worker_count", refuse)
    with pytest.raises(Invalid, match="no node can hold a worker"):
        made._room(1)
    monkeypatch.setattr(pool, "worker_count", lambda *_: 1)
    assert made._room(1) == 1
    monkeypatch.setattr(pool, "worker_count", refuse)
    with pytest.raises(Unavailable, match="no node is left that can hold a worker"):
        made._room(1)


def test_the_fates() -> None:
    """What became of a worker follows from its error, where it was, and which nodes are lost."""
    preempted = ActorDiedError()
    preempted._preempted = True
    assert fate_of(AWAY, "node-1", ()) is Fate.LOST
    assert fate_of(preempted, "node-1", ()) is Fate.LOST
    assert fate_of(DIED, "node-1", {"node-1"}) is Fate.LOST
    assert fate_of(DIED, "node-1", {"node-2"}) is Fate.DIED
    assert fate_of(OutOfMemoryError("too large"), "node-1", {"node-2"}) is Fate.DIED
    assert fate_of(DIED, None, {"node-2"}) is Fate.ABSENT
