"""Sites whose constituents train in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

import cluster.workers
from tests.doubles.local_workers import LocalWorkers
from tests.federated.houses import Houses


@pytest.fixture(autouse=True)
def near_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without Ray."""
    monkeypatch.setattr(cluster.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.workers, "join_ray", lambda _: False)


@pytest.fixture
def houses(tmp_path: Path) -> Houses:
    """Three sites with data, nothing trained."""
    return Houses(tmp_path).fill()
