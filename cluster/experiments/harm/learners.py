"""Learners of all data points at once, each with the settings of the grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from cluster.experiments.experiment import Settings
from shards.learner_kinds.certified import CertifiedLinearArguments
from shards.learners.approximate.ascent import GradientAscent
from shards.learners.approximate.deltagrad import DeltaGrad
from shards.learners.approximate.descent import DescentRecipe, FullRetrain
from shards.learners.approximate.fisher import FisherScrubbing
from shards.learners.approximate.guo import CertifiedAlone
from shards.learners.approximate.models import Softmax, keyed_bytes
from shards.learners.approximate.protocol import ApproximateLearner
from shards.learners.approximate.sekhari import Sekhari
from shards.learners.approximate.variational import Criterion, Variational

ASCENT_RATES: Final = {"ascent, rate 0.02": 0.02, "ascent, rate 0.1": 0.1}
CERTIFIED: Final = "certified removal"
_CRITERIA: Final[Mapping[str, Criterion]] = {"variational, EUBO": "eubo", "variational, rKL": "rkl"}


class LearnerMaker:
    """Makes the learner of a method, for data of a given width and number of classes."""

    def __init__(self, settings: Settings, *, dataset: str, inputs: int, classes: int, stream: str) -> None:
        """``stream`` names the noise: cells of different names have different noise, and every run has the same."""
        self._settings = settings
        self._norm: float = settings["norms"][dataset]
        self._inputs, self._classes = inputs, classes
        self._draw = keyed_bytes(f"{stream}/noise")

    def make(self, method: str) -> ApproximateLearner[Any]:
        """Return the learner of a method."""
        if method in _CRITERIA:
            return self._variational(_CRITERIA[method])
        makers: Mapping[str, Callable[[], ApproximateLearner[Any]]] = {
            "full retrain": lambda: FullRetrain(self._softmax(), self._recipe()),
            "DeltaGrad": lambda: DeltaGrad(self._softmax(), self._recipe()),
            "Fisher scrubbing": self._fisher,
            "Sekhari": self._sekhari,
            CERTIFIED: self._certified,
        }
        return self._ascent(ASCENT_RATES[method]) if method in ASCENT_RATES else makers[method]()

    def _softmax(self) -> Softmax:
        return Softmax(inputs=self._inputs, classes=self._classes)

    def _recipe(self) -> DescentRecipe:
        rate, later = self._settings["rates"]
        return DescentRecipe(
            epochs=self._settings["steps"], rate=rate, later_rate=later, penalty=self._settings["penalty"]
        )

    def _ascent(self, rate: float) -> GradientAscent:
        return GradientAscent(self._softmax(), self._recipe(), steps=self._settings["ascent_steps"], rate=rate)

    def _fisher(self) -> FisherScrubbing:
        strength = self._settings["fisher_strength"]
        return FisherScrubbing(self._softmax(), self._recipe(), strength=strength, draw=self._draw)

    def _sekhari(self) -> Sekhari:
        return Sekhari(
            self._inputs,
            self._classes,
            penalty=self._settings["sekhari_penalty"],
            epsilon=self._settings["epsilon"],
            delta=self._settings["delta"],
            norm=self._norm,
            draw=self._draw,
        )

    def _certified(self) -> CertifiedAlone:
        arguments = CertifiedLinearArguments(
            norm=self._norm,
            clip=True,
            noise=self._settings["certified_noise"],
            penalty=self._settings["certified_penalty"],
            epsilon=self._settings["epsilon"],
            delta=self._settings["delta"],
        )
        return CertifiedAlone(self._inputs, self._classes, arguments, self._draw)

    def _variational(self, criterion: Criterion) -> Variational:
        nats = self._settings["trusted_nats"][criterion] * (self._inputs + 1)
        return Variational(self._inputs, objective=criterion, trust=math.exp(-nats), seed=1, classes=self._classes)


def is_budget_used_up(method: str, before: Any, after: Any) -> bool | None:
    """Return whether an erasure was one too many, so that all was learned again; None: there is no budget."""
    return None if method != CERTIFIED else not np.array_equal(before.noise_DW, after.noise_DW)
