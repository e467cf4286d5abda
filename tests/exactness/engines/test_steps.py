"""Steps are those of torch's optimizers, bit by bit, and load no compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from shards.learners.torch.engines.steps import take_step
from shards.learners.torch.recipe import optimizer_of
from shards.recipe.optimizers import OPTIMIZERS
from shards.specification import TrainingSettings

_FURTHER: dict[str, tuple[dict[str, Any], ...]] = {
    "sgd": ({"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, {"kernels": "fused"}),
    "adam": ({"weight_decay": 0.01}, {"kernels": "fused"}),
    "adamw": ({"weight_decay": 0.01}, {"kernels": "fused"}),
}

_TRAINS = """
import sys, torch
from torch import nn
from shards.learners.torch.engines.steps import take_step
from shards.learners.torch.recipe import optimizer_of
from shards.recipe.optimizers import OPTIMIZERS
from shards.specification import TrainingSettings
for name in OPTIMIZERS:
    layer = nn.Linear(3, 2)
    optimizer = optimizer_of(layer, TrainingSettings(epochs=2, batch_size=2, learning_rate=0.1, optimizer=name))
    optimizer.zero_grad(set_to_none=True)
    layer(torch.ones(1, 3)).sum().backward()
    take_step(optimizer)
assert "torch._dynamo" not in sys.modules
compiled = torch.compile(layer, backend="eager")
assert torch.equal(compiled(torch.ones(1, 3)), layer(torch.ones(1, 3)))
optimizer.step()
"""


@pytest.mark.parametrize(
    ("name", "further"), [(name, further) for name in OPTIMIZERS for further in ({}, *_FURTHER.get(name, ()))]
)
def test_a_step_is_that_of_torch(name: str, further: dict[str, Any]) -> None:
    """Parameters and the optimizer's state are equal after each of five steps."""
    settings = TrainingSettings(epochs=2, batch_size=2, learning_rate=0.1, optimizer=name, **further)
    layers = [nn.Linear(5, 3), nn.Linear(5, 3)]
    layers[1].load_state_dict(layers[0].state_dict())
    ours, torchs = (optimizer_of(layer, settings) for layer in layers)
    for _ in range(5):
        gradient = torch.randn(3, 5)
        for layer in layers:
            layer.weight.grad, layer.bias.grad = gradient.clone(), gradient[:, 0].contiguous()
        take_step(ours)
        torchs.step()
        for mine, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
            assert torch.equal(mine, other)
            assert ours.state[mine].keys() == torchs.state[other].keys()
            for entry, value in ours.state[mine].items():
                known = torchs.state[other][entry]
                assert torch.equal(value, known) if isinstance(value, torch.Tensor) else value == known
        assert torch.is_grad_enabled()


def test_no_optimizer_loads_the_compiler() -> None:
    """It takes as long to load as torch; code that compiles a model loads it and finds it whole."""
    done = subprocess.run([sys.executable, "-c", _TRAINS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
