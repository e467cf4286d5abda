"""The code that a model is made of: imported by name, which files are the user's, and the digest over them."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from importlib.util import resolve_name
from itertools import accumulate
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

from shards.specification import SHIPPED_FACTORIES, ModelSettings, TrainingSettings
from storage.digests import Sha256
from storage.errors import Invalid

OWN_ROOMS = frozenset({"storage", "shards", "coordinator", "cluster", "deploy"})
"""Top-level packages of this system, which are not the user's code."""

_HOME = Path(__file__).resolve().parents[3]

_PARSING = Lock()
"""Python up to 3.11.7 sometimes fails when two threads parse at the same time (CPython issue 106905)."""


def model_code_digest(settings: ModelSettings, training: TrainingSettings) -> Sha256:
    """Return the digest of all source files the model and its training are made of.

    These are the modules of the factory and of the user's callables in ``training``, and every module that they reach
    through their globals and import statements, if they are the user's or the shipped factories. Left out: the
    standard library, installed packages other than the factory's own (torch's version is in the numerics profile), and
    the rest of this system (``TRAINER_FORMAT`` stands for it). A file counts as this process first read it, because
    that is the code that runs here.
    """
    found = {settings.factory: import_factory(settings.factory)}
    found |= {path: import_callable(path, f"[training] {setting}") for setting, path in training.code.items()}
    sources: dict[str, bytes] = {}
    for path, target in found.items():
        sources |= _sources(sys.modules[path.partition(":")[0]])
        if own := inspect.getmodule(target):
            sources |= _sources(own)
    digest = hashlib.sha256()
    for name, source in sorted(sources.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(source).digest())
    return Sha256(digest.hexdigest())


def _sources(root: ModuleType) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    pending = [root]
    while pending:
        module = pending.pop()
        file = getattr(module, "__file__", None)
        if module.__name__ in found or not file or not (module is root or _is_followed(module, Path(file), root)):
            continue
        found[module.__name__] = read_source(Path(file))
        pending += _reached(module, found[module.__name__] if file.endswith(".py") else b"")
    return found


@cache
def read_source(file: Path) -> bytes:
    """Return a source file's bytes, as this process first read them."""
    return file.read_bytes()


def _is_followed(module: ModuleType, file: Path, root: ModuleType) -> bool:
    top = _top(module)
    if top in OWN_ROOMS:
        return module.__name__ == SHIPPED_FACTORIES
    return not _is_read_installed(file) or (top == _top(root) and top != "torch")


@cache
def _is_read_installed(file: Path) -> bool:
    """Return what ``is_installed`` said when this process first asked, as ``read_source`` does of the content."""
    return is_installed(file)


def _top(module: ModuleType) -> str:
    return module.__name__.partition(".")[0]


def _reached(module: ModuleType, source: bytes) -> list[ModuleType]:
    """Return the modules that define the module's globals, and those that its import statements name.

    Both are needed: a constant does not say which module it was imported from, and an object may have been imported
    from a module that only re-exports it.
    """
    names = {*imported_names(source, module.__package__ or "")}
    for value in vars(module).values():
        holder: object = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(holder, str):
            names.add(holder)
    return [sys.modules[name] for name in sorted(names) if name in sys.modules]


@cache  # called at every load; caching also reduces concurrent parsing (see ``_PARSING``)
def imported_names(source: bytes, package: str) -> frozenset[str]:
    """Return the full names that the source's import statements may refer to, and their parent packages."""
    with _PARSING:
        tree = ast.parse(source)
    found: set[str] = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            found.update(accumulate(name.split("."), "{}.{}".format))
    return frozenset(found)


def is_installed(file: Path) -> bool:
    """Return whether the file belongs to the standard library or an installed package, not to the user."""
    return not _installed_places().isdisjoint(file.resolve().parents)


def is_own_file(file: Path) -> bool:
    """Return whether the file belongs to this system, regardless of where it is installed."""
    return any(file.is_relative_to(_HOME / room) for room in OWN_ROOMS)


@cache
def _installed_places() -> frozenset[Path]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    # Another environment's packages may be on the path too: through a .pth file, or added by Ray's runtime_env.
    others = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    every = (*paths, *site.getsitepackages(), site.getusersitepackages(), *others)
    return frozenset(Path(path).resolve() for path in every)


def import_factory(path: str) -> Callable[..., Any]:
    """Return the callable that ``[model] factory`` names. Raises ``Invalid`` when it cannot be found."""
    return import_callable(path, "[model] factory")


def import_callable(path: str, setting: str) -> Callable[..., Any]:
    """Return the callable that ``module:callable`` names. Raises ``Invalid`` when it cannot be found."""
    module_name, _, attribute = path.partition(":")
    try:
        target: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise Invalid(
            f"{setting} {path!r}: no module named {error.name!r}",
            "Put the file next to the specification or install the package, and check the spelling.",
        ) from error
    except Exception as error:  # importing the user's module may raise anything
        raise Invalid(
            f"{setting} {path!r}: importing {module_name!r} failed with {type(error).__name__}",
            "Import the module in a Python shell to see why.",
        ) from error
    for name in attribute.split("."):
        if not hasattr(target, name):
            public = (
                [entry for entry in vars(target) if not entry.startswith("_")] if hasattr(target, "__dict__") else []
            )
            raise Invalid(
                f"{setting} {path!r}: {module_name!r} has no {name!r}",
                f"Choose one of its names: {', '.join(public[:12])}." if public else "Name a module that defines it.",
            )
        target = getattr(target, name)
    if not callable(target):
        returns = "a Module" if setting == "[model] factory" else "a tensor"
        raise Invalid(f"{setting} {path!r} is not callable", f"Name a function or class that returns {returns}.")
    return target
