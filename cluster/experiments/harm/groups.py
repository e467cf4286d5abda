"""Declared groups of handwritten digits: how far the writing leans, by thresholds that are constants.

Which group a picture is in depends on that picture alone, so that an erasure moves nobody else to another group.
Shape legend: N pictures, F pixels.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

GROUPS: Final = ("leans left", "upright", "leans right")
_LEFT_BELOW, _RIGHT_FROM = -0.1, 0.35


def slant(pictures_NF: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return how many pixels the strokes go to the right for each pixel upwards: of the ink's second moments.

    >>> slant(np.stack([np.eye(3)[::-1], np.eye(3)]).reshape(2, 9)).round(6).tolist()
    [1.0, -1.0]
    """
    side = isqrt(pictures_NF.shape[1])
    ink_NF = pictures_NF.astype(np.float64)
    ink_NF /= ink_NF.sum(axis=1, keepdims=True)
    down_F, across_F = (places.ravel().astype(np.float64) for places in np.mgrid[:side, :side])
    down_N, across_N = ink_NF @ down_F, ink_NF @ across_F
    covariance_N = ink_NF @ (down_F * across_F) - down_N * across_N
    variance_N = ink_NF @ down_F**2 - down_N**2
    found: npt.NDArray[np.float64] = -covariance_N / variance_N
    return found


def groups_of(pictures_NF: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the position in ``GROUPS`` of each picture."""
    slant_N = slant(pictures_NF)
    return np.where(slant_N < _LEFT_BELOW, 0, np.where(slant_N < _RIGHT_FROM, 1, 2))
