"""Naive Bayes: a class's data points are counted, and their features added up.

Shape legend: N points, F features, C classes, V codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.summation import NaiveBayesArguments
from shards.learners.fixed_point import UNIT, Integers, fixed, square_sums, whole
from shards.learners.summation.learner import SummationLearner, Sums
from shards.learners.tensors import Tensors, check_enough, check_expected, not_serving
from storage.errors import Invalid

Likelihoods = npt.NDArray[np.float64]
Fit = Mapping[str, npt.NDArray[Any]]
"""Means, variances and logarithms of probabilities by name."""

_ABOVE: Final = 0.5
"""A feature above it is present, for the form bernoulli."""
_SHARE_OF_VARIANCE: Final = 1e-9


class NaiveBayes(SummationLearner[Fit]):
    """Naive Bayes with one of four assumptions about the features of a class."""

    pairs = frozenset({"squares"})

    def __init__(self, arguments: NaiveBayesArguments, inputs: int, outputs: int, target: str, seed: int) -> None:
        del target, seed  # it serves classes alone, and draws nothing
        super().__init__(inputs, outputs)
        self._arguments = arguments
        self._form = _FORMS[arguments.form]

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See ``SummationLearner.shapes``."""
        form = self._form.shapes(self._outputs, self._inputs, self._arguments.values)
        return {"points": (self._outputs,), **form}

    def sums(self, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[Any]) -> Mapping[str, Integers]:
        """See ``SummationLearner.sums``."""
        members = [features_NF[labels_N == each] for each in range(self._outputs)]
        parts = [self._form.sums(each, self._arguments.values) for each in members]
        stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        if "squares" in stacked:
            stacked["squares"] = stacked["squares"].swapaxes(0, 1)  # the two parts of a sum come first
        return {"points": np.array([len(each) for each in members], dtype=np.int64), **stacked}

    def fit(self, values: Mapping[str, Integers]) -> Fit:
        """See ``SummationLearner.fit``."""
        points_C = values["points"].astype(np.float64)
        with np.errstate(divide="ignore"):
            priors_C = np.log(points_C / points_C.sum())
        fitted = {"priors": priors_C}
        if 0 < self._arguments.select < self._inputs:
            (name,) = values.keys() - {"points"}
            chosen = best_features(values["points"], values[name], self._arguments.select, self._arguments.form)
            fitted["chosen"] = chosen.astype(np.int64)
            values = {**values, name: values[name][:, chosen]}
        fitted |= self._form.fit(values, self._arguments)
        # Contiguous, as after a transfer to another process: an array's order in memory decides bits.
        return {name: np.ascontiguousarray(array) for name, array in fitted.items()}

    def outputs(self, fitted: Fit, features_NF: npt.NDArray[np.float32]) -> Likelihoods:
        """Return the probabilities of the classes, shape (N, C); 0 for a class without a data point."""
        seen_NF = features_NF[:, fitted["chosen"]] if "chosen" in fitted else features_NF
        scores_NC = fitted["priors"] + self._form.scores(fitted, seen_NF)
        likely_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
        shares_NC: Likelihoods = likely_NC / likely_NC.sum(axis=1, keepdims=True)
        return shares_NC

    def to_serving(self, state: Sums[Fit]) -> Tensors:
        """Return the logarithms of probabilities, or means and variances, without counts and sums."""
        check_enough(state.values["points"], "one of its classes, on one of its shards,")
        return self.fitted(state)

    def from_serving(self, arrays: Tensors) -> Sums[Fit]:
        """Return the same as a state that answers."""
        some = {**self.nothing(), "points": np.ones(self._outputs, dtype=np.int64)}
        check_expected(arrays, self.fit(some))
        if "chosen" in arrays and not ((arrays["chosen"] >= 0) & (arrays["chosen"] < self._inputs)).all():
            raise not_serving()
        return Sums({}, arrays)


