"""One cluster for all tests of this folder; each test begins with all of its nodes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import Expected, undisturbed
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
    """The cluster with all of its nodes."""
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


@pytest.fixture
def gate(home: UserFolder, nodes: Nodes) -> Iterator[Gate]:
    """The gate of the home's federation; a coordinator that was launched for it ends with the test."""
    import ray

    from cluster.coordinator_actor.actor import ACTOR_NAME
    from cluster.coordinator_actor.record import read_record

    # One worker, unless a test asks for more: each takes seconds to start.
    yield Gate(home, cluster__address=nodes.address, cluster__workers=1, erasure__batch_window_seconds=0.0)
    record = read_record(home.objects)
    if record is not None:
        ray.kill(ray.get_actor(ACTOR_NAME, namespace=record.namespace), no_restart=True)
