"""Gradient descent as DeltaGrad's authors run it, and the full retrain that DeltaGrad is compared with.

The step is ``w <- (1 - rate * penalty) w - rate * gradient``, with the gradient of the mean over the batch. Batches are
cut from a permutation of every epoch that depends on the seed, the epoch and the number of the original data points.
A deletion leaves holes in these batches: the others are not cut again. A batch without a data point left is skipped.
The last batch of an epoch is short.

A *place* is the position of a data point among the original ones.

Shape legend: N points, M original points, B places of a batch, F features, C classes, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.guarantees import EXACT, Approximate, Guarantee
from shards.learners.approximate.models import Doubles, LabelNumbers, Model, keyed_order, probabilities
from shards.learners.approximate.protocol import Diverged
from shards.points import ShardPoints
from storage.errors import Invalid

PlaceArray = npt.NDArray[np.int64]

FARTHEST: Final = 1e30
"""Parameters whose length is beyond this count as diverged: products of a few of them are still numbers."""

_NO_ROW: Final = -1

_SAME_BATCHES: Final = Approximate(reason="because its batches are those of the original number of data points")


@dataclass(frozen=True, slots=True, kw_only=True)
class DescentRecipe:
    """How many steps of which length."""

    epochs: int
    """Equal to the number of steps where ``batch_size`` is None."""
    rate: float
    """Learning rate of the first epochs."""
    later_rate: float
    """Learning rate of the others."""
    penalty: float
    """Factor of the L2 penalty; also called weight decay."""
    batch_size: int | None = None
    """None: every step looks at all data points."""
    seed: int = 0
    """Seed of the initial parameters and of the permutations."""
    first_epochs: int | None = None
    """How many epochs have the learning rate ``rate``; None: the first half."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise Invalid("a recipe has no epoch, or batches of no data point", "Take at least one of each.")
        if not (self.rate > 0 and self.later_rate > 0 and self.penalty >= 0):
            raise Invalid("a learning rate is not positive, or the penalty is negative", "Take other numbers.")
        if not (self.rate + self.later_rate) * self.penalty < math.inf:
            raise Invalid("a learning rate or the penalty is not finite", "Take other numbers.")

    def rate_of(self, epoch: int) -> float:
        """Return the learning rate of an epoch; the first one is 0."""
        first = (self.epochs + 1) // 2 if self.first_epochs is None else self.first_epochs
        return self.rate if epoch < first else self.later_rate

    def count_steps(self, original: int) -> int:
        """Return the number of steps, skipped ones included, for that many original data points."""
        return self.epochs * (1 if self.batch_size is None else -(-original // self.batch_size))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DescentStep:
    """One step of the descent."""

    rate: float
    places_B: PlaceArray | None
    """The batch, holes included; None: all data points."""


def steps(recipe: DescentRecipe, original: int) -> Iterator[DescentStep]:
    """Yield all steps for that many original data points."""
    for epoch in range(recipe.epochs):
        rate = recipe.rate_of(epoch)
        if recipe.batch_size is None:
            yield DescentStep(rate=rate, places_B=None)
        else:
            order_M = keyed_order(f"descent/{recipe.seed}/{epoch}", original)
            for start in range(0, original, recipe.batch_size):
                yield DescentStep(rate=rate, places_B=order_M[start : start + recipe.batch_size])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survivors:
    """Which of the original data points are still there. It says nothing of the others except how many there were."""

    original: int
    keys_N: npt.NDArray[np.uint64]
    places_N: PlaceArray

    @classmethod
    def all_of(cls, points: ShardPoints) -> Survivors:
        """Return that all of the points are there. Raises ``Invalid`` when two have the same key."""
        if len(np.unique(points.keys_N)) < len(points.keys_N):
            raise Invalid("two data points have the same key", "Give every data point an id of its own.")
        return cls(original=len(points.keys_N), keys_N=points.keys_N.copy(), places_N=np.arange(len(points.keys_N)))

    def places(self, points: ShardPoints) -> PlaceArray:
        """Return the places of data points that are there. Raises ``Invalid`` when one is not, or comes twice."""
        order_N = np.argsort(self.keys_N)
        found = np.searchsorted(self.keys_N, points.keys_N, sorter=order_N)
        known = found < len(order_N)
        rows = order_N[found[known]]
        if not known.all() or (self.keys_N[rows] != points.keys_N).any():
            raise Invalid("a data point is not one of those that were learned", "Take only learned data points out.")
        if len(np.unique(rows)) < len(rows):
            raise Invalid("a data point is named twice", "Name every data point once.")
        return self.places_N[rows]

    def places_of_all(self, points: ShardPoints) -> PlaceArray:
        """Return the places of all that are there. Raises ``Invalid`` as ``places`` does, and when one is missing."""
        if len(points.keys_N) != len(self.keys_N):
            raise Invalid(
                f"these are {len(points.keys_N)} data points, expected the {len(self.keys_N)} that are left",
                "Pass all data points that were learned and have not left.",
            )
        return self.places(points)

    def without(self, places: PlaceArray) -> Survivors:
        """Return those that are left when the data points at these places go."""
        left_N = ~np.isin(self.places_N, places)
        return Survivors(original=self.original, keys_N=self.keys_N[left_N], places_N=self.places_N[left_N])


class BatchedPoints:
    """Data points in float64, converted once, of which a step takes those that are in its batch."""

    def __init__(self, points: ShardPoints, places_N: PlaceArray, recipe: DescentRecipe, original: int) -> None:
        self._features_NF = points.features_NF.astype(np.float64, order="C")
        self._labels_N = points.labels_N
        self._rows_M = np.full(original, _NO_ROW)
        self._rows_M[places_N] = np.arange(len(places_N))
        size = min(len(places_N), recipe.batch_size or 0)
        self._batch_BF = np.empty((size, self._features_NF.shape[1]))

    def count(self, step: DescentStep) -> int:
        """Return how many are in the batch."""
        return len(self._labels_N) if step.places_B is None else len(self._rows(step.places_B))

    def of(self, step: DescentStep) -> tuple[Doubles, LabelNumbers]:
        """Return features and labels of those in the batch; what was returned before is overwritten."""
        if step.places_B is None:
            return self._features_NF, self._labels_N
        rows_B = self._rows(step.places_B)
        batch_BF = self._batch_BF[: len(rows_B)]
        np.take(self._features_NF, rows_B, axis=0, out=batch_BF, mode="clip")  # other modes copy once more
        return batch_BF, self._labels_N[rows_B]

    def _rows(self, places_B: PlaceArray) -> npt.NDArray[np.int64]:
        rows_B = self._rows_M[places_B]
        found: npt.NDArray[np.int64] = rows_B[rows_B != _NO_ROW]
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learned:
    """The result of a descent."""

    parameters_P: Doubles
    kept: Survivors


class FullRetrain:
    """Learns again from nothing on what is left: the yardstick.

    With mini-batches this is the retrain that DeltaGrad's authors compare with: the start, the permutations and the
    batches of the original run, with holes where data points left. It costs what the original run cost, for the share
    of the data points that is left. A run that never had the others would cut other batches: it is exact only where
    there are none. Without any data point the parameters stay those of the start.
    """

    def __init__(self, model: Model, recipe: DescentRecipe) -> None:
        self.guarantee: Guarantee = EXACT if recipe.batch_size is None else _SAME_BATCHES
        self._model = model
        self._recipe = recipe

    def learn(self, points: ShardPoints) -> Learned:
        """See ``ApproximateLearner``."""
        return self._descend(points, Survivors.all_of(points))

    def unlearn(self, state: Learned, gone: ShardPoints, left: Callable[[], ShardPoints]) -> Learned:
        """See ``ApproximateLearner``. Raises ``Invalid`` when ``gone`` has others than learned data points."""
        return self._descend(left(), state.kept.without(state.kept.places(gone)))

    def parameters(self, state: Learned) -> Doubles:
        """See ``ApproximateLearner``."""
        return state.parameters_P

    def probabilities(self, state: Learned, features_NF: npt.NDArray[np.float32]) -> Doubles:
        """See ``ApproximateLearner``."""
        return probabilities(self._model.logits(state.parameters_P, features_NF))

    def arrays(self, state: Learned) -> Mapping[str, npt.NDArray[Any]]:
        """See ``ApproximateLearner``. With mini-batches the places are needed, for the same batches with holes."""
        return {"parameters": state.parameters_P, **arrays_of_batches(self._recipe, state.kept)}

    def _descend(self, points: ShardPoints, kept: Survivors) -> Learned:
        rows = BatchedPoints(points, kept.places_of_all(points), self._recipe, kept.original)
        parameters_P = self._model.initial(self._recipe.seed)
        for step in steps(self._recipe, kept.original):
            features_BF, labels_B = rows.of(step)
            if len(labels_B):
                gradient_P = self._model.gradient(parameters_P, features_BF, labels_B)
                parameters_P = descended(parameters_P, gradient_P, step.rate, self._recipe.penalty)
        return Learned(parameters_P=parameters_P, kept=kept)


def arrays_of_batches(recipe: DescentRecipe, kept: Survivors) -> dict[str, npt.NDArray[Any]]:
    """Return what has to be kept so that the same batches can be cut again: nothing where there are no batches."""
    return {} if recipe.batch_size is None else {"keys": kept.keys_N, "places": kept.places_N}


def descended(parameters_P: Doubles, gradient_P: Doubles, rate: float, penalty: float) -> Doubles:
    """Return the parameters after one step; the gradient is without the penalty. Raises ``Diverged``."""
    found_P: Doubles = (1 - rate * penalty) * parameters_P
    found_P -= rate * gradient_P
    return bounded(found_P)


def bounded(parameters_P: Doubles) -> Doubles:
    """Return the parameters as they are. Raises ``Diverged`` when they are not numbers, or too far from zero."""
    if not np.linalg.norm(parameters_P) <= FARTHEST:
        raise Diverged(
            "the parameters are beyond all bounds, or not numbers",
            "Take a lower learning rate, or remove fewer data points at once.",
        )
    return parameters_P
