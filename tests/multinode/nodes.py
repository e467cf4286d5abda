"""Nodes of a Ray cluster on this machine: a raylet, an object store and workers each; lost, paused, replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import ray
from ray.cluster_utils import Cluster

from cluster.runtime.head import is_reachable
from tests.multinode.patience import until

NODES: Final = 2
"""Beside the head node, which has no processors: workers are on these, one each; a coordinator is on the head.

A test may ask for more.
"""

NOT_HEAD: Final = {"not-head": 1}
"""What they have and the head has not."""

STORE_BYTES: Final = 80_000_000
"""Size of each node's object store; Ray requires at least 75 MB."""

SETTINGS: Final = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2_000,
    "health_check_failure_threshold": 5,
    "gcs_rpc_server_reconnect_timeout_s": 600,
}
"""A node whose processes have ended is declared dead after about 3 seconds, one that answers nothing after about 13: by
default both would be after a minute. Without the head's records all others go on for ten minutes, not for one.
"""


class Nodes:
    """The cluster."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._workers: list[Any] = []
        self._cut_off: list[Any] = []

    @property
    def address(self) -> str:
        """Address of the cluster."""
        address: str = self._cluster.address
        return address

    @property
    def jobs(self) -> str:
        """Where jobs are submitted."""
        return f"http://{self._cluster.webui_url}"

    @property
    def head(self) -> Any:
        """The head node, where the driver and Ray's own records (GCS) are."""
        return self._cluster.head_node

    def refill(self, nodes: int = NODES) -> None:
        """Add nodes until there are so many."""
        while len(self._workers) < nodes:
            self._add()
        self._joined()

    def exchange(self, count: int, environment: Mapping[str, str]) -> None:
        """Lose so many nodes, and add as many whose processes have these environment variables."""
        wanted, lost = len(self._workers), self._workers[:count]
        for node in lost:
            self.lose(node)
        until(lambda: all(map(is_dead, lost)), "nodes to be declared dead")
        while len(self._workers) < wanted:
            self._add(environment)
        self._joined()

    def _joined(self) -> None:
        """Return once the cluster holds for alive the head and these nodes, and no node that was lost."""
        expected = {node.node_id for node in (self.head, *self._workers)}
        until(lambda: {node["NodeID"] for node in ray.nodes() if node["Alive"]} == expected, "nodes to join")

    def _add(self, environment: Mapping[str, str] | None = None) -> None:
        node = self._cluster.add_node(
            num_cpus=1,
            resources=NOT_HEAD,
            object_store_memory=STORE_BYTES,
            wait=False,
            env_vars={**(environment or {})},
        )
        self._workers.append(node)

    def of(self, process: int) -> Any:
        """Return the node on which a worker's process is."""
        return next(node for node in self._workers if process in children_of(raylet_of(node)))

    def lose(self, node: Any) -> None:
        """End everything on the node by SIGKILL, as when its machine fails."""
        self._workers.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def lose_all(self) -> None:
        """End everything on all nodes but the head; the cluster knows of it at the end."""
        lost = [*self._workers]
        for node in lost:
            self.lose(node)
        until(lambda: all(map(is_dead, lost)), "nodes to be declared dead")

    @contextmanager
    def without_head(self) -> Iterator[None]:
        """Kill the head's process of records (GCS) with SIGKILL, and start it again at the same address at the end."""
        self.head.kill_gcs_server()
        try:
            yield
        finally:
            self.head.start_gcs_server()
            until(lambda: is_reachable(self.address), "the head's records")

    def cut_off(self, node: Any) -> None:
        """Have the node declared dead while its processes keep running; it is replaced before the next test."""
        os.kill(raylet_of(node), signal.SIGSTOP)
        self._workers.remove(node)
        self._cut_off.append(node)
        until(lambda: is_dead(node), "a node to be declared dead")

    def end_cut_off(self) -> None:
        """End the processes that still run on nodes that were cut off."""
        while self._cut_off:
            node = self._cut_off.pop()
            left = children_of(raylet_of(node))
            self._cluster.remove_node(node, allow_graceful=False)
            for process in left:  # orphans that hang in their work outlive their raylet
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


def is_dead(node: Any) -> bool:
    """Return whether the cluster holds the node for dead."""
    return any(each["NodeID"] == node.node_id and not each["Alive"] for each in ray.nodes())


def raylet_of(node: Any) -> int:
    """Return the node's own process, parent of its workers' processes."""
    (raylet,) = node.all_processes["raylet"]
    process: int = raylet.process.pid
    return process


def children_of(process: int) -> list[int]:
    """Return the processes that a process has started and that have not ended."""
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()]


def is_at_work(process: int) -> bool:
    """Return whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


@contextmanager
def several_nodes(records: Path) -> Iterator[Nodes]:
    """Start a cluster whose records survive the head's process in the folder ``records``."""
    settings = {**SETTINGS, "gcs_storage": "rocksdb", "gcs_storage_path": str(records)}
    cluster: Any = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": STORE_BYTES,
            "include_log_monitor": False,  # nobody reads what it would publish
            "include_dashboard": True,  # to which jobs are submitted
            "dashboard_port": 0,
            "dashboard_agent_listen_port": 0,  # a second head on one port takes no jobs, and says so in its log alone
            "_system_config": settings,
        },
    )
    try:
        yield Nodes(cluster)
    finally:
        cluster.shutdown()
