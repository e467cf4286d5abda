"""Small data for descents: three blobs, and which of them leave."""

from __future__ import annotations

from typing import Any

import numpy as np

from shards.learners.approximate.descent import DescentRecipe
from shards.learners.approximate.models import Net, Softmax, normal_numbers
from shards.points import ShardPoints
from tests.shards.learners.direct import chosen, points_of

INPUTS, CLASSES = 5, 3
MODELS: dict[str, Any] = {
    "softmax": Softmax(inputs=INPUTS, classes=CLASSES),
    "net": Net(inputs=INPUTS, classes=CLASSES, hidden=7),
}


def blobs(count: int, seed: int = 0) -> ShardPoints:
    """Return data points of three classes that overlap; their keys do not tell their places."""
    labels_N = np.arange(count) % CLASSES
    features_NF = normal_numbers(f"blobs/{seed}", count * INPUTS).reshape(count, INPUTS)
    features_NF[np.arange(count), labels_N] += 1
    keys_N = np.random.default_rng(seed).permutation(count).astype(np.uint64) + np.uint64(1 << 63)
    return points_of(features_NF, labels_N, keys_N)


def recipe(**more: Any) -> DescentRecipe:
    """Return a short recipe."""
    return DescentRecipe(**{"epochs": 12, "rate": 0.5, "later_rate": 0.25, "penalty": 0.01, **more})


def without(learner: Any, state: Any, points: ShardPoints, gone: Any) -> tuple[Any, ShardPoints]:
    """Return the state without the points of these positions, and the points that are left, in another order."""
    left = np.setdiff1d(np.arange(len(points.labels_N)), gone)[::-1]
    rest = chosen(points, left)
    return learner.unlearn(state, chosen(points, np.asarray(gone, dtype=np.int64)), lambda: rest), rest
