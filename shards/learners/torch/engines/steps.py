"""The step of one of torch's optimizers, without torch's compiler.

``torch.optim`` loads the compiler whenever an optimizer is made or takes a step, only to tell it that compiled code
ends there. That takes a second, nearly as long as to load torch, and each worker would pay it. Here optimizers are
never compiled, and the same kernels are called in the same order.
"""

from __future__ import annotations

import inspect
from typing import Final

import torch
from torch.optim import Optimizer

from shards.learners.torch.engines.fused import check_step

_UNCOMPILED: Final = "__dynamo_disable"
"""Where torch keeps what to call in place of a method that is not to be compiled, once its compiler has said so."""

for _method in (Optimizer.add_param_group, Optimizer.zero_grad):
    _plain = inspect.unwrap(_method)
    setattr(_plain, _UNCOMPILED, _plain)


def take_step(optimizer: Optimizer) -> None:
    """Take a step with the gradients that the parameters have.

    Raises ``Invalid`` when a fused kernel cannot take the tensors. Hooks of the optimizer are not called.
    """
    if optimizer.defaults.get("fused"):
        check_step(optimizer)
    with torch.set_grad_enabled(bool(optimizer.defaults.get("differentiable"))):
        # As its module defines it, without what torch puts around it.
        inspect.unwrap(type(optimizer).step)(optimizer)
