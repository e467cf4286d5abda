"""The registry: opens the learner that a specification names. Nobody else constructs one."""

from __future__ import annotations

from typing import Any

from shards.learners.protocol import Learner
from shards.learners.torch.learner import TorchLearner
from shards.learners.torch.seeding import Device
from shards.specification import ModelSettings, TrainingSettings


def open_learner(
    *,
    model: ModelSettings,
    training: TrainingSettings,
    inputs: int,
    classes: int,
    slices: int,
    device: Device = "cpu",
) -> Learner[Any]:
    """Return the learner for ``inputs`` features and ``classes`` classes, in this process, on ``device``.

    Its states are its own: pass them back to it and to nobody else. The numerics of the process are set beforehand
    (``shards.learners.torch.seeding.set_numerics``).
    """
    return TorchLearner(model=model, training=training, inputs=inputs, classes=classes, slices=slices, device=device)
