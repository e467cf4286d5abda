"""Workers that compute otherwise are named and not used, on a Ray that is only played; the others do the work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

from cluster.config.specification import ClusterSettings
from cluster.release import OtherRelease, Sent
from cluster.runtime import labels
from cluster.runtime.session import waited_for
from cluster.training import pool
from cluster.training.actor import WorkerSetup
from cluster.training.deaths import MOST_MISMATCHES
from cluster.training.pool import MOST_ROUNDS, MOST_WAITS, RayPool
from cluster.training.selection import select
from coordinator.engine.tasks import OtherConditions, check_configuration
from shards.learners.trainer import TrainTask
from shards.lineage import Configuration
from shards.specification import ModelSettings, ShardId, TrainingSettings
from storage.digests import sha256
from storage.errors import SisaError
from storage.stores.memory import MemoryStore
from tests.coordinator.records import configuration, probed
from tests.doubles.workers.fake_ray import FakeRayModule

AWAY = ActorUnavailableError("connection refused", None)
OLD = configuration()
"""Configuration of an earlier release, which has no probe."""
A, B, C = probed(b"a"), probed(b"b"), probed(b"c")

Fates = dict[int, deque[RayError | None]]


@dataclass
class _Mixed:
    """A pool on nodes of several kinds, and what it has said."""

    world: FakeRayModule
    pool: RayPool
    remarks: list[str]

    @property
    def used(self) -> list[str]:
        """The nodes with a worker that lives."""
        return sorted(str(actor.node) for actor in self.world.actors if not actor.is_dead)

    def train(self, *shards: int) -> list[int]:
        """Return the shards of which a slice was learned."""
        tasks = [
            TrainTask(shard=ShardId(shard), slices=(), lineages=(), width=1, scale=1.0, token=1) for shard in shards
        ]
        return sorted(event.shard for event in self.pool.train(tasks))


Play = Callable[..., _Mixed]


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Returns a pool on nodes that compute so; workers come to the first one that has a processor."""

    def play(*computing: Configuration | SisaError, fates: Fates | None = None, workers: int | None = None) -> _Mixed:
        nodes = {f"node-{number:02d}": each for number, each in enumerate(computing)}
        world = FakeRayModule(dict.fromkeys(nodes, True), fates or {}, nodes)
        monkeypatch.setattr(pool, "is_short", lambda: world.is_short)
        for module in (pool, labels):
            monkeypatch.setattr(module, "ray", world)
        monkeypatch.setattr(pool, "WorkerActor", world)
        remarks: list[str] = []
        setup = WorkerSetup(
            store=MemoryStore("mixed"),
            settings=sha256(b""),
            model=ModelSettings(),
            training=TrainingSettings(epochs=1, batch_size=1, learning_rate=0.1),
            classes=2,
            slices=1,
            threads=1,
            device="cpu",
            target="class",
            import_folder=Path("/nowhere"),
        )
        return _Mixed(world, RayPool(setup, ClusterSettings(workers=workers), remarks.append), remarks)

    return play


def learned(*shards: int) -> Fates:
    """Return the fates of shards of which a slice is learned at the first attempt."""
    return {shard: deque([None]) for shard in shards}


def test_those_that_would_not_repeat_what_was_trained_are_named_and_not_used(mixed: Play) -> None:
    """The work continues with the others, as many as there is room for."""
    world = mixed(A, B, A, A, fates=learned(0, 1, 2))
    assert world.pool.configuration(1, 3, A) == A
    assert world.used == ["node-00", "node-02", "node-03"]
    (reported,) = world.remarks
    assert "workers on at-node-01 (node node-01) are not used because they differ in " in reported
    assert f"(probe: {str(B.profile.probe)[:12]} instead of {str(A.profile.probe)[:12]})" in reported
    assert world.train(0, 1, 2) == [0, 1, 2]


def test_all_alike_are_asked_once(mixed: Play) -> None:
    """If all workers are alike, there is no message, and no more are started than there are tasks."""
    world = mixed(A, A, A)
    assert world.pool.configuration(1, 2, A) == A
    assert (len(world.world.actors), world.remarks) == (2, [])


def test_where_the_one_that_was_asked_is_off_others_are_tried(mixed: Play) -> None:
    """Chance decides which node the only worker comes to; not whether the work is done."""
    world = mixed(B, C, B, A, fates=learned(0))
    assert world.pool.configuration(1, 1, A) == A
    assert world.used == ["node-03"]
    assert sum("are not used" in reported for reported in world.remarks) == 2  # two kinds, of which one on two nodes
    assert world.train(0) == [0]


