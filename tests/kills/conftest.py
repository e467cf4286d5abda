"""One fork server, and the cases as they are before their commands, for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kills.command_cases import CaseRunner
from tests.kills.fork_server import fork_server


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaseRunner]:
    """Federations in folders, to be struck."""
    with fork_server() as forks:
        yield CaseRunner(forks, tmp_path_factory.mktemp("kills"))
