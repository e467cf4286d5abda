"""Measuring an ensemble on hold-out points, where the learner is: only the measures leave the process.

Shape legend: K constituents, N points, W outputs of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.learners.protocol import Learner, answering, answering_from
from shards.learners.trainer import read_checkpoint
from shards.lineage import CheckpointRecord, Configuration
from shards.measures import Measures
from shards.slices.files import SliceRecord
from shards.slices.held_out import labelled_batches
from shards.specification import ShardId
from shards.targets import LabelArray, Target
from storage.objects import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureTask:
    """Measure the ensemble of these constituents on these hold-out points. Holds records, no data points."""

    constituents: tuple[tuple[ShardId, CheckpointRecord], ...]
    holdout: tuple[SliceRecord, ...]
    width: int
    """Number of features."""
    scale: float | tuple[float, ...]
    target: Target
    rule: str
    """How the constituents' outputs are combined."""
    configuration: Configuration
    """The conditions that the constituents were trained under."""


def measure(task: MeasureTask, learner: Learner[Any], store: ObjectStore) -> Measures:
    """Return how good the answers are; one slice file is in memory at a time.

    Raises ``Corrupt`` when an object is missing or damaged, ``Invalid`` when an answer is not a number.
    """
    loaded = [
        answering_from(learner, read_checkpoint(store, record, shard), shard) for shard, record in task.constituents
    ]
    states = answering(learner, loaded)

    def answered() -> Iterator[tuple[LabelArray, npt.NDArray[np.float64]]]:
        for batch in labelled_batches(store, task.holdout, task.scale):
            assert batch.labels_N is not None
            labels_N, features_NF = task.target.asked(batch.labels_N, batch.features_NF)
            outputs_KNW = np.stack([learner.probabilities(state, features_NF) for state in states])
            yield labels_N, task.target.aggregate(outputs_KNW, task.rule)

    return task.target.measure(answered())
