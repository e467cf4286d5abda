"""A federation that is served under steady load loses in turn, in the middle of one erasure, all that a cluster may."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event

import pytest
import ray

import cluster
from cluster.client import Client
from cluster.config.specification import read_specification
from cluster.coordinator_actor.launch import launch_coordinator
from cluster.serving import deployment
from storage.errors import SisaError, Unavailable
from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import ALSO, ERASED, Expected, digests_of
from tests.multinode.gate import Gate
from tests.multinode.nodes import Nodes
from tests.multinode.patience import until
from tests.multinode.writers import writer_of
from tests.serving.on_ray import REPLICAS, Served, serve_settings, served_on_ray
from tests.serving.test_under_load import asked_without_pause
from tests.serving.world import points

pytestmark = [pytest.mark.multinode, pytest.mark.slow]

HEAD = {"resources": {"node:__internal_head__": 0.001}}
"""Where replicas are: all nodes here have one address, by which they are bound to the node of a store in a folder."""

CALLERS = 2
BREATH_SECONDS = 0.2
"""How long a caller pauses after a few questions, because processes that are starting need the processors, too."""

ANSWERS = 60
"""How many answers have to arrive while something is away, and how many afterwards."""


@dataclass(slots=True)
class Load:
    """What callers met who ask again and again, and never twice for one answer."""

    served: Served
    generations: set[int] = field(default_factory=set)
    unanswered: list[SisaError] = field(default_factory=list)
    """Serve's own answers for what a dead replica had in hand."""
    answers: int = 0
    breath: Event = field(default_factory=Event)
    """Never set."""

    def ask(self) -> None:
        """Ask a few times. Raises where there is no answer, and where one is tainted."""
        with Client(self.served.url, self.served.tokens["predict"], pause=_never) as client:
            for _ in range(5):
                # Constituents in quarantine by now must not be in the answer.
                floor = self.served.state().floor
                try:
                    found = client.predict(points()["points"])
                except Unavailable:
                    raise
                except SisaError as error:
                    self.unanswered.append(error)
                    continue
                assert found.generation >= floor
                self.generations.add(found.generation)
                self.answers += 1
        self.breath.wait(BREATH_SECONDS)

    def goes_on(self) -> None:
        """Return when some more answers have come."""
        wanted = self.answers + ANSWERS
        until(lambda: self.answers >= wanted, "answers")


def _never(seconds: float) -> None:
    """Fail: a client that has to ask again was not answered."""
    raise AssertionError(f"asked to come again after {seconds} s")


@pytest.fixture
def served(home: UserFolder, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The home's federation, trained and served by replicas beside its coordinator."""
    monkeypatch.setattr(deployment, "place_of_replicas", lambda *_: HEAD)
    home.specify(**gate.settings, **serve_settings())
    launch_coordinator(read_specification(home.config))
    with served_on_ray(home) as made:
        yield made


def test_all_is_lost_in_turn(home: UserFolder, nodes: Nodes, gate: Gate, served: Served, expected: Expected) -> None:
    """While a person's point is erased, the node that retrains is lost, the coordinator killed, a replica killed, and
    the head's records (GCS) are away for a while. Every question is answered, but for those that the killed replica
    had in hand; no answer is tainted; what was asked for meanwhile is not lost; and the bytes are as without all that.
    """
    load = Load(served)
    with served.client("erase") as eraser, cluster.connect(home.config) as federation:
        assert digests_of(federation.status()) == expected.trained
        with asked_without_pause(load.ask, CALLERS):
            load.goes_on()
            with gate.during(lambda: federation.erase(ids=[ERASED], request_id="er-1")) as erasure:
                (worker,) = erasure.workers
                worker = gate.next_after(lambda: nodes.lose(nodes.of(worker)))
                load.goes_on()
                killed = writer_of(home)
                gate.next_after(lambda: kill_and_ask(killed, eraser))
                assert writer_of(home) != killed
                load.goes_on()
                kill_a_replica(served, load)
                with nodes.without_head():
                    load.goes_on()
                gate.open()
            assert erasure.answer.result().state == "complete"
            assert eraser.erase(ids=[ALSO], request_id="er-2", wait_seconds=300).state == "complete"
            until(lambda: max(load.generations) == served.state().generation, "the last generation to be served")
        assert digests_of(federation.status()) == expected.erased_also
        assert federation.verify().holds
    assert len(load.unanswered) <= CALLERS
    assert len(load.generations) > 2


def kill_and_ask(coordinator: int, eraser: Client) -> None:
    """Kill the coordinator and immediately submit a request, which is still accepted."""
    os.kill(coordinator, signal.SIGKILL)
    assert eraser.erase(ids=[ALSO], request_id="er-2").state != "complete"


def kill_a_replica(served: Served, load: Load) -> None:
    """Kill one of the replicas; return when another one has replaced it, and answers have arrived all the time."""
    killed, *_ = served.replicas()
    ray.kill(ray.get_actor(killed, namespace="serve"), no_restart=True)
    load.goes_on()
    until(lambda: killed not in (now := served.replicas()) and len(now) == REPLICAS, "another replica")
    load.goes_on()
