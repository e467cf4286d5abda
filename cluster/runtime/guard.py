"""Guard: ``storage``, ``shards`` and the other rooms have common names, so check that the imported ones are ours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from storage.errors import Invalid

_HOME: Final = Path(__file__).resolve().parents[2]

ROOMS: Final = ("storage", "shards", "coordinator", "cluster", "deploy")


def check_folder(folder: Path) -> None:
    """Raise ``Invalid`` when a module in ``folder``, the first on the workers' import path, hides one of our rooms.

    A folder without ``__init__.py`` hides nothing: Python prefers our package to it.
    """
    if folder.resolve() == _HOME:
        return
    for room in ROOMS:
        for other in (folder / room / "__init__.py", folder / f"{room}.py"):
            if other.exists():
                raise Invalid(
                    f"{other} would be taken for sisa-ray's own package {room!r}, {_HOME / room}",
                    f"Rename it, or move the specification to a folder without {room!r}.",
                )


def check_rooms() -> None:
    """Raise ``Invalid`` when another distribution's package would be imported in place of one of our rooms.

    Ours are side by side in one folder. The command and every worker call this at their start.
    """
    for room in ROOMS:
        found = find_spec(room)
        folder = Path(found.origin).resolve().parent if found and found.origin else None
        if folder != _HOME / room:
            raise Invalid(
                f"the Python package {room!r} is not sisa-ray's: expected {_HOME / room}, found {folder}",
                f"Uninstall the distribution that brings {room!r}, or use a virtual environment of its own.",
            )
