"""Seeds of signing keys that are the same in every run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import count


@dataclass(slots=True)
class CountingSeeds:
    """Returns the SHA-256 of ``<prefix>-1``, ``<prefix>-2``, and so on."""

    prefix: str = "seed"
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def __call__(self) -> bytes:
        """Return the next seed."""
        return hashlib.sha256(f"{self.prefix}-{next(self._numbers)}".encode()).digest()
