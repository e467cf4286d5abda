"""A pinned federation that is served: its replicas are at its site."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from cluster.client import Client
from cluster.config.specification import read_specification
from cluster.coordinator_actor.launch import launch_coordinator
from cluster.runtime.system import SystemClock
from cluster.serving.deployment import serve_federation, stop_serving
from cluster.tokens import TokenRegister
from storage.errors import ObjectMissing
from tests.doubles.rehearsed import copy_store
from tests.doubles.stores.s3_servers import free_ports
from tests.multinode.expected import Expected
from tests.multinode.patience import until
from tests.sites.one_cluster.conftest import FolderAtSite
from tests.sites.one_cluster.nodes import Sites

pytestmark = [pytest.mark.multinode, pytest.mark.slow]


def test_replicas_are_at_the_site(sites: Sites, home_at: FolderAtSite, expected: Expected) -> None:
    """Every replica of a pinned federation is on a node of its site, and answers from there."""
    (port,) = free_ports(1)
    home = home_at("south", serve__port=port, serve__prefix="/south", serve__replicas=2)
    specification = read_specification(home.config)
    copy_store(expected.home, home)
    launch_coordinator(specification)
    serving = serve_federation(specification)
    try:
        token = TokenRegister(home.objects, SystemClock()).create("audit", days=1).text
        with Client(serving.url, token) as client:
            assert until(lambda: _serving(client), "a proxy that knows the replicas") == 3
        assert [_node_of(name) for name in _replicas()] == [sites.node_of("south")] * 2
    finally:
        assert stop_serving(specification)


def _serving(client: Client) -> int:
    """Return how many constituents are served; 0 if the proxy that was reached does not know the replicas yet.

    Serve has a proxy on the head and one at the site, at the same address here; each learns of replicas by itself.
    """
    try:
        return client.status().serving
    except ObjectMissing:
        client.close()  # the next connection may be to the other one
        return 0


def _replicas() -> list[str]:
    named = ray.util.list_named_actors(all_namespaces=True)
    return [each["name"] for each in named if each["name"].startswith("SERVE_REPLICA::")]


def _node_of(replica: str) -> str:
    handle: Any = ray.get_actor(replica, namespace="serve")
    node: str = ray.get(handle.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
    return node
