"""Models of many kinds, as users write them: all of them are exact.

Factories are plain functions ``name(inputs, classes)``.
"""

from __future__ import annotations

import functools
import math
import random
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

WIDTH = 6
"""Width of hidden layers."""


Forward = Callable[["Net", torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """Two layers, and something odd between them."""

    total: ClassVar[int] = 0

    def __init__(self, inputs: int, classes: int, odd: Forward) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, WIDTH)
        self.last = nn.Linear(WIDTH, classes)
        self.odd = odd

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.last(self.odd(self, torch.tanh(self.first(features))))
        return logits


def net_with(odd: Forward) -> Callable[[int, int], nn.Module]:
    """Return the factory of networks with ``odd`` between their layers."""

    @functools.wraps(odd)
    def build(inputs: int, classes: int) -> nn.Module:
        return Net(inputs, classes, odd)

    # The wrapper would show the signature of what it wraps.
    del build.__wrapped__
    return build


class Between(nn.Module):
    """Turns features into a sequence, puts a layer in the middle, and takes the last place of what it returns."""

    def __init__(self, inputs: int, classes: int, middle: nn.Module, width: int) -> None:
        super().__init__()
        self.middle = middle
        self.last = nn.Linear(width, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        found = self.middle(features.unsqueeze(2))
        sequence = found[0] if isinstance(found, tuple) else found
        logits: torch.Tensor = self.last(sequence[:, -1])
        return logits


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Any], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return what the function makes of it."""
        return self.function(features)


# ------------------------------------------------------------------------------------------------ ordinary


def linear(inputs: int, classes: int) -> nn.Module:
    """One layer."""
    return nn.Linear(inputs, classes)


def plain(inputs: int, classes: int) -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes))


def wide_and_deep(inputs: int, classes: int) -> nn.Module:
    """Six layers of many activations."""
    layers: list[nn.Module] = []
    for activation in (nn.GELU(), nn.SiLU(), nn.Mish(), nn.Softplus(), nn.PReLU(), nn.Hardswish()):
        layers += [nn.Linear(inputs, WIDTH), activation]
        inputs = WIDTH
    return nn.Sequential(*layers, nn.Linear(WIDTH, classes))


def _activated(activation: nn.Module, inputs: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, WIDTH), activation, nn.Linear(WIDTH, classes))


def dropout(inputs: int, classes: int) -> nn.Module:
    """Dropout."""
    return _activated(nn.Dropout(0.3), inputs, classes)


def alpha_dropout(inputs: int, classes: int) -> nn.Module:
    """Dropout that keeps mean and variance."""
    return _activated(nn.AlphaDropout(0.3), inputs, classes)


def feature_dropout(inputs: int, classes: int) -> nn.Module:
    """Dropout of whole channels."""
    return nn.Sequential(
        nn.Unflatten(1, (1, inputs)),
        nn.Conv1d(1, 3, 3, padding=1),
        nn.Dropout1d(0.3),
        nn.Flatten(),
        nn.LazyLinear(classes),
    )


def random_leaky(inputs: int, classes: int) -> nn.Module:
    """An activation with random slopes."""
    return _activated(nn.RReLU(), inputs, classes)


def batch_norm(inputs: int, classes: int) -> nn.Module:
    """Batch normalisation."""
    return _activated(nn.BatchNorm1d(WIDTH), inputs, classes)


def cumulative_batch_norm(inputs: int, classes: int) -> nn.Module:
    """Batch normalisation with a plain mean of all batches."""
    return _activated(nn.BatchNorm1d(WIDTH, momentum=None), inputs, classes)


def batch_norm_without_statistics(inputs: int, classes: int) -> nn.Module:
    """Batch normalisation that remembers nothing."""
    return _activated(nn.BatchNorm1d(WIDTH, track_running_stats=False), inputs, classes)


def instance_norm(inputs: int, classes: int) -> nn.Module:
    """Instance normalisation with running statistics."""
    return nn.Sequential(
        nn.Unflatten(1, (1, inputs)), nn.InstanceNorm1d(1, track_running_stats=True, affine=True), nn.Flatten(),
        nn.Linear(inputs, classes),
    )  # fmt: skip


def layer_norm(inputs: int, classes: int) -> nn.Module:
    """Layer normalisation."""
    return _activated(nn.LayerNorm(WIDTH), inputs, classes)


def group_norm(inputs: int, classes: int) -> nn.Module:
    """Group normalisation."""
    return _activated(nn.GroupNorm(2, WIDTH), inputs, classes)


def bilinear(inputs: int, classes: int) -> nn.Module:
    """Products of all pairs."""

    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pairs = nn.Bilinear(inputs, inputs, classes)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.pairs(features, features)
            return logits

    return Pairs()


def lazy(classes: int) -> nn.Module:
    """Layers that learn their widths."""
    return nn.Sequential(nn.LazyLinear(WIDTH), nn.LazyBatchNorm1d(), nn.Tanh(), nn.LazyLinear(classes))


def convolution(inputs: int, classes: int) -> nn.Module:
    """A convolution and a pooling."""
    return nn.Sequential(
        nn.Unflatten(1, (1, inputs)), nn.Conv1d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(),
        nn.LazyLinear(classes),
    )  # fmt: skip


# ----------------------------------------------------------------------------------- recurrent and attention


def lstm(inputs: int, classes: int) -> nn.Module:
    """An LSTM, whose flat weights are aliases."""
    return Between(inputs, classes, nn.LSTM(1, WIDTH, batch_first=True), WIDTH)


def lstm_in_two_directions(inputs: int, classes: int) -> nn.Module:
    """An LSTM in two directions."""
    return Between(inputs, classes, nn.LSTM(1, WIDTH, batch_first=True, bidirectional=True), 2 * WIDTH)


def gru(inputs: int, classes: int) -> nn.Module:
    """A GRU with dropout between its layers."""
    return Between(inputs, classes, nn.GRU(1, WIDTH, batch_first=True, num_layers=2, dropout=0.2), WIDTH)


def elman(inputs: int, classes: int) -> nn.Module:
    """A plain recurrent network."""
    return Between(inputs, classes, nn.RNN(1, WIDTH, batch_first=True), WIDTH)


def attention(inputs: int, classes: int) -> nn.Module:
    """A transformer's layer."""
    layer = nn.TransformerEncoderLayer(WIDTH, 2, dim_feedforward=8, batch_first=True)
    return Between(inputs, classes, nn.Sequential(nn.Linear(1, WIDTH), layer), WIDTH)


def scaled_dot_product(inputs: int, classes: int) -> nn.Module:
    """Attention by the function, with dropout."""

    def attend(features: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(features, features, features, dropout_p=0.1)

    return Between(inputs, classes, nn.Sequential(nn.Linear(1, WIDTH), Apply(attend)), WIDTH)


# -------------------------------------------------------------------------------- parametrizations and sharing


def spectral(inputs: int, classes: int) -> nn.Module:
    """Spectral normalisation, whose vectors are buffers."""
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(inputs, WIDTH)), nn.Tanh(), nn.Linear(WIDTH, classes))