def best_features(points_C: Integers, counts_CF: Integers, count: int, form: str) -> npt.NDArray[np.intp]:
    """Return the places of the features that depend most on the class by chi-square, in ascending order.

    The table of a feature has a row for each class; for categorical features a column for each code, for bernoulli
    for present and absent, and for multinomial one for the sum. Of equally dependent features the first ones are taken.
    Cells are added one after another, so that the choice is the same on every machine.
    """
    known_C = points_C.astype(np.float64)
    seen_CFV = counts_CF.astype(np.float64).reshape(*counts_CF.shape[:2], -1)
    if form == "bernoulli":
        seen_CFV = np.concatenate([seen_CFV, known_C[:, None, None] - seen_CFV], axis=2)
    expected_CFV = (known_C / max(known_C.sum(), 1.0))[:, None, None] * seen_CFV.sum(axis=0)
    off_CFV = (seen_CFV - expected_CFV) ** 2 / np.where(expected_CFV > 0, expected_CFV, 1.0)
    statistics_F = off_CFV.transpose(1, 0, 2).reshape(counts_CF.shape[1], -1).cumsum(axis=1)[:, -1]
    return np.sort(np.argsort(-statistics_F, kind="stable")[:count])


@dataclass(frozen=True, slots=True)
class _Form:
    shapes: Callable[[int, int, int], Mapping[str, tuple[int, ...]]]
    """Shapes of the sums, given C, F and V."""
    sums: Callable[[npt.NDArray[np.float32], int], Mapping[str, Integers]]
    """Sums over the data points of one class, given their features and V."""
    fit: Callable[[Mapping[str, Integers], NaiveBayesArguments], Fit]
    """Returns what ``scores`` needs, from the sums."""
    scores: Callable[[Fit, npt.NDArray[np.float32]], Likelihoods]
    """Returns log P(features | class), shape (N, C)."""


def _gaussian_sums(features_NF: npt.NDArray[np.float32], values: int) -> Mapping[str, Integers]:
    del values
    grid_NF = fixed(features_NF, "feature")
    return {"sums": grid_NF.sum(axis=0), "squares": square_sums(grid_NF)}


def _gaussian(values: Mapping[str, Integers], arguments: NaiveBayesArguments) -> Fit:
    # Python's integers: their quotients are rounded correctly, so that nothing is lost by cancellation.
    points_C1 = values["points"].astype(object)[:, None]
    sums_CF, squares_CF = values["sums"].astype(object), whole(values["squares"])
    known_C1 = np.maximum(points_C1, 1)
    means_CF = (sums_CF / (known_C1 * UNIT)).astype(np.float64)
    variances_CF = ((known_C1 * squares_CF - sums_CF**2) / (known_C1**2 * UNIT**2)).astype(np.float64)
    every = max(int(values["points"].sum()), 1)
    pooled_F = (every * squares_CF.sum(axis=0) - sums_CF.sum(axis=0) ** 2) / (every**2 * UNIT**2)
    variances_CF += arguments.smoothing * _SHARE_OF_VARIANCE * (float(pooled_F.max()) or 1.0)
    constants_C = -0.5 * np.log(2 * np.pi * variances_CF).sum(axis=1)
    return {"means": means_CF, "variances": variances_CF, "constants": constants_C}


def _gaussian_scores(fitted: Fit, features_NF: npt.NDArray[np.float32]) -> Likelihoods:
    wide_NF = features_NF.astype(np.float64)
    columns = [
        constant - 0.5 * ((wide_NF - mean_F) ** 2 / variance_F).sum(axis=1)
        for constant, mean_F, variance_F in zip(fitted["constants"], fitted["means"], fitted["variances"], strict=True)
    ]
    return np.stack(columns, axis=1)


def _bernoulli_sums(features_NF: npt.NDArray[np.float32], values: int) -> Mapping[str, Integers]:
    del values
    return {"present": (features_NF > _ABOVE).sum(axis=0, dtype=np.int64)}


