"""The nearest centroid of each point, by whole numbers: every machine and library finds the same one.

Shape legend: N points, K clusters, F features.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from shards.learners.fixed_point import Integers

_CHUNK: Final = 1 << 15
_HALF: Final = 16
_LOW: Final = 32
_ULP: Final = 2.0**-52


def nearest(points_NF: Integers, centroids_KF: Integers) -> npt.NDArray[np.intp]:
    """Return the position of the centroid nearest to each point; of equally near ones the first.

    Floating point decides where the distances differ by more than its error, and whole numbers elsewhere.
    """
    found_N = np.zeros(len(points_NF), dtype=np.intp)
    if len(centroids_KF) < 2:
        return found_N
    wide_FK = centroids_KF.T.astype(np.float64)  # exact, as the points below: whole numbers of less than 53 bits
    squares_K = (wide_FK**2).sum(axis=0)
    longest = np.sqrt(squares_K.max())
    for start in range(0, len(points_NF), _CHUNK):
        own_NF = points_NF[start : start + _CHUNK]
        scores_NK = own_NF.astype(np.float64)
        lengths_N = np.sqrt((scores_NK**2).sum(axis=1))
        scores_NK = squares_K - 2 * (scores_NK @ wide_FK)  # squared distances less the points' own squares
        first_N = scores_NK.argmin(axis=1)
        two_N2 = np.partition(scores_NK, 1, axis=1)[:, :2]
        # Four times the error of a scalar product in any order of summation, for both distances.
        error_N = 4 * (len(wide_FK) + 4) * _ULP * longest * (longest + 2 * lengths_N)
        close_N = two_N2[:, 1] - two_N2[:, 0] <= error_N
        if close_N.any():
            first_N[close_N] = _nearest(own_NF[close_N], centroids_KF)
        found_N[start : start + _CHUNK] = first_N
    return found_N


def squared_distances(points_NF: Integers, centroid_F: Integers) -> tuple[Integers, Integers]:
    """Return the squared distances in two parts: upper × 2**32 + lower, with 0 <= lower < 2**32. They are exact."""
    apart_NF = np.abs(points_NF - centroid_F)
    high_NF, low_NF = apart_NF >> _HALF, apart_NF & (2**_HALF - 1)
    middle_N = 2 * (high_NF * low_NF).sum(axis=1)
    lower_N = ((middle_N & (2**_HALF - 1)) << _HALF) + (low_NF**2).sum(axis=1)
    upper_N = (high_NF**2).sum(axis=1) + (middle_N >> _HALF) + (lower_N >> _LOW)
    return upper_N, lower_N & (2**_LOW - 1)


def _nearest(points_NF: Integers, centroids_KF: Integers) -> npt.NDArray[np.intp]:
    found_N = np.zeros(len(points_NF), dtype=np.intp)
    upper_N, lower_N = squared_distances(points_NF, centroids_KF[0])
    for place, centroid_F in enumerate(centroids_KF[1:], start=1):
        up_N, low_N = squared_distances(points_NF, centroid_F)
        nearer_N = (up_N < upper_N) | ((up_N == upper_N) & (low_N < lower_N))
        found_N[nearer_N] = place
        upper_N, lower_N = np.where(nearer_N, up_N, upper_N), np.where(nearer_N, low_N, lower_N)
    return found_N
