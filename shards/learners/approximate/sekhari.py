"""Logistic regression that forgets without the data points that are left (Sekhari et al., NeurIPS 2021).

The learner finds the exact minimum of the mean loss with an L2 penalty. It keeps the coefficients at the minimum, the
mean second derivatives there, and counts, but no data point. An erasure hands in the data points that leave. The answer
is one Newton step without them, plus normal noise whose size follows from a bound of the step's error.

*The bound* is derived in docs/design.md, section 74. Let n be the number of data points learned, m of those gone. Rows
have a norm of at most 1, so the logistic loss has a gradient of at most 1, and second derivatives that change by at
most ``CHANGE`` per unit. The penalty adds ``penalty * |w|`` to the gradient and nothing to that change. A minimum w is
not far from zero: ``penalty * |w|`` is at most 1, the longest mean gradient, and ``penalty / 2 * |w|^2`` is at most
ln 2, the loss of zeros. So no constant depends on the data points.

*Several requests* all start from the coefficients that were learned, with all that has left so far: the bound grows
with the square of their number. No noisy coefficients are an input of anything.

*What is kept still shows those who left.* The second derivatives are of the data points that are left, but at
coefficients that all of them decided. The next request needs the sum of the gradients of those who left: when one has
left, this sum shows its features. The theorem is about what is published, and about nothing else.

Shape legend: N points, M points gone, F features, D columns (features and a constant), W vectors of coefficients.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.approximate import LABORATORY
from shards.learner_kinds.guarantees import Guarantee
from shards.learners.approximate.models import Doubles
from shards.learners.approximate.protocol import Diverged, check_numbers
from shards.learners.certified.learner import class_probabilities
from shards.learners.certified.optimum import LOGISTIC, Objective, normal
from shards.points import ShardPoints
from storage.errors import Invalid

CHANGE: Final = LOGISTIC.change
"""M of the paper: by how much, at most, second derivatives change per unit of coefficients."""

_EXACT: Final = 1e-10
"""Longest mean gradient of coefficients that count as the minimum."""
_ROUNDING: Final = 1e-6
_BYTES: Final = 16
"""Random bytes of a normal number."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SekhariState:
    """What is kept between requests, and what answers."""

    coefficients_DW: Doubles
    """The minimum for the data points that were learned."""
    hessians_WDD: Doubles
    """Mean second derivatives at ``coefficients_DW``, of the data points that are left."""
    leaving_DW: Doubles
    """Sum of the gradients at ``coefficients_DW`` of the data points that have left."""
    learned: int
    """How many data points were learned."""
    gone: int
    """How many of them have left."""
    released_DW: Doubles
    """The coefficients that answer: with noise as soon as a data point has left."""


