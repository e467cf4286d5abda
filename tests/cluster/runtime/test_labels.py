"""Placement by labels: what Ray is asked, and the messages when no node fits, with a fake Ray."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import ray

import cluster.training.actor
import cluster.training.workers
from cluster.config.specification import ClusterSettings, FederationSpecification
from cluster.coordinator_actor import launch as launching
from cluster.release import Sent
from cluster.runtime import nodes, session
from cluster.runtime import task_pool as crew
from cluster.runtime.labels import (
    check_here,
    check_own_place,
    labels_in_words,
    nodes_with,
    place_in_words,
    require_nodes,
    selecting,
)
from cluster.runtime.session import waited_for, worker_count
from cluster.runtime.task_pool import RayCrew
from cluster.serving import deployment
from cluster.training import ingest as ingesting
from cluster.training import pool, silence
from cluster.training.actor import WorkerSetup, WorkerShell
from cluster.training.pool import RayPool
from cluster.training.workers import Workers, worker_setup
from shards.slices.ingest import IngestTask
from shards.tombstones import DigestSet
from storage.errors import Invalid, InvariantBroken, Unavailable
from storage.stores.memory import MemoryStore
from tests.doubles.federation import KEY, specification_of

NORTH: Mapping[str, str] = {"site": "north"}
PINNED = ClusterSettings(labels=NORTH)


def _node(name: str, labels: Mapping[str, str], *, alive: bool = True, **resources: float) -> dict[str, Any]:
    has = {"ray.io/node-id": name, **labels}
    return {"NodeID": name, "Alive": alive, "Labels": has, "Resources": resources, "NodeManagerAddress": "10.0.0.1"}


HEAD = _node("head", {}, CPU=64.0, GPU=8.0)
SOUTH = _node("south", {"site": "south"}, CPU=32.0)
LOST = _node("lost", NORTH, alive=False, CPU=16.0)
SMALL = _node("small", NORTH, CPU=2.0)
LARGE = _node("large", {**NORTH, "zone": "b"}, CPU=4.0)


@dataclass
class _Here:
    """What this process knows of itself."""

    labels: Mapping[str, str] = field(default_factory=dict)
    gcs_address: str = ""

    def get_node_id(self) -> str:
        """Return the node's id."""
        return "here"

    def get_node_labels(self) -> Mapping[str, str]:
        """Return the node's labels."""
        return self.labels


def _play(patch: pytest.MonkeyPatch, *alive: dict[str, Any], here: Mapping[str, str] | None = None) -> None:
    patch.setattr(ray, "nodes", lambda: list(alive))
    patch.setattr(ray, "available_resources", lambda: {"CPU": 96.0})
    patch.setattr(ray, "get_runtime_context", lambda: _Here(here or {}))
    patch.setattr(session, "is_reachable", lambda _: True)


def _pinned(**changes: Any) -> FederationSpecification:
    return replace(specification_of(shards=2, slices=1), cluster=PINNED, **changes)


# ---------------------------------------------------------------------------------------------------------- preflight


def test_only_nodes_with_all_labels_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors elsewhere hold no worker of a pinned federation; a node must have every label, and be alive."""
    _play(monkeypatch, HEAD, SOUTH, LOST, SMALL, LARGE)
    assert worker_count(PINNED, 99) == 2 + 4
    assert worker_count(ClusterSettings(labels={**NORTH, "zone": "b"}), 99) == 4
    assert worker_count(ClusterSettings(), 999) == 64 + 32 + 2 + 4
    assert nodes_with(NORTH) == require_nodes(NORTH) == [SMALL, LARGE]
    assert (nodes.processors(), nodes.processors_of(NORTH)) == (102, 6)


@pytest.mark.parametrize("alive", [(), (HEAD, SOUTH, LOST)])
def test_a_site_that_is_away(alive: tuple[dict[str, Any], ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """If no node has the labels, the work waits for one, naming the site; the specification is not to blame."""
    _play(monkeypatch, *alive)
    away = r"no node of the cluster has the labels site=north: waiting for site north\. .*No other node does its work\."
    with pytest.raises(Unavailable, match=away):
        worker_count(PINNED, 1)
    with pytest.raises(Unavailable, match=away):
        nodes.processors_of(NORTH)
    assert nodes_with(NORTH) == []
    assert waited_for(PINNED) == "waiting for site north: no node with the labels site=north can hold a worker"
    other = ClusterSettings(labels={"zone": "b", "rack": "7"})
    with pytest.raises(Unavailable, match="the labels rack=7 zone=b: waiting for a node with rack=7 zone=b"):
        worker_count(other, 1)


def test_a_site_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that no node of the site can ever hold is a mistake, even if other nodes could hold it."""
    _play(monkeypatch, HEAD, SMALL, LARGE)
    with pytest.raises(Invalid, match="the largest of 2 with the labels site=north has 4 CPUs and 0 GPUs"):
        worker_count(replace(PINNED, cpus_per_worker=8), 1)
    with pytest.raises(Invalid, match="none of 2 nodes with the labels site=north has a GPU"):
        worker_count(replace(PINNED, gpus_per_worker=1), 1)


