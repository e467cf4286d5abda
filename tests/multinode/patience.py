"""Waiting for what other processes do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

PATIENCE_SECONDS = 300.0
"""How long a failing test waits; one that passes does not."""

_LOOK_SECONDS = 0.05
"""Time between the first two looks. The intervals grow, because looks are expensive."""
_MOST_LOOK_SECONDS = 0.5

_Found = TypeVar("_Found")


def until(look: Callable[[], _Found], what: str) -> _Found:
    """Return what ``look`` finds, as soon as it is something. Raises ``TimeoutError`` naming ``what``."""
    start = monotonic()
    pause = threading.Event()
    while not (found := look()):
        waited = monotonic() - start
        if waited > PATIENCE_SECONDS:
            raise TimeoutError(f"waited in vain for {what}")
        pause.wait(min(max(_LOOK_SECONDS, waited / 20), _MOST_LOOK_SECONDS))
    return found
