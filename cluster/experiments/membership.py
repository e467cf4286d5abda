"""Membership inference with one threshold: can answers tell erased data points from those that were never learned?

Never a proof of an erasure. It explains what an erasure changes: before it the erased data points are members, and an
attack on a model that learned them by heart sees it; after an exact one there is nothing to see.
Shape legend: N points, C classes.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_LEAST: Final = 1e-12
"""Probabilities nearer to 0 or 1 count as this far from them."""


def log_odds(probabilities_NC: npt.NDArray[Any], labels_N: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return ``log(p / (1 - p))`` of each data point's own label: the score of LiRA (Carlini et al. 2022), shape (N,).

    >>> log_odds(np.array([[0.75, 0.25], [1.0, 0.0]]), np.array([1, 1])).round(4).tolist()
    [-1.0986, -27.631]
    """
    likely_N = np.asarray(probabilities_NC, dtype=np.float64)[np.arange(len(labels_N)), labels_N]
    likely_N = likely_N.clip(_LEAST, 1 - _LEAST)
    scores_N: npt.NDArray[np.float64] = np.log(likely_N / (1 - likely_N))
    return scores_N


def attack_auc(members_N: npt.NDArray[Any], others_N: npt.NDArray[Any]) -> float:
    """Return the probability that a member has the higher score, an equal one counting half.

    This is the area under the attack's curve of true against false positives, over all thresholds.

    >>> attack_auc(np.array([3.0, 2.0]), np.array([2.0, 1.0]))
    0.875
    """
    ordered_N = np.sort(others_N)
    below = np.searchsorted(ordered_N, members_N, side="left")
    up_to = np.searchsorted(ordered_N, members_N, side="right")
    return float(np.mean(below + up_to) / (2 * len(others_N)))


def chance_deviation(members: int, others: int) -> float:
    """Return the standard deviation of the area where scores say nothing (Mann and Whitney 1947).

    >>> round(chance_deviation(100, 1000), 4)
    0.0303
    """
    return math.sqrt((members + others + 1) / (12 * members * others))


def chance_interval(members: int, others: int, tests: int = 1) -> tuple[float, float]:
    """Return where the area is in 95 % of the cases if scores say nothing: 0.5 plus or minus 1.96 deviations.

    Of ``tests`` areas, dependent or not, all are in their intervals in 95 % of the cases (Bonferroni).

    >>> [round(end, 3) for end in chance_interval(100, 1000)]
    [0.441, 0.559]
    """
    reach = NormalDist().inv_cdf(1 - 0.025 / tests) * chance_deviation(members, others)
    return 0.5 - reach, 0.5 + reach
