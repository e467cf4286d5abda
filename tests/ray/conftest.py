"""One Ray for all tests that use it in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.session import join_ray, leave_ray
from cluster.specification import ClusterSettings
from tests.doubles.home import Home


@pytest.fixture(scope="session")
def _joined_ray() -> Iterator[None]:
    """A local Ray; federations find this process in it and leave it running."""
    join_ray(ClusterSettings())
    yield
    leave_ray()


@pytest.fixture
def home(tmp_path: Path, _joined_ray: None, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A folder with data and a specification for real workers."""
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path).fill()
