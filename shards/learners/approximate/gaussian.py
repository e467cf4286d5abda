"""Gaussian posteriors of linear predictors: the one that is closest to a bound's optimum, without random numbers.

A bound is the divergence from an anchor, minus or plus the expected log-likelihood of data points. *Minus*, with the
prior as anchor, is the negative evidence lower bound: its optimum learns the data points. *Plus*, with a posterior as
anchor, is the evidence upper bound of Nguyen et al. (Variational Bayesian Unlearning, NeurIPS 2020): its optimum
unlearns them. A likelihood depends on the coefficients through one linear predictor z alone, which has a normal
distribution, so Gauss-Hermite quadrature gives its expectation.
Shape legend: N points, D coefficients (features and a constant), K outputs with coefficients of their own, Q nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt

from shards.learners.approximate.models import Doubles
from shards.learners.approximate.protocol import Diverged

_NODES: Final = 32
_VALUES: Final = 1 << 20
"""How many values at nodes are in memory at once, about."""
_STEPS: Final = 200
_SMALLEST: Final = {True: 1e-6, False: 1e-18}
"""The optimum is found when a step would lower the bound by fewer nats; by whether coefficients are independent."""
_ROUNDING: Final = 1e-9
"""Below this many nats, a step that lowers nothing is one of rounding."""
_SHORTEST: Final = 2.0**-30
_LARGEST: Final = 1e9
"""Means beyond are those of a bound without an optimum."""
_PRODUCTS: Final = 60
"""Largest number of conjugate-gradient products in one step."""
_INEXACT: Final = 1e-2
"""Share of the squared gradient at which they stop early: the precisions that they use are not final either."""
_REMEDY: Final = "Erase fewer data points, or raise the trust."


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The logarithm of a label's probability as a function of the predictor z: concave."""

    value: Callable[[Doubles, Doubles], Doubles]
    """Function of z and labels, which are broadcast."""
    slope: Callable[[Doubles, Doubles], Doubles]
    """Its derivative by z."""


def sigmoid(z: Doubles) -> Doubles:
    """Return the probability of the label 1."""
    found: Doubles = 0.5 * (1 + np.tanh(0.5 * z))
    return found


LOGISTIC: Final = Likelihood(lambda z, y: y * z - np.logaddexp(0.0, z), lambda z, y: y - sigmoid(z))
"""Likelihood of labels 0 and 1."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Normal distributions of the coefficients, one for each output."""

    means_KD: Doubles
    precisions: Doubles
    """Inverse covariances, shape (K, D, D); of independent coefficients inverse variances, shape (K, D)."""

    @property
    def is_diagonal(self) -> bool:
        """Whether coefficients are independent."""
        return self.precisions.ndim == 2

    @cached_property
    def covariances(self) -> Doubles:
        """Covariances, or variances, shaped as the precisions."""
        found: Any = 1 / self.precisions if self.is_diagonal else np.linalg.inv(self.precisions)
        return cast("Doubles", found)

    def predictors(self, rows_ND: Doubles) -> tuple[Doubles, Doubles]:
        """Return means and standard deviations of z, shape (N, K)."""
        if self.is_diagonal:
            variances_NK = rows_ND**2 @ self.covariances.T
        else:
            variances_NK = np.stack([((rows_ND @ each) * rows_ND).sum(axis=1) for each in self.covariances], axis=1)
        return rows_ND @ self.means_KD.T, np.sqrt(np.maximum(variances_NK, np.finfo(np.float64).tiny))

    def divergences_from(self, other: Gaussian) -> Doubles:
        """Return the Kullback-Leibler divergences KL(self || other) in nats, shape (K,)."""
        moved_KD = self.means_KD - other.means_KD
        if self.is_diagonal:
            ratios_KD = other.precisions / self.precisions
            terms_KD = ratios_KD - 1 - np.log(ratios_KD) + other.precisions * moved_KD**2
            return _half(terms_KD.sum(axis=1))
        distances_K = np.einsum("kd,kde,ke->k", moved_KD, other.precisions, moved_KD)
        traces_K = np.einsum("kde,ked->k", other.precisions, self.covariances)
        determinants_K = np.linalg.slogdet(self.precisions)[1] - np.linalg.slogdet(other.precisions)[1]
        return _half(traces_K - self.means_KD.shape[1] + determinants_K + distances_K)


