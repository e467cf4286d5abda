"""Models as users write them, with state in places that checkpoints easily miss; losses, augmentations and steps."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Remembering(nn.Module):
    """Has a non-persistent buffer, which ``state_dict`` leaves out and which affects the output."""

    running_F: torch.Tensor

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, classes)
        self.register_buffer("running_F", torch.zeros(inputs), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits of the difference to the running mean."""
        if self.training:
            self.running_F = 0.9 * self.running_F + 0.1 * features.detach().mean(dim=0)
        logits: torch.Tensor = self.layer(features - self.running_F)
        return logits


class Tied(nn.Module):
    """Uses one weight under two names."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, inputs)
        self.second = nn.Linear(inputs, inputs)
        self.second.weight = self.first.weight
        self.last = nn.Linear(inputs, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.last(torch.tanh(self.second(torch.tanh(self.first(features)))))
        return logits


class Counting(nn.Module):
    """Counts its calls in a Python attribute, which affects the output."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, classes)
        self.calls = 0

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits that grow with the number of calls."""
        self.calls += 1
        logits: torch.Tensor = self.layer(features) * (1 + 0.01 * self.calls)
        return logits


class Growing(nn.Module):
    """Stores everything it has seen in a growing buffer."""

    bank: torch.Tensor

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, classes)
        self.register_buffer("bank", torch.zeros(0, inputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        if self.training:
            self.bank = torch.cat([self.bank, features.detach()])
        logits: torch.Tensor = self.layer(features)
        return logits


class Extra(nn.Module):
    """Keeps state that only pickle could hold."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, classes)

    def get_extra_state(self) -> object:
        """Return the state."""
        return {"anything": 1}

    def set_extra_state(self, state: object) -> None:
        """Set the state."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.layer(features)
        return logits


def lazy(classes: int) -> nn.Module:
    """Return a model of lazy layers, which take their widths from the first data points."""
    return nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.Tanh(), nn.LazyLinear(classes))


def frozen(inputs: int, classes: int) -> nn.Module:
    """Return a model whose first layer is not trained."""
    first = nn.Linear(inputs, 5)
    first.requires_grad_(requires_grad=False)
    return nn.Sequential(first, nn.ReLU(), nn.Linear(5, classes))


def all_frozen(inputs: int, classes: int) -> nn.Module:
    """Return a model with nothing to train."""
    return nn.Linear(inputs, classes).requires_grad_(requires_grad=False)


def normed(inputs: int, classes: int) -> nn.Module:
    """Return a model with a parametrized weight and spectral normalisation, whose vectors are buffers."""
    return nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(inputs, 6)),
        nn.Tanh(),
        nn.utils.parametrizations.weight_norm(nn.Linear(6, classes)),
    )


def transposed(inputs: int, classes: int) -> nn.Module:
    """Return a model whose weight is a transposed view in memory."""
    layer = nn.Linear(inputs, classes)
    layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    return layer


def double(inputs: int, classes: int) -> nn.Module:
    """Return a model that computes in float64 inside."""
    return nn.Sequential(_Cast(torch.float64), nn.Linear(inputs, classes, dtype=torch.float64), _Cast(torch.float32))


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features in another dtype."""
        return features.to(self.dtype)


class Recurrent(nn.Module):
    """Reads its features one after another."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.cell = nn.GRU(1, 3, batch_first=True, num_layers=2, dropout=0.2)
        self.last = nn.Linear(3, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        outputs, _ = self.cell(features.unsqueeze(2))
        logits: torch.Tensor = self.last(outputs[:, -1])
        return logits


def based(inputs: int, classes: int) -> nn.Module:
    """Return a frozen base, as from a file, with batch normalisation whose buffers move, and a small head."""
    base = nn.Linear(inputs, 256)
    with torch.no_grad():
        base.weight.copy_(torch.linspace(-1, 1, 256 * inputs).reshape(256, inputs))
        base.bias.zero_()
    for parameter in base.parameters():
        parameter.requires_grad = False
    return nn.Sequential(base, nn.Tanh(), nn.BatchNorm1d(256, affine=False), nn.Linear(256, classes))


def focal(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the focal loss, which gives less weight to data points that are easy."""
    each = functional.cross_entropy(outputs, labels, reduction="none")
    return ((1 - torch.exp(-each)) ** 2 * each).mean()


def fourth_power(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of the errors' fourth power."""
    return ((outputs - labels) ** 4).mean()


def noisy(features: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the features with noise from the generator."""
    return features + 0.1 * torch.randn(features.shape, generator=generator, device=features.device)


def masked(features: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the features with about a tenth of them set to zero."""
    return features * (torch.rand(features.shape, generator=generator, device=features.device) > 0.1)


def mixed_up(
    model: nn.Module, features: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Return the loss of a mixture of each data point with another one of the batch (mixup)."""
    order = torch.randperm(len(features), generator=generator, device=features.device)
    share = float(torch.rand((), generator=generator, device=features.device))
    outputs = model(share * features + (1 - share) * features[order])
    one, other = functional.cross_entropy(outputs, labels), functional.cross_entropy(outputs, labels[order])
    mixture: torch.Tensor = share * one + (1 - share) * other
    return mixture


def twice(model: nn.Module, features: torch.Tensor, labels: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    """Return the cross-entropy, and the difference of two outputs under other dropout."""
    first, second = model(features), model(features)
    loss: torch.Tensor = functional.cross_entropy(first, labels) + (first - second).square().mean()
    return loss
