"""A witness: another store that keeps the log's checkpoints. A log that was cut back or rewritten shows against it.

    witnessed/<SHA-256 of the log's name>/<size>    the signed checkpoint over the first <size> entries, created once

Only worth something where others write it than those who write the log. Several logs may share one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from storage.digests import sha256
from storage.errors import Corrupt
from storage.objects import ObjectKey, ObjectStore, object_key
from storage.registers.create_once import create_or_read

_DIGITS: Final = 20


@dataclass(frozen=True, slots=True)
class Witness:
    """The checkpoints kept in ``store``."""

    store: ObjectStore

    def keep(self, origin: str, size: int, note: str) -> None:
        """Have the log's signed checkpoint of this size kept.

        Raises ``Corrupt`` when another one of this size is kept: the log is not what it was. Else as the store does.
        """
        key = _key(origin, size)
        if create_or_read(self.store, key, note.encode("utf-8")) != note.encode("utf-8"):
            raise Corrupt(
                "the witness keeps another checkpoint of this size: the log was rewritten since",
                "stop, keep both stores as they are, and compare the log with a copy: see 'sisa log --check'",
                witness=self.store.location,
                size=size,
            )

    def newest(self, origin: str) -> str | None:
        """Return the largest checkpoint of this log that is kept, unchecked; None: there is none."""
        folder = _folder(origin)
        names = (info.key.removeprefix(folder) for info in self.store.list(folder))
        sizes = [int(name) for name in names if len(name) == _DIGITS and name.isdecimal()]
        if not sizes:
            return None
        return self.store.get(_key(origin, max(sizes))).payload.decode("utf-8", "replace")


def _folder(origin: str) -> str:
    return f"witnessed/{sha256(origin.encode('utf-8'))}/"


def _key(origin: str, size: int) -> ObjectKey:
    return object_key(f"{_folder(origin)}{size:0{_DIGITS}d}")
