"""Folders for federations whose workers, or whose commands, are killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.user_folder import UserFolder
from tests.doubles.workers.local_workers import without_ray
from tests.ray.dying_model import Undisturbed


@pytest.fixture
def home_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserFolder]:
    """A folder whose federation trains in this process: the other halves of tests whose commands start Ray."""
    monkeypatch.chdir(tmp_path)
    with without_ray():
        yield UserFolder(tmp_path).fill(cluster__workers=1)  # for the commands: each worker takes seconds to start


@pytest.fixture
def home(tmp_path: Path, joined_ray: None, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A folder with data and a specification for a real worker."""
    monkeypatch.chdir(tmp_path)
    return UserFolder(tmp_path).fill(cluster__workers=1)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What the dying model comes to where it lives, and the record of its rehearsal."""
    return Undisturbed.train(tmp_path_factory.mktemp("undisturbed"))
