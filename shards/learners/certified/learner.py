"""A constituent with certified removal: linear coefficients, the noise in their objective, and the budget used.

The noise is drawn from the operating system whenever a constituent is learned from nothing, is kept in the checkpoint
and nowhere else, and is gone with it. Neither the specification nor the partition key brings it back. A salt is drawn
with it: receipts and status show digests, and without a salt a guess of who was erased, which gives a guess of the
noise, could be checked against them.
Shape legend: N points, F features, D columns (features and a constant), W outputs with coefficients of their own,
B bytes.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.certified import WITHIN_NORM, CertifiedLinearArguments
from shards.learners.certified.optimum import LOGISTIC, SQUARED, Objective, Reals, normal, spectral_norm
from shards.learners.protocol import Learning
from shards.learners.tensors import Tensors, check_expected, decode_arrays, digest_arrays, encode_arrays
from shards.lineage import Accounted, Lineage
from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex
from shards.targets import Class
from storage.digests import Sha256
from storage.errors import Invalid

_BYTES: Final = 16
"""Random bytes of a normal number."""

_SALT: Final = 32
"""Random bytes of a salt."""


@dataclass(frozen=True, slots=True, eq=False)
class CertifiedState:
    """A constituent."""

    coefficients_DW: Reals
    noise_DW: Reals
    spent: float
    """Upper bound of the sum over the outputs of their residuals."""
    salt_B: npt.NDArray[np.uint8]
    """Random bytes: with them no digest confirms a guess of the noise."""


class CertifiedLinear:
    """Logistic regression for classes, least squares for numbers. Implements ``Learner``, ``Unlearner``, ``Certifies``.

    Two classes have one vector of coefficients, more have one each, against the rest.
    """

    def __init__(
        self,
        arguments: CertifiedLinearArguments,
        inputs: int,
        outputs: int,
        target: str,
        seed: int,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        del seed  # the specification is not a secret, and the noise has to be one
        self._arguments = arguments
        self._inputs = inputs
        self._outputs = outputs
        self._is_class = target == Class.kind
        self._vectors = 1 if self._is_class and outputs == 2 else outputs
        self._loss = LOGISTIC if self._is_class else SQUARED
        self._draw = draw

    def initial(self, shard: ShardId) -> CertifiedState:
        """Return a constituent of no data points."""
        del shard
        shape = (self._inputs + 1, self._vectors)
        return CertifiedState(np.zeros(shape), np.zeros(shape), 0.0, np.zeros(_SALT, dtype=np.uint8))

    def learn(
        self, state: CertifiedState, points: ShardPoints, shard: ShardId, slice_: SliceIndex
    ) -> Learning[CertifiedState]:
        """Return the optimum of all data points of the shard, with new noise. Raises ``Invalid`` if it is not found."""
        end = points.ends[slice_ - 1]
        state = self.initial(shard)
        if end:
            scale = self._arguments.noise
            noise_DW = scale * normal(self._draw(_BYTES * state.noise_DW.size)).reshape(state.noise_DW.shape)
            problems = self._problems(points.features_NF[:end], points.labels_N[:end], noise_DW)
            try:
                columns = [problem.optimum() for problem in problems]
                spent = sum(
                    problem.residual(each) + problem.rounding(each)
                    for problem, each in zip(problems, columns, strict=True)
                )
            except np.linalg.LinAlgError:  # the penalty vanishes beside the data points, which are dependent
                columns, spent = [], math.inf
            if not spent <= self._arguments.budget:
                raise Invalid(
                    f"the optimum of certified_linear was not found: a residual of {spent:.2g} is left, and the whole"
                    f" budget is {self._arguments.budget:.2g}",
                    "Raise penalty or noise in [model] arguments.",
                )
            salt_B = np.frombuffer(self._draw(_SALT), dtype=np.uint8)
            state = CertifiedState(np.column_stack(columns), noise_DW, spent, salt_B)
        yield 1
        return state

    def unlearn(
        self, state: CertifiedState, gone: ShardPoints, new: ShardPoints, left: Callable[[], ShardPoints]
    ) -> CertifiedState | None:
        """Return the constituent without ``gone``, by one Newton step for all of them.

        Returns None where it has to be learned from nothing, with new noise: points were added or corrected, the
        budget is used up, or the step cannot be computed.
        """
        if len(new.labels_N):
            return None
        if not len(gone.labels_N):
            return state
        rest = left()
        if not len(rest.labels_N):
            return self.initial(ShardId(0))
        rows_MD, labels_MW = self._rows(gone.features_NF), self._labels(gone.labels_N)
        problems = self._problems(rest.features_NF, rest.labels_N, state.noise_DW)
        try:
            found = [
                problem.without(rows_MD, labels_MW[:, each], state.coefficients_DW[:, each])
                for each, problem in enumerate(problems)
            ]
        except np.linalg.LinAlgError:
            return None
        spent = state.spent + sum(bound for _, bound in found)
        if not spent <= self._arguments.budget:
            return None
        return replace(state, coefficients_DW=np.column_stack([column for column, _ in found]), spent=spent)

    def accounted(self, state: CertifiedState) -> Accounted:
        """See ``Certifies.accounted``."""
        return Accounted(spent=state.spent, budget=self._arguments.budget)

    def residual(self, state: CertifiedState, points: ShardPoints) -> float:
        """See ``Certifies.residual``."""
        if not len(points.labels_N):
            return float(np.linalg.norm(state.coefficients_DW))
        problems = self._problems(points.features_NF, points.labels_N, state.noise_DW)
        return sum(problem.residual(state.coefficients_DW[:, each]) for each, problem in enumerate(problems))

    def epochs(self, slice_: SliceIndex) -> int:
        """Return 1: the data points are read once."""
        del slice_
        return 1

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return the number of data points."""
        return points.ends[slice_ - 1]

    def probabilities(self, state: CertifiedState, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return numbers, or the probabilities of the classes, as shares where there are more than two."""
        found_NW: Reals = self._rows(features_NF, is_asked=True) @ state.coefficients_DW
        if not self._is_class:
            return found_NW
        return class_probabilities(found_NW)

    def digest(self, state: CertifiedState) -> Sha256:
        """Return the digest of all that the constituent is."""
        return digest_arrays(self.arrays(state))

    def to_bytes(self, state: CertifiedState, lineage: Lineage) -> bytes:
        """Return the checkpoint."""
        return encode_arrays(self.arrays(state), lineage)

    def from_bytes(self, payload: bytes, shard: ShardId) -> CertifiedState:
        """Return the constituent that a checkpoint holds."""
        found = decode_arrays(payload, self.arrays(self.initial(shard)))
        return CertifiedState(found["coefficients"], found["noise"], float(found["spent"][0]), found["salt"])

    def to_serving(self, state: CertifiedState) -> Tensors:
        """Return the coefficients alone: without the noise, its salt, and what is used of the budget."""
        return {"coefficients": state.coefficients_DW}

    def from_serving(self, arrays: Tensors) -> CertifiedState:
        """Return the coefficients, which answer."""
        nothing = self.initial(ShardId(0))
        check_expected(arrays, {"coefficients": nothing.coefficients_DW})
        return replace(nothing, coefficients_DW=arrays["coefficients"], spent=math.inf)

    def arrays(self, state: CertifiedState) -> Mapping[str, npt.NDArray[Any]]:
        """Return the content of a checkpoint."""
        return {
            "coefficients": state.coefficients_DW,
            "noise": state.noise_DW,
            "spent": np.array([state.spent]),
            "salt": state.salt_B,
        }

    def _problems(
        self, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[Any], noise_DW: Reals
    ) -> list[Objective]:
        """Return the problem of each vector of coefficients; their rows are the same."""
        rows_ND, labels_NW = self._rows(features_NF), self._labels(labels_N)
        spectral = spectral_norm(rows_ND)
        return [
            Objective(rows_ND, labels_NW[:, each], noise_DW[:, each], self._arguments.penalty, self._loss, spectral)
            for each in range(self._vectors)
        ]

    def _rows(self, features_NF: npt.NDArray[np.float32], *, is_asked: bool = False) -> Reals:
        """Return features and a constant, with a norm of at most 1 together, by the declared norm alone.

        Raises ``Invalid`` when data points to learn have a larger norm, unless it is to be clipped.
        """
        norm = self._arguments.norm
        rows_ND = np.ones((len(features_NF), self._inputs + 1))
        rows_ND[:, :-1] = features_NF
        rows_ND[:, :-1] /= norm
        norms_N = np.sqrt(np.square(rows_ND[:, :-1]).sum(axis=1))
        longer_N = ~(norms_N <= 1 + 1e-6)  # features are float32
        if longer_N.any():
            if self._arguments.clip and np.isfinite(norms_N).all():
                rows_ND[longer_N, :-1] /= norms_N[longer_N, None]
            elif not is_asked:
                raise Invalid(
                    f"[model] arguments.norm = {norm:g} is below the norm of the features of {longer_N.sum():,} of"
                    f" {len(rows_ND):,} data points of a shard, or these are not numbers",
                    WITHIN_NORM,
                )
        return rows_ND / math.sqrt(2)

    def _labels(self, labels_N: npt.NDArray[Any]) -> Reals:
        if not self._is_class:
            return labels_N.astype(np.float64).reshape(len(labels_N), self._vectors)
        classes = [1] if self._vectors == 1 else range(self._outputs)
        chosen_NW: Reals = (labels_N[:, None] == np.array(classes)).astype(np.float64)
        return chosen_NW


def class_probabilities(found_NW: Reals) -> Reals:
    """Return the probabilities of two classes from one column, or shares of more from a column of each."""
    likely_NW: Reals = 0.5 * (1 + np.tanh(0.5 * found_NW))
    columns = likely_NW.shape[1]
    if columns == 1:
        return np.hstack([1 - likely_NW, likely_NW])
    total_N1 = likely_NW.sum(axis=1, keepdims=True)
    shares_NC: Reals = np.where(total_N1 > 0, likely_NW / np.where(total_N1 > 0, total_N1, 1), 1 / columns)
    return shares_NC
