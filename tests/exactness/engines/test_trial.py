"""What cannot be repeated is found before it is used: ``replay`` refuses it, ``auto`` trains it step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from shards.learners.torch.engines import replay as engine
from shards.specification import ModelSettings, TrainingSettings
from storage.errors import Invalid
from tests.exactness.engines.learned import learned, made_points
from tests.exactness.zoo import EXACT
from tests.volume import spread

_TRAINING = TrainingSettings(epochs=6, batch_size=4, learning_rate=0.05, optimizer="adam", seed=2)
_HERE = "tests.exactness.engines.test_trial"

_ANOTHER_RESULT = "repeated steps end in another"
_DECIDES = "whose result may decide what comes next"
REFUSED = {
    "cumulative_batch_norm": _DECIDES,
    "losses_in_a_list": _DECIDES,
    "half_inside": "a parameter is not dense, or not of 32 bits",
    "double_inside": "a parameter is not dense, or not of 32 bits",
    "buffer_that_is_not_persistent": "the model puts another tensor in the place of a parameter or buffer",
    **dict.fromkeys(
        (
            "checkpointed",
            "noise_of_numpy",
            "noise_of_random",
            "generator_of_its_own",
            "counter",
            "threads_that_are_joined",
        ),
        _ANOTHER_RESULT,
    ),
}
"""Exact models that cannot be repeated, and the reasons."""
ODD = {
    "statistics": _ANOTHER_RESULT,
    "recent_batches": _ANOTHER_RESULT,
    "all_batches": "repeated steps end in another attribute bank",
    "statistics_in_a_closure": _ANOTHER_RESULT,
    "hidden_teacher": "the step changes a tensor that is neither parameter nor buffer",
    "steps_of_the_class": _ANOTHER_RESULT,
    "torch_of_the_module": "the step draws from a generator of its own",
    "stop_watch": "repeated steps end in another attribute seconds",
}
"""Models that a rehearsal refuses as well."""


class Hooked(nn.Module):
    """A module that is not one of torch's own."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.layer(features)
        return logits


def of_torch(inputs: int, classes: int) -> nn.Module:
    """Return a model of torch's own modules."""
    return nn.Sequential(nn.Linear(inputs, 5), nn.LayerNorm(5), nn.SELU(), nn.Linear(5, classes))


def _larger(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
    return output * 1.5


def with_hook(inputs: int, classes: int) -> nn.Module:
    """Return a model of torch's own modules and a hook."""
    model = nn.Linear(inputs, classes)
    model.register_forward_hook(_larger)
    return model


def cumulative(inputs: int, classes: int) -> nn.Module:
    """Return a model of torch's own modules, one of which gives a number to Python."""
    return nn.Sequential(nn.Linear(inputs, 5), nn.BatchNorm1d(5, momentum=None), nn.Linear(5, classes))


def normalized(inputs: int, classes: int) -> nn.Module:
    """Return a model of torch's own modules, the first of which sums in the order of the memory."""
    return nn.Sequential(nn.BatchNorm1d(inputs), nn.Linear(inputs, 5), nn.ReLU(), nn.Linear(5, classes))


_KEPT = nn.Linear(6, 5)


def around_one_layer(inputs: int, classes: int) -> nn.Module:
    """Return a model with a layer that all models have in common, reset."""
    _KEPT.reset_parameters()
    return nn.Sequential(_KEPT, nn.ReLU(), nn.Linear(inputs - 1, classes))


class Summed(nn.Module):
    """Two parameters that get the same tensor as gradient."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.scale, self.more = nn.Parameter(torch.zeros(inputs)), nn.Parameter(torch.ones(inputs))
        self.layer = nn.Linear(inputs, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.layer(features * (self.scale + self.more))
        return logits


def moved(features: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Return features moved by up to one place: as they are, or a part of larger memory."""
    start = int(torch.randint(3, (1,), generator=generator))
    return features if start == 1 else nn.functional.pad(features, [1, 1])[:, start : start + features.shape[1]]


def turned(features: torch.Tensor, _: torch.Generator | None) -> torch.Tensor:
    """Return the same features in another order of the memory."""
    return features.t().contiguous().t()


def mapped(features: torch.Tensor, _: torch.Generator | None) -> torch.Tensor:
    """Return features with a gradient, as a module gives them."""
    scale = nn.Parameter(torch.full((features.shape[1],), 1.5))
    return features * scale


def _zoo(name: str) -> ModelSettings:
    return ModelSettings(factory=f"tests.exactness.{'odd_zoo' if name in ODD else 'zoo'}:{name}")


@pytest.mark.parametrize("name", sorted({*REFUSED, *ODD}))
def test_what_cannot_be_repeated_is_refused(name: str) -> None:
    """The error names the reason, and what to do."""
    points = made_points((19,), classes=2)
    with pytest.raises(Invalid, match=REFUSED.get(name) or ODD[name]) as refusal:
        learned(_zoo(name), _TRAINING, points, "replay", classes=2)
    assert refusal.value.remedy.startswith('Set engine to "auto" or "eager", or leave it out')


def test_clipping_of_gradients_that_share_memory_is_refused() -> None:
    """It is refused even if the trial clips no step: later steps may be clipped."""
    training = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05, gradient_clip=1000.0)
    with pytest.raises(Invalid, match="gradients that are clipped share memory"):
        learned(ModelSettings(factory=f"{_HERE}:Summed"), training, made_points((16,)), "replay")


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.volume
@pytest.mark.parametrize("name", spread(sorted({*EXACT} - REFUSED.keys()), 2, shift=1))
def test_models_of_many_kinds_are_repeated_to_the_bit(name: str, replayed: list[float]) -> None:
    """Recurrent layers, attention, hooks, parametrized, tied and frozen weights, as users write them."""
    points = made_points((11, 19), width=4, classes=2)
    expected = learned(_zoo(name), _TRAINING, points, "eager", classes=2)
    assert learned(_zoo(name), _TRAINING, points, "replay", classes=2) == expected
    assert replayed


