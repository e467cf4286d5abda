"""The user's own code, which every process that builds a model imports from the specification's folder."""

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
"""All folders made importable in this process, which may hold several federations. Entries are only added, so no lock
is needed."""

_WORKING: Final = RLock()
"""Held by the thread that has changed the process's working folder."""

_NEVER_FORGOTTEN: Final = frozenset({"__main__", "storage", "shards", "coordinator", "cluster", "deploy"})
"""The program and this system, which may be in such a folder, too."""


def make_importable(folder: Path) -> None:
    """Put ``folder`` first on the import path.

    This process may have imported modules with the same names from another federation's folder. Those are dropped, so
    that the next import finds this folder's modules. Models that are already built keep their code.
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

    One thread of the process may do so at a time; the working folder changes for all threads.
    """
    with _WORKING:
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _taken_by_others(folder: Path) -> set[str]:
    """Return the names of modules in ``folder`` that are now imported from another federation's folder."""
    # Starts from the folder's few entries, not from the thousands of modules that a process has imported.
    offered = {entry.name.partition(".")[0] for entry in os.scandir(folder)} if folder.is_dir() else set()
    return {top for top in (offered - _NEVER_FORGOTTEN) & sys.modules.keys() if _is_foreign(sys.modules[top], folder)}


def _is_foreign(module: ModuleType, folder: Path) -> bool:
    """Return whether the module or package was found through another federation's folder."""
    # A package without __init__.py may be spread over several folders of the import path.
    places = [*getattr(module, "__path__", ())] or [getattr(module, "__file__", None)]
    return any(Path(place).parent in _FOLDERS - {folder} for place in places if place)
