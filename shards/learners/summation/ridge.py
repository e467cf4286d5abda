"""Ridge regression from the sums of products of features and labels; for classes, a regression on each of them.

Shape legend: N points, F features, W outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.summation import RidgeArguments
from shards.learners.fixed_point import UNIT, Integers, fixed, product_sums, whole
from shards.learners.summation.learner import SummationLearner, Sums
from shards.learners.tensors import Tensors, check_enough, check_expected
from shards.targets import Class

Coefficients = npt.NDArray[np.float64]
"""Shape (F + 1, W), the intercept last."""


class Ridge(SummationLearner[Coefficients]):
    """Least squares with a penalty on the coefficients, and an intercept without one."""

    pairs = frozenset({"gram", "moments"})

    def __init__(self, arguments: RidgeArguments, inputs: int, outputs: int, target: str, seed: int) -> None:
        del seed  # it draws nothing
        super().__init__(inputs, outputs)
        self._arguments = arguments
        self._is_class = target == Class.kind

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See ``SummationLearner.shapes``."""
        wide = self._inputs + 1
        return {"gram": (2, wide, wide), "moments": (2, wide, self._outputs)}

    def sums(self, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[Any]) -> Mapping[str, Integers]:
        """See ``SummationLearner.sums``."""
        grid = with_ones(features_NF)
        if self._is_class:
            labels_NW = (labels_N[:, None] == np.arange(self._outputs)) * np.int64(UNIT)
        else:
            labels_NW = fixed(labels_N, "label")
        return {"gram": product_sums(grid, grid), "moments": product_sums(grid, labels_NW)}

    def fit(self, values: Mapping[str, Integers]) -> Coefficients:
        """Return the coefficients: a function of whole numbers, computed in float64."""
        gram = (whole(values["gram"]) / UNIT**2).astype(np.float64)
        moments = (whole(values["moments"]) / UNIT**2).astype(np.float64)
        penalties = np.full(len(gram), self._arguments.penalty)
        penalties[-1] = 0.0 if gram[-1, -1] else 1.0
        gram += np.diag(penalties)
        try:
            found: Coefficients = np.linalg.solve(gram, moments)
        except np.linalg.LinAlgError:  # features repeat each other, and beside their sums the penalty is lost
            found = np.linalg.lstsq(gram, moments)[0]
        return np.ascontiguousarray(found)  # as after a transfer: the order in memory decides bits

    def to_serving(self, state: Sums[Coefficients]) -> Tensors:
        """Return the coefficients, without the sums."""
        points = whole(state.values["gram"])[-1, -1] // UNIT**2
        check_enough(np.array([int(points)]), "one of its shards")
        return {"coefficients": self.fitted(state)}

    def from_serving(self, arrays: Tensors) -> Sums[Coefficients]:
        """Return the coefficients, which answer."""
        check_expected(arrays, {"coefficients": np.zeros((self._inputs + 1, self._outputs))})
        return Sums({}, arrays["coefficients"])

    def outputs(self, fitted: Coefficients, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return numbers, or probabilities: of each class the regression's value, cut to 0 .. 1, as a share."""
        found_NW: npt.NDArray[np.float64] = features_NF.astype(np.float64) @ fitted[:-1] + fitted[-1]
        if not self._is_class:
            return found_NW
        cut_NW = np.clip(found_NW, 0.0, 1.0)
        total_N1 = cut_NW.sum(axis=1, keepdims=True)
        shares_NW: npt.NDArray[np.float64] = np.where(
            total_N1 > 0, cut_NW / np.where(total_N1 > 0, total_N1, 1), 1 / self._outputs
        )
        return shares_NW


def with_ones(features_NF: npt.NDArray[np.float32]) -> Integers:
    """Return the features on the grid, with a last column that is 1 for the intercept."""
    grid = np.full((len(features_NF), features_NF.shape[1] + 1), UNIT, dtype=np.int64)
    grid[:, :-1] = fixed(features_NF, "feature")
    return grid
