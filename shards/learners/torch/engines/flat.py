"""Parameters, gradients and optimizer state of a model, each in one stretch of memory, and the optimizer's step on it.

The optimizers compute element by element, so that one call for all parameters gives the bits of one call for each.
Fused kernels do not, and get each parameter by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final, cast

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from shards.learners.torch.checkpoint import COUNTS, model_tensors
from shards.learners.torch.engines.fused import fused_step
from shards.learners.torch.engines.recording import Unrepeatable, address_of
from shards.learners.torch.engines.steps import take_step

_ALIGNED: Final = 16
"""Elements to whose multiple each parameter begins: results depend on alignment, and torch's is 64 bytes (E7)."""


class Flat:
    """The parameters of a model that have gradients, and the step of its optimizer.

    Until ``release``, the model, its own optimizer and this object use the same memory.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, learning: list[str]) -> None:
        """``learning`` names the parameters with gradients. The optimizer has taken a step already.

        Raises ``Unrepeatable`` when tensors of the model share memory, or are not dense or of 32 bits.
        """
        named = dict(model.named_parameters())
        self._parameters = [named[name] for name in learning]
        self._optimizer = optimizer
        held = {id(each): each for each in model_tensors(model).values()}.values()
        if len({address_of(each) for each in held}) < len(held):
            raise Unrepeatable("parameters or buffers share memory")
        if any(not _is_plain(each) for each in self._parameters):
            raise Unrepeatable("a parameter is not dense, or not of 32 bits")
        sizes = [-(-each.numel() // _ALIGNED) * _ALIGNED for each in self._parameters]
        self._starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
        self._values, gradients = torch.zeros(self._starts[-1]), torch.zeros(self._starts[-1])
        self.gradients = dict(zip(learning, self._views(gradients), strict=True))
        for each, view in zip(self._parameters, self._views(self._values), strict=True):
            each.data = view.copy_(each.detach())
        (group,) = optimizer.param_groups
        whole = nn.Parameter(self._values)
        whole.grad = gradients
        self._whole = cast("Callable[..., Optimizer]", type(optimizer))([{**group, "params": [whole]}])
        self._state = self._whole.state[whole]
        self._counts: list[str] = []
        self._gather()
        self.step: Callable[[float], None] = self._stepping()
        """Takes the optimizer's step with the given learning rate."""

    def give(self) -> None:
        """Let the model's own optimizer have the counts."""
        for each in self._parameters:
            for entry in self._counts:
                self._optimizer.state[each][entry].copy_(self._state[entry])

    def take(self) -> None:
        """Take the counts back from the model's own optimizer."""
        for entry in self._counts:
            self._state[entry].copy_(self._optimizer.state[self._parameters[0]][entry])

    def release(self) -> None:
        """Give all tensors of the model and of its optimizer memory of their own again."""
        self.give()
        for each in self._parameters:
            each.data = each.detach().clone()
            each.grad = None
            state = self._optimizer.state.get(each, {})
            state.update({entry: value.clone() for entry, value in state.items() if value is not None})

    def _stepping(self) -> Callable[[float], None]:
        optimizer = self._whole
        if optimizer.param_groups[0].get("fused"):
            wholes = {entry: whole for entry, whole in self._state.items() if entry not in self._counts}
            states = {entry: self._views(whole) for entry, whole in wholes.items() if whole is not None}
            gradients = list(self.gradients.values())
            return fused_step(optimizer, self._parameters, gradients, states, self._state.get("step"))
        made = _sgd if type(optimizer) is SGD else _adam if isinstance(optimizer, Adam) else _torchs
        return made(optimizer)

    def _views(self, whole: torch.Tensor) -> list[torch.Tensor]:
        starts = (start for start, _ in pairwise(self._starts))
        return [
            whole.as_strided(each.shape, each.stride(), start)
            for each, start in zip(self._parameters, starts, strict=True)
        ]

    def _gather(self) -> None:
        """Put the optimizer's state into memory of its own, of which the optimizer gets views."""
        states = [self._optimizer.state.get(each, {}) for each in self._parameters]
        for entry, first in states[0].items():
            if first is None:
                continue
            if entry in COUNTS:
                self._counts.append(entry)
                self._state[entry] = first.clone()
                continue
            self._state[entry] = torch.zeros(self._starts[-1], dtype=first.dtype)
            for state, view in zip(states, self._views(self._state[entry]), strict=True):
                state[entry] = view.copy_(state[entry])


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.stride() == torch.empty_like(tensor).stride()


def _torchs(optimizer: Optimizer) -> Callable[[float], None]:
    """Return the step as torch takes it."""
    (group,) = optimizer.param_groups

    def step(rate: float) -> None:
        group["lr"] = rate
        take_step(optimizer)

    return step


def _sgd(optimizer: Optimizer) -> Callable[[float], None]:
    """Return the step of ``torch.optim.SGD``, call by call, without what surrounds it."""
    (group,) = optimizer.param_groups
    (parameter,) = group["params"]
    values, gradients, changed = parameter.detach(), parameter.grad, torch.empty_like(parameter.grad)
    decay, momentum, share, nesterov = (group[name] for name in ("weight_decay", "momentum", "dampening", "nesterov"))
    moved = optimizer.state[parameter].get("momentum_buffer")

    def step(rate: float) -> None:
        gradient = torch.add(gradients, values, alpha=decay, out=changed) if decay else gradients
        if moved is not None:
            moved.mul_(momentum).add_(gradient, alpha=1 - share)
            gradient = torch.add(gradient, moved, alpha=momentum, out=changed) if nesterov else moved
        values.add_(gradient, alpha=-rate)

    return step


def _adam(optimizer: Optimizer) -> Callable[[float], None]:
    """Return the step of ``torch.optim.Adam`` or ``AdamW``, call by call, without what surrounds it."""
    (group,) = optimizer.param_groups
    (parameter,) = group["params"]
    values, gradients = parameter.detach(), parameter.grad
    changed, denominator = torch.empty_like(gradients), torch.empty_like(gradients)
    decay, epsilon, is_apart = group["weight_decay"], group["eps"], group["decoupled_weight_decay"]
    first, second = group["betas"]
    state = optimizer.state[parameter]
    count, mean, square, largest = (state.get(each) for each in ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"))

    def step(rate: float) -> None:
        number = count.add_(1).item()
        gradient = gradients
        if decay and is_apart:
            values.mul_(1 - rate * decay)
        elif decay:
            gradient = torch.add(gradients, values, alpha=decay, out=changed)
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = rate / (1 - first**number)
        root = (1 - second**number) ** 0.5
        top = square if largest is None else torch.maximum(largest, square, out=largest)
        torch.sqrt(top, out=denominator).div_(root).add_(epsilon)
        values.addcdiv_(mean, denominator, value=-size)

    return step
