"""Waiting before another attempt."""

from __future__ import annotations

import secrets
import time

_FIRST_SECONDS = 0.05
_LONGEST_SECONDS = 2.0


def pause(attempt: int) -> None:
    """Wait before attempt 1, 2, … : twice as long each time, with jitter, so that writers do not meet again."""
    by_chance = 0.5 + secrets.randbelow(1000) / 1000
    time.sleep(min(_LONGEST_SECONDS, _FIRST_SECONDS * 2**attempt) * by_chance)
