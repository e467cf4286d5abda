"""Learners that take points out directly, driven as a worker does."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex

SHARD = ShardId(3)


def points_of(features_NF: Any, labels_N: Any, keys_N: Any = None, subjects_N: Any = None) -> ShardPoints:
    """Return data points as one slice; without keys, each has its position as its key and its subject."""
    keys = np.arange(len(labels_N), dtype=np.uint64) if keys_N is None else keys_N
    labels: Any = np.asarray(labels_N)
    return ShardPoints(
        features_NF=np.ascontiguousarray(features_NF, dtype=np.float32),
        labels_N=labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64),
        keys_N=keys,
        subjects_N=keys if subjects_N is None else subjects_N,
        ends=(len(keys),),
    )


def chosen(points: ShardPoints, which: npt.NDArray[Any]) -> ShardPoints:
    """Return some of the points."""
    return points_of(points.features_NF[which], points.labels_N[which], points.keys_N[which], points.subjects_N[which])


def learned(learner: Any, points: ShardPoints) -> Any:
    """Return what the learner makes of the points."""
    learning = learner.learn(learner.initial(SHARD), points, SHARD, SliceIndex(1))
    while True:
        try:
            next(learning)
        except StopIteration as end:
            return end.value


def moved(learner: Any, state: Any, every: ShardPoints, was: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]) -> Any:
    """Return the state after the points that it has seen are no longer ``was``, but ``now``."""
    gone, new = chosen(every, was & ~now), chosen(every, now & ~was)
    return learner.unlearn(copy.deepcopy(state), gone, new, lambda: chosen(every, now))
