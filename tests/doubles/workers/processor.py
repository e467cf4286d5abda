"""Keeps cooperating threads on one processor: waking a thread on another one costs more than most of its turns."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep this thread and those that it starts on one processor within the block, which halves a simulation's time.

    Each process of a test run or soak uses a different processor.
    """
    if not hasattr(os, "sched_setaffinity"):  # affects only the time
        yield
        return
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[_number() % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _number() -> int:
    """Return this process's number among the concurrent ones."""
    named = os.environ.get("PYTEST_XDIST_WORKER", multiprocessing.current_process().name)
    found = re.search(r"\d+$", named)
    return int(found[0]) if found else 0
