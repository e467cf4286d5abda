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


def beta(share: float, one: Floats, other: Floats) -> Floats:
    """Return the quantiles of the beta distributions with these parameters.

    >>> beta(0.5, np.array([1.0]), np.array([1.0])).tolist()
    [0.5]
    """
    from scipy import special  # noqa: PLC0415  as above

    found: Floats = special.betaincinv(one, other, share)
    return found


def gamma(share: float, shape: Floats) -> Floats:
    """Return the quantiles of the gamma distributions of these shapes and the scale 1.

    >>> gamma(1 - np.exp(-1), np.array([1.0])).round(9).tolist()
    [1.0]
    """
    from scipy import special  # noqa: PLC0415  as above

    found: Floats = special.gammaincinv(shape, share)
    return found
