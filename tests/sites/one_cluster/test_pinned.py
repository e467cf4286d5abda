"""Pinned federations: all that touches a site's data is at that site, and waits for it when it is away."""

from __future__ import annotations

from typing import Any

import pytest
import ray

import cluster.coordinator_actor.actor
import cluster.runtime.nodes
from cluster.config.specification import read_specification
from cluster.coordinator_actor.launch import launch_coordinator
from cluster.release import Sent
from cluster.runtime.labels import check_here
from cluster.runtime.task_pool import RayCrew
from cluster.training.actor import WorkerActor
from cluster.training.workers import worker_setup
from coordinator.engine.ledger import read_state
from storage.errors import Invalid, InvariantBroken, Unavailable
from tests.doubles.rehearsed import copy_store, share_rehearsals
from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import ERASED, Expected, digests_of
from tests.multinode.gate import Gate
from tests.multinode.patience import until
from tests.multinode.writers import writer_of
from tests.sites.one_cluster.conftest import FolderAtSite, pinned
from tests.sites.one_cluster.nodes import SITES, Sites

pytestmark = [pytest.mark.multinode, pytest.mark.slow]


def test_all_is_done_at_the_site(
    sites: Sites, home_at: FolderAtSite, expected: Expected, trained_gate: UserFolder
) -> None:
    """Coordinator and workers of a pinned federation are at its site, and its bytes are those of one that is not."""
    for site in SITES:
        home = home_at(site)
        gate = Gate(home, cluster__ingest_workers=2, **pinned(sites, site))
        share_rehearsals(trained_gate, home)
        launch_coordinator(read_specification(home.config))
        with cluster.connect(home.config) as federation:
            assert digests_of(federation.train()) == expected.trained
            assert federation.erase(ids=[ERASED]).state == "complete"
            assert digests_of(federation.status()) == expected.erased
            assert federation.verify().holds
        assert sites.has(site, writer_of(home))
        assert set(gate.learners().values()) == {sites.raylet_of(site)}


def test_data_are_read_at_the_site(sites: Sites) -> None:
    """Tasks that read are spread over a site's nodes and no others, though those have processors to spare."""
    for site in SITES:
        nodes: list[str] = RayCrew(4, print, {"site": site})(_node_of, range(8), lambda: "name", lambda _: None)
        assert set(nodes) == {sites.node_of(site)}
    with pytest.raises(Unavailable, match="waiting for site east"):
        cluster.runtime.nodes.processors_of({"site": "east"})


def _node_of(_thing: int, _name: str) -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


def test_who_is_elsewhere_refuses(sites: Sites, home_at: FolderAtSite) -> None:
    """What is at another site, or at none, touches nothing: worker, task, and a command that would write by itself."""
    home = home_at("north")
    specification = read_specification(home.config)
    sites.at("north", check_here, {"site": "north"})
    with pytest.raises(InvariantBroken, match="on a node without the labels site=north"):
        sites.at("south", check_here, {"site": "north"})
    setup = worker_setup(specification, home.objects)
    stray: Any = WorkerActor.options(num_cpus=0, label_selector={"site": "south"}).remote(Sent(setup))
    with pytest.raises(InvariantBroken, match="on a node without the labels site=north"):
        cluster.coordinator_actor.actor.unwrapped(stray.configuration.remote(16))
    ray.kill(stray)
    with cluster.connect(home.config) as federation, pytest.raises(Invalid, match="Run 'sisa launch'"):
        federation.train()
    assert read_state(home.objects) is None


def test_a_site_that_is_away_is_waited_for(
    sites: Sites, home_at: FolderAtSite, expected: Expected, trained_gate: UserFolder
) -> None:
    """If a site is lost in mid-retrain, a message names it, the other site continues, and no other node does its work;
    when it is back, it continues by itself where it was.
    """
    north, south = home_at("north"), home_at("south")
    gate = Gate(north, **pinned(sites, "north"))
    for first, home in ((trained_gate, north), (expected.home, south)):
        copy_store(first, home)
        launch_coordinator(read_specification(home.config))
    with cluster.connect(north.config) as federation:
        with gate.during(lambda: federation.erase(ids=[ERASED], request_id="er-1", wait=False)):
            before = sites.raylet_of("north")
            sites.lose("north")
            gate.open()
        with cluster.connect(south.config) as other:
            assert other.erase(ids=[ERASED]).state == "complete"
        assert _request_state(north) in {"quarantined", "retraining"}
        late = UserFolder(north.folder / "late")
        late.folder.mkdir()
        late.specify(**pinned(sites, "north"))
        with pytest.raises(Unavailable, match="no node of the cluster has the labels site=north: waiting for site nor"):
            launch_coordinator(read_specification(late.config))
    sites.bring_back("north")
    until(lambda: _request_state(north) == "complete", "the erasure to be complete")
    assert sites.has("north", writer_of(north))
    assert set(gate.learners().values()) == {before, sites.raylet_of("north")}
    with cluster.connect(north.config) as federation:
        assert digests_of(federation.status()) == expected.erased
        assert federation.verify().holds


def _request_state(home: UserFolder) -> str:
    state = read_state(home.objects)
    assert state is not None
    request = state.request("er-1")
    assert request is not None
    return request.state.value
