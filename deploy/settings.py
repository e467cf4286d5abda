"""The only reader of environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The settings in the environment."""

    tracebacks: bool = False
    """``SISA_TRACEBACK=1``: show the traceback of an unexpected error; it may hold personal data."""
    token: str = field(default="", repr=False)
    """``SISA_TOKEN``: the token for a server (``--url``). Not an option, because other users can list arguments."""


def read_environment() -> Environment:
    """Return the settings of this process's environment."""
    return Environment(
        tracebacks=os.environ.get("SISA_TRACEBACK", "") not in ("", "0"),
        token=os.environ.get("SISA_TOKEN", "").strip(),
    )
