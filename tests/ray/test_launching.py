"""The coordinator as a detached actor: launched once, found by other commands, restarted by Ray."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import ray

import cluster
from cluster.config.specification import read_specification
from cluster.coordinator_actor.actor import ACTOR_NAME
from cluster.coordinator_actor.launch import (
    find_coordinator,
    launch_coordinator,
    namespace_of,
    stop_coordinator,
)
from cluster.coordinator_actor.record import read_record
from cluster.serving.deployment import serve_federation
from cluster.writer.stores import open_objects
from coordinator.ports import Notice
from storage.errors import Conflict, Invalid
from storage.objects import ObjectStore
from tests.doubles.user_folder import MARKED, UserFolder, duplicate
from tests.doubles.workers.local_workers import without_ray
from tests.multinode.patience import until
from tests.multinode.writers import is_idle
from tests.ray.dying_model import EVERYTHING, learned

pytestmark = pytest.mark.ray

SETTINGS: Final[dict[str, Any]] = {"erasure__batch_window_seconds": 0.0, "cluster__workers": 1}


@pytest.fixture
def store(home: UserFolder) -> Iterator[ObjectStore]:
    """The home's store; what was launched on it is ended with the test."""
    home.specify(**SETTINGS)
    specification = read_specification(home.config)
    opened = open_objects(specification)
    yield opened
    record = read_record(opened)
    if record is not None:
        ray.kill(ray.get_actor(ACTOR_NAME, namespace=record.namespace), no_restart=True)


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose federation was trained in this process."""
    home = UserFolder(tmp_path_factory.mktemp("trained")).fill(**SETTINGS)
    with without_ray():
        assert home.json("train").code == 0
    return home.folder


def test_commands_find_the_coordinator(home: UserFolder, store: ObjectStore, tmp_path: Path) -> None:
    """Launched once or twice, one coordinator does the work of all commands, which receive its progress.

    In a copy of the whole folder nothing is erased and nothing stopped; the original's coordinator works on.
    """
    specification = read_specification(home.config)
    launched = launch_coordinator(specification)
    assert launch_coordinator(specification) == launched
    notices: list[Notice] = []
    with cluster.connect(home.config, listener=notices.append) as federation:
        assert federation.train().serving == 3
        assert learned(notices) == EVERYTHING
        _refuse_in_a_copy(home, tmp_path / "drill")
        assert not federation.status().requests
        assert federation.erase(subjects=[MARKED], request_id="er-1", wait=False).state == "accepted"
        assert federation.erase(subjects=[MARKED], request_id="er-1").state == "complete"
        assert federation.verify().holds
        with pytest.raises(Conflict, match="complete already"):
            federation.hold("er-1", "too late")
    home.specify(training__epochs=5)
    with pytest.raises(Conflict, match="another version of the specification"):
        launch_coordinator(read_specification(home.config))


def _refuse_in_a_copy(home: UserFolder, folder: Path) -> None:
    """See that a copy of the folder never commands the original."""
    until(lambda: is_idle(home), "the coordinator to have nothing more to do")  # nothing changes while it is copied
    shutil.copytree(home.folder, folder, ignore=shutil.ignore_patterns(folder.name))
    copy = UserFolder(folder)
    before = copy.raw()
    with cluster.connect(copy.config) as drill:
        with pytest.raises(Conflict, match="this store is a copy of .*nothing was done"):
            drill.erase(subjects=[MARKED], request_id="er-1")
        assert not drill.status().requests
    with pytest.raises(Conflict, match="this store is a copy of"):
        stop_coordinator(copy.objects)
    with pytest.raises(Conflict, match="this store is a copy of"):
        launch_coordinator(read_specification(copy.config))
    assert copy.raw() == before


def test_a_killed_coordinator_goes_on(home: UserFolder, store: ObjectStore, trained_folder: Path) -> None:
    """A coordinator that is killed right after it acknowledged a request is restarted and carries it out (D1). Once
    stopped, or lost with its cluster, a coordinator keeps nobody from working.
    """
    duplicate(trained_folder, home.folder)
    launched = launch_coordinator(read_specification(home.config))
    with cluster.connect(home.config) as federation:
        assert federation.erase(subjects=[MARKED], request_id="er-1", wait=False).state != "complete"
        ray.kill(ray.get_actor(ACTOR_NAME, namespace=launched.namespace), no_restart=False)
        assert federation.erase(subjects=[MARKED], request_id="er-1").state == "complete"
        assert federation.verify().holds
    said: list[str] = []
    handle: Any = ray.get_actor(ACTOR_NAME, namespace=launched.namespace)
    ray.get(handle.stop.remote())
    ray.kill(handle, no_restart=True)
    assert find_coordinator(store, lambda _: None, said.append) is None
    assert "does not answer" in said[0]
    with cluster.connect(home.config) as federation:
        done = federation.erase(subjects=["secret-person-004"], request_id="er-2")
        assert done.state == "complete"
        assert federation.verify(done.shards).holds
    store.delete(next(info.key for info in store.list("control/coordinator")))


def test_what_keeps_it_from_working_is_reported_at_launch(
    home: UserFolder, store: ObjectStore, trained_folder: Path
) -> None:
    """A store of another federation, or a worker that no node can hold, ends the launch with the remedy."""
    home.specify(cluster__cpus_per_worker=64, erasure__batch_window_seconds=0.0)
    with pytest.raises(Invalid, match="no node can hold a worker of 64 CPUs"):
        launch_coordinator(read_specification(home.config))
    duplicate(trained_folder, home.folder)
    home.specify(name="other")
    with pytest.raises(Conflict, match="the store belongs to another specification"):
        launch_coordinator(read_specification(home.config))
    assert read_record(store) is None
    assert not stop_coordinator(store)


def test_serving_that_fails_leaves_nothing(home: UserFolder, store: ObjectStore) -> None:
    """A coordinator that was launched for serving ends where serving fails; one that was at work before stays."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        home.specify(serve__port=taken.getsockname()[1])
        specification = read_specification(home.config)
        with pytest.raises(Conflict, match="the API cannot listen at 127.0.0.1"):
            serve_federation(specification)
        assert read_record(store) is None
        with pytest.raises(ValueError, match="Failed to look up actor"):
            ray.get_actor(ACTOR_NAME, namespace=namespace_of(specification, store))
        launch_coordinator(specification)
        with pytest.raises(Conflict, match="the API cannot listen at 127.0.0.1"):
            serve_federation(specification)
    assert find_coordinator(store, lambda _: None, print) is not None
