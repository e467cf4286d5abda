"""The command over a small data set, with its workers in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import cluster.training.workers
from tests.doubles.user_folder import UserFolder, duplicate
from tests.doubles.workers.local_workers import LocalWorkers
from tests.doubles.workers.rehearsals import remember_rehearsals


@pytest.fixture
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let federations train in this process; modules beside a specification are found by that test alone."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    remember_rehearsals(monkeypatch)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)  # not the token of this machine's user, whose file may be anyhow


@pytest.fixture
def home(tmp_path: Path, _no_ray: None, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A folder with data and a specification, and nothing trained."""
    monkeypatch.chdir(tmp_path)
    return UserFolder(tmp_path).fill()


@pytest.fixture(scope="session")
def _trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose federation was trained once for all tests."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        said = UserFolder(folder).fill().json("train")
    assert said.code == 0, said.err
    return folder


@pytest.fixture
def trained(home: UserFolder, _trained_folder: Path) -> UserFolder:
    """A folder with a trained federation of this test's own."""
    return duplicate(_trained_folder, home.folder)
