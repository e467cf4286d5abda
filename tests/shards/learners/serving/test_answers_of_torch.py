"""Answers of torch models: constituents asked together say what each says alone, and open without their optimizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from shards.learners.protocol import answering_from, outputs_of_all
from shards.learners.torch import stacked
from shards.learners.torch.checkpoint import decode_model, model_tensors
from shards.learners.torch.copies import filled, form_of
from shards.learners.torch.learner import TorchLearner, TorchState
from shards.learners.torch.seeding import set_numerics
from shards.learners.torch.stacked import MOST_POINTS, stacked_models
from shards.specification import ModelSettings, ShardId, TrainingSettings
from storage.errors import Corrupt
from tests.doubles.lineages import lineage_of

WIDTH = 6


def learner_of(arguments: Mapping[str, object], factory: str = "mlp", target: str = "class") -> TorchLearner:
    """Return a learner that trains with Adam."""
    set_numerics(1, "cpu")
    return TorchLearner(
        model=ModelSettings(factory=factory if ":" in factory else f"shards.models:{factory}", arguments=arguments),
        training=TrainingSettings(epochs=1, batch_size=4, learning_rate=0.1, optimizer="adam"),
        inputs=WIDTH,
        classes=3,
        slices=1,
        target=target,
    )


def features(points: int) -> npt.NDArray[np.float32]:
    """Return made-up data points."""
    return np.random.default_rng(5).standard_normal((points, WIDTH)).astype(np.float32)


def one_by_one(learner: TorchLearner, states: list[TorchState], points: int) -> npt.NDArray[np.float64]:
    """Return the outputs of each constituent asked alone."""
    return np.stack([learner.probabilities(state, features(points)) for state in states])


@pytest.mark.parametrize("target", ["class", "number", "multi_label"])
@pytest.mark.parametrize(
    ("factory", "arguments"),
    [
        ("logistic", {}),
        ("mlp", {"hidden": [7]}),
        ("mlp", {"hidden": [7, 5], "activation": "relu", "dropout": 0.5}),
        ("mlp", {"hidden": [7], "activation": "gelu"}),
    ],
)
def test_constituents_asked_together_answer_as_alone(factory: str, arguments: dict[str, object], target: str) -> None:
    """One data point, some, and more than are asked together: the same outputs but for rounding, in the same order."""
    learner = learner_of(arguments, factory, target)
    states = [learner.initial(ShardId(number)) for number in range(3)]
    together = learner.at_once(states)
    assert together is not None
    for points in (0, 1, 5, MOST_POINTS + 1):
        np.testing.assert_allclose(together(features(points)), one_by_one(learner, states, points), atol=1e-6)


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Identity])
def test_layers_of_a_users_own_sequence_are_known(activation: Callable[[], nn.Module]) -> None:
    """Sequences within sequences, layers without a bias, and further activations are asked together, too."""
    torch.manual_seed(1)
    models = [
        nn.Sequential(nn.Sequential(nn.Linear(WIDTH, 4, bias=False), activation()), nn.Linear(4, 2)) for _ in "ab"
    ]
    together = stacked_models(models)
    assert together is not None
    asked = torch.from_numpy(features(3))
    torch.testing.assert_close(together(asked), torch.stack([model(asked) for model in models]))


class _Own(nn.Linear):
    """A layer of the user's own."""


def _hooked() -> nn.Module:
    model = nn.Linear(WIDTH, 2)
    model.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    "models",
    [
        [nn.Linear(WIDTH, 2)],
        [nn.Linear(WIDTH, 2), nn.Linear(WIDTH, 3)],
        [nn.Sequential(nn.Linear(WIDTH, 2), nn.ReLU()), nn.Sequential(nn.Linear(WIDTH, 2), nn.Tanh())],
        [nn.Sequential(nn.Linear(WIDTH, 2), nn.GELU()), nn.Sequential(nn.Linear(WIDTH, 2), nn.GELU("tanh"))],
        [nn.Sequential(nn.Linear(WIDTH, 2), nn.BatchNorm1d(2)) for _ in "ab"],
        [_Own(WIDTH, 2) for _ in "ab"],
        [_hooked() for _ in "ab"],
        [nn.Linear(WIDTH, 2), nn.Linear(WIDTH, 2).double()],
    ],
    ids=["one", "widths", "activations", "kinds of gelu", "an unknown layer", "own code", "a hook", "types"],
)
def test_other_models_are_asked_one_by_one(models: list[nn.Module]) -> None:
    """Where it is not known that asking them together says the same, it is not done."""
    assert stacked_models(models) is None


def test_few_points_of_small_models_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The more weights, the fewer data points are worth no thread; from some size on none are."""
    learner = learner_of({"hidden": [7]})
    states = [learner.initial(ShardId(number)) for number in range(2)]
    weights = sum(each.numel() for state in states for each in model_tensors(state.model).values())
    for quick_weights, expected in ((3 * weights, 3), (weights - 1, 0)):
        monkeypatch.setattr(stacked, "_QUICK_WEIGHTS", quick_weights)
        together = learner.at_once(states)
        assert together is not None
        assert together.quick_points == expected


def test_large_models_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights beyond the limit would be in memory twice: they are asked one by one, with the same outputs."""
    learner = learner_of({"hidden": [7]})
    states = [learner.initial(ShardId(number)) for number in range(2)]
    monkeypatch.setattr(stacked, "_MOST_BYTES", 500)
    assert learner.at_once(states) is None
    assert np.array_equal(one_by_one(learner, states, 2), outputs_of_all(learner, states)(features(2)))


