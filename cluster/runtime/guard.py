"""Guard: ``storage``, ``shards`` and the other rooms are common names, so make sure that the ones at hand are ours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from storage.errors import Invalid

ROOMS: Final = ("storage", "shards", "coordinator", "cluster", "deploy")


def check_rooms() -> None:
    """Raise ``Invalid`` when a package of another distribution stands in for one of our rooms.

    Ours lie side by side in one folder. Called at start by the command and by every worker.
    """
    home = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        found = find_spec(room)
        folder = Path(found.origin).resolve().parent if found and found.origin else None
        if folder != home / room:
            raise Invalid(
                f"the Python package {room!r} is not sisa-ray's: expected {home / room}, found {folder}",
                f"uninstall the distribution that brings {room!r}, or use a virtual environment of its own",
            )