def weight_norm(inputs: int, classes: int) -> nn.Module:
    """Weight normalisation."""
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(inputs, WIDTH)), nn.Tanh(), nn.Linear(WIDTH, classes))


def orthogonal(inputs: int, classes: int) -> nn.Module:
    """An orthogonal weight."""
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(inputs, inputs)), nn.Tanh(), nn.Linear(inputs, classes))


def symmetric(inputs: int, classes: int) -> nn.Module:
    """A parametrization of one's own."""

    class Symmetric(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight.triu() + weight.triu(1).transpose(-1, -2)

    layer = nn.Linear(inputs, inputs)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(inputs, classes))


def pruned(inputs: int, classes: int) -> nn.Module:
    """A pruned layer: its weight is an attribute that is made of a parameter and a mask."""
    model = plain(inputs, classes)
    prune.l1_unstructured(model[0], "weight", amount=0.3)  # type: ignore[index]
    return model


def tied(inputs: int, classes: int) -> nn.Module:
    """One weight under two names."""
    model = nn.Sequential(nn.Linear(inputs, inputs), nn.Tanh(), nn.Linear(inputs, inputs), nn.Linear(inputs, classes))
    model[2].weight = model[0].weight
    return model


def shared(inputs: int, classes: int) -> nn.Module:
    """One module in two places."""
    layer = nn.Linear(inputs, inputs)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(inputs, classes))


