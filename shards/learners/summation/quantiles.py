"""The quantiles that are the ends of intervals, by SciPy, which is imported when they are asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def student(share: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution.

    >>> round(student(0.975, 4), 4)
    2.7764
    """
    from scipy import special  # noqa: PLC0415  it takes a tenth of a second

    return float(special.stdtrit(degrees, share))
