"""Locks of the operating system on files: freed when their holder dies, never inherited by its children."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GUARD = threading.Lock()
_DESCRIPTORS: set[int] = set()
"""Open lock files of this process. Changed under ``_GUARD`` only, together with the opening or closing itself."""


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[int]:
    """Hold the lock on the file at ``path`` within the block; give its descriptor.

    ``flock`` belongs to the open file, so threads of one process exclude each other too. The file stays when the
    lock is freed: removing it would let two holders lock two different files of one name.

    A forked child closes its copy as its first act; killed in the instant between, the parent's lock is freed when
    the child gets to run. (Record locks of ``fcntl`` have no such instant, and are lost as soon as anyone in the
    process closes any descriptor of the file: the worse evil.)

    Raises:
        BlockingIOError: ``wait`` is false and the lock is taken.
        OSError: the file cannot be opened or locked.
    """
    process = os.getpid()
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield descriptor
    finally:
        if os.getpid() == process:  # a forked child that leaves the block holds nothing that it could free
            _close(descriptor)


def _open(path: Path) -> int:
    with _GUARD:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _DESCRIPTORS.add(descriptor)
        return descriptor


def _close(descriptor: int) -> None:
    with _GUARD:
        _DESCRIPTORS.discard(descriptor)
        os.close(descriptor)


def _let_go_in_child() -> None:
    """Close the parent's lock files in a forked child: a copy left open would keep the lock after the parent died."""
    for descriptor in _DESCRIPTORS:
        with suppress(OSError):
            os.close(descriptor)
    _DESCRIPTORS.clear()
    _GUARD.release()


os.register_at_fork(before=_GUARD.acquire, after_in_parent=_GUARD.release, after_in_child=_let_go_in_child)