@pytest.mark.parametrize(
    ("factory", "recipe", "is_replayed"),
    [
        ("shards.models:mlp", {}, True),
        (f"{_HERE}:of_torch", {}, True),
        (f"{_HERE}:Hooked", {}, False),
        (f"{_HERE}:around_one_layer", {}, False),
        (f"{_HERE}:with_hook", {}, False),
        (f"{_HERE}:cumulative", {}, False),
        ("shards.models:mlp", {"loss": "tests.exactness.user_models:focal"}, False),
    ],
)
def test_auto_replays_what_is_made_of_torch_alone(
    factory: str, recipe: dict[str, Any], is_replayed: bool, replayed: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoints are those of ``eager``, replayed or not."""
    monkeypatch.setattr(engine, "_PAYS_FROM_STEPS", 1)
    training = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05, **recipe)
    points, model = made_points((11, 19)), ModelSettings(factory=factory)
    assert learned(model, training, points, "auto") == learned(model, training, points, "eager")
    assert bool(replayed) == is_replayed


@pytest.mark.parametrize(("augment", "is_replayed"), [("moved", True), ("turned", False), ("mapped", False)])
def test_augmented_features_that_lie_otherwise_are_learned_step_by_step(
    augment: str, is_replayed: bool, replayed: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial has features as they are stored, and results depend on their order and alignment in memory (E7)."""
    monkeypatch.setattr(engine, "_PAYS_FROM_STEPS", 1)
    training = TrainingSettings(epochs=3, batch_size=16, learning_rate=0.05, seed=3, augment=f"{_HERE}:{augment}")
    points, model = made_points((70,), width=37), ModelSettings(factory=f"{_HERE}:normalized")
    assert learned(model, training, points, "auto") == learned(model, training, points, "eager")
    assert (len(replayed) > 3) == is_replayed  # more than those of the trial


@pytest.mark.parametrize(("limit", "value"), [("_PAYS_FROM_STEPS", 13), ("_PAYS_UP_TO_ELEMENTS", 10)])
def test_auto_does_not_replay_what_does_not_pay(
    limit: str, value: int, replayed: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few steps are not worth a trial; in a large step, what replaying saves is lost."""
    monkeypatch.setattr(engine, "_PAYS_FROM_STEPS", 12)
    training, points = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05), made_points((16,))
    learned(ModelSettings(), training, points, "auto")
    assert replayed
    replayed.clear()
    monkeypatch.setattr(engine, limit, value)
    learned(ModelSettings(), training, points, "auto")
    assert replayed == []


def test_auto_builds_no_twins_of_a_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be two more of it in memory, for a trial whose end is known."""
    large, small = (nn.Linear(width, 2) for width in (50, 49))
    monkeypatch.setattr(engine, "_PAYS_UP_TO_ELEMENTS", 100)
    assert not engine.wants_trial("auto", large, 1000, is_torchs=True)
    assert engine.wants_trial("auto", small, 1000, is_torchs=True)
    assert engine.wants_trial("replay", large, 1, is_torchs=True)


def test_a_shard_without_a_whole_batch_has_nothing_to_replay(replayed: list[float]) -> None:
    """It is trained step by step, regardless of the engine."""
    training, points = TrainingSettings(epochs=3, batch_size=64, learning_rate=0.05), made_points((16,))
    assert learned(ModelSettings(), training, points, "replay") == learned(ModelSettings(), training, points, "eager")
    assert replayed == []


def test_an_error_of_the_users_code_stays_their_error() -> None:
    """A loss that fails, fails in the trial as in training."""
    training = TrainingSettings(
        epochs=3, batch_size=4, learning_rate=0.05, loss="tests.exactness.user_models:fourth_power"
    )
    for name in ("eager", "replay"):  # labels are classes, which have another shape than outputs
        with pytest.raises(Invalid, match=r"\[training\] loss .* failed with RuntimeError"):
            learned(ModelSettings(), training, made_points((16,)), name)
