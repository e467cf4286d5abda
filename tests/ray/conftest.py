"""Folders for federations whose workers, or whose commands, are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

import cluster.training.workers
from tests.doubles.user_folder import UserFolder
from tests.doubles.workers.local_workers import LocalWorkers


@pytest.fixture
def home_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A folder whose federation trains in this process: the other halves of tests whose commands start Ray."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    monkeypatch.chdir(tmp_path)
    return UserFolder(tmp_path).fill()


@pytest.fixture
def home(tmp_path: Path, joined_ray: None, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A folder with data and a specification for real workers."""
    monkeypatch.chdir(tmp_path)
    return UserFolder(tmp_path).fill()
