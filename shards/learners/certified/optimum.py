"""A regularised linear model with noise in its objective: its optimum, and the step that takes data points out.

The objective is the sum over the data points of the loss, plus ``penalty / 2`` times their number times the squared
coefficients, plus the product of noise and coefficients (Guo et al., Certified Data Removal, ICML 2020, section 3). The
norm of its gradient is the *residual* of coefficients: 0 at the optimum.
Shape legend: N points, D columns (features and a constant).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

_EPSILON: Final = float(np.finfo(np.float64).eps)
_CHUNK: Final = 1 << 14
_STEPS: Final = 100
_SHORTEST: Final = 2.0**-40


@dataclass(frozen=True, slots=True)
class LinearLoss:
    """A loss of one output z and its label."""

    slope: Callable[[Reals, Reals], Reals]
    """Its derivative by z."""
    curvature: Callable[[Reals], Reals]
    """Its second derivative, at most 1."""
    change: float
    """Largest absolute third derivative."""


def _sigmoid(z_N: Reals) -> Reals:
    found: Reals = 0.5 * (1 + np.tanh(0.5 * z_N))
    return found


LOGISTIC: Final = LinearLoss(
    lambda z_N, y_N: _sigmoid(z_N) - y_N,
    lambda z_N: _sigmoid(z_N) * (1 - _sigmoid(z_N)),
    1 / (6 * math.sqrt(3)),
)
"""Of labels 0 and 1."""
SQUARED: Final = LinearLoss(lambda z_N, y_N: z_N - y_N, np.ones_like, 0.0)
"""Half of the squared error."""


def gram(rows_ND: Reals, weights_N: Reals | None = None) -> Reals:
    """Return the sum over the rows of their outer products, each times its weight."""
    total = np.zeros((rows_ND.shape[1], rows_ND.shape[1]))
    for start in range(0, len(rows_ND), _CHUNK):
        part = rows_ND[start : start + _CHUNK]
        total += (part if weights_N is None else part * weights_N[start : start + _CHUNK, None]).T @ part
    return total


def spectral_norm(rows_ND: Reals) -> float:
    """Return an upper bound of the largest singular value, tight up to rounding.

    It is the root of the Gram matrix's largest eigenvalue. Power iterations would come to it from below.
    """
    largest = float(np.linalg.eigvalsh(gram(rows_ND))[-1])
    return math.sqrt(max(largest, 0.0)) * (1 + _EPSILON * sum(rows_ND.shape) * 4)


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """The objective over these data points, for one output."""

    rows_ND: Reals
    labels_N: Reals
    noise_D: Reals
    penalty: float
    loss: LinearLoss
    spectral: float
    """``spectral_norm`` of the rows."""

    def gradient(self, coefficients_D: Reals) -> Reals:
        """Return the gradient of the objective."""
        slopes_N = self.loss.slope(self.rows_ND @ coefficients_D, self.labels_N)
        gradient_D: Reals = self.rows_ND.T @ slopes_N + self._weight * coefficients_D + self.noise_D
        return gradient_D

    def hessian(self, coefficients_D: Reals) -> Reals:
        """Return the second derivatives of the objective."""
        curvatures_N = self.loss.curvature(self.rows_ND @ coefficients_D)
        return gram(self.rows_ND, curvatures_N) + self._weight * np.eye(self.rows_ND.shape[1])

    def residual(self, coefficients_D: Reals) -> float:
        """Return the norm of the gradient, as computed."""
        return float(np.linalg.norm(self.gradient(coefficients_D)))

    def rounding(self, coefficients_D: Reals, step_D: Reals | None = None) -> float:
        """Return how far, at most, rounding moves a gradient or the gradient after a step."""
        slopes_N = self.loss.slope(self.rows_ND @ coefficients_D, self.labels_N)
        length = float(np.linalg.norm(coefficients_D)) + (0.0 if step_D is None else float(np.linalg.norm(step_D)))
        size = (
            self.spectral * (float(np.linalg.norm(slopes_N)) + self.spectral * length)
            + self._weight * length
            + float(np.linalg.norm(self.noise_D))
        )
        return 4 * _EPSILON * sum(self.rows_ND.shape) * size

    def optimum(self) -> Reals:
        """Return the coefficients with the smallest gradient that float64 reaches, by Newton's method.

        The first part of a Newton step that shortens the gradient is taken. There is always such a part, because the
        objective is strictly convex, until rounding is all that is left.
        """
        found_D = np.zeros(self.rows_ND.shape[1])
        gradient_D = self.gradient(found_D)
        for _ in range(_STEPS):
            step_D = np.linalg.solve(self.hessian(found_D), gradient_D)
            share, norm = 1.0, float(np.linalg.norm(gradient_D))
            while not (float(np.linalg.norm(closer_D := self.gradient(found_D - share * step_D))) < norm):
                share /= 2
                if share < _SHORTEST:
                    return found_D
            found_D, gradient_D = found_D - share * step_D, closer_D
        return found_D

    def without(self, gone_MD: Reals, gone_M: Reals, coefficients_D: Reals) -> tuple[Reals, float]:
        """Return coefficients for this problem's points, and how much larger their residual is at most.

        ``coefficients_D`` are those for this problem's points and these others: their gradient here is that of the
        others, with the opposite sign, as far as it was 0 before. One Newton step removes all of them. What it leaves
        is bounded by half the largest change of the loss's curvature, times the spectral norm of the rows, times the
        norm of the squared changes of their outputs (Guo et al., corollary 1, without its last two inequalities).
        """
        slopes_M = self.loss.slope(gone_MD @ coefficients_D, gone_M)
        theirs_D = gone_MD.T @ slopes_M + self.penalty * len(gone_M) * coefficients_D
        step_D: Any = np.linalg.solve(self.hessian(coefficients_D), theirs_D)
        moved_N = self.rows_ND @ step_D
        bound = self.loss.change / 2 * self.spectral * float(np.linalg.norm(moved_N**2))
        after_D = coefficients_D + step_D
        return after_D, bound + self.rounding(coefficients_D, step_D) + self.rounding(after_D)

    @property
    def _weight(self) -> float:
        return self.penalty * len(self.rows_ND)


def normal(drawn: bytes) -> Reals:
    """Return a standard normal number for every 16 random bytes (Box and Muller)."""
    words: npt.NDArray[Any] = np.frombuffer(drawn, dtype="<u8").reshape(-1, 2)
    uniform = ((words >> 11).astype(np.float64) + 0.5) * 2.0**-53
    found: Reals = np.sqrt(-2 * np.log(uniform[:, 0])) * np.cos(2 * np.pi * uniform[:, 1])
    return found
