"""Waiting for what other processes do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

PATIENCE_SECONDS = 300.0
"""Only how long a test that fails hangs."""

_LOOK_SECONDS = 0.05

_Found = TypeVar("_Found")


def until(look: Callable[[], _Found], what: str) -> _Found:
    """Return what ``look`` finds, as soon as it is something. Raises ``TimeoutError`` naming ``what``."""
    end = monotonic() + PATIENCE_SECONDS
    pause = threading.Event()
    while not (found := look()):
        if monotonic() > end:
            raise TimeoutError(f"waited in vain for {what}")
        pause.wait(_LOOK_SECONDS)
    return found
