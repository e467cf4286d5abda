"""The loss of a slice: it is shown with the progress, and nothing else depends on it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from shards.learners.torch.learner import TorchLearner, TorchState
from shards.learners.torch.seeding import set_numerics
from shards.learners.trainer import SliceLearned
from shards.lineage import CheckpointRecord
from shards.points import ShardPoints
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings

SHARD = ShardId(0)


def learner(epochs: int = 4, learning_rate: float = 0.1) -> TorchLearner:
    """Return a learner with a small model for three classes and two slices."""
    set_numerics(1, "cpu")
    return TorchLearner(
        model=ModelSettings(factory="shards.models:mlp", arguments={"hidden": [5]}),
        training=TrainingSettings(epochs=epochs, batch_size=4, learning_rate=learning_rate),
        inputs=3,
        classes=3,
        slices=2,
    )


def points() -> ShardPoints:
    """Return 17 data points, 9 of them in the first slice."""
    generator = np.random.default_rng(3)
    return ShardPoints(
        features_NF=generator.random((17, 3), dtype=np.float32),
        labels_N=np.arange(17, dtype=np.int64) % 3,
        keys_N=np.arange(17, dtype=np.uint64),
        subjects_N=np.arange(17, dtype=np.uint64),
        ends=(9, 17),
    )


def learned(learner: TorchLearner, slices: int = 2) -> TorchState:
    """Return the state after ``slices`` slices."""
    state = learner.initial(SHARD)
    for number in range(1, slices + 1):
        learning = learner.learn(state, points(), SHARD, SliceIndex(number))
        while True:
            try:
                next(learning)
            except StopIteration as ended:
                state = ended.value
                break
    return state


def test_the_loss_is_the_mean_over_data_points() -> None:
    """With a learning rate too small to change anything, it is the cross-entropy over all data points."""
    one = learner(learning_rate=1e-20)
    assert one.loss() is None
    state = learned(one)
    probabilities = one.probabilities(state, points().features_NF)
    expected = -np.log(probabilities[np.arange(17), points().labels_N]).mean()
    assert one.loss() == pytest.approx(expected, rel=1e-5)


def test_an_empty_shard_has_no_loss() -> None:
    """Without training there is no loss, even if the learner has trained another shard before."""
    one = learner()
    learned(one)
    nobody = ShardPoints(
        features_NF=np.empty((0, 3), dtype=np.float32),
        labels_N=np.empty(0, dtype=np.int64),
        keys_N=np.empty(0, dtype=np.uint64),
        subjects_N=np.empty(0, dtype=np.uint64),
        ends=(0, 0),
    )
    assert list(one.learn(one.initial(SHARD), nobody, SHARD, SliceIndex(1))) == []
    assert one.loss() is None


def test_no_bit_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learner that never records a loss produces the same bytes."""
    watched = learner()
    digest = watched.digest(learned(watched))
    whole = TorchLearner._learn_epoch

    def silent(self: TorchLearner, state: Any, data: Any, epoch: Any, losses: Any) -> None:
        whole(self, state, data, epoch, None)
        if losses is not None:
            losses.extend(torch.zeros(()) for _ in epoch.bounds)

    monkeypatch.setattr(TorchLearner, "_learn_epoch", silent)
    unwatched = learner()
    assert unwatched.digest(learned(unwatched)) == digest
    assert (unwatched.loss(), watched.loss() != 0.0) == (0.0, True)


def test_losses_are_read_once_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last epoch's losses are kept, and no step waits for one, which would halve the speed on a GPU."""
    kept = []
    whole = TorchLearner._learn_epoch

    def noting(self: TorchLearner, *arguments: Any) -> None:
        kept.append(arguments[-1] is not None)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "item", None)
            patch.setattr(torch.Tensor, "__float__", None)
            whole(self, *arguments)

    monkeypatch.setattr(TorchLearner, "_learn_epoch", noting)
    learned(learner(epochs=6), 1)
    assert kept == [False, False, False, True]


def test_the_record_that_is_kept_has_no_loss() -> None:
    """The progress event has a loss; the record of a checkpoint, which is stored, has no such field."""
    assert "loss" in {each.name for each in fields(SliceLearned)}
    assert not [each.name for each in fields(CheckpointRecord) if "loss" in each.name]
