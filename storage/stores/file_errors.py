"""Translates errors of the file system for the caller that put, read or removed an object."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import Invalid, OutcomeUnknown, SisaError, StoreFull, Unavailable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MISPLACED = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Translate an ``OSError`` from the block into one of our errors; nothing was published."""
    try:
        yield
    except OSError as error:
        raise _as_ours(error, key) from error


def _as_ours(error: OSError, key: str) -> SisaError:
    cause = _cause(error)
    if error.errno in FULL:
        return StoreFull(
            "the store has no room for the object; nothing was published",
            "Free space, or raise the quota or the file size limit; then repeat the command.",
            key=key,
            cause=cause,
        )
    if error.errno in _REFUSED:
        return Unavailable(
            "the operating system refuses access to the store's folder",
            "Give this account read and write access to the folder that 'store' names, on a file system with hard"
            " links.",
            key=key,
            cause=cause,
        )
    if error.errno in _MISPLACED:
        return Invalid(
            "a file has the place of a folder, or the name is too long for the file system",
            "Choose another key, or another folder for the store.",
            key=key,
            cause=cause,
        )
    return Unavailable("the store's file system failed; nothing was published", "Check the disk.", key=key, cause=cause)


def unsettled(key: str, error: OSError | Unavailable) -> OutcomeUnknown:
    """Return the error for a change whose folder could not be synced: it may not survive a power cut."""
    return OutcomeUnknown(
        "the store's folder could not be synced after the change: it is visible, but a power cut may undo it",
        "Check the disk, then repeat the command: it writes and syncs the object again before anything relies on it.",
        key=key,
        cause=_cause(error) if isinstance(error, OSError) else type(error).__name__,
    )


def _cause(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