def test_what_is_waited_for_at_a_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how much room the site's nodes have, regardless of free processors elsewhere."""
    _play(monkeypatch, HEAD, SMALL)
    assert waited_for(ClusterSettings()) is None
    reported = "waiting for workers: nodes with the labels site=north hold 2 at once, of all federations together"
    assert waited_for(PINNED) == reported
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 0.5})
    assert waited_for(ClusterSettings()) == "waiting for workers: 0.5 CPUs are free in the cluster, a worker takes 1"


def test_words() -> None:
    """Labels and places have one form in all messages; without labels Ray gets no selector."""
    assert labels_in_words({"b": "2", "a": "1"}) == "a=1 b=2"
    assert place_in_words({"site": "north", "a": "1"}) == "site north"
    assert selecting({}) == {}
    assert selecting(NORTH) == {"label_selector": {"site": "north"}}


# -------------------------------------------------------------------------------------------------- what Ray is asked


@dataclass
class _Asked:
    """Stands for what Ray makes actors and tasks of: remembers the options, makes nothing."""

    options_given: list[dict[str, Any]] = field(default_factory=list)
    begun: list[tuple[Any, ...]] = field(default_factory=list)

    def options(self, **given: Any) -> _Asked:
        self.options_given.append(given)
        return self

    def remote(self, *arguments: Any) -> Any:
        self.begun.append(arguments)
        return self

    @property
    def __ray_call__(self) -> _Asked:
        return self

    def __hash__(self) -> int:
        return id(self)


def test_workers_are_placed_by_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's actor has the selector, and without labels none; its setup says where it must be."""
    asked, setup = _Asked(), worker_setup(_pinned(), MemoryStore("nobody"))
    monkeypatch.setattr(pool, "WorkerActor", asked)
    for settings in (PINNED, ClusterSettings()):
        RayPool(setup, settings, print)._start()
    assert [given.get("label_selector") for given in asked.options_given] == [NORTH, None]
    assert setup.labels == NORTH


def test_a_worker_that_does_not_come_up_is_asked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """While workers are missing, a message says what they wait for, again and again, until the site is back."""
    _play(monkeypatch, HEAD, SOUTH)
    answers = iter([([], ["worker"]), ([], ["worker"]), (["worker"], [])])
    monkeypatch.setattr(ray, "wait", lambda *_, **__: next(answers))
    monkeypatch.setattr(ray, "get", list)  # Ray itself would be joined
    said: list[str] = []
    setup: Any = None
    monkeypatch.setattr(silence, "is_short", lambda: True)
    assert RayPool(setup, PINNED, said.append)._wait({}, starting=True) == "worker"
    reported = "waiting for site north: no node with the labels site=north can hold a worker"
    assert said == [f"{reported}; 20 seconds now", f"{reported}; 40 seconds now"]


def test_tasks_that_read_are_placed_by_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task has the selector, and looks where it is before it reads."""
    asked = _Asked()

    class Done:
        """Each task has ended, and has said nothing."""

        @staticmethod
        def wait(tasks: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
            """Return the first."""
            return tasks[:1], []

        @staticmethod
        def get(_: object) -> None:
            """Return nothing."""

    monkeypatch.setattr(crew, "perform_task", asked)
    monkeypatch.setattr(crew, "ray", Done)
    touched: list[object] = []

    def act(thing: int, name: str) -> None:
        touched.append(thing)

    RayCrew(1, print, NORTH)(act, [7], lambda: "name", lambda _: None)
    assert asked.options_given == [{"scheduling_strategy": "SPREAD", "label_selector": NORTH}]
    (sent,) = asked.begun
    monkeypatch.setattr("cluster.runtime.task_pool.resource.setrlimit", lambda *_: None)
    _play(monkeypatch, here={"site": "south"})
    with pytest.raises(InvariantBroken, match="on a node without the labels site=north; it touched nothing"):
        crew.perform(*sent)
    assert touched == []
    _play(monkeypatch, here={**NORTH, "zone": "b"})
    crew.perform(*sent)
    assert touched == [7]


def test_reading_is_for_the_sites_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tasks read as the site has processors, and only its nodes are asked what they see."""
    _play(monkeypatch, HEAD, SOUTH, SMALL, here=NORTH)
    monkeypatch.setattr(nodes, "_answered", lambda answer: answer)
    asked: list[str] = []

    def ask(node: dict[str, Any], *_: object) -> list[int | None]:
        asked.append(node["NodeID"])
        return []

    monkeypatch.setattr(nodes, "_ask", ask)
    monkeypatch.setattr(ingesting, "payload_bytes", lambda _: ingesting.LARGE_BYTES)
    source: Any = type("Source", (), {"files": ()})

    class Idle:
        """Workers that only listen."""

        join = release = staticmethod(lambda: None)

    workers: Any = Idle
    specification = specification_of(shards=1, slices=1)
    task = IngestTask(
        source=source,
        data=specification.data,
        partition=specification.partition,
        key=KEY,
        store=MemoryStore("nobody"),
        tombstones=DigestSet,
        new_name=lambda: "name",
    )
    monkeypatch.setattr(ingesting, "buffer_within", lambda *_: 1)
    gathering: Any = ingesting.ingestion_of(task, PINNED, workers, print)
    assert asked == ["small"]
    assert (gathering.pool._tasks, gathering.pool._labels) == (2, NORTH)


