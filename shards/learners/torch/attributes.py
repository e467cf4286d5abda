"""Tensors, arrays and numbers that a model keeps in plain attributes, which no checkpoint holds; by name."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import FunctionType, MethodType
from typing import Final, Literal

import numpy as np
import torch
from torch import nn

from shards.learners.torch.checkpoint import digest_tensors, model_tensors
from shards.learners.torch.seeding import generator_state
from storage.digests import Sha256, sha256

Kind = Literal["tensor", "derived", "number"]
"""``derived``: a tensor that autograd computed from parameters, such as the weight of a normalised layer."""

_DEPTH: Final = 6
_ENTRIES: Final = 4096
"""Depth, and entries per container, up to which values are examined."""

_OF_EVERY_MODULE: Final = frozenset(vars(nn.Module()))
_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, slots=True)
class AttributeValue:
    """One value in a plain attribute."""

    kind: Kind
    digest: Sha256


def kept_in_attributes(model: nn.Module) -> dict[str, AttributeValue]:
    """Return all values in plain attributes of the model and its modules, including containers and helper objects.

    Aliases of parameters and buffers, such as the flat weights of an LSTM, are left out: checkpoints include those.
    """
    walk = _Walk(model)
    found: dict[str, AttributeValue] = {}
    for prefix, module in model.named_modules():
        for name, value in _plain(module):
            found.update(walk.values(f"{prefix}.{name}".lstrip("."), value, 0))
    return found


def changed_tensors(
    before: Mapping[str, AttributeValue], after: Mapping[str, AttributeValue], *, is_first: bool
) -> dict[str, Kind]:
    """Return the tensors in attributes that differ. The first epoch may add some, which is how caches are filled."""
    names = before.keys() & after.keys() if is_first else before.keys() | after.keys()
    changed = [name for name in sorted(names) if before.get(name) != after.get(name)]
    kinds: dict[str, Kind] = {name: (after.get(name) or before[name]).kind for name in changed}
    return {name: kind for name, kind in kinds.items() if kind != "number"}


def _plain(module: nn.Module) -> Iterator[tuple[str, object]]:
    """Yield the module's plain attributes, and its hooks, which may hold values as well."""
    own = vars(module)
    for name, value in own.items():
        # Attributes that torch's compiler sets on a module, which include addresses, are not the model's.
        if name not in _OF_EVERY_MODULE and not name.startswith("_torchdynamo"):
            yield name, value
    yield from ((name, own[name]) for name in _HOOKS if own.get(name))


class _Walk:
    """Walks through values, visiting each object once."""

    def __init__(self, model: nn.Module) -> None:
        self._held = {_memory(tensor) for tensor in model_tensors(model).values()}
        self._seen: dict[int, object] = {id(module): module for module in model.modules()}
        """Objects by their ``id()``; referenced here, because the id of a deleted object may be reused."""

    def values(self, name: str, value: object, depth: int) -> Iterator[tuple[str, AttributeValue]]:
        """Yield the values in ``value``, which is the attribute ``name``."""
        if isinstance(value, torch.Tensor):
            yield from self._tensor(name, value)
        elif isinstance(value, np.ndarray) and value.dtype.hasobject:  # its memory holds addresses
            yield from self.values(name, value.tolist(), depth)
        elif isinstance(value, np.ndarray):
            yield (
                name,
                AttributeValue("tensor", sha256(np.ascontiguousarray(value).tobytes() + str(value.dtype).encode())),
            )
        elif isinstance(value, (bool, int, float, complex, np.generic)):
            yield name, AttributeValue("number", sha256(repr(value).encode()))
        elif (state := generator_state(value)) is not None:
            yield name, AttributeValue("number", sha256(state.encode()))
        elif depth < _DEPTH and id(value) not in self._seen:
            self._seen[id(value)] = value
            for suffix, part in _parts(value):
                yield from self.values(name + suffix, part, depth + 1)

    def _tensor(self, name: str, tensor: torch.Tensor) -> Iterator[tuple[str, AttributeValue]]:
        try:
            if _memory(tensor) in self._held:
                return
            digest = digest_tensors({"": tensor})
        except (RuntimeError, NotImplementedError, TypeError):  # a layout without plain memory, such as sparse
            return
        yield name, AttributeValue("tensor" if tensor.grad_fn is None else "derived", digest)


def _memory(tensor: torch.Tensor) -> tuple[torch.device, int]:
    # All empty tensors are at address 0, but that does not make them aliases of each other.
    address = tensor.untyped_storage().data_ptr()
    return tensor.device, address or -id(tensor)


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield the parts of a container or helper object, each with the suffix of its name."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in islice(value.items(), _ENTRIES) if _is_plain(key))
    elif isinstance(value, (list, tuple, deque)):
        yield from ((f"[{index}]", part) for index, part in enumerate(islice(value, _ENTRIES)))
    elif isinstance(value, (set, frozenset)):
        numbers = sorted(part for part in value if isinstance(part, (int, float)))
        yield from ((f"{{{index}}}", part) for index, part in enumerate(islice(numbers, _ENTRIES)))
    elif isinstance(value, nn.Module):  # not registered with its parent, so that no checkpoint holds its parameters
        yield from ((f".{name}", part) for name, part in model_tensors(value).items())
        for prefix, module in value.named_modules():
            yield from ((f".{prefix}.{name}".replace("..", "."), part) for name, part in _plain(module))
    elif isinstance(value, MethodType):
        yield "()", value.__self__
    elif isinstance(value, partial):
        yield "()", (value.func, value.args, value.keywords)
    elif isinstance(value, FunctionType):
        yield "()", [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
    elif not isinstance(value, type) and not type(value).__module__.startswith(("torch.", "builtins")):
        yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())
        slots = getattr(type(value), "__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        yield from ((f".{name}", getattr(value, name)) for name in names if hasattr(value, name))


def _is_plain(key: object) -> bool:
    return isinstance(key, (str, int))  # an object's name may be its address


def _is_filled(cell: object) -> bool:
    try:
        cell.cell_contents  # type: ignore[attr-defined]  # noqa: B018
    except ValueError:
        return False
    return True
