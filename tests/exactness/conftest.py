"""Numerics of the exactness suite, and its summary line with the number of comparisons."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shards.learners.torch.seeding import set_numerics
from tests.exactness.federations import COMPARED


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Every test starts and ends with one intra-op thread, even if it sets another number."""
    set_numerics(1, "cpu")
    yield
    set_numerics(1, "cpu")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report how many histories ended in the bytes of a full retrain."""
    if COMPARED["histories"]:
        terminalreporter.write_line(
            "exactness: {histories} histories of erasures compared with a full retrain, byte for byte"
            " ({constituents} constituents, {checkpoints} checkpoints)".format(**COMPARED)
        )
