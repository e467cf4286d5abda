"""Linear regression with a normal-inverse-gamma prior, from the sums of ridge and those of the labels' squares.

Of a data point the label is predicted by a Student t distribution. The coefficients' means are those of ridge.
Shape legend: N points, F features, W labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.bayesian import BayesianLinearArguments
from shards.learners.fixed_point import UNIT, Integers, fixed, product_sums, square_sums, whole
from shards.learners.summation.learner import SummationLearner
from shards.learners.summation.quantiles import Floats, student
from shards.learners.summation.ridge import with_ones


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """The posterior of coefficients and noise, from the sums; the features' means are subtracted."""

    features_F: Floats
    """Means."""
    labels_W: Floats
    """Means."""
    coefficients_FW: Floats
    covariance_FF: Floats
    """Covariance of the coefficients, as a multiple of the noise's variance."""
    points: float
    degrees: float
    """Degrees of freedom of the predictive distribution."""
    variances_W: Floats
    """Expected variance of the noise, as the predictive distribution has it: scale / shape."""


class BayesianLinear(SummationLearner[Posterior]):
    """Bayesian linear regression whose intercept has a flat prior. Several labels share the features, nothing else."""

    pairs = frozenset({"gram", "moments", "squares"})

    def __init__(self, arguments: BayesianLinearArguments, inputs: int, outputs: int, target: str, seed: int) -> None:
        del target, seed  # it predicts numbers alone, and draws nothing
        super().__init__(inputs, outputs)
        self._arguments = arguments

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See ``SummationLearner.shapes``."""
        wide = self._inputs + 1
        return {"gram": (2, wide, wide), "moments": (2, wide, self._outputs), "squares": (2, self._outputs)}

    def sums(self, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[Any]) -> Mapping[str, Integers]:
        """See ``SummationLearner.sums``."""
        grid = with_ones(features_NF)
        labels_NW = fixed(labels_N, "label")
        return {
            "gram": product_sums(grid, grid),
            "moments": product_sums(grid, labels_NW),
            "squares": square_sums(labels_NW),
        }

    def fit(self, values: Mapping[str, Integers]) -> Posterior:
        """Return the posterior. Means are subtracted in whole numbers, so that nothing is lost by cancellation."""
        gram, moments, squares_W = (whole(values[name]) for name in ("gram", "moments", "squares"))
        points = int(gram[-1, -1]) // UNIT**2
        known = max(points, 1)
        # The last row holds sums, multiplied by 1 on the grid.
        sums_F, sums_W = gram[-1, :-1] // UNIT, moments[-1] // UNIT
        unit = known * UNIT**2
        scatter_FF = ((known * gram[:-1, :-1] - np.outer(sums_F, sums_F)) / unit).astype(np.float64)
        moments_FW = ((known * moments[:-1] - np.outer(sums_F, sums_W)) / unit).astype(np.float64)
        scatter_W = ((known * squares_W - sums_W**2) / unit).astype(np.float64)
        precision_FF = scatter_FF + self._arguments.penalty * np.eye(self._inputs)
        try:
            covariance_FF = np.linalg.inv(precision_FF)
        except np.linalg.LinAlgError:  # features repeat each other, and beside their sums the penalty is lost
            covariance_FF = np.linalg.pinv(precision_FF, hermitian=True)
        coefficients_FW = covariance_FF @ moments_FW
        left_W = np.maximum(scatter_W - (coefficients_FW * moments_FW).sum(axis=0), 0.0)
        shape = self._arguments.alpha + (known - 1) / 2
        return Posterior(
            features_F=(sums_F / (known * UNIT)).astype(np.float64),
            labels_W=(sums_W / (known * UNIT)).astype(np.float64),
            coefficients_FW=coefficients_FW,
            covariance_FF=covariance_FF,
            points=known,
            degrees=2 * shape,
            variances_W=(self._arguments.beta + left_W / 2) / shape,
        )

    def outputs(self, fitted: Posterior, features_NF: npt.NDArray[np.float32]) -> Floats:
        """Return means, standard deviations, and both ends of the intervals, shape (N, 4 W)."""
        moved_NF = features_NF.astype(np.float64) - fitted.features_F
        means_NW = moved_NF @ fitted.coefficients_FW + fitted.labels_W
        unsure_N = np.maximum(((moved_NF @ fitted.covariance_FF) * moved_NF).sum(axis=1), 0.0)
        scales_NW = np.sqrt((1 + 1 / fitted.points + unsure_N)[:, None] * fitted.variances_W)
        spreads_NW = scales_NW * np.sqrt(fitted.degrees / (fitted.degrees - 2))
        halves_NW = scales_NW * student((1 + self._arguments.interval) / 2, fitted.degrees)
        return np.concatenate([means_NW, spreads_NW, means_NW - halves_NW, means_NW + halves_NW], axis=1)
