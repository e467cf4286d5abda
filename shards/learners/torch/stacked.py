"""Several constituents as one: small models of torch's own layers, their weights side by side in common tensors.

Asked about few data points, a constituent spends its time in calls, not in arithmetic. Together they need one call per
layer instead of one per layer and constituent. Their rounding may differ from that of separate calls, as it does
between batches. Shape legend: K constituents, N points, I inputs of a layer, O outputs of a layer, W outputs of the
model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from shards.learners.torch.checkpoint import model_tensors
from shards.learners.torch.engines.replay import is_of_torch

MOST_POINTS: Final = 256
"""More data points at once are asked of one constituent after another: there the calls no longer count."""

_MOST_BYTES: Final = 32 * 1024 * 1024
"""Weights beyond this are not copied into common tensors: they would be in memory twice, and arithmetic decides."""

_QUICK_WEIGHTS: Final = 1 << 20
"""Multiplications that take about 0.1 ms: as long as it takes to wake a thread that has slept for some milliseconds."""

_Layer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class StackedModels:
    """The constituents' computation, layer by layer."""

    layers: tuple[_Layer, ...]
    """Each maps (K, N, I) to (K, N, O), but for a linear layer that is the first: it maps (N, I), which are common."""
    is_common: bool
    """Whether the first layer is linear."""
    constituents: int
    quick_points: int = 0
    """See ``OutputsAtOnce``."""

    def __call__(self, features_NF: torch.Tensor) -> torch.Tensor:
        """Return the outputs, shape (K, N, W)."""
        found = features_NF if self.is_common else features_NF.expand(self.constituents, *features_NF.shape)
        for layer in self.layers:
            found = layer(found)
        return found


def stacked_models(models: Sequence[nn.Module]) -> StackedModels | None:
    """Return the models as one, as they answer; their weights are copied.

    Returns None where a model has another layer than those below, hooks, or code that is not torch's own, where the
    models differ in more than weights, and where their weights are many.
    """
    chains = [_chain(model) for model in models if is_of_torch(model)]
    if len(models) < 2 or len(chains) < len(models):
        return None
    tensors = [each for model in models for each in model_tensors(model).values()]
    if sum(each.nbytes for each in tensors) > _MOST_BYTES:
        return None
    if len({tuple(map(_form, chain)) for chain in chains}) > 1:
        return None
    is_common = bool(chains[0]) and type(chains[0][0]) is nn.Linear
    layers = [
        _common_linear(same) if is_common and not place else _stacked_layer(same)
        for place, same in enumerate(zip(*chains, strict=True))
    ]
    known = tuple(layer for layer in layers if layer is not None)
    quick_points = _QUICK_WEIGHTS // max(1, sum(each.numel() for each in tensors))
    return StackedModels(known, is_common, len(models), quick_points) if len(known) == len(layers) else None


def _chain(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the layers of a model that asks one after the other."""
    if type(model) is nn.Sequential:
        return tuple(layer for each in model for layer in _chain(each))
    return () if type(model) in _WITHOUT_EFFECT else (model,)


def _form(layer: nn.Module) -> tuple[object, ...]:
    """Return all that decides what a layer computes, but for the values of its tensors."""
    tensors = tuple((name, each.shape, each.dtype, each.device) for name, each in model_tensors(layer).items())
    return type(layer), layer.extra_repr(), tensors


@torch.no_grad()
def _common_linear(layers: Sequence[nn.Module]) -> _Layer:
    """Return linear layers with the same inputs as one whose outputs are side by side: a single product of matrices."""
    tensors = [model_tensors(layer) for layer in layers]
    wide = len(tensors[0]["weight"])
    weight_IKO = torch.cat([each["weight"].mT for each in tensors], dim=1).contiguous()
    bias_KO = torch.cat([each["bias"] for each in tensors]) if "bias" in tensors[0] else None

    def outputs(features_NI: torch.Tensor) -> torch.Tensor:
        found = features_NI @ weight_IKO if bias_KO is None else torch.addmm(bias_KO, features_NI, weight_IKO)
        return found.view(len(features_NI), len(layers), wide).transpose(0, 1)

    return outputs


@torch.no_grad()
def _stacked_layer(layers: Sequence[nn.Module]) -> _Layer | None:
    """Return the layers of the same place in all models as one; None: it is not known how."""
    first = layers[0]
    if type(first) is nn.Linear:
        tensors = [model_tensors(layer) for layer in layers]
        weight_KIO = torch.stack([each["weight"].mT for each in tensors]).contiguous()
        if "bias" not in tensors[0]:
            return partial(_without_bias, weight_KIO)
        bias_K1O = torch.stack([each["bias"] for each in tensors]).unsqueeze(1)
        return partial(_linear, weight_KIO, bias_K1O)
    if type(first) is nn.GELU:
        return partial(functional.gelu, approximate=first.approximate)
    return _POINTWISE.get(type(first))


def _linear(weight_KIO: torch.Tensor, bias_K1O: torch.Tensor, inputs_KNI: torch.Tensor) -> torch.Tensor:
    return torch.baddbmm(bias_K1O, inputs_KNI, weight_KIO)


def _without_bias(weight_KIO: torch.Tensor, inputs_KNI: torch.Tensor) -> torch.Tensor:
    return torch.bmm(inputs_KNI, weight_KIO)


_WITHOUT_EFFECT: Final = frozenset({nn.Identity, nn.Dropout})
"""Layers that change nothing in an answer."""

_POINTWISE: Final[Mapping[type, _Layer]] = {nn.ReLU: torch.relu, nn.Tanh: torch.tanh, nn.Sigmoid: torch.sigmoid}
