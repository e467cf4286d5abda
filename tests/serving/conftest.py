"""Federations that are served in this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import cluster.training.workers
from cluster.config.specification import read_specification
from cluster.coordinator_actor.resident import Resident
from tests.doubles.user_folder import UserFolder, duplicate
from tests.doubles.workers.local_workers import LocalWorkers
from tests.serving.world import World, coordinator_of, open_world

_SETTINGS: dict[str, Any] = {"erasure__batch_window_seconds": 0.0, "serve__refresh_seconds": 0.05}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A folder whose federation trains in this process."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    return UserFolder(tmp_path).fill(**_SETTINGS)


@pytest.fixture(scope="session")
def _trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, trained once for all tests."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        coordinator_of(read_specification(UserFolder(folder).fill(**_SETTINGS).config)).stop()
    return folder


@pytest.fixture
def resident(home: UserFolder, _trained_folder: Path) -> Iterator[Resident]:
    """Its coordinator, which has trained."""
    duplicate(_trained_folder, home.folder)
    made = coordinator_of(read_specification(home.config))
    yield made
    made.stop()


@pytest.fixture
def world(home: UserFolder, resident: Resident) -> Iterator[World]:
    """Its coordinator and one replica, with tokens."""
    made = open_world(home, resident)
    yield made
    made.service.close()


@pytest.fixture
def url(world: World) -> Iterator[str]:
    """The address of the API, on a free port."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(world.client.app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def still_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One that many tests of a module ask and none changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        home = UserFolder(tmp_path_factory.mktemp("still")).fill(
            **_SETTINGS,
            serve__max_body_bytes=100_000,
            serve__max_points=50,
            serve__max_names=20,
            serve__lookups_per_minute=1_000_000,
        )
        resident = coordinator_of(read_specification(home.config))
        made = open_world(home, resident)
        yield made
        made.service.close()
        resident.stop()