def test_nodes_found_wanting_are_not_asked_again(mixed: Play) -> None:
    """What a node computes does not change: the next work begins on the others, without a word."""
    world = mixed(B, A)
    for _ in range(2):
        assert world.pool.configuration(1, 1, A) == A
        world.pool.close()
    assert [actor.node for actor in world.world.actors] == ["node-00", "node-01", "node-01"]
    assert len(world.remarks) == 1


def test_what_was_trained_may_change_its_mind(mixed: Play) -> None:
    """After retraining with the bits of the other kind of nodes, those nodes are used, although avoided before."""
    world = mixed(B, A)
    assert world.pool.configuration(1, 1, A) == A
    world.pool.close()
    assert world.pool.configuration(1, 1, B) == B
    assert world.used == ["node-00"]


def test_where_none_would_repeat_it_the_largest_group_is_used(mixed: Play) -> None:
    """The caller decides whether to refuse that or to retrain."""
    world = mixed(B, C, C)
    present = world.pool.configuration(1, 3, A)
    assert present == C
    assert world.used == ["node-01", "node-02"]
    assert [reported.split(" are ")[0] for reported in world.remarks] == ["workers on at-node-00 (node node-00)"]
    with pytest.raises(OtherConditions, match="the results of the same arithmetic"):
        check_configuration(A, present)
    # Asked again they say the same, though all of these nodes are known by now.
    world.pool.close()
    assert world.pool.configuration(1, 3, A) == C


def test_before_the_first_training_the_largest_group_is_used(mixed: Play) -> None:
    """A message names the others, and they are stopped."""
    world = mixed(B, A, A, fates=learned(0, 1, 2))
    assert world.pool.configuration(1, 3, None) == A
    assert world.used == ["node-01", "node-02"]
    assert len(world.remarks) == 1


def test_no_other_node_is_tried_for_what_no_node_decides(mixed: Play) -> None:
    """Changed settings or code are the same everywhere."""
    for other in (replace(A, settings=sha256(b"other")), replace(A, model_code=sha256(b"other"))):
        world = mixed(other, other, A)
        assert world.pool.configuration(1, 1, A) == other
        assert (len(world.world.actors), world.remarks) == (1, [])


def test_the_search_has_an_end(mixed: Play) -> None:
    """Twice as many are started each time, within the limit that is set, and then it is given up."""
    many = [B] * (1 << MOST_ROUNDS)
    world = mixed(*many, A)
    assert world.pool.configuration(1, 1, A) == B
    assert len(world.world.actors) == len(many) - 1
    assert len(world.used) == 1
    assert mixed(*many, A, workers=1).pool.configuration(1, 1, A) == B


def test_busy_nodes_are_not_waited_for(mixed: Play) -> None:
    """Workers without processors are dropped, with a message."""
    world = mixed(B, A, A)
    busy = replace(world.world)
    for node in ("node-01", "node-02"):
        busy.options(label_selector={"ray.io/node-id": f"!in({','.join({'node-00', 'node-01', 'node-02'} - {node})})"})
        busy.remote(Sent(None))
        busy.actors[-1].node = node
    assert world.pool.configuration(1, 1, A) == B
    assert world.remarks == ["2 of 2 workers got no processors: going on without them"]


def test_slow_workers_are_waited_for(mixed: Play) -> None:
    """Workers with processors that are slow to start do not count as workers without processors: the pool waits for
    them as long as nothing on the cluster waits for processors, and in the end continues without them.
    """
    world = mixed(A, A, A)
    world.world.is_short, world.world.slow = False, {"node-01": 4}
    assert world.pool.configuration(1, 3) == A
    starting = [each for each in world.remarks if "starting" in each]
    assert starting == [f"1 workers are still starting; {seconds} seconds now" for seconds in (20, 40, 60)]
    assert not any("no processors" in each for each in world.remarks)
    assert len(world.pool._idle) == 3
    other = mixed(A, A)
    other.world.is_short, other.world.slow = False, {"node-01": 1_000}
    assert other.pool.configuration(1, 2) == A
    assert other.remarks[-1] == "1 of 2 workers did not start: going on without them"
    assert sum("starting" in each for each in other.remarks) == MOST_WAITS
    assert len(other.pool._idle) == 1