@pytest.mark.parametrize("store", ["./federation", "s3://bucket/prefix"])
def test_coordinator_and_replicas_are_placed_by_their_labels(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels alone say where they are, also where the store is a folder; without labels all is as it was."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    pinned = _pinned(store=store)
    assert launching._place(pinned) == {"label_selector": NORTH}
    assert deployment.place_of_replicas(pinned.cluster, pinned.store) == {"label_selector": NORTH}
    assert launching._place(replace(_pinned(store="s3://bucket"), cluster=ClusterSettings())) == {}


# ----------------------------------------------------------------------------------------------- looking once more


def test_a_worker_that_is_elsewhere_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that Ray put on a node without the labels refuses to work, with an error that names no data."""
    monkeypatch.setattr(cluster.training.actor, "keep_silent", lambda: None)
    setup: WorkerSetup = worker_setup(_pinned(), MemoryStore("nobody"))
    _play(monkeypatch, here={"site": "south"})
    shell: Any = WorkerShell(Sent(setup))
    with pytest.raises(InvariantBroken, match=r"placed on a node without the labels site=north.*\[node=here\]"):
        shell._worker  # noqa: B018  it is made when it is looked at


def test_who_looks() -> None:
    """Every process that Ray starts for a federation checks its node: worker, ingest task, replica; writers do, too."""
    room = Path(cluster.training.workers.__file__).parents[1]
    looking = {
        path.relative_to(room).as_posix()
        for path in room.rglob("*.py")
        if {"check_here", "check_own_place"} & _called(path)
    }
    assert {"runtime/task_pool.py", "training/actor.py", "serving/deployment.py", "writer/writer.py"} <= looking


def _called(path: Path) -> set[str]:
    calls = (each.func for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(each, ast.Call))
    return {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls}


def test_a_command_that_writes_is_at_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that would read data itself must be on a node with the labels; else the error names one that can."""
    _play(monkeypatch, HEAD, SMALL, here={})
    with pytest.raises(Invalid, match="not on a node with the labels site=north.*Run 'sisa launch'"):
        check_own_place(NORTH)
    _play(monkeypatch, HEAD, here={})
    with pytest.raises(Unavailable, match="waiting for site north"):
        check_own_place(NORTH)
    _play(monkeypatch, HEAD, SMALL, here=NORTH)
    check_own_place(NORTH)
    check_here(NORTH)
    check_own_place({})


def test_a_local_ray_needs_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this process would start Ray, with the labels, nothing is started to look; where one is, it is joined."""
    joined: list[ClusterSettings] = []
    monkeypatch.setattr(cluster.training.workers, "join_ray", joined.append)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    Workers(_pinned(), MemoryStore("nobody"), print).check_own_place()
    elsewhere = replace(PINNED, address="10.0.0.1:6379")
    _play(monkeypatch, SMALL, here=NORTH)
    Workers(replace(_pinned(), cluster=elsewhere), MemoryStore("nobody"), print).check_own_place()
    Workers(replace(_pinned(), cluster=ClusterSettings(address="auto")), MemoryStore("n"), print).check_own_place()
    assert joined == [elsewhere]


def test_labels_are_given_to_a_ray_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same specification runs on one machine: a local Ray has the labels, one that is joined keeps its own."""
    from cluster.runtime import session

    begun: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **given: begun.append(given))
    monkeypatch.setattr(session, "_spill_folder", lambda: "/nowhere")
    monkeypatch.setattr(session, "check_cluster", lambda _: None)
    session.join_ray(PINNED)
    session.join_ray(replace(PINNED, address="10.0.0.1:6379"))
    assert [given["labels"] for given in begun] == [NORTH, None]
