"""An error says what can never be scheduled before anything waits for it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import ray

from cluster.config.specification import ClusterSettings
from cluster.runtime.session import worker_count
from storage.errors import Invalid

HEAD: Mapping[str, float] = {"memory": 1e9}
SMALL: Mapping[str, float] = {"CPU": 2.0}
LARGE: Mapping[str, float] = {"CPU": 16.0}
WITH_GPUS: Mapping[str, float] = {"CPU": 4.0, "GPU": 2.0}


def _cluster(monkeypatch: pytest.MonkeyPatch, *nodes: Mapping[str, float], dead: int = 0) -> None:
    reported = [
        {"NodeID": str(number), "Alive": number >= dead, "Resources": dict(node)} for number, node in enumerate(nodes)
    ]
    monkeypatch.setattr(ray, "nodes", lambda: reported)


def test_workers_are_counted_node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker fits on one node or not at all: remainders on several do not add up, and dead nodes do not count."""
    _cluster(monkeypatch, LARGE, SMALL, WITH_GPUS, HEAD, dead=1)
    assert worker_count(ClusterSettings(cpus_per_worker=1.5), 9) == 1 + 2
    assert worker_count(ClusterSettings(gpus_per_worker=0.5), 9) == 4
    assert worker_count(ClusterSettings(), 5) == 5
    assert worker_count(ClusterSettings(workers=2), 5) == 2
    assert worker_count(ClusterSettings(), 9, avoided={"2"}) == 2
    assert worker_count(ClusterSettings(), 9, avoided={"1", "2"}) == 0


@pytest.mark.parametrize(
    ("settings", "fact", "remedy"),
    [
        (ClusterSettings(cpus_per_worker=64), "the largest of 3 has 16 CPUs and 0 GPUs", r"Lower .* or add a node\.$"),
        (ClusterSettings(gpus_per_worker=1), "none of 3 nodes has a GPU", "gpus_per_worker = 0"),
    ],
)
def test_what_no_node_has(settings: ClusterSettings, fact: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what a worker needs, what the nodes have, and which setting to change."""
    _cluster(monkeypatch, HEAD, SMALL, LARGE)
    with pytest.raises(Invalid, match=rf"no node can hold a worker of .*: {fact}\. .*{remedy}"):
        worker_count(settings, 3)


def test_what_nodes_have_only_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors on one node and accelerators on another make no worker."""
    _cluster(monkeypatch, LARGE, WITH_GPUS)
    with pytest.raises(Invalid, match=r"each of 2 nodes has too few of one or the other\. .* a node that has both\."):
        worker_count(ClusterSettings(cpus_per_worker=8, gpus_per_worker=1), 3)


def test_a_cluster_without_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all nodes are gone, the error says so."""
    _cluster(monkeypatch, LARGE, dead=1)
    with pytest.raises(Invalid, match="the cluster has no node"):
        worker_count(ClusterSettings(), 3)
