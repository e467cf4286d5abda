"""One trial serves all slices and constituents of a process, where its recording can depend on none of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import shards.learners.torch.engines.replay as engine
from shards.learners.torch.engines.kept import KeptRecording
from shards.learners.torch.engines.recording import Recording
from shards.learners.torch.learner import TorchLearner
from shards.points import ShardPoints
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from tests.doubles.lineages import lineage_of
from tests.exactness.engines.learned import CLASSES, made_points
from tests.exactness.strategies import MODELS

_HERE = "tests.exactness.engines.test_kept"
_TRAINING = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05, momentum=0.9, seed=3)
_POINTS = made_points((9, 14))


def drawn(inputs: int, classes: int) -> nn.Module:
    """Return a model whose settings depend on the constituent, which its text does not show."""
    attention = nn.TransformerEncoderLayer(inputs, 1, dim_feedforward=4, dropout=0.0, batch_first=True)
    attention.activation = torch.tanh if torch.rand(()) < 0.5 else torch.relu
    return nn.Sequential(nn.Unflatten(1, (1, inputs)), attention, nn.Flatten(), nn.Linear(inputs, classes))


class Own(nn.Module):
    """A model of the user's code."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the layer's answers."""
        answers: torch.Tensor = self.layer(features)
        return answers


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Returns the recordings of all trials that were made."""
    made: list[Recording] = []
    whole = engine.recording_of

    def noting(*arguments: Any) -> Recording | None:
        recording = whole(*arguments)
        assert recording is not None
        made.append(recording)
        return recording

    monkeypatch.setattr("shards.learners.torch.learner.recording_of", noting)
    return made


def _all_learned(
    factory: str, training: TrainingSettings, shards: range = range(4), points: ShardPoints = _POINTS, **arguments: Any
) -> list[bytes]:
    """Return the checkpoints of several constituents, all of them learned by one learner."""
    learner = TorchLearner(
        model=ModelSettings(factory=factory, arguments=arguments),
        training=training,
        inputs=points.features_NF.shape[1],
        classes=CLASSES,
        slices=len(points.ends),
    )
    found = []
    for shard in map(ShardId, shards):
        state = learner.initial(shard)
        for number in range(1, len(points.ends) + 1):
            for _ in learner.learn(state, points, shard, SliceIndex(number)):
                pass
            found.append(learner.to_bytes(state, lineage_of(1)))
            state = learner.from_bytes(found[-1], shard)
    return found


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_trial_serves_all_slices_and_constituents(model: str, trials: list[Recording]) -> None:
    """Their checkpoints are those of ``eager``."""
    factory, arguments, _ = MODELS[model]
    ways = [_all_learned(factory, replace(_TRAINING, engine=each), **arguments) for each in ("eager", "replay")]
    assert ways[0] == ways[1]
    assert len(trials) == 1


def test_constituents_that_are_set_to_other_things_have_trials_of_their_own(trials: list[Recording]) -> None:
    """Here the function between two layers is drawn for each constituent."""
    ways = [_all_learned(f"{_HERE}:drawn", replace(_TRAINING, engine=each)) for each in ("eager", "replay")]
    assert ways[0] == ways[1]
    assert 1 < len(trials) <= 4


def test_a_model_of_the_users_code_is_tried_in_each_slice(trials: list[Recording]) -> None:
    """Its step may depend on what only its code knows."""
    _all_learned(f"{_HERE}:Own", replace(_TRAINING, engine="replay"))
    assert len(trials) == 4 * len(_POINTS.ends)


def test_a_kept_recording_holds_no_number_of_the_data_points(trials: list[Recording]) -> None:
    """It would stay in memory after an erasure."""
    weights = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05, class_weights=(3.0, 1.0, 2.0))
    _all_learned("shards.models:mlp", replace(weights, engine="replay"), range(1))
    (recording,) = trials
    held = [*recording.inputs.values(), *(each for call in recording.calls for each in (*call.got, *call.results))]
    left = {value for each in held for value in each.detach().flatten().tolist()}
    assert left <= {0.0, 1.0, 2.0, 3.0}
    assert 3.0 in left  # constants, such as the weights of classes, are kept


def test_small_constituents_are_tried_when_there_were_many(
    trials: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps ahead count, and those that were taken because one constituent alone would not pay."""
    monkeypatch.setattr(engine, "_PAYS_FROM_STEPS", 24)
    counts = []
    for shards in (1, 2, 3):
        trials.clear()
        _all_learned("shards.models:mlp", replace(_TRAINING, engine="auto"), range(shards))
        counts.append(len(trials))
    assert counts == [0, 0, 1]  # 1 and 3 whole batches, in 2 epochs each: 8 steps a constituent


def test_another_model_does_not_fit() -> None:
    """Neither another width nor another rate of dropout does."""
    kept = KeptRecording()
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
    kept.keep(model, Recording((), {}, torch.zeros(()), {}, None, {}))
    assert kept.fitting(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))) is not None
    assert kept.fitting(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.25))) is None
    assert kept.fitting(nn.Sequential(nn.Linear(2, 3, bias=False), nn.Dropout(0.5))) is None
    assert kept.fitting(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5)).eval()) is None
