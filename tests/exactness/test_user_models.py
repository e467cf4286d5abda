"""Models with state in unusual places are exact, or refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from cluster.config.specification import FederationSpecification
from cluster.runtime.learners import learner_of
from shards.learners.torch.checkpoint import decode_checkpoint
from shards.slices.files import load_shard
from shards.specification import ModelSettings, ShardId, TrainingSettings
from storage.errors import Invalid
from tests.doubles.federation import specification_of, survivors
from tests.exactness.federations import assert_exact, checkpoints, federation_of, make_points, train_alone
from tests.volume import one_of_each

_EXACT = ["Remembering", "Tied", "Counting", "lazy", "frozen", "normed", "transposed", "double", "Recurrent"]
_EACH = one_of_each(list(product(_EXACT, ["sgd", "adamw"])), kind=lambda pair: pair[0])


def _specification(factory: str, optimizer: str, batch_size: int = 4) -> FederationSpecification:
    return specification_of(
        shards=2,
        slices=3,
        training=TrainingSettings(epochs=5, batch_size=batch_size, learning_rate=0.05, optimizer=optimizer, seed=2),
        model=ModelSettings(factory=f"tests.exactness.user_models:{factory}"),
    )


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.volume
@pytest.mark.parametrize(("factory", "optimizer"), _EACH)
def test_unusual_models_are_exact(factory: str, optimizer: str) -> None:
    """Erasing two subjects gives the bytes of a new run; resuming from any slice those of an uninterrupted run."""
    federation = federation_of(_specification(factory, optimizer))
    points = make_points(3, 24)
    federation.train(points)
    gone = [points[0].subject, points[15].subject]
    for number, subject in enumerate(gone):
        federation.erase(subjects=[subject], request_id=f"er-{number}")
    assert_exact(federation, survivors(points, subjects=gone))
    straight = [each.sha256 for each in federation.state.shards[0].chain]
    for done in range(3):
        assert [each.sha256 for each in train_alone(federation, ShardId(0), done)] == straight


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("factory", sorted({*_EXACT} - {"Counting"}))
def test_checkpoints_hold_all_that_a_model_keeps_in_tensors(factory: str) -> None:
    """Continuing from memory, where nothing can be lost, equals continuing from the checkpoint's bytes (E4)."""
    spec = _specification(factory, "adam")
    federation = federation_of(spec)
    federation.train(make_points(3, 24))
    shard, learner = federation.state.shards[0], learner_of(spec, 4)
    points = load_shard(federation.store, shard.slices, 4, 1.0)
    state = learner.initial(ShardId(0))
    for record, payload in zip(shard.chain, checkpoints(federation)[0], strict=True):
        for _ in learner.learn(state, points, ShardId(0), record.slice):
            pass  # training changes torch's state in place
        assert learner.digest(state) == record.digest
        restored = learner.from_bytes(payload, ShardId(0))
        some = np.ones((3, 4), dtype=np.float32)
        assert learner.probabilities(restored, some).tolist() == learner.probabilities(state, some).tolist()


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("Extra", "keeps state outside its parameters and buffers"),
        ("all_frozen", "has no parameter to train"),
        ("Growing", "changed name, shape or dtype while the model learned: bank"),
    ],
)
def test_models_that_no_checkpoint_can_hold_are_refused(factory: str, text: str) -> None:
    """A model with state that no checkpoint can hold is refused with the reason."""
    federation = federation_of(_specification(factory, "sgd"))
    with pytest.raises(Invalid, match=text):
        federation.train(make_points(3, 24))


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_batch_normalisation_over_single_points_is_refused() -> None:
    """With batch_size = 1, batch normalisation is refused, because it has no variance; lazy layers too."""
    federation = federation_of(_specification("lazy", "sgd", batch_size=1))
    with pytest.raises(Invalid, match="batch_size = 1 with batch normalisation"):
        federation.train(make_points(3, 24))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_frozen_base_is_exact_and_not_stored(optimizer: str) -> None:
    """Erasing from a federation whose model reads files gives the bytes of a new run, with the base only referenced."""
    spec = _specification("based", optimizer)
    spec = replace(spec, model=replace(spec.model, files=("base.pt",)))
    federation = federation_of(spec)
    points = make_points(3, 24)
    federation.train(points)
    federation.erase(subjects=[points[0].subject], request_id="er")
    assert_exact(federation, survivors(points, subjects=[points[0].subject]))
    names = {name for chain in checkpoints(federation) for payload in chain for name in decode_checkpoint(payload)}
    assert {"base/0.weight", "model/2.running_mean", "model/3.weight"} < names
    assert "model/0.weight" not in names
    straight = [each.sha256 for each in federation.state.shards[0].chain]
    assert [each.sha256 for each in train_alone(federation, ShardId(0), 1)] == straight
