"""A cluster whose nodes are sites: labelled, with their own processor and credentials; lost and back again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import ray
from ray.cluster_utils import Cluster

from cluster.coordinator_actor.actor import unwrapped
from cluster.runtime.labels import selecting
from tests.multinode.nodes import SETTINGS, STORE_BYTES, children_of, is_dead, raylet_of
from tests.multinode.patience import until

SITES: Final = ("north", "south")

_Result = TypeVar("_Result")
_remote: Any = ray.remote


class Sites:
    """The cluster. The driver is on the head, which has no processors, no label, and no site's credentials."""

    def __init__(self, cluster: Any, credentials: Mapping[str, Path]) -> None:
        """``credentials``: each site's file of them, which nobody else's environment names."""
        self._cluster = cluster
        self._credentials = credentials
        self._nodes: dict[str, Any] = {}

    @property
    def address(self) -> str:
        """Address of the cluster."""
        address: str = self._cluster.address
        return address

    def refill(self) -> None:
        """Have all sites there."""
        for site in SITES:
            if site not in self._nodes:
                self.bring_back(site)

    def bring_back(self, site: str) -> None:
        """Start the site's node."""
        self._nodes[site] = self._cluster.add_node(
            num_cpus=1,
            labels={"site": site},
            object_store_memory=STORE_BYTES,
            env_vars={"AWS_SHARED_CREDENTIALS_FILE": str(self._credentials[site])},
        )

    def lose(self, site: str) -> None:
        """End everything at the site by SIGKILL; the cluster knows of it at the end."""
        node = self._nodes.pop(site)
        self._cluster.remove_node(node, allow_graceful=False)
        until(lambda: is_dead(node), "a site to be declared dead")

    def node_of(self, site: str) -> str:
        """Return the id of the site's node."""
        node: str = self._nodes[site].node_id
        return node

    def raylet_of(self, site: str) -> int:
        """Return the process of the site's node."""
        return raylet_of(self._nodes[site])

    def has(self, site: str, process: int) -> bool:
        """Return whether the process is one of Ray's at the site."""
        return process in children_of(self.raylet_of(site))

    def at(self, site: str, act: Callable[..., _Result], *arguments: object) -> _Result:
        """Return what ``act`` gives when a process of Ray's does it at the site."""
        task = _remote(num_cpus=0, max_retries=0, **selecting({"site": site}))(act)
        result: _Result = unwrapped(task.remote(*arguments))
        return result


@contextmanager
def several_sites(credentials: Mapping[str, Path]) -> Iterator[Sites]:
    """Start a cluster without any site."""
    cluster: Any = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": STORE_BYTES,
            "include_log_monitor": False,  # nobody reads what it would publish
            "include_dashboard": False,
            "dashboard_port": 0,  # the usual one may be that of another Ray of this machine
            "_system_config": SETTINGS,
        },
    )
    try:
        yield Sites(cluster, credentials)
    finally:
        cluster.shutdown()
