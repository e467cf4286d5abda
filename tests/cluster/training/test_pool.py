"""The worker pool on a fake Ray: which deaths count against a task, and which worker continues it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayError

from cluster.config.specification import ClusterSettings
from cluster.training import pool
from cluster.training.deaths import MOST_DEATHS, MOST_LOSSES, Deaths, WorkerEnd, end_of_worker
from cluster.training.pool import RayPool
from shards.learners.trainer import TrainTask
from shards.specification import ShardId
from storage.errors import Invalid, Unavailable
from tests.doubles.workers.fake_ray import FakeRayModule

Played = Callable[..., tuple[RayPool, list[str]]]

DIED = ActorDiedError()
AWAY = ActorUnavailableError("connection refused", None)


def _task(shard: int) -> TrainTask:
    return TrainTask(shard=ShardId(shard), slices=(), lineages=(), width=1, scale=1.0, token=1)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    """Returns a pool with a worker on each of the given number of nodes, and the end of each attempt at each shard."""

    def play(nodes: int, *fates: Sequence[RayError | None]) -> tuple[RayPool, list[str]]:
        names = [f"node-{number}" for number in range(nodes)]
        world = FakeRayModule(dict.fromkeys(names, True), {shard: deque(each) for shard, each in enumerate(fates)})
        monkeypatch.setattr(pool, "ray", world)
        monkeypatch.setattr(pool, "WorkerActor", world)
        remarks: list[str] = []
        setup: Any = SimpleNamespace(files=(), import_folder=Path(), companions=None)
        made = RayPool(setup, ClusterSettings(), remarks.append)
        made._idle = [made._start() for _ in names]
        return made, remarks

    return play


def test_a_declared_file_that_is_gone_is_named(tmp_path: Path) -> None:
    """A coordinator lives long: the file may be gone when it starts workers again."""
    setup: Any = SimpleNamespace(files=("base.pt",), import_folder=tmp_path, companions=None)
    with pytest.raises(Invalid, match=r"\[model\] files: there is no file 'base\.pt' next to the specification"):
        RayPool(setup, ClusterSettings(), print)._carried()


def test_lost_nodes_are_no_crashes(played: Played) -> None:
    """A task may lose many nodes; a message reports each loss, and none counts as a death that the task caused."""
    made, remarks = played(MOST_LOSSES + 1, [DIED] * (MOST_DEATHS - 1) + [AWAY] * (MOST_LOSSES - 1) + [None])
    assert len(list(made.train([_task(0)]))) == 1
    assert remarks[0] == "a worker died: another one continues with shard 0 after slice 0"
    assert remarks[-1] == "a worker was lost with its node: another one continues with shard 0 after slice 0"


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
    assert Deaths(crashes=1).and_one(WorkerEnd.LOST).and_one(WorkerEnd.ABSENT) == Deaths(crashes=1, losses=2)


def test_the_idle_take_over_from_who_waits(played: Played) -> None:
    """When a node is lost, so is its processor: an idle worker that still has a processor does the task."""
    made, remarks = played(2, [AWAY, None], [None])
    events = list(made.train([_task(0), _task(1)]))
    assert sorted(event.shard for event in events) == [0, 1]
    assert len(remarks) == 1


def test_a_head_that_is_away_is_asked_nothing(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question to it would block for a minute, in which the workers' results, which need no head, would wait."""
    made, remarks = played(1, [])
    answers = iter([([], ["work"]), ([], ["work"]), (["work"], [])])
    monkeypatch.setattr(pool, "ray", SimpleNamespace(wait=lambda *_, **__: next(answers)))
    monkeypatch.setattr(pool, "does_head_answer", lambda: False)
    assert made._wait({"work": "worker"}, starting=True) == "work"
    fact = pool._HEAD_IS_AWAY
    assert remarks == [f"{fact}; 20 seconds now", f"{fact}; 40 seconds now"]


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


def test_workers_that_were_prepared_are_those_that_are_used(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing waits for nothing and starts what the tasks need once; only what is missing is started later."""
    made, remarks = played(3, [])
    monkeypatch.setattr(pool, "worker_count", lambda _, tasks, *__: tasks)
    world: Any = vars(pool)["ray"]
    made._idle.clear()
    world.actors.clear()
    monkeypatch.setattr(world, "wait", lambda *_, **__: pytest.fail("it waits"))
    made.prepare(1, 2, None)
    made.prepare(1, 2, None)
    prepared = list(world.actors)
    assert made._idle == prepared
    assert len(prepared) == 2
    monkeypatch.setattr(made, "_ask", lambda _, workers, *__, **___: dict.fromkeys(workers, "alike"))
    monkeypatch.setattr(pool, "select", lambda *_: "alike")
    monkeypatch.setattr(pool, "mismatched_nodes", lambda *_: frozenset())
    made._gather(1, 3, None)
    assert world.actors[:2] == prepared
    assert len(world.actors) == 3
    assert remarks == []


def test_a_death_at_the_start_is_no_end(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may be started on a node that is lost before Ray notices: others are started, a few times."""
    made, remarks = played(1, [])
    attempts: list[int] = []
    found: dict[Any, Any] = {made._idle[0]: object()}

    def gather(*_: object) -> dict[Any, Any]:
        attempts.append(len(attempts))
        if len(attempts) < deaths + 1:
            raise DIED
        return found

    monkeypatch.setattr(made, "_gather", gather)
    monkeypatch.setattr(made, "_use", lambda answers, *_: answers)
    deaths = 1
    gathered: object = made.configuration(1, 1)
    assert gathered is found
    assert len(remarks) == 0  # it was idle, and may have died long ago
    attempts.clear()
    deaths = pool.MOST_STARTS - 1
    later: object = made.configuration(1, 1)
    assert later is found
    assert remarks == ["a worker died while it started: others are started"] * deaths
    attempts.clear()
    deaths = pool.MOST_STARTS
    with pytest.raises(Unavailable, match=f"workers died {deaths} times in a row while they started"):
        made.configuration(1, 1)
    assert len(attempts) == deaths


def test_the_fates() -> None:
    """What became of a worker follows from its error, where it was, and which nodes are lost."""
    preempted = ActorDiedError()
    preempted._preempted = True
    assert end_of_worker(AWAY, "node-1", ()) is WorkerEnd.LOST
    assert end_of_worker(preempted, "node-1", ()) is WorkerEnd.LOST
    assert end_of_worker(DIED, "node-1", {"node-1"}) is WorkerEnd.LOST
    assert end_of_worker(DIED, "node-1", {"node-2"}) is WorkerEnd.DIED
    assert end_of_worker(OutOfMemoryError("too large"), "node-1", {"node-2"}) is WorkerEnd.DIED
    assert end_of_worker(DIED, None, {"node-2"}) is WorkerEnd.ABSENT