def frozen(inputs: int, classes: int) -> nn.Module:
    """A layer that stays as it was drawn."""
    return nn.Sequential(
        nn.Linear(inputs, WIDTH).requires_grad_(requires_grad=False), nn.ReLU(), nn.Linear(WIDTH, classes)
    )


def transposed(inputs: int, classes: int) -> nn.Module:
    """A weight that is a transposed view."""
    layer = nn.Linear(inputs, classes)
    layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    return layer


def scalar_parameter(inputs: int, classes: int) -> nn.Module:
    """A parameter without dimensions, and an empty one."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(inputs, classes), nn.Parameter(torch.ones(()))
            self.nothing = nn.Parameter(torch.zeros(0))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layer(features) * self.scale
            return logits

    return Scaled()


def unused(inputs: int, classes: int) -> nn.Module:
    """A parameter that never gets a gradient."""
    model = nn.Linear(inputs, classes)
    model.register_parameter("spare", nn.Parameter(torch.ones(3)))
    return model


# ------------------------------------------------------------------------------------------ dtypes and compilers


def half_inside(inputs: int, classes: int) -> nn.Module:
    """Computes in bfloat16 inside."""
    narrow, wide = Apply(lambda x: x.to(torch.bfloat16)), Apply(lambda x: x.to(torch.float32))
    return nn.Sequential(narrow, nn.Linear(inputs, classes, dtype=torch.bfloat16), wide)


def double_inside(inputs: int, classes: int) -> nn.Module:
    """Computes in float64 inside."""
    narrow, wide = Apply(lambda x: x.to(torch.float64)), Apply(lambda x: x.to(torch.float32))
    return nn.Sequential(narrow, nn.Linear(inputs, classes, dtype=torch.float64), wide)


def autocast(inputs: int, classes: int) -> nn.Module:
    """Computes under autocast."""

    def between(net: Net, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return functional.linear(hidden, net.first.weight[:, :1].expand(WIDTH, WIDTH)).float()

    return Net(inputs, classes, between)


def checkpointed(inputs: int, classes: int) -> nn.Module:
    """Recomputes what it has forgotten, dropout included."""
    block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.2), nn.Tanh())

    def again(hidden: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.utils.checkpoint.checkpoint(block, hidden, use_reentrant=False)
        return found

    return nn.Sequential(nn.Linear(inputs, WIDTH), Holding(block, again), nn.Linear(WIDTH, classes))


class Holding(nn.Module):
    """A function as a layer, with the module that it uses."""

    def __init__(self, block: nn.Module, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.block, self.function = block, function

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return what the function makes of it."""
        return self.function(features)


# -------------------------------------------------------------------------------------- randomness that is seeded


