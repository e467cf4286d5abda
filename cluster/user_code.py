"""The user's own code: found beside the specification by every process that builds a model."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

_FOLDERS: Final[set[Path]] = set()
"""All folders made importable in this process, as a process may hold several federations."""

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


def _taken_by_others(folder: Path) -> set[str]:
    """Return the top-level names that ``folder`` offers and that now mean code of another federation's folder."""
    foreign = {
        name.partition(".")[0]
        for name, module in list(sys.modules.items())
        if _is_foreign(module, name.partition(".")[0], folder)
    }
    return {top for top in foreign - _NEVER_FORGOTTEN if PathFinder.find_spec(top, [str(folder)]) is not None}


def _is_foreign(module: ModuleType, top: str, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or _is_found_in(folder, Path(file), top):
        return False
    return any(_is_found_in(other, Path(file), top) for other in _FOLDERS)


def _is_found_in(folder: Path, file: Path, top: str) -> bool:
    """Return whether ``folder`` on Python's path leads to ``file``; an environment inside the folder does not count."""
    return file.parent == folder or folder / top in file.parents
