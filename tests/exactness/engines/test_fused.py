"""Fused kernels: each parameter gets the bits of torch's own step, and no tensor is read in another order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from shards.learners.torch.checkpoint import digest_tensors, state_tensors
from shards.learners.torch.engines.flat import Flat
from shards.learners.torch.engines.steps import take_step
from shards.learners.torch.recipe import optimizer_of
from shards.specification import ModelSettings, TrainingSettings
from storage.errors import Invalid
from tests.exactness.engines.learned import learned, made_points
from tests.exactness.strategies import FUSED

_HERE = "tests.exactness.engines.test_fused"
_SIZES = (*range(1, 34), 63, 65, 1031, 4099)
"""Fewer elements than any vector register has, as many, some more, and many more."""
_STEPS = 4


def _training(**recipe: Any) -> TrainingSettings:
    return TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05, **recipe)


class OddSizes(nn.Module):
    """Parameters of many sizes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.parts = nn.ParameterList(torch.randn(size, generator=generator) for size in _SIZES)


def _gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step + 2)
    return [torch.randn(size, generator=generator) for size in _SIZES]


@pytest.mark.parametrize("number", range(len(FUSED)))
def test_steps_in_one_stretch_of_memory_have_the_bits_of_torch_s_own(number: int) -> None:
    """The last elements of a parameter have other instructions than those before: each size is a case of its own."""
    recipe = {name: value for name, value in FUSED[number].items() if name not in {"schedule", "gradient_clip"}}
    found = []
    for is_flat in (False, True):
        model = OddSizes()
        optimizer, flat = optimizer_of(model, _training(**recipe)), None
        for step in range(_STEPS):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            if flat is None:
                for parameter, gradient in zip(model.parts, _gradients(step), strict=True):
                    parameter.grad = gradient
                take_step(optimizer)
                flat = Flat(model, optimizer, [name for name, _ in model.named_parameters()]) if is_flat else None
                continue
            for view, gradient in zip(flat.gradients.values(), _gradients(step), strict=True):
                view.copy_(gradient)
            flat.step(0.1 / (step + 1))
        if flat is not None:
            flat.release()
        found.append({name: digest_tensors({"": each}) for name, each in state_tensors(model, optimizer).items()})
    assert found[0] == found[1]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad"])
def test_fused_kernels_are_asked_for_by_name_alone(optimizer: str) -> None:
    """Torch decides by itself otherwise, which is to take separate kernels on a CPU."""
    fused, separate = (
        optimizer_of(nn.Linear(3, 2), _training(optimizer=optimizer, kernels=kernels))
        for kernels in ("fused", "separate")
    )
    assert fused.param_groups[0]["fused"] is True
    assert separate.param_groups[0]["fused"] is None


class TurnedLayer(nn.Module):
    """A layer whose parameter is in another order of memory."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((classes, inputs), 0.1).t().contiguous().t())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return features @ self.weight.t()


class GappedLayer(nn.Module):
    """A layer whose parameter has gaps in its memory: a kernel would write into them, and past the end."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((classes, 2 * inputs), 0.1)[:, ::2])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return features @ self.weight.t()


class SparseLayer(nn.Module):
    """A layer with sparse gradients."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(3, classes, sparse=True), nn.Linear(inputs, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.last(features) + self.words((features[:, 0] > 0).long())
        return logits


class ComplexLayer(nn.Module):
    """A layer of complex numbers."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((inputs, classes), 0.1 + 0.1j))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return (features.to(torch.complex64) @ self.weight).real


@pytest.mark.parametrize("engine", ["eager", "replay", "auto"])
@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("TurnedLayer", r"cannot take a parameter of shape \(3, 6\) whose strides are \(1, 3\)"),
        ("GappedLayer", r"cannot take a parameter of shape \(3, 6\) whose strides are \(12, 2\)"),
        ("SparseLayer", r"cannot take a sparse gradient of a parameter of shape \(3, 3\)"),
        ("ComplexLayer", "cannot take a parameter of torch.complex64"),
    ],
)
def test_memory_in_another_order_is_refused(model: str, text: str, engine: str) -> None:
    """Torch would pair other elements, or write past the end, without an error; separate kernels take all of these."""
    settings, points = ModelSettings(factory=f"{_HERE}:{model}"), made_points((16,))
    with pytest.raises(Invalid, match=text) as refusal:
        learned(settings, _training(kernels="fused"), points, engine)
    assert refusal.value.remedy.startswith("Leave [training] kernels out, or")
    assert learned(settings, _training(), points, "eager")


class TurnedInside(nn.Module):
    """A layer whose gradient autograd computes in another order than the parameter's, and keeps in the parameter's."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((classes, inputs), 0.1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return features @ self.weight.t().contiguous()


@pytest.mark.parametrize("kernels", ["separate", "fused"])
def test_gradients_that_autograd_puts_into_order_are_learned_from(kernels: str) -> None:
    """By both engines, to the same bits."""
    settings, points = ModelSettings(factory=f"{_HERE}:TurnedInside"), made_points((19,))
    training = _training(kernels=kernels, momentum=0.9)
    assert learned(settings, training, points, "replay") == learned(settings, training, points, "eager")


def test_a_gradient_in_another_order_is_refused() -> None:
    """A gradient from the user's code may be in another order."""
    layer = nn.Linear(3, 2)
    optimizer = optimizer_of(layer, _training(kernels="fused"))
    layer.weight.grad = torch.ones(3, 2).t()
    with pytest.raises(Invalid, match=r"cannot take a gradient of shape \(2, 3\) whose strides are \(1, 2\)"):
        take_step(optimizer)


@pytest.mark.parametrize("recipe", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"optimizer": "adam"}])
def test_a_first_gradient_may_come_late(recipe: dict[str, Any]) -> None:
    """A parameter that learns from the third step on moves as with separate kernels."""
    found = []
    for kernels in ("fused", "separate"):
        layer = nn.Linear(3, 2)
        nn.init.constant_(layer.weight, 0.5)
        nn.init.constant_(layer.bias, 0.5)
        optimizer = optimizer_of(layer, _training(kernels=kernels, **recipe))
        for step in range(5):
            layer.weight.grad = torch.full((2, 3), 0.1 * (step + 1))
            layer.bias.grad = torch.full((2,), 0.3 * (step + 1)) if step > 1 else None
            take_step(optimizer)
        found.append((layer.weight.detach(), layer.bias.detach()))
    torch.testing.assert_close(found[0], found[1])
