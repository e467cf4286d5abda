"""Purges: every version and every delete marker of a name, until a whole pass finds none.

In a versioned bucket, deleting by name only adds a marker; a retried put or delete leaves versions of its own; and a
successful batch deletion may still report versions that it did not delete. So a purge repeats until nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable

from storage.errors import Unavailable
from storage.s3.bucket import Bucket, Refusal, Version

_PASSES = 20
_BATCH = 1_000

_PASSING = frozenset({"InternalError", "ServiceUnavailable", "SlowDown", "OperationAborted", "RequestTimeout"})
"""Codes of temporary failures, which a later pass may not meet."""


def purge(bucket: Bucket, name: str, pause: Callable[[int], None]) -> None:
    """Remove ``name`` with all its versions and markers; a missing name is not an error.

    Raises ``Unavailable`` when the server keeps a version, with the reason, or when new versions keep appearing.
    """
    for attempt in range(_PASSES):
        found = tuple(bucket.versions(name))
        if not found:
            return
        if _remove(bucket, found):
            pause(attempt + 1)
    raise Unavailable(
        "versions of the object remain, or are written again, while it is deleted",
        "Stop other writers, or try again later.",
        name=name,
    )


def remove_older(bucket: Bucket, name: str) -> None:
    """Remove all but the latest version of ``name``."""
    _remove(bucket, tuple(version for version in bucket.versions(name) if not version.latest))


def _remove(bucket: Bucket, found: tuple[Version, ...]) -> bool:
    """Delete the versions, the latest last, so that no older content reappears; return whether any is left."""
    ordered = sorted(found, key=lambda version: version.latest)
    groups = (tuple(version for version in ordered if version.latest is latest) for latest in (False, True))
    refused = [refusal for group in groups for batch in _batches(group) for refusal in bucket.remove(batch)]
    lasting = [refusal for refusal in refused if refusal.code not in _PASSING]
    if lasting:
        raise _hindered(bucket, lasting[0])
    return bool(refused)


def _batches(versions: tuple[Version, ...]) -> list[tuple[Version, ...]]:
    return [versions[start : start + _BATCH] for start in range(0, len(versions), _BATCH)]


def _hindered(bucket: Bucket, refusal: Refusal) -> Unavailable:
    keeper = bucket.retention(refusal.version)
    if keeper is None:
        return Unavailable(
            "the store refuses to delete a version of the object",
            "Allow this account s3:DeleteObjectVersion on the store, then repeat the command.",
            name=refusal.version.name,
            code=refusal.code,
        )
    return Unavailable(
        f"Object Lock keeps a version of the object from deletion: {keeper}",
        "End the legal hold, or use a bucket without Object Lock for a new federation. Nothing can be erased from this"
        " bucket before the lock ends.",
        name=refusal.version.name,
        code=refusal.code,
    )
