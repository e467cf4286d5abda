"""The stories, each of which runs once and is then checked by many tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import cluster.training.workers
from tests.doubles.user_folder import UserFolder
from tests.doubles.workers.local_workers import LocalWorkers
from tests.residue.markers import draw_markers
from tests.residue.observations import Observation, tell
from tests.residue.people import fill_with_measurements, fill_with_remembering


@pytest.fixture(scope="session")
def observations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Observation]:
    """The story of a person with a name and pixels, and of one with a number and measurements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        patch.setattr(sys, "path", list(sys.path))
        named, numbered = (UserFolder(tmp_path_factory.mktemp(name)) for name in ("named", "numbered"))
        markers = draw_markers()
        return {
            "named": tell(fill_with_remembering(named, markers), markers, subject="subject"),
            "numbered": tell(fill_with_measurements(numbered, markers), markers, subject="customer"),
        }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A folder whose federation trains in this process."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    monkeypatch.chdir(tmp_path)
    return UserFolder(tmp_path).fill()
