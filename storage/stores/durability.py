"""Durable steps on a local file system: files and names that survive a power cut.

The order follows from what file systems promise: content is synced before a name points to it, and a name is durable
only after its folder is synced. A failed sync is never repeated on the same descriptor: the kernel may have dropped the
pages and report success the second time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

_TEMPORARY = re.compile(r"\.(?P<segment>[a-z0-9_-][a-z0-9._-]*)\.[0-9a-f]{16}\.tmp")

_SETTLED: set[Path] = set()
"""Folders whose names this process knows to be durable; at most one entry for each folder of its stores."""


def write_temporary(path: Path, payload: bytes) -> Path:
    """Write ``payload``, durably, to a fresh hidden file in the folder of ``path``; return its path.

    On an error it leaves no file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            _write_all(descriptor, payload)
            _sync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        remove_quietly(temporary)
        raise
    return temporary


def temporary_target(name: str) -> str | None:
    """Return the segment that the temporary file ``name`` was written for; None for other files."""
    match = _TEMPORARY.fullmatch(name)
    return match["segment"] if match else None


def remove_quietly(path: Path) -> None:
    """Remove a temporary file; if that fails, it stays behind and is found as unfinished."""
    with suppress(OSError):
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def ensure_folder(folder: Path, root: Path) -> None:
    """Make ``folder``, at or under ``root``, and the missing folders above it; every new name is durable.

    An existing folder may have been made a moment ago by a process that has not synced it yet, so every process that
    writes into it syncs its name once.

    Raises ``NotADirectoryError`` when a file is in the place of a folder.
    """
    if folder in _SETTLED and folder.is_dir():
        return
    parent = folder.parent
    if folder != root:
        ensure_folder(parent, root)
    elif not parent.is_dir():
        ensure_folder(parent, parent)
    is_made = True
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        is_made = False
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    try:
        sync_folder(parent)
    except OSError as error:
        # The folder around the store may belong to another user, who made the root for us.
        if folder != root or is_made or not isinstance(error, PermissionError):
            _withdraw(folder, is_ours=is_made or folder != root)
            raise
    _SETTLED.add(folder)


def _withdraw(folder: Path, *, is_ours: bool) -> None:
    """Remove a folder whose name could not be synced, so that the next attempt makes it again.

    A second sync may return without having written the name. A folder that is not empty stays: its name is durable,
    because no writer puts anything into a folder before that.
    """
    if is_ours:
        with suppress(OSError):
            folder.rmdir()


def _write_all(descriptor: int, payload: bytes) -> None:
    rest = memoryview(payload)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(descriptor: int) -> None:
    full_sync: int | None = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache
    if full_sync is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full_sync)