def checkpoint(learner: TorchLearner, shard: int = 3) -> tuple[TorchState, bytes]:
    """Return a constituent after a step of Adam, and its checkpoint."""
    state = learner.initial(ShardId(shard))
    state.model(torch.from_numpy(features(4))).sum().backward()
    state.optimizer.step()
    return state, learner.to_bytes(state, lineage_of())


@pytest.mark.parametrize("arguments", [{"hidden": [7]}, {"hidden": [7], "batch_norm": True}])
def test_a_constituent_opens_for_answers_as_it_was(arguments: dict[str, object]) -> None:
    """What is opened has the same tensors, buffers included, gives the same bits, and has no optimizer's state."""
    learner = learner_of(arguments)
    state, payload = checkpoint(learner)
    opened = answering_from(learner, payload, ShardId(3))
    assert learner.digest(state) == learner.digest(opened)
    assert np.array_equal(learner.probabilities(state, features(9)), learner.probabilities(opened, features(9)))
    assert state.optimizer.state
    assert not hasattr(opened, "optimizer")
    assert not opened.model.training


def test_opening_builds_one_model_and_shares_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several constituents, opened on threads at once: a model is built once, and each has tensors of its own."""
    learner = learner_of({"hidden": [7]})
    made = [checkpoint(learner, number) for number in range(6)]
    built, build = list[ShardId](), learner._built

    def counted(shard: ShardId) -> Any:
        built.append(shard)
        return build(shard)

    monkeypatch.setattr(learner, "_built", counted)
    with ThreadPoolExecutor(3) as threads:
        opened = list(threads.map(lambda each: learner.open_for_answers(each[1], ShardId(0)), made))
    assert [learner.digest(state) for state, _ in made] == [learner.digest(state) for state in opened]
    assert len(built) == 1
    addresses = {each.data_ptr() for state in opened for each in model_tensors(state.model).values()}
    assert len(addresses) == 6 * len(model_tensors(opened[0].model))


def in_pieces(payload: bytes, size: int) -> Iterator[memoryview]:
    """Yield the payload by pieces, each in the memory of the one before."""
    memory = bytearray(size)
    for start in range(0, len(payload), size):
        piece = payload[start : start + size]
        memory[: len(piece)] = piece
        yield memoryview(memory)[: len(piece)].toreadonly()


@pytest.mark.parametrize("size", [1, 13, 500, 1 << 20])
def test_pieces_open_as_the_whole_does(size: int) -> None:
    """Wherever the payload is cut, and although each piece is overwritten: the same bits, in memory of their own."""
    learner = learner_of({"hidden": [7]})
    state, payload = checkpoint(learner)
    opened = learner.open_pieces(in_pieces(payload, size))
    assert opened is not None
    assert learner.digest(state) == learner.digest(opened)
    assert np.array_equal(learner.probabilities(state, features(9)), learner.probabilities(opened, features(9)))
    assert not hasattr(opened, "optimizer")


def overlapping(payload: bytes) -> bytes:
    """Return a checkpoint in which two tensors of the same length are in the same place."""
    start = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:start])
    header["model/0.bias"] = header["model/2.bias"]
    written = json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written + payload[start:]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda payload: payload[:-1],
        lambda payload: payload + b"!",
        lambda payload: b"?" + payload[1:],
        lambda _: b"short",
        lambda _: b"",
        overlapping,
        lambda _: checkpoint(learner_of({"hidden": [8]}))[1],
    ],
    ids=["cut", "longer", "header", "short", "empty", "overlapping", "another model"],
)
def test_pieces_that_are_no_checkpoint_of_the_model_do_not_open(spoil: Callable[[bytes], bytes]) -> None:
    """A reader of the whole finds out why."""
    learner = learner_of({"hidden": [3]})
    assert learner.open_pieces(in_pieces(spoil(checkpoint(learner)[1]), 100)) is None


OWN = """
import torch
from torch import nn

class Drawn(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.layer = nn.Linear(inputs, classes)
        self.drawn = torch.rand(inputs)  # no buffer: only the seed has it

    def forward(self, features):
        return self.layer(features * self.drawn)
"""


def test_a_model_of_the_users_code_is_built_as_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its constructor may draw what no checkpoint holds: it is built from its shard's seed."""
    (tmp_path / "drawn_model_of_a_user.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    learner = learner_of({}, "drawn_model_of_a_user:Drawn")
    state, payload = checkpoint(learner)
    opened = learner.open_for_answers(payload, ShardId(3))
    assert learner.open_pieces(in_pieces(payload, 100)) is None
    assert np.array_equal(learner.probabilities(state, features(9)), learner.probabilities(opened, features(9)))
    assert form_of(state.model) is None


@pytest.mark.parametrize(
    "spoil", [lambda payload: payload[:-1], lambda payload: b"?" + payload[1:], lambda _: b"short"]
)
def test_a_damaged_checkpoint_does_not_open(spoil: Callable[[bytes], bytes]) -> None:
    """A part that is missing or a wrong header is damage, not an error of Python."""
    learner = learner_of({"hidden": [7]})
    with pytest.raises(Corrupt, match="not a readable safetensors file"):
        learner.open_for_answers(spoil(checkpoint(learner)[1]), ShardId(0))


def test_another_models_checkpoint_does_not_open() -> None:
    """Names, shapes and types have to be the model's."""
    payload = checkpoint(learner_of({"hidden": [8]}))[1]
    with pytest.raises(Corrupt, match="tensors are not this model's"):
        learner_of({"hidden": [7]}).open_for_answers(payload, ShardId(0))
    tensors = decode_model(payload)
    form = form_of(nn.Linear(2, 2))
    assert tensors is not None
    assert form is not None
    assert filled(form, tensors) is None
