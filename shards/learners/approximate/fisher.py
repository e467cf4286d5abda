"""Fisher scrubbing: noise in each parameter, more of it where answers need it less (Golatkar et al., CVPR 2020).

The Fisher information of a parameter says how much the answers for data points change with it. Nothing is learned
again, and nothing is taken out: noise hides what the parameters have of those who left. Its variance is

* ``strength / F`` in the authors' published notebook (rule ``"notebook"``),
* ``sqrt(strength / F)`` in the paper (rule ``"paper"``), whose lambda times squared sigma is ``strength``.

F is the diagonal of the information over the data points that are left. ``1 / F`` is at most ``most``: where F is near
zero, no answer depends on the parameter, and any noise would do. The paper's Newton step before the noise is left out,
as in the notebook. The notebook's averages over the inputs of a layer, and its factors for the last layer, are left
out as well.

*Nats.* ``residual_nats`` is the divergence of Kullback and Leibler of the scrubbed parameters from a retrain with the
same noise. For anything computed from the parameters it is at most as large. An observer who sees one of the two, each
as likely, names the right one with a probability of at most ``(1 + sqrt(1 - exp(-nats))) / 2`` (``most_often_right``):
0.5 at 0 nats, 0.9 at 1, and practically 1 beyond 5. All this is about one pair of runs with the same seed, and says
nothing of others.

Shape legend: N points, F features, P parameters.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.approximate import LABORATORY
from shards.learner_kinds.guarantees import Guarantee
from shards.learners.approximate.descent import DescentRecipe, FullRetrain, Learned, bounded
from shards.learners.approximate.models import Doubles, InformedModel
from shards.learners.approximate.protocol import check_numbers
from shards.learners.certified.optimum import normal
from shards.points import ShardPoints
from storage.errors import Invalid

_BYTES: Final = 16
"""Random bytes of a normal number."""


class FisherScrubbing:
    """Trains as ``FullRetrain`` does, and adds noise when data points leave; see above."""

    guarantee: Guarantee = LABORATORY["fisher_scrubbing"]

    def __init__(
        self,
        model: InformedModel,
        recipe: DescentRecipe,
        *,
        strength: float,
        rule: Literal["notebook", "paper"] = "notebook",
        most: float = 1e3,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """``draw`` returns random bytes."""
        if not (0 <= strength < math.inf and 0 < most < math.inf):
            raise Invalid(
                f"strength = {strength} is negative, most = {most} is not positive, or one of them is not a number",
                "Take other numbers.",
            )
        self._training = FullRetrain(model, recipe)
        self._model = model
        self._strength = strength
        self._rule = rule
        self._most = most
        self._draw = draw

    def learn(self, points: ShardPoints) -> Learned:
        """See ``ApproximateLearner``."""
        check_numbers(points)
        return self._training.learn(points)

    def unlearn(self, state: Learned, gone: ShardPoints, left: Callable[[], ShardPoints]) -> Learned:
        """See ``ApproximateLearner``. A second request adds noise to that of the first one.

        Raises ``Invalid`` when ``gone`` has others than learned data points. Without any data point left the parameters
        are those of the start, since no information says which noise would hide something.
        """
        check_numbers(gone)
        if not len(gone.labels_N):
            return state
        rest = left()
        kept = state.kept.without(state.kept.places(gone))
        if not len(rest.labels_N):
            return replace(self._training.learn(rest), kept=kept)
        noise_P = normal(self._draw(_BYTES * self._model.size))
        noise_P *= np.sqrt(self.variances(state, rest))
        return replace(state, parameters_P=bounded(state.parameters_P + noise_P), kept=kept)

    def variances(self, state: Learned, left: ShardPoints) -> Doubles:
        """Return the variance of the noise that a request adds to each parameter, shape (P,)."""
        information_P = self._model.fisher(state.parameters_P, left.features_NF.astype(np.float64))
        with np.errstate(divide="ignore", over="ignore"):  # infinite before it is limited
            variances_P: Doubles = self._strength * np.minimum(1 / information_P, self._most)
        return np.sqrt(variances_P) if self._rule == "paper" else variances_P

    def parameters(self, state: Learned) -> Doubles:
        """See ``ApproximateLearner``."""
        return self._training.parameters(state)

    def probabilities(self, state: Learned, features_NF: npt.NDArray[np.float32]) -> Doubles:
        """See ``ApproximateLearner``."""
        return self._training.probabilities(state, features_NF)

    def arrays(self, state: Learned) -> Mapping[str, npt.NDArray[Any]]:
        """See ``ApproximateLearner``. The data points that are left are needed as well."""
        return self._training.arrays(state)


def residual_nats(
    scrubbed_mean_P: Doubles, retrained_P: Doubles, variances_P: Doubles, retrained_variances_P: Doubles | None = None
) -> float:
    """Return the divergence in nats of the scrubbed parameters from the retrained ones, each with independent noise.

    ``scrubbed_mean_P`` are the parameters before the noise. A retrain without variances of its own has the same noise.

    >>> residual_nats(np.array([3.0, 1.0]), np.array([1.0, 1.0]), np.array([2.0, 0.5]))
    1.0
    """
    theirs_P = variances_P if retrained_variances_P is None else retrained_variances_P
    apart_P = scrubbed_mean_P - retrained_P
    fixed_P = (variances_P == 0) & (theirs_P == 0)
    if (apart_P[fixed_P] != 0).any() or ((variances_P == 0) != (theirs_P == 0)).any():
        return math.inf  # where there is no noise, one value is possible
    ratios_P = variances_P[~fixed_P] / theirs_P[~fixed_P]
    return float(np.sum(apart_P[~fixed_P] ** 2 / theirs_P[~fixed_P] + ratios_P - 1 - np.log(ratios_P))) / 2


def most_often_right(nats: float) -> float:
    """Return how often, at most, an observer is right about which of two equally likely things it sees.

    The inequality of Bretagnolle and Huber bounds how far apart two distributions of that divergence can be.

    >>> [round(most_often_right(nats), 3) for nats in (0, 0.1, 1, 5)]
    [0.5, 0.654, 0.898, 0.998]
    """
    return (1 + math.sqrt(1 - math.exp(-nats))) / 2
