"""The user's own code: found beside the specification by every process that builds a model."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Final

_FOLDERS: Final[set[Path]] = set()
"""All folders made importable in this process, as a process may hold several federations."""

_WORKING: Final = RLock()
"""Held by the thread that has changed the process's working folder."""

_NEVER_FORGOTTEN: Final = frozenset({"__main__", "storage", "shards", "coordinator", "cluster", "deploy"})
"""The program and this system, which may lie in such a folder, too."""


def make_importable(folder: Path) -> None:
    """Let modules in ``folder`` be imported, before all others of their names.

    Another federation's folder may hold other modules of these names, which this process has imported: those are
    forgotten, so that the next import finds this folder's own. Models already built keep the code they are made of.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  the name as it stands: Python does not follow links either
    _FOLDERS.add(folder)
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]
    importlib.invalidate_caches()  # a file may be younger than Python's last look into the folder
    for top in _taken_by_others(folder):
        # Submodules go with their package: one that stayed would be found in the next package of that name.
        for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
            del sys.modules[name]


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make ``folder`` the working folder for a while, so that a model finds its declared files by relative names.

    One thread of the process at a time. Others see the other folder meanwhile.
    """
    with _WORKING:
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _taken_by_others(folder: Path) -> set[str]:
    """Return the top-level names that ``folder`` offers and that now mean code of another federation's folder."""
    # Begun at the folder's few entries, not at the thousands of modules that a process has imported.
    offered = {entry.name.partition(".")[0] for entry in os.scandir(folder)} if folder.is_dir() else set()
    return {top for top in (offered - _NEVER_FORGOTTEN) & sys.modules.keys() if _is_foreign(sys.modules[top], folder)}


def _is_foreign(module: ModuleType, folder: Path) -> bool:
    """Return whether the module or package was found through another federation's folder."""
    # A package without __init__.py lies wherever the path leads, in several folders at once.
    places = [*getattr(module, "__path__", ())] or [getattr(module, "__file__", None)]
    return any(Path(place).parent in _FOLDERS - {folder} for place in places if place)