class Sekhari:
    """Two classes have one vector of coefficients, more have one each, against the rest."""

    guarantee: Guarantee = LABORATORY["sekhari"]

    def __init__(
        self,
        inputs: int,
        classes: int = 2,
        *,
        penalty: float,
        epsilon: float,
        delta: float,
        norm: float = 1.0,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Features longer than ``norm`` are shortened to it, each row by itself. ``draw`` returns random bytes."""
        if not (0 < penalty < math.inf and 0 < norm < math.inf):
            raise Invalid(f"penalty = {penalty} or norm = {norm} is not a positive number", "Take positive numbers.")
        if not (0 < epsilon <= 1 and 0 < delta < 1):
            raise Invalid(
                f"epsilon = {epsilon} or delta = {delta} is out of range",
                "Take epsilon above 0 and at most 1, up to which the noise is proved to be enough, and delta between"
                " 0 and 1.",
            )
        self._inputs = inputs
        self._classes = classes
        self._vectors = 1 if classes == 2 else classes
        self._penalty = penalty
        self._epsilon = epsilon
        self._delta = delta
        self._norm = norm
        self._draw = draw

    @property
    def steepest(self) -> float:
        """L of the paper: the longest gradient that a data point has at any minimum."""
        return 1 + min(1.0, math.sqrt(2 * self._penalty * math.log(2)))

    def bound(self, learned: int, gone: int) -> float:
        """Return Gamma of the paper: how far from a retrain, at most, all coefficients together are before noise."""
        each = 2 * CHANGE * (self.steepest * gone / learned) ** 2 / self._penalty / self._penalty / self._penalty
        return math.sqrt(self._vectors) * each

    def deviation(self, learned: int, gone: int) -> float:
        """Return the standard deviation of the noise of each coefficient."""
        return self.bound(learned, gone) / self._epsilon * math.sqrt(2 * math.log(1.25 / self._delta))

    def learn(self, points: ShardPoints) -> SekhariState:
        """See ``ApproximateLearner``. Nothing is hidden before a data point has left."""
        check_numbers(points)
        learned = len(points.labels_N)
        if not learned:
            return self._nobody()
        problems = self._problems(points)
        coefficients_DW = np.column_stack([_minimum(problem) for problem in problems])
        hessians = [each.hessian(w_D) for each, w_D in zip(problems, coefficients_DW.T, strict=True)]
        return SekhariState(
            coefficients_DW=coefficients_DW,
            hessians_WDD=np.stack(hessians) / learned,
            leaving_DW=np.zeros_like(coefficients_DW),
            learned=learned,
            gone=0,
            released_DW=coefficients_DW,
        )

    def unlearn(self, state: SekhariState, gone: ShardPoints, left: Callable[[], ShardPoints]) -> SekhariState:
        """See ``ApproximateLearner``. Never reads ``left``, so ``gone`` may be others than were learned.

        Raises ``Invalid`` when more leave than there are, ``Diverged`` when these cannot be some of those learned.
        """
        del left
        check_numbers(gone)
        leaving, present = len(gone.labels_N), state.learned - state.gone
        if leaving > present:
            raise Invalid(
                f"{leaving:,} data points are to leave, and {present:,} are there",
                "Hand in only data points that were learned and have not left.",
            )
        if not leaving:
            return state
        if leaving == present:
            return self._nobody()
        problems = self._problems(gone)
        theirs_WDD = np.stack([each.hessian(w_D) for each, w_D in zip(problems, state.coefficients_DW.T, strict=True)])
        hessians_WDD = (present * state.hessians_WDD - theirs_WDD) / (present - leaving)
        self._check_curved(hessians_WDD)
        gradients = [each.gradient(w_D) for each, w_D in zip(problems, state.coefficients_DW.T, strict=True)]
        without = SekhariState(
            coefficients_DW=state.coefficients_DW,
            hessians_WDD=hessians_WDD,
            leaving_DW=state.leaving_DW + np.column_stack(gradients),
            learned=state.learned,
            gone=state.gone + leaving,
            released_DW=state.released_DW,
        )
        return self._released(without)

    def estimate(self, state: SekhariState) -> Doubles:
        """Return the coefficients before noise, shape (D, W). They are not for publication."""
        left = state.learned - state.gone
        if not left:
            return state.coefficients_DW
        steps_WD = np.linalg.solve(state.hessians_WDD, state.leaving_DW.T[:, :, None])[:, :, 0]
        found_DW: Doubles = state.coefficients_DW + steps_WD.T / left
        return found_DW

    def parameters(self, state: SekhariState) -> Doubles:
        """See ``ApproximateLearner``: the coefficients that answer, noise included."""
        return state.released_DW.ravel()

    def probabilities(self, state: SekhariState, features_NF: npt.NDArray[np.float32]) -> Doubles:
        """See ``ApproximateLearner``; shares of the classes where there are more than two."""
        return class_probabilities(self._rows(features_NF) @ state.released_DW)

    def arrays(self, state: SekhariState) -> Mapping[str, npt.NDArray[Any]]:
        """See ``ApproximateLearner``."""
        return {
            "coefficients": state.coefficients_DW,
            "hessians": state.hessians_WDD,
            "leaving": state.leaving_DW,
            "counts": np.array([state.learned, state.gone]),
            "released": state.released_DW,
        }

    def _nobody(self) -> SekhariState:
        """Return what is learned from nothing; it answers that both classes are as likely."""
        zeros_DW = np.zeros((self._inputs + 1, self._vectors))
        return SekhariState(
            coefficients_DW=zeros_DW,
            hessians_WDD=np.zeros((self._vectors, self._inputs + 1, self._inputs + 1)),
            leaving_DW=zeros_DW,
            learned=0,
            gone=0,
            released_DW=zeros_DW,
        )

    def _released(self, state: SekhariState) -> SekhariState:
        """Return the state with new noise in what answers."""
        found_DW = self.estimate(state)
        noise = normal(self._draw(_BYTES * found_DW.size)).reshape(found_DW.shape)
        with np.errstate(over="ignore"):
            released_DW = found_DW + self.deviation(state.learned, state.gone) * noise
        if not np.isfinite(released_DW).all():
            raise Diverged("the noise is beyond all numbers", "Raise the penalty, or remove fewer data points.")
        return replace(state, released_DW=released_DW)

    def _check_curved(self, hessians_WDD: Doubles) -> None:
        """Raise ``Diverged`` unless the second derivatives are at least the penalty's, as those of any data points."""
        least_DD = self._penalty * (1 - _ROUNDING) * np.eye(self._inputs + 1)
        try:
            np.linalg.cholesky(hessians_WDD - least_DD)
        except np.linalg.LinAlgError as error:
            raise Diverged(
                "without these data points no data points could have the second derivatives that are left",
                "Hand in only data points that were learned and have not left, or raise the penalty.",
            ) from error

    def _problems(self, points: ShardPoints) -> list[Objective]:
        """Return the loss of each vector of coefficients, summed over the data points."""
        rows_ND, zeros_D = self._rows(points.features_NF), np.zeros(self._inputs + 1)
        classes = [1] if self._vectors == 1 else range(self._classes)
        return [
            Objective(
                rows_ND, (points.labels_N == number).astype(np.float64), zeros_D, self._penalty, LOGISTIC, math.nan
            )  # the spectral norm is for a bound that nobody asks for here
            for number in classes
        ]

    def _rows(self, features_NF: npt.NDArray[np.float32]) -> Doubles:
        """Return features and a constant, with a norm of at most 1 together."""
        rows_ND = np.ones((len(features_NF), self._inputs + 1))
        rows_ND[:, :-1] = features_NF
        rows_ND[:, :-1] /= np.maximum(np.linalg.norm(rows_ND[:, :-1], axis=1, keepdims=True), self._norm)
        return rows_ND / math.sqrt(2)


def _minimum(problem: Objective) -> Doubles:
    """Return where the mean gradient is zero, up to ``_EXACT``. Raises ``Diverged``."""
    try:
        found_D = problem.optimum()
        if problem.residual(found_D) <= _EXACT * len(problem.labels_N):
            return found_D
    except np.linalg.LinAlgError:  # the penalty vanishes beside the data points, which are dependent
        pass
    raise Diverged("the minimum of the loss was not found", "Raise the penalty.")