def test_what_an_old_store_does_not_record_cannot_be_compared_with_it(mixed: Play) -> None:
    """Workers of several probes would all do; those used are of one, and those that come later are held to it."""
    world = mixed(A, B, B, fates={0: deque([AWAY, None]), 1: deque([None])})
    present = world.pool.configuration(1, 3, OLD)
    check_configuration(OLD, present)
    assert present == B
    assert world.used == ["node-01", "node-02"]
    world.pool._profiles.clear()  # as though node-00 had joined since
    world.pool._avoided = frozenset()
    assert world.train(0, 1) == [0, 1]
    assert "a worker on at-node-00 (node node-00) is not used, another one is started: " in world.remarks[-1]
    assert select(OLD, [A, B]) == select(OLD, [B, A])


@pytest.mark.parametrize("died", [AWAY, ActorDiedError()])
def test_a_successor_that_computes_otherwise_is_passed_over(died: RayError, mixed: Play) -> None:
    """With its node a worker is lost; the next one comes to a node of another kind, the one after it does the task."""
    world = mixed(A, B, A, fates={0: deque([died, None])})
    assert world.pool.configuration(1, 1, A) == A
    if died is not AWAY:
        world.world.nodes_alive["node-00"] = False
    assert world.train(0) == [0]
    assert [actor.node for actor in world.world.actors] == ["node-00", "node-01", "node-02"]
    assert (
        "node-01) is not used, another one is started: the constituents were trained under other" in world.remarks[-1]
    )


def test_where_no_other_successor_comes_it_is_said_why(mixed: Play) -> None:
    """There is an end: no node that is left, or too many that compute otherwise."""
    world = mixed(A, B, fates={0: deque([AWAY, None])})
    world.pool.configuration(1, 1, A)
    with pytest.raises(OtherConditions, match="the results of the same arithmetic"):
        world.train(0)
    world = mixed(A, *[B] * (MOST_MISMATCHES + 3), fates={0: deque([AWAY, None])})
    world.pool.configuration(1, 1, A)
    with pytest.raises(OtherConditions, match="the results of the same arithmetic"):
        world.train(0)
    assert len(world.world.actors) == 1 + MOST_MISMATCHES
    # The next attempt finds nodes that it knows, and none of them to be of use.
    world.pool.close()
    world.world.nodes_alive["node-00"] = True
    assert world.pool.configuration(1, 1, A) == A


def test_those_at_work_take_over_what_no_successor_can(mixed: Play) -> None:
    """No new worker computes alike: the task waits for one that is at work."""
    world = mixed(A, A, B, fates={0: deque([AWAY, None]), 1: deque([None])})
    world.pool.configuration(1, 2, A)
    assert world.train(0, 1) == [0, 1]
    assert sum("another one is started" in reported for reported in world.remarks) == 1


def test_once_all_that_computed_alike_are_gone_it_is_said(mixed: Play) -> None:
    """Nodes of another kind cannot help, and nothing hangs."""
    world = mixed(A, A, B, B, fates={0: deque([AWAY, None]), 1: deque([AWAY, None])})
    world.pool.configuration(1, 2, A)
    with pytest.raises(OtherConditions, match="the results of the same arithmetic"):
        world.train(0, 1)


def test_what_is_waited_for_is_said_of_the_nodes_that_count(mixed: Play) -> None:
    """Free processors on avoided nodes do not count."""
    mixed(A, B)
    reported = waited_for(ClusterSettings(), {"node-00"})
    assert reported is not None
    assert reported.startswith("waiting for workers: nodes whose workers compute the same bits hold 1 at once, of all ")
    reported = waited_for(ClusterSettings(), {"node-00", "node-01"})
    assert (
        reported == "waiting for a node of the same kind: no node whose workers compute the same bits can hold a worker"
    )


def test_a_node_of_another_release_is_named_and_its_worker_not_asked_again(mixed: Play) -> None:
    """The work is refused with the worker's own words, and no worker stays that would repeat them: a node that was
    upgraded meanwhile is found so by the next attempt.
    """
    refused = OtherRelease("the worker runs another release", worker="0.3.0", started_by="0.2.0", machine="n-1")
    world = mixed(A, refused)
    with pytest.raises(OtherRelease, match=r"\[worker=0\.3\.0 started_by=0\.2\.0 machine=n-1\]"):
        world.pool.configuration(1, 2, A)
    assert world.used == []
    world.world.computing = {"node-00": A, "node-01": A}
    assert world.pool.configuration(1, 2, A) == A
    assert world.used == ["node-00", "node-01"]
