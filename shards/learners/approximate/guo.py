"""Certified removal as Guo et al. published it (ICML 2020), without SISA: one linear model of all data points.

It is the learner ``certified_linear`` over a single shard, so that an experiment can compare it with other methods.
Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.certified import CertifiedLinearArguments
from shards.learner_kinds.guarantees import Guarantee
from shards.learners.approximate.models import Doubles
from shards.learners.approximate.protocol import check_numbers
from shards.learners.certified.learner import CertifiedLinear, CertifiedState
from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex
from shards.targets import Class
from storage.errors import Invalid

_SHARD = ShardId(0)


class CertifiedAlone:
    """Logistic regression with noise in its objective; more than two classes are learned one against the rest."""

    def __init__(
        self,
        inputs: int,
        classes: int,
        arguments: CertifiedLinearArguments,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """``draw`` returns random bytes. Raises ``Invalid`` when arguments are out of range."""
        if problems := arguments.problems():
            raise Invalid("; ".join(problems), "Take other arguments.")
        self.guarantee: Guarantee = arguments.promise
        self._learner = CertifiedLinear(arguments, inputs, classes, Class.kind, 0, draw)

    def learn(self, points: ShardPoints) -> CertifiedState:
        """See ``ApproximateLearner``. Raises ``Invalid`` when features are too long, or the optimum is not found."""
        check_numbers(points)
        learning = self._learner.learn(self._learner.initial(_SHARD), points, _SHARD, SliceIndex(len(points.ends)))
        while True:
            try:
                next(learning)
            except StopIteration as end:
                found: CertifiedState = end.value
                return found

    def unlearn(self, state: CertifiedState, gone: ShardPoints, left: Callable[[], ShardPoints]) -> CertifiedState:
        """See ``ApproximateLearner``: a Newton step, or a full retrain with new noise once the budget is used up."""
        check_numbers(gone)
        if not len(gone.labels_N):
            return state
        rest = left()
        found = self._learner.unlearn(state, gone, _none_of(gone), lambda: rest)
        return self.learn(rest) if found is None else found

    def parameters(self, state: CertifiedState) -> Doubles:
        """See ``ApproximateLearner``."""
        return state.coefficients_DW.ravel()

    def probabilities(self, state: CertifiedState, features_NF: npt.NDArray[np.float32]) -> Doubles:
        """See ``ApproximateLearner``."""
        return self._learner.probabilities(state, features_NF)

    def arrays(self, state: CertifiedState) -> Mapping[str, npt.NDArray[Any]]:
        """See ``ApproximateLearner``. ``unlearn`` needs the remaining data points besides these arrays."""
        return self._learner.arrays(state)


def _none_of(points: ShardPoints) -> ShardPoints:
    return ShardPoints(
        features_NF=points.features_NF[:0],
        labels_N=points.labels_N[:0],
        keys_N=points.keys_N[:0],
        subjects_N=points.subjects_N[:0],
        ends=(0,),
    )
