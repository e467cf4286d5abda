"""The release of this system that a process runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

DISTRIBUTION: Final = "sisa-ray"


def _installed() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"


RELEASE: Final = _installed()
"""Read once: a package may be replaced while processes run its code."""
