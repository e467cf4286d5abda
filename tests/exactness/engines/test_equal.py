"""``replay`` ends in the checkpoints of ``eager``, for all models, optimizers, losses and schedules of this suite."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from shards.specification import ModelSettings, TrainingSettings
from tests.doubles.federation import specification_of, survivors
from tests.exactness.engines.learned import learned, made_points
from tests.exactness.federations import assert_exact, checkpoints, federation_of, make_points
from tests.exactness.strategies import FUSED, MODELS, OPTIMIZERS, RECIPES, TARGETS
from tests.volume import one_of_each

_SETTINGS = [*(("class", each) for each in (*OPTIMIZERS, *RECIPES, *FUSED)), *TARGETS]
_REFUSED = "tests.exactness.user_models:mixed_up"
"""A step that gives a drawn number to Python."""
_REPEATED = [number for number, (_, each) in enumerate(_SETTINGS) if each.get("step") != _REFUSED]
_EACH = one_of_each(list(product(_REPEATED, sorted(MODELS))), kind=lambda pair: pair[0])
_TRIED = 3
"""Replayed steps of a trial."""


@pytest.mark.volume  # in ``make test`` each of the settings with one of the models, and each model with several
@pytest.mark.parametrize(("number", "model"), _EACH)
def test_replay_ends_in_the_checkpoints_of_eager(number: int, model: str, replayed: list[float]) -> None:
    """Two slices, whose epochs end with a batch of another size; parameters, buffers, optimizer, loss, all bytes."""
    (factory, arguments, _), (target, recipe) = MODELS[model], _SETTINGS[number]
    settings = ModelSettings(factory=factory, arguments=arguments)
    training = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.1, seed=1, **recipe)
    points = made_points((9, 14), target=target)
    expected = learned(settings, training, points, "eager", target)
    assert replayed == []
    assert learned(settings, training, points, "replay", target) == expected
    assert len(replayed) > 2 * _TRIED


def test_scheduled_rates_reach_replayed_steps(replayed: list[float]) -> None:
    """The learning rate is an input of what is replayed."""
    training = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.1, schedule={"kind": "cosine"})
    learned(ModelSettings(), training, made_points((16,)), "replay")
    own = replayed[_TRIED:]
    assert own == sorted(own, reverse=True)
    assert len({*own}) == len(own) == 3 * 4 - 1


def test_histories_end_in_the_same_objects() -> None:
    """A federation that replays is exact after an erasure, and has the checkpoints of one that does not."""
    points, found = make_points(3, 30), []
    for engine in ("eager", "replay"):
        training = TrainingSettings(epochs=4, batch_size=3, learning_rate=0.1, momentum=0.9, engine=engine)
        federation = federation_of(specification_of(shards=2, slices=2, training=training))
        federation.train(points)
        federation.erase(subjects=[points[0].subject], request_id="er")
        assert_exact(federation, survivors(points, subjects=[points[0].subject]))
        found.append(checkpoints(federation))
    assert found[0] == found[1]


@pytest.mark.parametrize("recipe", [{"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adam"}], ids=["sgd", "adam"])
def test_many_steps_keep_the_bits(recipe: dict[str, Any]) -> None:
    """Counts of steps, running statistics and random streams stay equal over hundreds of steps."""
    model = ModelSettings(factory="shards.models:mlp", arguments={"hidden": [5], "dropout": 0.2, "batch_norm": True})
    training = TrainingSettings(epochs=25, batch_size=4, learning_rate=0.01, **recipe)
    points = made_points((42,))
    assert learned(model, training, points, "replay") == learned(model, training, points, "eager")


@pytest.mark.parametrize("model", sorted(MODELS))
def test_weights_of_classes_reach_replayed_steps(model: str, replayed: list[float]) -> None:
    """They are constants of the loss, as label smoothing is."""
    factory, arguments, _ = MODELS[model]
    settings = ModelSettings(factory=factory, arguments=arguments)
    training = TrainingSettings(
        epochs=3, batch_size=4, learning_rate=0.1, class_weights=(0.5, 1.0, 4.0), label_smoothing=0.1
    )
    points = made_points((9, 14))
    assert learned(settings, training, points, "replay") == learned(settings, training, points, "eager")
    assert len(replayed) > 2 * _TRIED
