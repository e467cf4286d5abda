"""The user's modules in a training process: read once, and executed again from memory for each constituent."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import accumulate
from pathlib import Path
from types import CodeType, FrameType, ModuleType

import shards.learners.torch.learner  # noqa: F401  modules that are loaded later count as the user's
from shards.learners.torch.confinement import refuse_model, unconfined
from shards.learners.torch.model_code import OWN_ROOMS, is_installed, read_source
from shards.learners.torch.staging import StagedFolder
from storage.digests import Sha256, sha256


class UserModules:
    """The user's modules that this process imports from now on. One per process, since it changes Python's import."""

    def __init__(self, stage: StagedFolder | None = None) -> None:
        """With a ``stage``, modules in the specification's folder are copied to the staged one and run from there."""
        self.stage = stage
        self.loaded: dict[str, Sha256] = {}
        """Digests of the sources of all user modules that were imported since the last ``forget_loaded``, by name."""
        self.packages: set[str] = set()
        """Top-level installed packages that were first imported by user modules."""
        self._allowed: Mapping[str, Sha256] | None = None
        self._own = ""
        self._files: set[Path] = set()
        self._others = set(sys.modules)
        sys.meta_path.insert(sys.meta_path.index(PathFinder), _RememberingFinder(self))

    def forget(self, factory: str) -> None:
        """Drop the user's modules: the next import executes their code again, without state of earlier constituents.

        The code that runs is what this process read first, even if the files have changed. ``factory`` is the path of
        the model's factory: an installed package that contains it counts as the user's.
        """
        self._own = _top(factory.partition(":")[0])
        for name in sys.modules.keys() - self._others:
            if _is_users(name, sys.modules[name], self._own):
                del sys.modules[name]
            else:
                self._others.add(name)  # torch imports a thousand modules on first use

    def allow_only(self, modules: Mapping[str, Sha256] | None) -> None:
        """From now on refuse user modules that are not in ``modules`` or have other content; None: allow all."""
        self._allowed = modules
        for name in self.loaded:
            self.check(name)

    def forget_loaded(self) -> None:
        """Clear ``loaded`` and ``packages``."""
        self.loaded.clear()
        self.packages.clear()

    def may_read(self, file: Path) -> bool:
        """Return whether the file is user code that was loaded, or a declared file in the staged folder."""
        return file in self._files or (self.stage is not None and self.stage.holds(file))

    def noted(self, name: str, spec: ModuleSpec) -> ModuleSpec:
        """Return the spec to import the module with: user sources come from memory, never from bytecode."""
        file = _file_of(spec)
        if file is None:
            return spec  # a built-in module, or a package without code
        if not _are_users(_top(name), self._own, [file]):
            self._note_package(_top(name))
            return spec
        source = read_source(file) if file.is_file() else spec.loader.get_data(str(file))  # type: ignore[union-attr]
        self.loaded[name] = sha256(source)
        place = self.stage.place_of(file, source) if self.stage is not None else file
        if place == file:
            self._files.add(file)
        if type(spec.loader) is SourceFileLoader:
            return _spec(name, place, spec, _RememberedSource(name, file, place))
        if place == file:
            return spec
        # A module in an archive, whose copy is read as source; or a library or bytecode without source.
        return _spec(name, place, spec, _RememberedSource(name, place, place) if place.suffix == ".py" else None)

    def check(self, name: str) -> None:
        """Raise ``Invalid`` when the module is the user's and not what ``allow_only`` allows."""
        if self._allowed is None or self._allowed.get(name) == self.loaded.get(name):
            return
        what = "has changed since" if name in self._allowed else "was not needed when"
        refuse_model(
            f"the model's code imports the module {name!r}, which {what} it was rehearsed",
            "Import all modules at the top of the model's file, so that the rehearsal loads them, and do not edit files"
            " while 'sisa train' runs; then run 'sisa train' again.",
        )

    def _note_package(self, top: str) -> None:
        if top not in OWN_ROOMS and _importer() in self.loaded:
            self.packages.add(top)


def locate(name: str) -> Path | None:
    """Return the file of a module, without running any code; None when there is none."""
    path: Sequence[str] | None = None
    file: Path | None = None
    for each in accumulate(name.split("."), "{}.{}".format):
        spec = _found(each, path, None)
        if spec is None:
            return None
        path, file = spec.submodule_search_locations, _file_of(spec)
    return file


def _file_of(spec: ModuleSpec) -> Path | None:
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _is_users(name: str, module: ModuleType, own: str) -> bool:
    top = _top(name)
    places = [*getattr(module, "__path__", ())] or [getattr(module, "__file__", None)]
    files = [Path(place) for place in places if isinstance(place, str)]
    if not files or files[0].suffix not in {"", ".py"}:
        return False  # modules in C keep their state, and many can be imported only once
    return _are_users(top, own, files)


def _are_users(top: str, own: str, files: Sequence[Path]) -> bool:
    """Return whether files of the top-level package ``top`` are the user's; ``own`` is the factory's package."""
    return top not in OWN_ROOMS and ((top == own and top != "torch") or not all(map(is_installed, files)))


def _top(name: str) -> str:
    return name.partition(".")[0]


def _importer() -> str:
    """Return the name of the module whose import statement is being executed."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  the only way to see who imports
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name != __name__ and _top(name) != "importlib":
            return name
        frame = frame.f_back
    return ""


def _found(name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """Return the spec that Python's other finders return."""
    finders = list(sys.meta_path)
    start = finders.index(PathFinder)
    for finder in finders[start:]:  # finders before it handle built-in modules; finders that packages add come after it
        if hasattr(finder, "find_spec") and (spec := finder.find_spec(name, path, target)) is not None:
            return spec
    return None


def _spec(name: str, place: Path, found: ModuleSpec, loader: SourceFileLoader | None) -> ModuleSpec:
    more = {} if loader is None else {"loader": loader}
    inside = found.submodule_search_locations
    return importlib.util.spec_from_file_location(name, place, submodule_search_locations=inside, **more) or found


class _RememberingFinder(MetaPathFinder):
    """Finds what Python finds, and lets ``UserModules`` decide how the module is loaded."""

    def __init__(self, modules: UserModules) -> None:
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's spec."""
        with unconfined():
            spec = _found(fullname, path, target)
            noted = None if spec is None else self._modules.noted(fullname, spec)
        if noted is not None:
            self._modules.check(fullname)
        return noted


class _RememberedSource(SourceFileLoader):
    """Runs a source file as this process first read it, which is what the model's code digest covers."""

    def __init__(self, fullname: str, read_from: Path, place: Path) -> None:
        super().__init__(fullname, str(place))
        self._read_from = read_from

    def get_code(self, fullname: str) -> CodeType:
        """Return the module's code. No ``.pyc`` is used, because it misses a change within the same second."""
        del fullname
        return _code(self._read_from, Path(self.path))


@cache
def _code(file: Path, place: Path) -> CodeType:
    return compile(read_source(file), place, "exec", dont_inherit=True)
