"""The user's modules in a process that learns: read once, and run afresh for each constituent, as they were read."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from shards.learners.torch.model_code import OWN_ROOMS, is_installed, read_source


class UserModules:
    """The user's modules that this process imports from here on. One a process: it changes how modules are imported."""

    def __init__(self) -> None:
        self._others = set(sys.modules)
        self._finder = _RememberingFinder()
        sys.meta_path.insert(sys.meta_path.index(PathFinder), self._finder)

    def forget(self, factory: str) -> None:
        """Forget them: the next import runs their code afresh, and finds nothing that an earlier constituent left.

        What runs is what this process has read first, whatever their files hold by now. ``factory`` is the path of the
        model's factory: an installed package that holds it is the user's, too.
        """
        own = _top(factory.partition(":")[0])
        self._finder.own = own
        for name in sys.modules.keys() - self._others:
            if _is_users(name, sys.modules[name], own):
                del sys.modules[name]
            else:
                self._others.add(name)  # torch imports a thousand modules when it is first used


def _is_users(name: str, module: ModuleType, own: str) -> bool:
    top = _top(name)
    places = [*getattr(module, "__path__", ())] or [getattr(module, "__file__", None)]
    files = [Path(place) for place in places if isinstance(place, str)]
    if not files or files[0].suffix not in {"", ".py"}:
        return False  # a module in C holds on to what it has, and is often made to be imported once
    return _are_users(top, own, files)


def _are_users(top: str, own: str, files: Sequence[Path]) -> bool:
    """Return whether files of the top-level package ``top`` are the user's; ``own`` is the one with the factory."""
    return top not in OWN_ROOMS and ((top == own and top != "torch") or not all(map(is_installed, files)))


def _top(name: str) -> str:
    return name.partition(".")[0]


class _RememberingFinder(MetaPathFinder):
    """Finds what Python finds; the user's own sources then come from memory, and never from bytecode on disk."""

    def __init__(self) -> None:
        self.own = ""
        """The top-level package that holds the factory."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the module is."""
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return spec
        if not _are_users(_top(fullname), self.own, [Path(spec.loader.path)]):
            return spec
        found = importlib.util.spec_from_file_location(
            fullname,
            spec.loader.path,
            loader=_RememberedSource(fullname, spec.loader.path),
            submodule_search_locations=spec.submodule_search_locations,
        )
        return found or spec


class _RememberedSource(SourceFileLoader):
    """Runs a source file as this process first read it: what the model's code digest speaks of."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the module's code; a ``.pyc`` may be older than its source in the same second."""
        del fullname
        return _code(Path(self.path))


@cache
def _code(file: Path) -> CodeType:
    return compile(read_source(file), file, "exec", dont_inherit=True)
