"""The registry: opens the learner that a specification names. No other module constructs a learner."""

from __future__ import annotations

from typing import Any

from shards.encoding import InputShape
from shards.learners.protocol import Learner
from shards.learners.torch.learner import TorchLearner
from shards.learners.torch.seeding import Device
from shards.specification import ModelSettings, TrainingSettings
from shards.targets import Class


def open_learner(
    *,
    model: ModelSettings,
    training: TrainingSettings,
    inputs: int,
    classes: int,
    slices: int,
    device: Device = "cpu",
    shape: InputShape | None = None,
    target: str = Class.kind,
) -> Learner[Any]:
    """Return the learner for ``inputs`` features and ``classes`` outputs, in this process, on ``device``.

    ``shape`` is the form in which the model receives them; None: as a row of numbers.
    Pass the learner's states back to this learner only. Call ``shards.learners.torch.seeding.set_numerics`` first.
    """
    return TorchLearner(
        model=model,
        training=training,
        inputs=inputs,
        classes=classes,
        slices=slices,
        device=device,
        shape=shape,
        target=target,
    )
