"""Maxima taken with the channels last are those taken with the channels first, and so are their places."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from shards.learners.torch.engines import program
from shards.learners.torch.engines.recording import Call
from shards.specification import ModelSettings, TrainingSettings
from tests.exactness.engines.learned import learned, made_points

_WIDTH = 2 * 10 * 10
_SETTINGS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "dilation": 2},
    {"kernel_size": (2, 3), "ceil_mode": True},
]


def pooled(inputs: int, classes: int, channels: int = 16, **settings: Any) -> nn.Module:
    """Return a model that pools; its zeros after the activation are all equal."""
    assert inputs == _WIDTH
    layers = (nn.Unflatten(1, (2, 10, 10)), nn.Conv2d(2, channels, 3), nn.ReLU(), nn.MaxPool2d(**settings))
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(classes))


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("settings", _SETTINGS)
def test_models_that_pool_are_repeated_to_the_bit(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From 16 channels on maxima are taken the other way."""
    used: list[int] = []
    whole = program._pooling

    def noting(*arguments: Any) -> Any:
        used.append(arguments[1].got[0].shape[1])
        return whole(*arguments)

    monkeypatch.setattr(program, "_pooling", noting)
    points = made_points((9, 14), width=_WIDTH)
    training = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05, seed=2)
    for channels in (15, 16):
        used.clear()
        model = ModelSettings(
            factory="tests.exactness.engines.test_pooling:pooled", arguments={"channels": channels, **settings}
        )
        assert learned(model, training, points, "replay") == learned(model, training, points, "eager")
        assert set(used) == ({16} if channels == 16 else set())


@pytest.mark.parametrize("settings", _SETTINGS)
def test_of_equal_and_odd_numbers_the_same_ones_are_chosen(settings: dict[str, Any]) -> None:
    """Zeros of both signs, infinities, and what is not a number."""
    odd = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1.0])
    for seed in range(20):
        chosen = torch.randint(6, (3, 19, 9, 8), generator=torch.Generator().manual_seed(seed))
        features = odd[chosen]
        layer = nn.MaxPool2d(**settings)
        numbers = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        pairs = [list(each) if isinstance(each, tuple) else [each, each] for each in numbers]
        operator = torch.ops.aten.max_pool2d_with_indices
        maxima, places = operator(features, *pairs, layer.ceil_mode)
        call = Call(operator, (features,), {}, (maxima, places))
        pool = program._pooling(operator.out, call)
        found = pool(features, *pairs, layer.ceil_mode, out=torch.empty_like(maxima), indices=torch.empty_like(places))
        assert found[0].view(torch.int32).equal(maxima.view(torch.int32))
        assert found[1].equal(places)
