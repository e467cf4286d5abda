"""Constituents that are learned by each engine from the same data points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shards.learners.torch.learner import TorchLearner
from shards.points import ShardPoints
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from shards.targets import outputs_of
from tests.doubles.lineages import lineage_of

SHARD = ShardId(0)
CLASSES = 3


def made_points(ends: tuple[int, ...], width: int = 6, target: str = "class", classes: int = CLASSES) -> ShardPoints:
    """Return data points in slices that end at ``ends``."""
    generator, count = np.random.default_rng(0), ends[-1]
    keys = generator.integers(2**63, size=count).astype(np.uint64)
    return ShardPoints(
        features_NF=generator.normal(size=(count, width)).astype(np.float32),
        labels_N=outputs_of(target, classes).made_up(np.arange(1, count + 1, dtype=np.uint64)),
        keys_N=keys,
        subjects_N=keys,
        ends=ends,
    )


def learned(
    model: ModelSettings,
    training: TrainingSettings,
    points: ShardPoints,
    engine: str,
    target: str = "class",
    classes: int = CLASSES,
) -> list[tuple[bytes, float | None]]:
    """Return the checkpoint and the loss after each slice."""
    learner = TorchLearner(
        model=model,
        training=replace(training, engine=engine),
        inputs=points.features_NF.shape[1],
        classes=classes,
        slices=len(points.ends),
        target=target,
    )
    state, found = learner.initial(SHARD), []
    for number in range(1, len(points.ends) + 1):
        for _ in learner.learn(state, points, SHARD, SliceIndex(number)):
            pass
        found.append((learner.to_bytes(state, lineage_of(1)), learner.loss()))
        state = learner.from_bytes(found[-1][0], SHARD)
    return found
