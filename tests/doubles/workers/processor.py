"""Threads that take turns stay on one processor: to wake one on another processor costs more than most turns."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep this thread, and those that it starts, on one processor within the block: half the time for a simulation.

    Each process of a test run or a soak has another one.
    """
    if not hasattr(os, "sched_setaffinity"):  # nothing but time depends on it
        yield
        return
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[_number() % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _number() -> int:
    """Return which of the processes at work beside each other this is."""
    named = os.environ.get("PYTEST_XDIST_WORKER", multiprocessing.current_process().name)
    found = re.search(r"\d+$", named)
    return int(found[0]) if found else 0
