"""Temporary folders that only this user can read, and that are removed even after their process was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class PrivateFolder:
    """A new, empty folder with mode 0700, which exists until this process ends or calls ``remove``.

    Folders of the same ``purpose`` that killed processes have left behind are removed first.
    """

    def __init__(self, purpose: str) -> None:
        remove_left_over(purpose)
        made = Path(tempfile.mkdtemp(prefix=f".{_prefix(purpose)}"))
        self._lock = _open(made)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # It gets its name only once it is locked: a process that starts now would otherwise remove it as left over.
        self.path = made.rename(made.with_name(made.name.removeprefix(".")))

    def remove(self) -> None:
        """Remove the folder and everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_left_over(purpose: str) -> None:
    """Remove this user's folders whose process has ended: even a killed process releases its lock."""
    for path in _ours(_prefix(purpose)):
        with suppress(OSError):  # it is locked, or another process is removing it at this moment
            descriptor = _open(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _prefix(purpose: str) -> str:
    return f"sisa-{purpose}-{os.getuid()}-"


def _ours(prefix: str) -> Iterator[Path]:
    """Yield the folders that this user made: in a world-writable folder the name alone proves nothing."""
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(FileNotFoundError):
            if path.lstat().st_uid == os.getuid():
                yield path


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