def _bernoulli(values: Mapping[str, Integers], arguments: NaiveBayesArguments) -> Fit:
    points_C1 = values["points"].astype(np.float64)[:, None]
    present_CF = (values["present"] + arguments.smoothing) / (points_C1 + 2 * arguments.smoothing)
    weights_CF = np.log(present_CF) - np.log1p(-present_CF)
    return {"weights": weights_CF, "absent": np.log1p(-present_CF).sum(axis=1)}


def _bernoulli_scores(fitted: Fit, features_NF: npt.NDArray[np.float32]) -> Likelihoods:
    scores_NC: Likelihoods = (features_NF > _ABOVE).astype(np.float64) @ fitted["weights"].T + fitted["absent"]
    return scores_NC


def _multinomial_sums(features_NF: npt.NDArray[np.float32], values: int) -> Mapping[str, Integers]:
    del values
    if (features_NF < 0).any():
        raise Invalid(
            "[model] naive_bayes of the form multinomial takes counts, and a feature of a data point is below 0",
            'Use arguments = { form = "gaussian" }, or encode the column otherwise.',
        )
    return {"sums": fixed(features_NF, "feature").sum(axis=0)}


def _multinomial(values: Mapping[str, Integers], arguments: NaiveBayesArguments) -> Fit:
    sums_CF = values["sums"] / UNIT + arguments.smoothing
    return {"weights": np.log(sums_CF / sums_CF.sum(axis=1, keepdims=True))}


def _multinomial_scores(fitted: Fit, features_NF: npt.NDArray[np.float32]) -> Likelihoods:
    scores_NC: Likelihoods = features_NF.astype(np.float64) @ fitted["weights"].T
    return scores_NC


def _categorical_sums(features_NF: npt.NDArray[np.float32], values: int) -> Mapping[str, Integers]:
    codes_NF = features_NF.astype(np.int64)
    if (codes_NF != features_NF).any() or (codes_NF < 0).any() or (codes_NF >= values).any():
        raise Invalid(
            f"[model] naive_bayes of the form categorical takes codes 0 .. {values - 1}, and a data point has another",
            'Set values in [model] arguments to the number of codes, and encode categories with as = "index".',
        )
    width = features_NF.shape[1]
    flat = (codes_NF + np.arange(width) * values).ravel()
    return {"counts": np.bincount(flat, minlength=width * values).astype(np.int64).reshape(width, values)}


def _categorical(values: Mapping[str, Integers], arguments: NaiveBayesArguments) -> Fit:
    counts_CFV = values["counts"]
    codes, alpha = counts_CFV.shape[2], arguments.smoothing
    # One more code stands for all that do not exist: it was never seen.
    with_unknown = np.concatenate([counts_CFV, np.zeros_like(counts_CFV[:, :, :1])], axis=2)
    points_C11 = values["points"][:, None, None]
    return {"logs": np.log((with_unknown + alpha) / (points_C11 + alpha * codes))}


def _categorical_scores(fitted: Fit, features_NF: npt.NDArray[np.float32]) -> Likelihoods:
    logs_CFV = fitted["logs"]
    codes, places_F = logs_CFV.shape[2] - 1, np.arange(logs_CFV.shape[1])
    codes_NF = np.where((features_NF >= 0) & (features_NF < codes), features_NF, codes).astype(np.int64)
    return np.stack([logs_FV[places_F, codes_NF].sum(axis=1) for logs_FV in logs_CFV], axis=1)


_FORMS: Final[Mapping[str, _Form]] = {
    "gaussian": _Form(
        lambda c, f, _: {"sums": (c, f), "squares": (2, c, f)}, _gaussian_sums, _gaussian, _gaussian_scores
    ),
    "bernoulli": _Form(lambda c, f, _: {"present": (c, f)}, _bernoulli_sums, _bernoulli, _bernoulli_scores),
    "multinomial": _Form(lambda c, f, _: {"sums": (c, f)}, _multinomial_sums, _multinomial, _multinomial_scores),
    "categorical": _Form(lambda c, f, v: {"counts": (c, f, v)}, _categorical_sums, _categorical, _categorical_scores),
}
