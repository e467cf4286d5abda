"""Fused kernels: one call of PyTorch for the whole step of an optimizer, on CPUs.

Such a kernel walks through the memory of parameter, gradient and state side by side, and knows nothing of strides.
Where these differ it pairs the wrong elements, and where memory has gaps it writes past the end, without an error. So
every tensor has to be contiguous, which is checked before each step. What is loaded from a checkpoint is contiguous, so
that a resumed run pairs the same elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch.optim import SGD, Adagrad, Optimizer

from storage.errors import Invalid

_REMEDY: Final = (
    "Leave [training] kernels out, or give the model contiguous parameters of floating point whose gradients are dense."
)
_MOMENTUM: Final = "momentum_buffer"


def check_parameters(optimizer: Optimizer) -> None:
    """Raise ``Invalid`` when a fused kernel cannot take the optimizer's parameters."""
    for parameter in optimizer.param_groups[0]["params"]:
        if parameter.device.type != "cpu" or not parameter.is_floating_point():
            raise _refused(f"a parameter of {parameter.dtype} on {parameter.device.type}")


def check_step(optimizer: Optimizer) -> None:
    """Raise ``Invalid`` when a fused kernel cannot take the tensors of the optimizer's next step."""
    (group,) = optimizer.param_groups
    learning = [each for each in group["params"] if each.grad is not None]
    for each in learning:
        if not each.is_contiguous():
            raise _refused(f"a parameter of shape {tuple(each.shape)} whose strides are {each.stride()}")
        if each.grad.layout != torch.strided:
            raise _refused(f"a sparse gradient of a parameter of shape {tuple(each.shape)}")
        if not each.grad.is_contiguous():
            raise _refused(f"a gradient of shape {tuple(each.shape)} whose strides are {each.grad.stride()}")
    if group.get("momentum"):
        _start_late(optimizer, learning)


def _refused(found: str) -> Invalid:
    return Invalid(f'[training] kernels = "fused" cannot take {found}', _REMEDY)


def _start_late(optimizer: Optimizer, learning: Sequence[torch.Tensor]) -> None:
    """Give a parameter whose first gradient comes late the momentum of the others' kernel: 0, which changes nothing.

    The kernel takes a first step for all parameters, or for none.
    """
    late = [each for each in learning if optimizer.state[each].get(_MOMENTUM) is None]
    if len(late) < len(learning):
        for each in late:
            optimizer.state[each][_MOMENTUM] = torch.zeros_like(each)


def fused_step(
    optimizer: Optimizer,
    values: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    states: Mapping[str, Sequence[torch.Tensor]],
    count: torch.Tensor | None,
) -> Callable[[float], None]:
    """Return the step of an optimizer with a fused kernel, on contiguous tensors, after its first one.

    ``states`` has the optimizer's state by entry, ``count`` the number of steps of all parameters. One call gets all
    tensors, but each by itself: the last elements of one are computed by other instructions than those before, with
    other bits.
    """
    (group,) = optimizer.param_groups
    common = {name: group[name] for name in ("weight_decay", "maximize")}
    lists: list[Any] = [[each.detach() for each in values], list(gradients)]
    if isinstance(optimizer, SGD):
        lists.append(list(states.get(_MOMENTUM, ())))
        common |= {name: group[name] for name in ("momentum", "dampening", "nesterov")} | {"is_first_step": False}
        return _calling(_kernel("sgd"), lists, None, common)
    assert count is not None
    common["eps"] = group["eps"]
    if isinstance(optimizer, Adagrad):
        lists += [list(states["sum"]), [count] * len(values)]
        common["lr_decay"] = group["lr_decay"]
        return _calling(_kernel("adagrad"), lists, count, common)
    entries = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    lists += [*(list(states.get(entry, ())) for entry in entries), [count] * len(values)]
    common |= {"amsgrad": group["amsgrad"], "beta1": group["betas"][0], "beta2": group["betas"][1]}
    return _calling(_kernel("adamw" if group["decoupled_weight_decay"] else "adam"), lists, count, common)


def _kernel(name: str) -> Callable[..., Any]:
    """Return the kernel that torch's own optimizer calls, which has no public name."""
    kernel: Callable[..., Any] = getattr(torch, f"_fused_{name}_")
    return kernel


def _calling(
    kernel: Callable[..., Any], lists: Sequence[Any], count: torch.Tensor | None, named: Mapping[str, Any]
) -> Callable[[float], None]:
    def step(rate: float) -> None:
        if count is not None:
            count.add_(1)
        kernel(*lists, lr=rate, **named)

    return step
