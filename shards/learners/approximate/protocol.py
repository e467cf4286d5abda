"""What an experiment asks of a learner that only approximates an erasure.

Shape legend: N points, F features, C classes, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.guarantees import Guarantee
from shards.learners.protocol import State
from shards.points import ShardPoints
from storage.errors import SisaError


class Diverged(SisaError):
    """A method arrived at values that are not numbers, or beyond all bounds."""

    kind = "failed"


def check_numbers(points: ShardPoints) -> None:
    """Raise ``Diverged`` when features are not numbers, before a method computes with them."""
    if not np.isfinite(points.features_NF).all():
        raise Diverged("features of data points are not numbers", "Leave these data points out.")


class ApproximateLearner(Protocol[State]):
    """Learns from all data points at once, and changes the result when some leave; see ``Unlearner``.

    Unlike there, no law says that the result is that of learning without them.
    """

    guarantee: Guarantee

    def learn(self, points: ShardPoints) -> State:
        """Return what is learned from the data points, with all that ``unlearn`` needs. Raises ``Diverged``."""
        ...

    def unlearn(self, state: State, gone: ShardPoints, left: Callable[[], ShardPoints]) -> State:
        """Return a new state without ``gone``; ``state`` stays as it is. Raises ``Diverged``.

        ``left`` reads all data points that are left: a method that does not need them does not call it.
        """
        ...

    def parameters(self, state: State) -> npt.NDArray[np.float64]:
        """Return the parameters, shape (P,), which are compared with those of a full retrain."""
        ...

    def probabilities(self, state: State, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the probabilities of the classes, shape (N, C)."""
        ...

    def arrays(self, state: State) -> Mapping[str, npt.NDArray[Any]]:
        """Return all that has to be kept so that later data points can leave, by name."""
        ...
