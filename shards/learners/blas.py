"""Floating-point linear algebra by NumPy: the conditions, besides the data, that decide its bits (E7).

NumPy passes products and equations to a BLAS library, whose results depend on its version, on the number of its
threads, and on the code that it chooses for the processor.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_info, threadpool_limits

from shards.learners.tensors import digest_arrays
from shards.lineage import NumericsProfile
from storage.digests import Sha256

_SIZES = ((16, 5), (257, 33), (1000, 130))
"""Rows and columns of the matrices of the probe."""


def blas_profile(probed: bool) -> NumericsProfile:  # noqa: FBT001  the registry calls it
    """Give BLAS one thread in this process, for good, and return the profile; ``probed``: see ``fix_numerics``."""
    threadpool_limits(1, user_api="blas")
    libraries = [each for each in threadpool_info() if each["user_api"] == "blas" and "numpy" in each["filepath"]]
    builds = [f" {each['internal_api']} {each['version']}" for each in libraries]
    codes = [f"/{each['architecture']}" for each in libraries if each.get("architecture")]
    return NumericsProfile(
        torch="",
        threads=1,
        device=f"cpu/{platform.machine()}{''.join(codes)}",
        dtype="float64",
        deterministic=True,
        packing="none",
        library=f"numpy {np.__version__}{''.join(builds)}",
        probe=_probe() if probed else None,
    )


@cache
def _probe() -> Sha256:
    """Return the digest of fixed arithmetic."""
    found = dict[str, npt.NDArray[Any]]()
    for rows, columns in _SIZES:
        # Full mantissas, computed exactly: quotients of whole numbers are rounded correctly.
        left = (np.arange(1, rows * columns + 1) % 97 / 89.0 - 0.5).reshape(rows, columns)
        gram = left.T @ left + np.eye(columns)
        found[f"gram-{columns}"] = gram
        found[f"solved-{columns}"] = np.linalg.solve(gram, left[0])
        found[f"eigenvalues-{columns}"] = np.linalg.eigvalsh(gram)
        found[f"sigmoid-{columns}"] = np.tanh(left @ left[0])
    return digest_arrays(found)
