"""Which kernels take the step of an optimizer. Their results differ in the last bits, so that records have the setting.

``separate``: one kernel for each operation, which is what PyTorch does by itself. ``fused``: one kernel for the whole
step, with ``fused=True`` in PyTorch's words; on CPUs only.
"""

from __future__ import annotations

from typing import Final

SEPARATE: Final = "separate"
FUSED: Final = "fused"
_KERNELS: Final = (SEPARATE, FUSED)

HAVE_FUSED: Final = ("sgd", "adam", "adamw", "adagrad")
"""The optimizers for which PyTorch has a fused kernel."""


def kernels_problems(kernels: str, optimizer: str) -> list[str]:
    """Return what is wrong with the setting ``kernels``, given a valid ``optimizer``."""
    if kernels not in _KERNELS:
        return [f"kernels must be one of {', '.join(_KERNELS)}, got {kernels!r}"]
    if kernels == FUSED and optimizer not in HAVE_FUSED:
        have = ", ".join(HAVE_FUSED)
        return [f"kernels = {FUSED!r} is for {have}, and PyTorch has none for {optimizer}: leave kernels out"]
    return []
