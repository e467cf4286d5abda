"""How the steps of training are carried out, which changes no bit of a constituent.

``eager``: PyTorch takes each step. ``replay``: one step is recorded, and then repeated, which saves PyTorch's overhead;
on CPUs only. ``auto``: ``replay`` for models of ``torch.nn``'s modules alone where it pays, else ``eager``.
"""

from __future__ import annotations

import math
from typing import Final

AUTO: Final = "auto"
EAGER: Final = "eager"
REPLAY: Final = "replay"
PAYS_FROM_STEPS: Final = 200
"""From this many steps in a shard on, ``auto`` makes a trial, which costs about as much as 30 steps."""
_ENGINES: Final = (AUTO, EAGER, REPLAY)


def replayed_from(engine: str) -> float:
    """Return how many steps of full batches have to be ahead before a recording is repeated; infinite: it never is."""
    return {AUTO: float(PAYS_FROM_STEPS), REPLAY: 1.0}.get(engine, math.inf)


def engine_problems(engine: str) -> list[str]:
    """Return what is wrong with the setting ``engine``."""
    return [] if engine in _ENGINES else [f"engine must be one of {', '.join(_ENGINES)}, got {engine!r}"]
