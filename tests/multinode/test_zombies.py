"""Zombies: workers and coordinators that go on after their node was declared dead commit nothing and leave nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cluster
from cluster.config.specification import read_specification
from cluster.coordinator_actor import launch as launching
from cluster.coordinator_actor.launch import launch_coordinator
from coordinator.engine.ledger import read_ledger, read_state
from coordinator.engine.sweep import left_over
from storage.objects import ObjectKey
from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import ALSO, ERASED, Expected, digests_of
from tests.multinode.gate import Gate
from tests.multinode.nodes import NOT_HEAD, Nodes, is_at_work
from tests.multinode.patience import until
from tests.multinode.stall import Stall
from tests.multinode.writers import is_idle, take_lock_away, writer_of

pytestmark = [pytest.mark.multinode, pytest.mark.slow]


def left_behind(home: UserFolder) -> list[ObjectKey]:
    """Return the objects to which the state does not refer."""
    state = read_state(home.objects)
    assert state is not None
    return list(left_over(home.objects, state))


def test_a_zombie_worker(home: UserFolder, nodes: Nodes, gate: Gate, expected: Expected) -> None:
    """A worker that is cut off while it retrains is replaced; what it learned, of people erased meanwhile, neither
    becomes current nor stays in the store, though the coordinator is the same all the time.
    """
    launch_coordinator(read_specification(home.config))
    with cluster.connect(home.config) as federation:
        with gate.during(lambda: federation.erase(ids=[ERASED], request_id="er-1"), "keeping") as erasure:
            (zombie,) = erasure.workers
            nodes.cut_off(nodes.of(zombie))
        assert erasure.answer.result().state == "complete"
        token = read_ledger(home.objects).token
        assert federation.erase(ids=[ALSO], request_id="er-2").state == "complete"
        until(lambda: is_idle(home), "the coordinator to have nothing more to do")
        assert is_at_work(zombie)
        gate.open()
        until(lambda: gate.is_through(zombie), "the zombie to keep what it learned")
        until(lambda: left_behind(home) == [], "the zombie to take it back")
        assert read_ledger(home.objects).token == token
        assert digests_of(federation.status()) == expected.erased_also
        assert federation.verify().holds


def test_a_zombie_coordinator(
    home: UserFolder, nodes: Nodes, gate: Gate, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that is cut off with its node in mid-erasure, and goes on when another one has taken over and
    ended its work, is fenced at the next thing that it would record.
    """
    # Not bound to one node, as with a store in a bucket; and the head's loss would be the cluster's.
    monkeypatch.setattr(launching, "_place", lambda _: {"resources": dict.fromkeys(NOT_HEAD, 0.1)})
    launch_coordinator(read_specification(home.config))
    until(lambda: is_idle(home), "the coordinator to be at work")
    with cluster.connect(home.config) as federation, ThreadPoolExecutor(1) as pool:
        token = read_ledger(home.objects).token
        stall = Stall(home.store / slices_of(home)[0])
        erasure = pool.submit(lambda: federation.erase(ids=[ERASED], request_id="er-1"))
        stall.reached()  # the request is accepted, its point not yet removed
        zombie = writer_of(home)
        stall.mend()
        take_lock_away(home)
        nodes.cut_off(nodes.of(zombie))
        assert erasure.result().state == "complete"
        assert writer_of(home) != zombie
        assert holds_a_lock_that_is_gone(zombie)
        stall.end()
        until(lambda: not holds_a_lock_that_is_gone(zombie), "the zombie to be fenced")
        assert is_at_work(zombie)
        assert read_ledger(home.objects).token == token + 1
        until(lambda: left_behind(home) == [], "all to be swept that is of no use")
        assert digests_of(federation.status()) == expected.erased
        # What it put at a number of the journal that was pruned is read by nobody, and goes with the next prune.
        assert federation.erase(ids=[ALSO], request_id="er-2").state == "complete"
        assert digests_of(federation.status()) == expected.erased_also
        assert federation.verify().holds


def slices_of(home: UserFolder) -> list[ObjectKey]:
    """Return the slice files."""
    state = read_state(home.objects)
    assert state is not None
    return [part.key for shard in state.shards for record in shard.slices for part in record.parts]


def holds_a_lock_that_is_gone(process: int) -> bool:
    """Return whether the process holds the right to write in a lock file that was taken away."""
    held: list[Any] = []
    for each in Path(f"/proc/{process}/fd").iterdir():
        try:
            held.append(each.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
    return any(str(name).endswith("writer.lock (deleted)") for name in held)
