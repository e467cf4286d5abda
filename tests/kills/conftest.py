"""One zygote, and the stories' beginnings, for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kills.stage import Stage
from tests.kills.zygote import zygote


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Federations in folders, to be struck."""
    with zygote() as forks:
        yield Stage(forks, tmp_path_factory.mktemp("kills"))
