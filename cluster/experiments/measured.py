"""What rows of experiments are made of: processor time, accuracies, distances.

Shape legend: N points, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.runtime.system import timed

__all__ = ["accuracy", "accuracy_by_class", "timed", "total_bytes"]


def accuracy(scores_NC: npt.NDArray[Any], labels_N: npt.NDArray[Any]) -> float:
    """Return the share of data points whose class has the highest score."""
    return float(np.mean(np.argmax(scores_NC, axis=1) == labels_N))


def accuracy_by_class(
    scores_NC: npt.NDArray[Any], labels_N: npt.NDArray[Any], classes: Sequence[str]
) -> dict[str, float | None]:
    """Return the same for each class; None where there is no data point of it."""
    right_N = np.argmax(scores_NC, axis=1) == labels_N
    return {
        name: float(right_N[labels_N == number].mean()) if (labels_N == number).any() else None
        for number, name in enumerate(classes)
    }


def total_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return how much room the arrays take."""
    return sum(array.nbytes for array in arrays.values())
