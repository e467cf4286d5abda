"""LightGBM: the one place that imports it. It is needed where constituents learn or answer, and nowhere else."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from shards.lineage import NumericsProfile
from storage.digests import Sha256, sha256
from storage.errors import Invalid


def lightgbm() -> Any:
    """Return the package. Raises ``Invalid`` when it is not installed in this process's environment."""
    try:
        return importlib.import_module("lightgbm")
    except ModuleNotFoundError:
        raise Invalid(
            "[model] learner = 'boosting' needs LightGBM, which is not installed here",
            "Run pip install 'sisa-ray[boosting]' here and on all nodes of the Ray cluster.",
            node=platform.node(),
        ) from None


def fixed_parameters(seed: int) -> dict[str, Any]:
    """Return the parameters that make LightGBM's results a function of its input; ``seed`` is 0 .. 2**31 - 1."""
    return {
        "deterministic": True,
        "force_col_wise": True,  # otherwise chosen by measuring which is faster
        "num_threads": 1,
        "seed": seed,
        "verbosity": -1,
    }


def boosted(parameters: Mapping[str, Any], features_NF: Any, labels_N: Any, scores: Any) -> Any:
    """Return a Booster without trees, which starts from the data points' ``scores``, shape (N,) or (N, W)."""
    library, own = lightgbm(), dict(parameters)
    # Copied, as LightGBM warns of views; the scores class after class.
    features_NF, labels_N, column = features_NF.copy(), labels_N.copy(), scores.flatten(order="F")
    return library.Booster(own, library.Dataset(features_NF, labels_N, init_score=column, params=own))


def boosting_profile(probed: bool) -> NumericsProfile:  # noqa: FBT001  the registry calls it
    """Return what decides the bits besides the specification (E7); ``probed``: see ``fix_numerics``."""
    return NumericsProfile(
        torch="",
        threads=1,
        device=f"cpu/{platform.machine()}",
        dtype="float64",
        deterministic=True,
        packing="none",
        probe=_probe() if probed else None,
        library=f"lightgbm {lightgbm().__version__}",
    )


@cache
def _probe() -> Sha256:
    """Return the digest of a small model that is always trained on the same made-up points."""
    mixed_NF = (np.arange(256 * 6, dtype=np.int64) * 2654435761 % 2**24).reshape(256, 6)
    features_NF = (mixed_NF / 2**23 - 1).astype(np.float32)
    parameters = fixed_parameters(1) | {"objective": "multiclass", "num_class": 3, "num_leaves": 7, "lambda_l2": 0.1}
    booster = boosted(parameters, features_NF, np.arange(256) * 7 % 3, np.zeros((256, 3)))
    for _ in range(3):
        booster.update()
    return sha256(booster.model_to_string().encode())
