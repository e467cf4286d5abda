"""The user's model: imported, called, checked, and named by the code it is made of."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import resolve_name
from itertools import accumulate
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from shards.specification import ModelSettings
from storage.digests import Sha256
from storage.errors import Invalid

Factory = Callable[..., nn.Module]

SHIPPED_FACTORIES = "shards.models"
"""The module of the factories that come with this system."""

OWN_ROOMS = frozenset({"storage", "shards", "coordinator", "cluster", "deploy"})
"""Top-level packages of this system: none of the user's code."""

_INPUT_NAMES = ("inputs", "in_features", "n_features", "num_features", "input_size", "input_dim")
_CLASS_NAMES = ("classes", "outputs", "out_features", "n_classes", "num_classes", "output_size", "output_dim")

_PARSING = Lock()
"""Releases of Python up to 3.11.7 fail now and then where two threads parse at a time (CPython's issue 106905)."""


def import_factory(path: str) -> Factory:
    """Return the callable that ``module:callable`` names. Raises ``Invalid`` when there is none."""
    module_name, _, attribute = path.partition(":")
    try:
        target: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise Invalid(
            f"[model] factory {path!r}: no module named {error.name!r}",
            "put the file beside the specification or install the package, and check the spelling",
        ) from error
    except Exception as error:  # the user's module may raise anything while it is imported
        raise Invalid(
            f"[model] factory {path!r}: importing {module_name!r} failed with {type(error).__name__}",
            "import the module in a Python shell to see why",
        ) from error
    for name in attribute.split("."):
        if not hasattr(target, name):
            public = (
                [entry for entry in vars(target) if not entry.startswith("_")] if hasattr(target, "__dict__") else []
            )
            raise Invalid(
                f"[model] factory {path!r}: {module_name!r} has no {name!r}",
                f"it has: {', '.join(public[:12])}",
            )
        target = getattr(target, name)
    if not callable(target):
        raise Invalid(f"[model] factory {path!r} is not callable", "name a function or class that returns a Module")
    return cast("Factory", target)


def build_model(settings: ModelSettings, inputs: int, classes: int) -> nn.Module:
    """Return the model that the settings describe, checked to map (2, inputs) to (2, classes).

    Draws initial weights from the global generators: seed them first. The check also gives lazy modules their shapes.
    Raises ``Invalid`` when the factory fails, returns no Module, or the Module does not fit the data.
    """
    factory = import_factory(settings.factory)
    arguments = _with_widths(factory, settings.arguments, inputs, classes)
    try:
        model = factory(*arguments[0], **arguments[1])
    except Invalid:
        raise
    except Exception as error:  # the factory is the user's code
        raise Invalid(
            f"[model] factory {settings.factory!r} failed with {type(error).__name__}: {error}",
            "check [model] arguments against the factory's parameters",
        ) from error
    if not isinstance(model, nn.Module):
        raise Invalid(
            f"[model] factory {settings.factory!r} returned {type(model).__name__}, not a torch.nn.Module",
            "return the Module",
        )
    _check_output(model, settings.factory, inputs, classes)
    return model


def model_code_digest(settings: ModelSettings) -> Sha256:
    """Return the digest of all source files the model is made of.

    These are the module of the factory and every module it reaches through its globals and its import statements, as
    far as they are the user's or the shipped factories. Left out: the standard library, installed packages other than
    the factory's own (torch's version is in the numerics profile) and the rest of this system (``TRAINER_FORMAT``
    speaks for it). A file counts as it was when this process first read it: that is the code which runs here.
    """
    factory = import_factory(settings.factory)
    root = sys.modules[settings.factory.partition(":")[0]]
    sources = _sources(root)
    if own := inspect.getmodule(factory):
        sources |= _sources(own)
    digest = hashlib.sha256()
    for name, source in sorted(sources.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(source).digest())
    return Sha256(digest.hexdigest())


def _with_widths(
    factory: Factory, arguments: Mapping[str, Any], inputs: int, classes: int
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return the call's positional and keyword arguments, with the widths added where the factory takes them."""
    keywords = dict(arguments)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a builtin without a signature: call it as the settings say
        return (), keywords
    for names, width in ((_INPUT_NAMES, inputs), (_CLASS_NAMES, classes)):
        if taken := [name for name in names if name in parameters]:
            keywords.setdefault(taken[0], width)
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and name not in keywords
    ]
    # A factory with two parameters under names of its own, such as net(n_in, n_out), takes them in this order.
    return ((inputs, classes) if len(missing) == 2 and list(parameters)[:2] == missing else ()), keywords


def _check_output(model: nn.Module, factory: str, inputs: int, classes: int) -> None:
    model.eval()
    try:
        with torch.no_grad():
            output = model(torch.zeros(2, inputs))
    except Exception as error:  # forward is the user's code
        raise Invalid(
            f"[model] factory {factory!r}: the model fails on 2 data points of {inputs} features"
            f" with {type(error).__name__}: {error}",
            "make the model accept (N, features) and check [model] arguments against the data",
        ) from error
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if shape != (2, classes):
        raise Invalid(
            f"[model] factory {factory!r}: the output for 2 data points has shape {shape}, expected {(2, classes)}",
            f"let the last layer give one logit for each of the {classes} declared classes",
        )
    if "_extra_state" in " ".join(model.state_dict()):
        raise Invalid(
            f"[model] factory {factory!r}: the model keeps state outside its parameters and buffers",
            "hold it in buffers (register_buffer), so that a checkpoint has all of it",
        )


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
    return not is_installed(file) or (top == _top(root) and top != "torch")


def _top(module: ModuleType) -> str:
    return module.__name__.partition(".")[0]


def _reached(module: ModuleType, source: bytes) -> list[ModuleType]:
    """Return the modules that hold what the module's globals name, and those its import statements name.

    Both are needed: a constant taken from another module does not say where it is from, and an object may come from a
    module that re-exports it.
    """
    names = {*_imported(source, module.__package__ or "")}
    for value in vars(module).values():
        holder: object = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(holder, str):
            names.add(holder)
    return [sys.modules[name] for name in sorted(names) if name in sys.modules]


@cache  # as it is asked at every load; and the less is parsed, the less may meet what others parse (see ``_PARSING``)
def _imported(source: bytes, package: str) -> frozenset[str]:
    """Return the full names that the source's import statements may mean, with the packages above them."""
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
    """Return whether the file belongs to the standard library or to an installed package, and not to the user."""
    return any(place in file.resolve().parents for place in _installed_places())


@cache
def _installed_places() -> frozenset[Path]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    # Another environment's packages may be on the path as well: through a .pth file, or as Ray's runtime_env puts them.
    others = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    every = (*paths, *site.getsitepackages(), site.getusersitepackages(), *others)
    return frozenset(Path(path).resolve() for path in every)
