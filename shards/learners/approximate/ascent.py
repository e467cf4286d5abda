"""Gradient ascent on the loss of those who leave, as it is often done.

Shape legend: P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.approximate import LABORATORY
from shards.learner_kinds.guarantees import Guarantee
from shards.learners.approximate.descent import DescentRecipe, FullRetrain, Learned, bounded
from shards.learners.approximate.models import Doubles, Model
from shards.points import ShardPoints
from storage.errors import Invalid


class GradientAscent:
    """Some steps that raise the mean loss of those who leave, from the trained parameters.

    It looks at no other data point and needs nothing of the training except its result, so a step costs the gradient of
    those who leave. The loss has no upper bound: with more steps the model also loses what it knows of data points
    like them, and nothing ties the result to that of a full retrain.
    """

    guarantee: Guarantee = LABORATORY["gradient_ascent"]

    def __init__(self, model: Model, recipe: DescentRecipe, *, steps: int, rate: float) -> None:
        if steps < 1 or not 0 < rate < math.inf:
            raise Invalid(
                f"gradient ascent has steps={steps}, rate={rate}",
                "Take at least one step, and a positive number as the rate.",
            )
        self._model = model
        self._descent = FullRetrain(model, recipe)
        self._steps = steps
        self._rate = rate

    def learn(self, points: ShardPoints) -> Learned:
        """See ``ApproximateLearner``: an ordinary descent."""
        return self._descent.learn(points)

    def unlearn(self, state: Learned, gone: ShardPoints, left: Callable[[], ShardPoints]) -> Learned:
        """See ``ApproximateLearner``. Raises ``Invalid`` when ``gone`` has others than learned data points."""
        del left
        kept = state.kept.without(state.kept.places(gone))
        features_NF = gone.features_NF.astype(np.float64)
        parameters_P = state.parameters_P
        for _ in range(self._steps):
            gradient_P = self._model.gradient(parameters_P, features_NF, gone.labels_N)
            parameters_P = bounded(parameters_P + self._rate * gradient_P)
        return Learned(parameters_P=parameters_P, kept=kept)

    def parameters(self, state: Learned) -> Doubles:
        """See ``ApproximateLearner``."""
        return state.parameters_P

    def probabilities(self, state: Learned, features_NF: npt.NDArray[np.float32]) -> Doubles:
        """See ``ApproximateLearner``."""
        return self._descent.probabilities(state, features_NF)

    def arrays(self, state: Learned) -> Mapping[str, npt.NDArray[Any]]:
        """See ``ApproximateLearner``: the parameters alone."""
        return {"parameters": state.parameters_P}