@net_with
def noise_of_torch(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Adds noise from torch's generator."""
    return hidden + 0.1 * torch.randn_like(hidden) if net.training else hidden


@net_with
def noise_of_numpy(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Adds noise from numpy's global generator."""
    return hidden + float(np.random.normal()) if net.training else hidden


@net_with
def noise_of_random(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Adds noise from Python's global generator."""
    return hidden + random.random() if net.training else hidden


def generator_of_its_own(inputs: int, classes: int) -> nn.Module:
    """Draws from a generator that the model makes, with a seed: every slice begins with a new one."""
    own = np.random.default_rng(3)
    return Net(inputs, classes, lambda net, hidden: hidden + float(own.normal()) if net.training else hidden)


# -------------------------------------------------------------------------- state that begins again at every slice


def counter(inputs: int, classes: int) -> nn.Module:
    """Counts its steps in an attribute."""

    def count(net: Net, hidden: torch.Tensor) -> torch.Tensor:
        calls: int = net.__dict__.get("calls", 0) + 1
        net.__dict__["calls"] = calls
        return hidden * (1 + 0.01 * calls)

    return Net(inputs, classes, count)


def counter_in_a_buffer(inputs: int, classes: int) -> nn.Module:
    """Counts its steps where it should."""

    def count(net: Net, hidden: torch.Tensor) -> torch.Tensor:
        if net.training:
            net.steps.add_(1)  # type: ignore[operator]
        return hidden / net.steps  # type: ignore[operator]

    net = Net(inputs, classes, count)
    net.register_buffer("steps", torch.ones((), dtype=torch.int64))
    return net


def buffer_that_is_not_persistent(inputs: int, classes: int) -> nn.Module:
    """Keeps a running mean in a buffer that state_dict leaves out."""

    def centre(net: Net, hidden: torch.Tensor) -> torch.Tensor:
        if net.training:
            net.mean = 0.9 * net.mean + 0.1 * hidden.detach().mean(0)  # type: ignore[operator]
        return hidden - net.mean  # type: ignore[operator]

    net = Net(inputs, classes, centre)
    net.register_buffer("mean", torch.zeros(WIDTH), persistent=False)
    return net


def cached_mask(inputs: int, classes: int) -> nn.Module:
    """Makes a constant when it is first used, and keeps it."""

    def mask(net: Net, hidden: torch.Tensor) -> torch.Tensor:
        if not hasattr(net, "mask"):
            net.mask = torch.linspace(0.5, 1.0, WIDTH)
        return hidden * net.mask  # type: ignore[operator]

    return Net(inputs, classes, mask)


@functools.cache
def _positions(width: int) -> torch.Tensor:
    return torch.sin(torch.arange(width) / math.pi)


@net_with
def cache_of_a_function(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Takes a constant from a function that remembers it for all models."""
    return hidden + _positions(WIDTH)


@net_with
def sorted_names(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Goes through a set of strings in the order of the alphabet."""
    for place, name in enumerate(sorted({"alpha", "beta", "gamma", "delta"})):
        hidden = hidden * (1 + 0.01 * place * len(name))
    return hidden


@net_with
def losses_in_a_list(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Writes down numbers that nobody reads."""
    net.__dict__.setdefault("losses", []).append(float(hidden.detach().mean()))
    return hidden


@net_with
def threads_that_are_joined(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Computes in two threads, and waits for both."""
    halves: dict[int, torch.Tensor] = {}
    threads = [threading.Thread(target=lambda i=i: halves.update({i: hidden.detach()[:, i::2].sum()})) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return hidden + 0.01 * (halves[0] - halves[1])


def hook(inputs: int, classes: int) -> nn.Module:
    """Changes what passes in a hook."""
    model = plain(inputs, classes)
    model[0].register_forward_hook(lambda _, __, output: output * 1.5)  # type: ignore[index]
    return model


EXACT = (
    "linear", "plain", "wide_and_deep", "dropout", "alpha_dropout", "feature_dropout", "random_leaky", "batch_norm",
    "cumulative_batch_norm", "batch_norm_without_statistics", "instance_norm", "layer_norm", "group_norm", "bilinear",
    "lazy", "convolution", "lstm", "lstm_in_two_directions", "gru", "elman", "attention", "scaled_dot_product",
    "spectral", "weight_norm", "orthogonal", "symmetric", "pruned", "tied", "shared", "frozen", "transposed",
    "scalar_parameter", "unused", "half_inside", "double_inside", "autocast", "checkpointed", "noise_of_torch",
    "noise_of_numpy", "noise_of_random", "generator_of_its_own", "counter", "counter_in_a_buffer",
    "buffer_that_is_not_persistent", "cached_mask", "cache_of_a_function", "sorted_names", "losses_in_a_list",
    "threads_that_are_joined", "hook",
)  # fmt: skip
"""Let through, and then equal byte for byte."""
