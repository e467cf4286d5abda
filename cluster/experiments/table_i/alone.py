"""Methods of the laboratory: a learner over all data points at once, and another one that is its retrain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.experiments.measured import timed, total_bytes
from cluster.experiments.table_i.trial import FIRST, Measured, Repetition
from shards.learner_kinds.guarantees import Approximate, Guarantee
from shards.learners.approximate.descent import FullRetrain, Learned
from shards.learners.approximate.protocol import ApproximateLearner
from shards.points import ShardPoints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unlearned:
    """What a learner arrived at."""

    learner: Any
    before: Any
    """The state that was learned from all data points."""
    after: Any
    """The state after the erasure."""
    retrained: Any
    """The state of the retrain."""
    left: ShardPoints
    """The data points that are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A learner of the laboratory. Implements ``Method``."""

    name: str
    kind: str
    proves: str
    make: Callable[[Repetition], ApproximateLearner[Any]]
    yardstick: Callable[[Repetition], ApproximateLearner[Any]] | None = None
    """What learns the retrain; None: the same as what learned at first, with the same random numbers."""
    nats: Callable[[Unlearned], float] | None = None
    """Returns the divergence of what is published from the same of a retrain."""
    remark: Callable[[Unlearned], str] = lambda _: ""
    """Returns a note."""
    is_exact: bool = False
    is_for_two: bool = False

    def guarantee(self, trial: Repetition) -> str:
        """See ``Method``."""
        return str(self.make(trial).guarantee)

    def measure(self, trial: Repetition) -> Measured:
        """See ``Method``. Raises what the learner raises."""
        learner = self.make(trial)
        gone, left = trial.points(0, trial.erased), trial.points(trial.erased)
        first, all_but_first = trial.points(0, FIRST), trial.points(FIRST)
        state = learner.learn(trial.points(0))
        _, one_seconds = timed(lambda: learner.unlearn(state, first, lambda: all_but_first))
        after, seconds = timed(lambda: learner.unlearn(state, gone, lambda: left))
        yardstick = (self.yardstick or self.make)(trial)
        retrained, retrain_seconds = timed(lambda: yardstick.learn(left))
        goal_P = yardstick.parameters(retrained)
        outcome = Unlearned(learner=learner, before=state, after=after, retrained=retrained, left=left)

        def answer_before(features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
            return learner.probabilities(state, features_NF)

        def answer_after(features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
            return learner.probabilities(after, features_NF)

        return Measured(
            accuracy_before=trial.accuracy(answer_before),
            accuracy_after=trial.accuracy(answer_after),
            retrain_accuracy=trial.accuracy(lambda features_NF: yardstick.probabilities(retrained, features_NF)),
            one_seconds=one_seconds,
            seconds=seconds,
            retrain_seconds=retrain_seconds,
            storage_bytes=total_bytes(learner.arrays(state)),
            distance=float(np.linalg.norm(learner.parameters(after) - goal_P)),
            distance_before=float(np.linalg.norm(learner.parameters(state) - goal_P)),
            before=trial.scores(answer_before),
            after=trial.scores(answer_after),
            nats=None if self.nats is None else self.nats(outcome),
            note=self.remark(outcome),
        )


class DoNothing:
    """Takes nobody out: the floor. Implements ``ApproximateLearner``."""

    guarantee: Guarantee = Approximate(reason="because nobody is taken out")

    def __init__(self, learner: FullRetrain) -> None:
        self._learner = learner

    def learn(self, points: ShardPoints) -> Learned:
        """See ``ApproximateLearner``."""
        return self._learner.learn(points)

    def unlearn(self, state: Learned, gone: ShardPoints, left: Callable[[], ShardPoints]) -> Learned:
        """Return the state as it is."""
        del gone, left
        return state

    def parameters(self, state: Learned) -> npt.NDArray[np.float64]:
        """See ``ApproximateLearner``."""
        return self._learner.parameters(state)

    def probabilities(self, state: Learned, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """See ``ApproximateLearner``."""
        return self._learner.probabilities(state, features_NF)

    def arrays(self, state: Learned) -> Mapping[str, npt.NDArray[Any]]:
        """See ``ApproximateLearner``."""
        return self._learner.arrays(state)
