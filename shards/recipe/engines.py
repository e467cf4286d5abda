"""How the steps of training are carried out, which changes no bit of a constituent.

``eager``: PyTorch takes each step. ``replay``: one step is recorded, and then repeated, which saves what PyTorch spends
beside the arithmetic; on CPUs only. ``auto``: ``replay`` for models of ``torch.nn``'s modules alone where it pays, else
``eager``.
"""

from __future__ import annotations

from typing import Final

AUTO: Final = "auto"
EAGER: Final = "eager"
REPLAY: Final = "replay"
_ENGINES: Final = (AUTO, EAGER, REPLAY)


def engine_problems(engine: str) -> list[str]:
    """Return what is wrong with the setting ``engine``."""
    return [] if engine in _ENGINES else [f"engine must be one of {', '.join(_ENGINES)}, got {engine!r}"]