@dataclass(frozen=True, eq=False)
class Bound:
    """The divergence from ``anchor``, minus or plus the expected log-likelihood of the data points."""

    anchor: Gaussian
    rows_ND: Doubles
    labels_NK: Doubles
    likelihood: Likelihood
    sign: Literal[-1, 1]
    least: float
    """Smallest precision of a coefficient: that of the prior, which no posterior is below."""
    trust: float = 0.0
    """The slope of the log-likelihood counts where the anchor's density is above this share of its largest."""

    def values(self, at: Gaussian) -> Doubles:
        """Return the bound with full trust (``trust`` 0) in nats, shape (K,)."""
        nodes_Q, shares_Q = _hermite()
        total_K = np.zeros(len(at.means_KD))
        for rows_ND, labels_NK in self._parts():
            means_NK, spreads_NK = at.predictors(rows_ND)
            z_NKQ = means_NK[:, :, None] + spreads_NK[:, :, None] * nodes_Q
            total_K += (self.likelihood.value(z_NKQ, labels_NK[:, :, None]) @ shares_Q).sum(axis=0)
        return at.divergences_from(self.anchor) + self.sign * total_K

    def slopes(self, at: Gaussian) -> Slopes:
        """Return how the bound changes."""
        anchor, sign = self.anchor, self.sign
        moved_KD = at.means_KD - anchor.means_KD
        gradient_KD = (
            anchor.precisions * moved_KD if at.is_diagonal else np.einsum("kde,ke->kd", anchor.precisions, moved_KD)
        )
        target = anchor.precisions.copy()
        curvatures = []
        nodes_Q, shares_Q = _hermite()
        for rows_ND, labels_NK in self._parts():
            means_NK, spreads_NK = at.predictors(rows_ND)
            z_NKQ = means_NK[:, :, None] + spreads_NK[:, :, None] * nodes_Q
            slopes_NKQ = self.likelihood.slope(z_NKQ, labels_NK[:, :, None]) * shares_Q
            if self.trust > 0:
                slopes_NKQ *= self._trusted(rows_ND, z_NKQ)
            gradient_KD = gradient_KD + sign * (slopes_NKQ.sum(axis=2).T @ rows_ND)
            # The derivative of an expectation by the standard deviation is that of the slope times the node.
            curvatures_NK = -(slopes_NKQ @ nodes_Q) / spreads_NK
            curvatures.append(curvatures_NK)
            if at.is_diagonal:
                target -= sign * (curvatures_NK.T @ rows_ND**2)
            else:
                for number, curvatures_N in enumerate(curvatures_NK.T):
                    target[number] -= sign * (rows_ND.T @ (curvatures_N[:, None] * rows_ND))
        if not (np.isfinite(gradient_KD).all() and np.isfinite(target).all()):
            raise Diverged("the bound has values that are not numbers", _REMEDY)
        raised, is_raised = raised_precisions(target, self.least)
        curvatures_NK = np.concatenate(curvatures) if curvatures else np.empty((0, len(target)))
        return Slopes(gradient_KD, raised, is_raised, curvatures_NK)

    def step(self, slopes: Slopes) -> Doubles:
        """Return by how much the means move in a Newton step, shape (K, D)."""
        if not self.anchor.is_diagonal:
            found: Any = -np.linalg.solve(slopes.target, slopes.gradient_KD[:, :, None])[:, :, 0]
            return cast("Doubles", found)
        curved_NK = -self.sign * slopes.curvatures_NK

        def times(vectors_KD: Doubles) -> Doubles:
            product_KD: Doubles = self.anchor.precisions * vectors_KD
            product_KD += (curved_NK * (self.rows_ND @ vectors_KD.T)).T @ self.rows_ND
            return product_KD

        return _conjugate_gradients(times, -slopes.gradient_KD, slopes.target)

    def _parts(self) -> Iterator[tuple[Doubles, Doubles]]:
        size = max(_VALUES // (_NODES * self.labels_NK.shape[1]), 1)
        for start in range(0, len(self.rows_ND), size):
            yield self.rows_ND[start : start + size], self.labels_NK[start : start + size]

    def _trusted(self, rows_ND: Doubles, z_NKQ: Doubles) -> Doubles:
        """Return how much of the anchor is in the trusted region, among coefficients with these predictors.

        In units of the anchor's standard deviations the region is a ball. A predictor is one coordinate there; what is
        left of the squared radius is compared with the chi-square distribution of the others.
        """
        from scipy import special  # noqa: PLC0415  it takes a tenth of a second

        means_NK, spreads_NK = self.anchor.predictors(rows_ND)
        away_NKQ = (z_NKQ - means_NK[:, :, None]) / spreads_NK[:, :, None]
        room_NKQ = np.maximum(trusted_radius(self.trust) ** 2 - away_NKQ**2, 0.0)
        found: Doubles = special.gammainc((rows_ND.shape[1] - 1) / 2, room_NKQ / 2)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """How a bound changes at a Gaussian."""

    gradient_KD: Doubles
    """Gradient with respect to the means."""
    target: Doubles
    """The precisions at which it does not change, with these curvatures; no direction is below the prior's."""
    is_raised: bool
    """Whether a direction would have been below."""
    curvatures_NK: Doubles
    """Minus the expected second derivatives of the log-likelihoods."""

    def along(self, at: Gaussian, step_KD: Doubles, change: Doubles) -> Doubles:
        """Return the derivatives by the share of a step of means and precisions, shape (K,)."""
        shifts_K: Doubles = (self.gradient_KD * step_KD).sum(axis=1)
        surplus = self.target - at.precisions
        if at.is_diagonal:
            return shifts_K - _half((surplus * change * at.covariances**2).sum(axis=1))
        left, right = at.covariances @ surplus, at.covariances @ change
        return shifts_K - _half(np.einsum("kde,ked->k", left, right))


def closest(bound: Bound) -> tuple[Gaussian, bool]:
    """Return the optimum of the bound, and whether precisions were raised to the prior's there.

    Each step is Newton's for the means and goes to the fixed point for the precisions; it is halved as long as the
    bound rises at its end more than half as steeply as it fell at its beginning. Only slopes are compared: beside the
    bound's value small changes would be lost. Raises ``Diverged`` when there is no optimum.
    """
    at = bound.anchor
    slopes = bound.slopes(at)
    smallest = _SMALLEST[at.is_diagonal]
    for _ in range(_STEPS):
        step_KD, change = bound.step(slopes), slopes.target - at.precisions
        falls_K = -slopes.along(at, step_KD, change)
        if (falls_K <= smallest).all():
            return at, slopes.is_raised
        shares_K = np.where(falls_K <= smallest, 0.0, 1.0)
        while True:
            tried = _moved(at, shares_K, step_KD, change)
            if not np.abs(tried.means_KD).max() < _LARGEST:
                raise Diverged(
                    "the evidence upper bound has no optimum: means grow without end",
                    _REMEDY,
                )
            there = bound.slopes(tried)
            is_past_K = there.along(tried, step_KD, change) > falls_K / 2
            is_past_K &= shares_K > 0
            if not is_past_K.any():
                break
            shares_K[is_past_K] /= 2
            shares_K[shares_K < _SHORTEST] = 0.0
            if not shares_K.any():
                if (falls_K <= _ROUNDING).all():
                    return at, slopes.is_raised
                raise Diverged("no step lowers the bound", _REMEDY)
        at, slopes = tried, there
    raise Diverged(f"the bound has not settled after {_STEPS} steps", _REMEDY)


def tilted(bound: Bound, nodes_SD: Doubles) -> tuple[Gaussian, bool, float]:
    """Return the Gaussian with the moments of the anchor divided by the likelihood: the optimum of the reverse KL.

    ``nodes_SD`` are standard normal numbers, which become samples of the anchor; the weight of one is the inverse of
    the likelihood where the anchor is trusted, else 1. Also returns whether precisions were moved between the prior's
    and the anchor's, and the smallest effective number of samples. No erasure makes a posterior surer: an inverse
    likelihood is log-convex, and such a factor cannot lower a Gaussian's variance in any direction.
    Raises ``Diverged`` when fewer than two samples have all the weight.
    """
    anchor = bound.anchor
    is_trusted_S = (nodes_SD**2).sum(axis=1) < trusted_radius(bound.trust) ** 2
    means, precisions, fewest, is_moved = [], [], math.inf, False
    for output, mean_D in enumerate(anchor.means_KD):
        spread = _root(anchor.covariances[output])
        weights_S = _weights(bound, mean_D + _times(spread, nodes_SD), output, is_trusted_S)
        fewest = min(fewest, 1 / float(np.sum(weights_S**2)))
        center_D = weights_S @ nodes_SD
        away_SD = nodes_SD - center_D
        means.append(mean_D + _times(spread, center_D[None, :])[0])
        if anchor.is_diagonal:
            spreads_D = weights_S @ away_SD**2
            is_moved |= bool((spreads_D < 1 - _ROUNDING).any())
            precisions.append(anchor.precisions[output] / np.maximum(spreads_D, 1.0))
        else:
            values_D, vectors_DD = np.linalg.eigh((weights_S[:, None] * away_SD).T @ away_SD)
            is_moved |= bool((values_D < 1 - _ROUNDING).any())
            inverse_DD = np.linalg.solve(spread.T, vectors_DD)
            precisions.append((inverse_DD / np.maximum(values_D, 1.0)) @ inverse_DD.T)
    if not fewest >= 2:
        raise Diverged(
            "the likelihood of the erased data points differs so much between samples of the posterior that one has"
            " all the weight",
            _REMEDY,
        )
    raised, is_raised = raised_precisions(np.stack(precisions), bound.least)
    return Gaussian(np.stack(means), raised), is_moved or is_raised, fewest


def trusted_radius(trust: float) -> float:
    """Return how many standard deviations from its mean a Gaussian's density falls to this share of its largest.

    >>> trusted_radius(1.0), trusted_radius(0.0)
    (0.0, inf)
    """
    return math.sqrt(abs(2 * math.log(trust))) if trust > 0 else math.inf


def raised_precisions(precisions: Doubles, least: float) -> tuple[Doubles, bool]:
    """Return the precisions without directions below ``least``, and whether there was one."""
    allowed = least * (1 - _ROUNDING)
    if precisions.ndim == 2:
        return np.maximum(precisions, least), bool((precisions < allowed).any())
    found = []
    is_raised = False
    for each_DD in precisions:
        even_DD = (each_DD + each_DD.T) / 2
        values_D, vectors_DD = np.linalg.eigh(even_DD)
        if values_D[0] < allowed:
            is_raised = True
            even_DD = (vectors_DD * np.maximum(values_D, least)) @ vectors_DD.T
        found.append(even_DD)
    return np.stack(found), is_raised


def mean_sigmoids(at: Gaussian, rows_ND: Doubles) -> Doubles:
    """Return the probability of the label 1, over the posterior, shape (N, K)."""
    nodes_Q, shares_Q = _hermite()
    found_NK = np.empty((len(rows_ND), len(at.means_KD)))
    size = max(_VALUES // (_NODES * len(at.means_KD)), 1)
    for start in range(0, len(rows_ND), size):
        means_NK, spreads_NK = at.predictors(rows_ND[start : start + size])
        found_NK[start : start + size] = sigmoid(means_NK[:, :, None] + spreads_NK[:, :, None] * nodes_Q) @ shares_Q
    return found_NK


def _moved(at: Gaussian, shares_K: Doubles, step_KD: Doubles, change: Doubles) -> Gaussian:
    shares = shares_K[(...,) + (None,) * (change.ndim - 1)]
    return Gaussian(at.means_KD + shares_K[:, None] * step_KD, at.precisions + shares * change)


def _half(values_K: Any) -> Doubles:
    return cast("Doubles", values_K / 2)


def _hermite() -> tuple[Doubles, Doubles]:
    """Return nodes and shares, whose sum is 1, for expectations under a standard normal distribution."""
    nodes_Q, weights_Q = np.polynomial.hermite_e.hermegauss(_NODES)
    return nodes_Q, weights_Q / math.sqrt(2 * math.pi)


def _conjugate_gradients(times: Callable[[Doubles], Doubles], right_KD: Doubles, diagonal_KD: Doubles) -> Doubles:
    """Return approximately what ``times`` maps to ``right_KD``, for each output; stop at negative curvature."""
    found_KD = np.zeros_like(right_KD)
    rest_KD = right_KD.copy()
    scaled_KD = rest_KD / diagonal_KD
    direction_KD = scaled_KD.copy()
    size_K = (rest_KD * scaled_KD).sum(axis=1)
    wanted_K = _INEXACT * size_K
    is_open_K = size_K > 0
    for number in range(_PRODUCTS):
        product_KD = times(direction_KD)
        curvature_K = (direction_KD * product_KD).sum(axis=1)
        is_bent_K = is_open_K & (curvature_K <= 0)
        if number == 0:
            found_KD[is_bent_K] = direction_KD[is_bent_K]
        is_open_K &= ~is_bent_K
        if not is_open_K.any():
            break
        share_K = np.divide(size_K, curvature_K, out=np.zeros_like(size_K), where=is_open_K)
        found_KD += share_K[:, None] * direction_KD
        rest_KD -= share_K[:, None] * product_KD
        scaled_KD = rest_KD / diagonal_KD
        next_K = (rest_KD * scaled_KD).sum(axis=1)
        grown_K = np.divide(next_K, size_K, out=np.zeros_like(size_K), where=is_open_K)
        direction_KD = scaled_KD + grown_K[:, None] * direction_KD
        size_K = next_K
        is_open_K &= size_K > wanted_K
        if not is_open_K.any():
            break
    return found_KD


def _weights(bound: Bound, samples_SD: Doubles, output: int, is_trusted_S: npt.NDArray[np.bool_]) -> Doubles:
    """Return the weights of samples, whose sum is 1."""
    logs_S = np.zeros(len(samples_SD))
    size = max(_VALUES // len(samples_SD), 1)
    for start in range(0, len(bound.rows_ND), size):
        z_NS = bound.rows_ND[start : start + size] @ samples_SD.T
        labels_N = bound.labels_NK[start : start + size, output]
        logs_S -= bound.likelihood.value(z_NS, labels_N[:, None]).sum(axis=0)
    logs_S[~is_trusted_S] = 0.0
    weights_S: Doubles = np.exp(logs_S - logs_S.max())
    weights_S /= weights_S.sum()
    return weights_S


def _root(covariance: Doubles) -> Doubles:
    root: Any = np.sqrt(covariance) if covariance.ndim == 1 else np.linalg.cholesky(covariance)
    return cast("Doubles", root)


def _times(root: Doubles, nodes_SD: Doubles) -> Doubles:
    return nodes_SD * root if root.ndim == 1 else nodes_SD @ root.T
