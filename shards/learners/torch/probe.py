"""The probe: a digest of fixed arithmetic, as this process computes it (E7).

Two processes with the same numerics profile may still compute different bits: their processors or caches differ, or
environment variables select other instructions (``MKL_CBWR``, ``ONEDNN_MAX_CPU_ISA``). A probe can only refute: unequal
probes prove that two processes compute differently. Equal ones prove nothing: other sizes or operations may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import count
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from shards.learners.torch.checkpoint import digest_tensors
from shards.learners.torch.engines.steps import take_step
from shards.lineage import Device
from shards.recipe.kernels import FUSED, SEPARATE
from storage.digests import Sha256

_PRODUCTS: Final = ((16, 784, 128), (16, 128, 10), (7, 13, 5), (33, 129, 65), (1, 64, 64), (128, 255, 31), (64, 64, 3))
"""Points, inputs and outputs of a layer: typical batches, odd sizes, a single point."""
_CONVOLUTIONS: Final = ((8, 1, 28, 8, 3), (4, 8, 13, 16, 5), (1, 3, 17, 7, 3))
"""Points, input channels, pixels per side, output channels, kernel size."""
_LENGTHS: Final = (7, 100, 1031)
"""Lengths of rows to sum: shorter than a vector register; even; odd and long."""
_FUSED: Final[tuple[tuple[Callable[..., Optimizer], Mapping[str, Any]], ...]] = (
    (SGD, {"momentum": 0.9, "nesterov": True}),
    (Adam, {"amsgrad": True}),
    (AdamW, {}),
    (Adagrad, {"lr_decay": 0.1}),
)
"""The optimizers with a fused kernel, and arguments with which every part of the kernel computes."""


def probe(device: Device, kernels: str = SEPARATE) -> Sha256:
    """Return the digest for this process's device and threads, computed once.

    It covers fused kernels only for constituents that are trained with them: the others keep the probe they have (E16).
    Call after ``set_numerics``, before the user's code is imported.
    """
    return _probe(device, kernels, torch.get_num_threads())


@cache
def _probe(device: Device, kernels: str, _threads: int) -> Sha256:
    return digest_tensors(results(device, kernels))


def results(device: Device, kernels: str = SEPARATE) -> Mapping[str, torch.Tensor]:
    """Return the results over which the digest is computed, by operation and size."""
    numbers = ProbeNumbers(torch.device(device))
    parts = (_products, _convolutions, _sums, _functions, _steps, *((_fused_steps,) if kernels == FUSED else ()))
    with torch.enable_grad():
        return {name: tensor for part in parts for name, tensor in part(numbers)}


class ProbeNumbers:
    """Numbers from -1 to 1 with full mantissas, computed exactly, in newly allocated memory like batches (E7)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = count(1)

    def __call__(self, *shape: int, learns: bool = False) -> torch.Tensor:
        """Return a tensor of this shape, with different numbers at every call."""
        size = torch.Size(shape).numel()
        mixed = (torch.arange(size, dtype=torch.int64) * 2654435761 + next(self._start) * 40503) % 2**24
        values = (mixed - 2**23).to(torch.float32).mul_(2.0**-23)
        return values.reshape(shape).to(self._device).requires_grad_(learns)


def _products(numbers: ProbeNumbers) -> Iterator[tuple[str, torch.Tensor]]:
    for points, inputs, outputs in _PRODUCTS:
        x, weight, bias = numbers(points, inputs, learns=True), numbers(outputs, inputs, learns=True), numbers(outputs)
        y = functional.linear(x, weight, bias)
        y.backward(numbers(points, outputs))
        yield from _named(f"linear/{points}x{inputs}x{outputs}", y, x.grad, weight.grad)
    yield "bmm", numbers(3, 17, 33).bmm(numbers(3, 33, 9))


def _convolutions(numbers: ProbeNumbers) -> Iterator[tuple[str, torch.Tensor]]:
    for points, channels, side, filters, kernel in _CONVOLUTIONS:
        x = numbers(points, channels, side, side, learns=True)
        weight, bias = numbers(filters, channels, kernel, kernel, learns=True), numbers(filters, learns=True)
        y = functional.conv2d(x, weight, bias, padding=1)
        y.backward(numbers(*y.shape))
        yield from _named(f"conv2d/{points}x{channels}x{side}", y, x.grad, weight.grad, bias.grad)


def _sums(numbers: ProbeNumbers) -> Iterator[tuple[str, torch.Tensor]]:
    for length in _LENGTHS:
        x = numbers(5, length)
        scaled = x * 8
        yield from _named(f"rows/{length}", x.sum(1), x.mean(0), x.var(1), x.norm(dim=1))
        yield from _named(f"softmax/{length}", scaled.softmax(1), scaled.log_softmax(1), scaled.logsumexp(1))
        yield from _named(f"all/{length}", x.sum(), x[0].dot(x[1]), functional.layer_norm(x, (length,)))


def _functions(numbers: ProbeNumbers) -> Iterator[tuple[str, torch.Tensor]]:
    x = numbers(1031)
    positive = x.abs() + 2.0**-20
    yield from _named("exp", (x * 20).exp(), (x * 20).sigmoid(), (x * 4).tanh(), x.expm1(), functional.softplus(x))
    yield from _named("erf", x.erf(), functional.gelu(x * 3), (x * 9).sin(), (x * 9).cos())
    yield from _named("log", positive.log(), positive.log1p(), positive.sqrt(), positive.rsqrt(), positive.pow(0.7))
    yield "subnormal", x * 2.0**-130  # some libraries make the processor flush these to zero


def _steps(numbers: ProbeNumbers) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a parameter and its averages after three steps of Adam."""
    parameter, average, square = numbers(1031), numbers(1031), numbers(1031).square_()
    for step in range(1, 4):
        gradient = numbers(1031)
        average.lerp_(gradient, 0.1)
        square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = (square.sqrt() / (1 - 0.999**step) ** 0.5).add_(1e-8)
        parameter.mul_(0.99).addcdiv_(average, scale, value=-0.01 / (1 - 0.9**step))
    yield from _named("steps", parameter, average, square)


def _fused_steps(numbers: ProbeNumbers) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield parameters after three steps of each fused kernel; their last elements have instructions of their own."""
    for kind, arguments in _FUSED:
        parameters = [nn.Parameter(numbers(length)) for length in _LENGTHS]
        optimizer = kind(parameters, lr=0.01, weight_decay=0.01, fused=True, **arguments)
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = numbers(len(parameter))
            take_step(optimizer)
        yield from _named(f"fused/{optimizer.__class__.__name__}", *parameters)


def _named(name: str, *tensors: torch.Tensor | None) -> Iterator[tuple[str, torch.Tensor]]:
    for number, tensor in enumerate(tensors):
        assert tensor is not None
        yield f"{name}/{number}", tensor
