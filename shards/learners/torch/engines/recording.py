"""Records a step of training as calls of ATen operators: forward, loss, backward and clipping of gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.utils._python_dispatch import TorchDispatchMode

from shards.learners.torch.checkpoint import model_tensors

FEATURES: Final = "features"
LABELS: Final = "labels"

FILLED: Final = frozenset({"aten::ones_like", "aten::zeros_like", "aten::full_like"})
"""Operators whose results depend on nothing but the shape of what they get."""
_UNREPEATABLE: Final = frozenset({"aten::set_", "aten::resize_", "aten::resize_as_", "aten::_local_scalar_dense"})
"""Operators that move memory, or give a number to Python, which may decide by it what comes next."""
_DEPEND_ON_DATA: Final = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})


class Unrepeatable(Exception):
    """A step that cannot be repeated from a recording; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of an operator, with the tensors that it returned."""

    operator: Any
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    results: tuple[torch.Tensor, ...]

    @property
    def got(self) -> tuple[torch.Tensor, ...]:
        """The tensors among the arguments."""
        return tuple(tensors_in((self.arguments, tuple(self.named.values()))))

    @property
    def is_writing(self) -> bool:
        """Whether the operator changes what it gets."""
        return bool(schema_of(self.operator).is_mutable)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A recorded step. Tensors are known by their identities, so all of them are referenced here."""

    calls: tuple[Call, ...]
    inputs: Mapping[str, torch.Tensor]
    """Features, labels, and all parameters and buffers by their names."""
    loss: torch.Tensor
    gradients: Mapping[str, torch.Tensor]
    """Gradients by the parameter's name; parameters without a gradient are left out."""
    generator: torch.Generator | None
    addresses: Mapping[int, int]
    """Where each tensor lay when it was recorded, by its identity; parameters may move afterwards."""

    @property
    def elements(self) -> int:
        """How many numbers the step computes."""
        return sum(each.numel() for call in self.calls for each in call.results)

    def erase_numbers(self) -> None:
        """Overwrite what the step has read and computed from its inputs; only what is the same at each step is left."""
        inputs = list(self.inputs.values())
        dependent = {self.addresses[id(each)] for each in inputs}
        for call in self.calls:
            is_filled = schema_of(call.operator).name in FILLED
            if not is_filled and any(self.addresses[id(each)] in dependent for each in call.got):
                dependent.update(self.addresses[id(each)] for each in call.results)
        for each in (*inputs, *(each for call in self.calls for each in (*call.got, *call.results))):
            if self.addresses[id(each)] in dependent:
                torch.empty(0, dtype=torch.uint8).set_(each.untyped_storage()).zero_()


def record_step(
    step: Callable[..., torch.Tensor],
    model: nn.Module,
    features: torch.Tensor,
    labels: torch.Tensor,
    generator: torch.Generator | None,
    clip: float | None,
) -> Recording:
    """Take one step up to the optimizer's, leave the gradients in ``grad``, and return its recording.

    Raises ``Unrepeatable`` when the step does something that a recording does not hold.
    """
    held = model_tensors(model)
    inputs = inputs_of(model, features, labels)
    learning = {name: each for name, each in model.named_parameters() if each.requires_grad}
    with _Recorder(inputs.values()) as recorder:
        loss = step(model, features, labels, generator)
        found: Sequence[torch.Tensor | None] = torch.autograd.grad(loss, list(learning.values()), allow_unused=True)
        for parameter, gradient in zip(learning.values(), found, strict=True):
            parameter.grad = gradient
        if clip is not None:
            clip_grad_norm_(list(learning.values()), clip)
    if recorder.obstacle:
        raise Unrepeatable(recorder.obstacle)
    if any(now is not held.get(name) for name, now in model_tensors(model).items()):
        raise Unrepeatable("the model puts another tensor in the place of a parameter or buffer")
    for parameter in learning.values():
        parameter.grad = _as_kept(parameter)
    gradients = {name: each for name, each in zip(learning, found, strict=True) if each is not None}
    if clip is not None and not _are_apart([(learning[name], each) for name, each in gradients.items()]):
        raise Unrepeatable("gradients that are clipped share memory, or are in another order than their parameters")
    return Recording(tuple(recorder.calls), inputs, loss, gradients, generator, recorder.addresses)


def _as_kept(parameter: torch.Tensor) -> torch.Tensor | None:
    """Return the gradient in the parameter's own order of memory, in which ``backward`` keeps it."""
    if parameter.grad is None or is_in_order_of(parameter.grad, parameter):
        return parameter.grad
    return torch.empty_like(parameter).copy_(parameter.grad)


def _are_apart(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    """Return whether each parameter's gradient is what ``backward`` keeps: otherwise it keeps a copy.

    A trial that does not clip would miss that: clipping sums in the order of memory, and scales what is shared twice.
    """
    is_alike = all(is_in_order_of(gradient, parameter) for parameter, gradient in pairs)
    return is_alike and len({address_of(gradient) for _, gradient in pairs}) == len(pairs)


def is_in_order_of(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether the elements of two tensors of one shape have the same order in memory."""
    strides = zip(tensor.shape, tensor.stride(), other.stride(), strict=True)
    return all(mine == its for size, mine, its in strides if size > 1)


def inputs_of(model: nn.Module, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what a step reads, by name."""
    return {
        FEATURES: features,
        LABELS: labels,
        **{f"model/{name}": each for name, each in model_tensors(model).items()},
    }


def schema_of(operator: Any) -> Any:
    """Return what an operator takes and returns, and what of it the operator changes."""
    return operator._schema  # noqa: SLF001  torch has no other way to it


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in an argument or result, which may be a list."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)


def address_of(tensor: torch.Tensor) -> int:
    """Return the address of the tensor's storage; an empty one has none, and shares it with no other."""
    return tensor.untyped_storage().data_ptr() or -id(tensor)


class _Recorder(TorchDispatchMode):
    def __init__(self, inputs: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.obstacle = ""
        """Why the step cannot be repeated."""
        self.addresses = {id(each): address_of(each) for each in inputs}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        name = schema_of(func).name
        result = func(*args, **(kwargs or {}))
        # Not raised here, where the model's code may catch it.
        if name in _UNREPEATABLE or _DEPEND_ON_DATA.intersection(func.tags):
            self.obstacle = f"the step uses {name}, whose result may decide what comes next"
        call = Call(func, args, kwargs or {}, tuple(tensors_in(result)))
        for each in (*call.got, *call.results):
            if each.layout != torch.strided or each.device.type != "cpu":
                self.obstacle = f"the step uses {name} on a tensor that is sparse, or not in the memory of the CPU"
                return result
            self.addresses[id(each)] = address_of(each)
        self.calls.append(call)
        return result
