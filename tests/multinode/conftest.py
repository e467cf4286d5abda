"""One cluster for all tests of this folder; each test begins with two nodes beside the head."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.rehearsed import copy_store, share_rehearsals
from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import Expected, digests_of, undisturbed
from tests.multinode.gate import Gate
from tests.multinode.nodes import Nodes, several_nodes


@pytest.fixture(scope="session")
def started_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The cluster, and this process in it; asks for a token, as every cluster of ours does."""
    import ray  # after ``cluster``, which says that clusters ask for a token

    from cluster.config.specification import ClusterSettings
    from tests.doubles.workers.joined import joined

    if ray.is_initialized():
        pytest.skip("this process is part of another Ray cluster: run these with 'pytest -m multinode'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        with (
            several_nodes(tmp_path_factory.mktemp("gcs")) as nodes,
            joined(ClusterSettings(address=nodes.address)),
        ):
            yield nodes


@pytest.fixture
def nodes(started_nodes: Nodes) -> Iterator[Nodes]:
    """The cluster with two nodes."""
    started_nodes.refill()
    yield started_nodes
    started_nodes.end_cut_off()


@pytest.fixture
def home(tmp_path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A folder with data and a specification, which all nodes see."""
    monkeypatch.chdir(tmp_path)
    return UserFolder(tmp_path).fill(cluster__address=nodes.address)


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """What the same federation comes to without Ray, and without any disturbance."""
    return undisturbed(tmp_path_factory.mktemp)


@pytest.fixture(scope="session")
def trained_on_nodes(started_nodes: Nodes, expected: Expected, tmp_path_factory: pytest.TempPathFactory) -> UserFolder:
    """A folder whose federation was trained on the cluster, with the model of the gate."""
    import cluster

    started_nodes.refill()
    home = UserFolder(tmp_path_factory.mktemp("trained")).fill()
    Gate(home, cluster__address=started_nodes.address, cluster__workers=1)
    with cluster.connect(home.config) as federation:
        assert digests_of(federation.train()) == expected.trained
    return home


@pytest.fixture
def untrained_gate(home: UserFolder, nodes: Nodes, trained_on_nodes: UserFolder) -> Iterator[Gate]:
    """The gate of the home's federation, which need not be rehearsed; a coordinator of it ends with the test."""
    import ray

    from cluster.coordinator_actor.actor import ACTOR_NAME
    from cluster.coordinator_actor.record import read_record

    share_rehearsals(trained_on_nodes, home)
    # One worker, unless a test asks for more: each takes seconds to start.
    yield Gate(home, cluster__address=nodes.address, cluster__workers=1, erasure__batch_window_seconds=0.0)
    record = read_record(home.objects)
    if record is not None:
        ray.kill(ray.get_actor(ACTOR_NAME, namespace=record.namespace), no_restart=True)


@pytest.fixture
def gate(home: UserFolder, untrained_gate: Gate, trained_on_nodes: UserFolder) -> Gate:
    """The same, with the federation trained."""
    copy_store(trained_on_nodes, home)
    return untrained_gate
