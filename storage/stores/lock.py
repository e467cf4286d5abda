"""Locks of the operating system on files: freed when their holder dies, never inherited by its children."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final

_FIRST_LOOK_SECONDS: Final = 0.001
_MOST_LOOK_SECONDS: Final = 0.05
"""Longest wait between two attempts to get a lock; each wait is longer than the one before."""

_GUARD = threading.Lock()
_DESCRIPTORS: set[int] = set()
"""Open lock files of this process. Changed only under ``_GUARD``, together with opening or closing the file."""


@contextmanager
def held(path: Path, patience_seconds: float = 0.0) -> Iterator[int]:
    """Hold the lock on the file at ``path`` within the block; yield the file's descriptor.

    If another process holds the lock, waits up to ``patience_seconds``. The blocking system call has no time limit: it
    would wait forever for a stopped process.

    ``flock`` belongs to the open file, so threads of one process exclude each other too. The file stays when the
    lock is freed: removing it would let two holders lock two different files with the same name.

    The first thing a forked child does is close its copy of the descriptor. If the parent is killed just before that,
    its lock is freed only when the child gets to run. (Record locks of ``fcntl`` do not have this gap, but are lost as
    soon as any code in the process closes any descriptor of the file, which is worse.)

    Raises:
        BlockingIOError: the lock stays taken until the time limit.
        OSError: the file cannot be opened or locked.
    """
    process = os.getpid()
    descriptor = _open(path)
    try:
        _lock(descriptor, patience_seconds)
        yield descriptor
    finally:
        if os.getpid() == process:  # a forked child that leaves the block does not hold the lock
            _close(descriptor)


def _lock(descriptor: int, patience_seconds: float) -> None:
    until, pause = monotonic() + patience_seconds, _FIRST_LOOK_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= until:
                raise
        sleep(pause)
        pause = min(2 * pause, _MOST_LOOK_SECONDS)


def holder_of(path: Path) -> int | None:
    """Return the id of the process that holds the lock on ``path``.

    None if no process on this machine holds it, or the operating system does not list its locks.
    """
    file = path.stat()
    mark = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            if len(words) == 8 and words[1] == "FLOCK" and words[5] == mark and int(words[4]) > 0:
                return int(words[4])
    return None


def is_stopped(process: int) -> bool:
    """Return whether the process is stopped (SIGSTOP, Ctrl-Z): it does nothing until it is continued."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended
        return False
    return text.rpartition(")")[2].split()[0] in {"T", "t"}


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
