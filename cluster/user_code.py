"""The user's own code: found beside the specification by every process that builds a model."""

from __future__ import annotations

import sys
from pathlib import Path


def make_importable(folder: Path) -> None:
    """Let modules in ``folder`` be imported, before all others of their names that are not imported yet."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
