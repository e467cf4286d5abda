"""Rates and probabilities by group, with a conjugate prior: the posterior follows from counts.

A group are the data points with equal features. Of a group without a data point the prior is the answer.
Shape legend: N points, F features, G groups, C classes, W labels, K counts.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.admissible import MOST_CODE
from shards.learner_kinds.bayesian import DirichletArguments, RateArguments
from shards.learners.fixed_point import Integers
from shards.learners.summation.cells import CellCounts, codes_of
from shards.learners.summation.quantiles import Floats, beta, gamma
from storage.errors import Invalid


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The answers of all groups."""

    places: dict[bytes, int]
    """Row in ``answers`` by the bytes of a group's features."""
    answers: Floats
    """Answers by group; the last one is that of the prior."""


class _Conjugate(CellCounts[Groups]):
    """Counts data points and labels by group."""

    def __init__(self, inputs: int, outputs: int, counts: int, *, group: bool, interval: float) -> None:
        super().__init__(inputs, outputs)
        self._group = group
        self._ends = ((1 - interval) / 2, (1 + interval) / 2)
        self.columns = inputs if group else 0
        self.counts = counts

    @abstractmethod
    def added(self, labels_N: npt.NDArray[Any]) -> Integers:
        """Return what each data point adds to the counts of its group, shape (N, K)."""

    @abstractmethod
    def answers(self, counts_GK: Floats) -> Floats:
        """Return the answers of groups with these counts."""

    def cells(self, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[Any]) -> tuple[Integers, Integers]:
        """See ``CellCounts.cells``."""
        groups_NF = codes_of(features_NF[:, : self.columns], "feature")
        return groups_NF, self.added(labels_N)

    def fit(self, values: Any) -> Groups:
        """See ``SummationLearner.fit``."""
        nobody_1K = np.zeros((1, self.counts), dtype=np.int64)
        answers = self.answers(np.concatenate([values["counts"], nobody_1K]).astype(np.float64))
        return Groups({cell.tobytes(): place for place, cell in enumerate(values["cells"])}, answers)

    def outputs(self, fitted: Groups, features_NF: npt.NDArray[np.float32]) -> Floats:
        """Return the answer of each data point's group."""
        chosen_NF = features_NF[:, : self.columns]
        is_code_N = ((np.rint(chosen_NF) == chosen_NF) & (np.abs(chosen_NF) <= MOST_CODE)).all(axis=1)
        codes_NF = np.where(is_code_N[:, None], chosen_NF, 0).astype(np.int64)
        prior = len(fitted.answers) - 1
        places_N = [fitted.places.get(code.tobytes(), prior) for code in codes_NF]
        return fitted.answers[np.where(is_code_N, places_N, prior)]


class _Rate(_Conjugate):
    """The rate of each label. Counts data points, and adds up labels."""

    def __init__(self, arguments: RateArguments, inputs: int, outputs: int, target: str, seed: int) -> None:
        del target, seed  # it predicts numbers alone, and draws nothing
        super().__init__(inputs, outputs, 1 + outputs, group=arguments.group, interval=arguments.interval)
        self._prior = arguments

    def added(self, labels_N: npt.NDArray[Any]) -> Integers:
        """See ``_Conjugate.added``."""
        labels_NW = codes_of(labels_N, "label")
        if not self.takes(labels_NW):
            raise Invalid(self.fact, "Name a column of such labels, without label_shift and label_scale.")
        return np.concatenate([np.ones((len(labels_NW), 1), dtype=np.int64), labels_NW], axis=1)

    fact: str
    """What is wrong with other labels."""

    @abstractmethod
    def takes(self, labels_NW: Integers) -> bool:
        """Return whether these are labels of this family."""


class BetaBernoulli(_Rate):
    """The rate of labels that are 0 or 1."""

    fact = "[model] beta_bernoulli takes labels 0 and 1, and that of a data point is another number"

    def takes(self, labels_NW: Integers) -> bool:
        """Return whether they are 0 or 1."""
        return bool(((labels_NW == 0) | (labels_NW == 1)).all())

    def answers(self, counts_GK: Floats) -> Floats:
        """Return the mean, standard deviation and ends of the posterior, a beta distribution, of each label."""
        ones_GW = self._prior.alpha + counts_GK[:, 1:]
        zeros_GW = self._prior.beta + counts_GK[:, :1] - counts_GK[:, 1:]
        every_GW = ones_GW + zeros_GW
        means_GW = ones_GW / every_GW
        spreads_GW = np.sqrt(means_GW * (1 - means_GW) / (every_GW + 1))
        return np.concatenate([means_GW, spreads_GW, *(beta(end, ones_GW, zeros_GW) for end in self._ends)], axis=1)


class GammaPoisson(_Rate):
    """The rate of labels that are counts."""

    fact = "[model] gamma_poisson takes counts, and a label of a data point is below 0"

    def takes(self, labels_NW: Integers) -> bool:
        """Return whether they are counts."""
        return bool((labels_NW >= 0).all())

    def answers(self, counts_GK: Floats) -> Floats:
        """Return the mean, standard deviation and ends of the posterior, a gamma distribution, of each label."""
        shapes_GW, points_G1 = self._prior.alpha + counts_GK[:, 1:], self._prior.beta + counts_GK[:, :1]
        ends = (gamma(end, shapes_GW) for end in self._ends)
        return np.concatenate([part / points_G1 for part in (shapes_GW, np.sqrt(shapes_GW), *ends)], axis=1)


class DirichletCategorical(_Conjugate):
    """The probability of each class."""

    def __init__(self, arguments: DirichletArguments, inputs: int, outputs: int, target: str, seed: int) -> None:
        del target, seed  # it predicts classes alone, and draws nothing
        super().__init__(inputs, outputs, outputs, group=arguments.group, interval=arguments.interval)
        self._alpha = arguments.alpha

    def added(self, labels_N: npt.NDArray[Any]) -> Integers:
        """See ``_Conjugate.added``."""
        added_NC: Integers = (labels_N[:, None] == np.arange(self._outputs)).astype(np.int64)
        return added_NC

    def answers(self, counts_GK: Floats) -> Floats:
        """Return the means of the posterior, and the ends of each class's own, which is a beta distribution."""
        counts_GC = self._alpha + counts_GK
        others_GC = counts_GC.sum(axis=1, keepdims=True) - counts_GC
        ends = (beta(end, counts_GC, others_GC) for end in self._ends)
        return np.concatenate([counts_GC / (counts_GC + others_GC), *ends], axis=1)
