"""DeltaGrad (Wu, Dobriban & Davidson, ICML 2020): the descent is repeated with mostly estimated gradients.

There is no ascent on the loss of those who left. Step by step, their gradient at the new parameters is subtracted from
an estimate of the batch's whole gradient. The estimate is the gradient that was cached in the original run, plus a
quasi-Newton Hessian times how far the parameters are from those of the original run.

Differences from the authors' published code: the cache is replaced by that of the new run; a step is explicit where the
last pair has no curvature, or where the estimated Hessian is so large that descent with this learning rate could not
follow it; and no tiny numbers are added to pairs. Data points that come later are not supported.

Shape legend: T steps, P parameters, B places of a batch, M pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.approximate import LABORATORY
from shards.learner_kinds.guarantees import Guarantee
from shards.learners.approximate.descent import (
    BatchedPoints,
    DescentRecipe,
    DescentStep,
    Survivors,
    arrays_of_batches,
    descended,
    steps,
)
from shards.learners.approximate.models import Doubles, Model, probabilities
from shards.learners.approximate.protocol import check_numbers
from shards.points import ShardPoints
from storage.errors import Invalid

LEAST_CURVATURE: Final = 1e-8
"""A pair is used when the gradient grows by at least this along the change of the parameters."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DescentPath:
    """A whole descent."""

    kept: Survivors
    parameters_TP: Doubles
    """Before every step, and after the last one: T + 1 rows."""
    gradients_TP: Doubles
    """Mean over the batch of every step, or its estimate, without the penalty; zeros where a step was skipped."""
    explicit_steps: int
    """How many of the steps computed the gradient of a whole batch."""


class DeltaGrad:
    """Repeats the descent without those who leave, with whole gradients in some steps only.

    Steps are explicit in the first ``burn_in`` ones, then in each ``period``-th. An explicit step costs the gradient of
    its batch, including those who leave now; it is the step of ``FullRetrain``, so ``period=1`` is a full retrain. Any
    other step costs the gradient of those of its batch who leave now, nothing where there are none, and
    O(history * P). It becomes explicit where the last pair has no curvature, or the estimate changes the gradient by
    more than ``2 / rate`` times the change of the parameters, as happens with networks.

    With the share f of explicit steps and the share r of those who leave, the gradients take
    ``(f + (1 - f) r) / (1 - r)`` of the time of those of a full retrain. The cache has ``(2 T + 1) P`` numbers. The one
    returned by ``unlearn`` is of the new descent, from which the next request starts; the one that was passed in is
    unchanged and depends on those who left: destroy it. The new one does so too, as far as its gradients are
    estimates that began from the old ones.
    """

    guarantee: Guarantee = LABORATORY["deltagrad"]

    def __init__(
        self, model: Model, recipe: DescentRecipe, *, period: int = 5, burn_in: int = 10, history: int = 2
    ) -> None:
        if period < 1 or burn_in < 0 or history < 1:
            raise Invalid(
                f"DeltaGrad has period={period}, burn_in={burn_in}, history={history}",
                "Take at least 1 for the period and the history, and at least 0 for the burn-in.",
            )
        self._model = model
        self._recipe = recipe
        self._period = period
        self._burn_in = burn_in
        self._history = history

    def learn(self, points: ShardPoints) -> DescentPath:
        """See ``ApproximateLearner``: every step is explicit."""
        kept = Survivors.all_of(points)
        rows = BatchedPoints(points, kept.places_N, self._recipe, kept.original)
        path = _PathInProgress(self._recipe, self._model.initial(self._recipe.seed), kept.original)
        for step in steps(self._recipe, kept.original):
            if rows.count(step):
                path.follow(self._model.gradient(path.current, *rows.of(step)), step.rate)
            else:
                path.skip()
        return path.complete(kept, explicit_steps=path.done)

    def unlearn(self, state: DescentPath, gone: ShardPoints, left: Callable[[], ShardPoints]) -> DescentPath:
        """See ``ApproximateLearner``. Raises ``Invalid`` when ``gone`` has others than learned data points.

        Without any data point left, all steps are skipped and the parameters are those of the start.
        """
        check_numbers(gone)
        gone_places = state.kept.places(gone)
        kept = state.kept.without(gone_places)
        remaining = left()
        batches = _Batches(
            model=self._model,
            gone=BatchedPoints(gone, gone_places, self._recipe, kept.original),
            left=BatchedPoints(remaining, kept.places_of_all(remaining), self._recipe, kept.original),
        )
        path = _PathInProgress(self._recipe, state.parameters_TP[0], kept.original)
        curvature = CompactHessian(self._history)
        explicit_steps = 0
        for number, step in enumerate(steps(self._recipe, kept.original)):
            if not batches.left.count(step):
                path.skip()
                continue
            was_P, was_gradient_P = state.parameters_TP[number], state.gradients_TP[number]
            moved_P = path.current - was_P
            times_moved_P = None if self._planned_explicit(number) else curvature.times(moved_P, most=2 / step.rate)
            if times_moved_P is None:
                explicit_steps += 1
                gradient_P, whole_P = batches.gradients(step, path.current)
                curvature.add(moved_P, whole_P - was_gradient_P + self._recipe.penalty * moved_P)
            else:
                whole_P = was_gradient_P + times_moved_P - self._recipe.penalty * moved_P
                gradient_P = batches.subtracted(step, path.current, whole_P)
            path.follow(gradient_P, step.rate)
        return path.complete(kept, explicit_steps=explicit_steps)

    def parameters(self, state: DescentPath) -> Doubles:
        """See ``ApproximateLearner``."""
        return _row(state.parameters_TP, -1)

    def probabilities(self, state: DescentPath, features_NF: npt.NDArray[np.float32]) -> Doubles:
        """See ``ApproximateLearner``."""
        return probabilities(self._model.logits(state.parameters_TP[-1], features_NF))

    def arrays(self, state: DescentPath) -> Mapping[str, npt.NDArray[Any]]:
        """See ``ApproximateLearner``."""
        cache = {"path": state.parameters_TP, "gradients": state.gradients_TP}
        return {**cache, **arrays_of_batches(self._recipe, state.kept)}

    def _planned_explicit(self, number: int) -> bool:
        return number < self._burn_in or (number - self._burn_in) % self._period == 0


class _PathInProgress:
    """A descent, written step by step into arrays of its own."""

    def __init__(self, recipe: DescentRecipe, start_P: Doubles, original: int) -> None:
        count = recipe.count_steps(original)
        self._penalty = recipe.penalty
        self._parameters_TP = np.empty((count + 1, len(start_P)))
        self._gradients_TP = np.empty((count, len(start_P)))
        self._parameters_TP[0] = start_P
        self.done = 0

    @property
    def current(self) -> Doubles:
        """The parameters after the steps so far."""
        return _row(self._parameters_TP, self.done)

    def follow(self, gradient_P: Doubles, rate: float) -> None:
        """Make a step along the gradient, which is without the penalty. Raises ``Diverged``."""
        self._gradients_TP[self.done] = gradient_P
        self._parameters_TP[self.done + 1] = descended(self.current, gradient_P, rate, self._penalty)
        self.done += 1

    def skip(self) -> None:
        """Leave the parameters as they are."""
        self._gradients_TP[self.done] = 0
        self._parameters_TP[self.done + 1] = self.current
        self.done += 1

    def complete(self, kept: Survivors, *, explicit_steps: int) -> DescentPath:
        """Return the whole descent."""
        return DescentPath(
            kept=kept,
            parameters_TP=self._parameters_TP,
            gradients_TP=self._gradients_TP,
            explicit_steps=explicit_steps,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Batches:
    """Gradients of those in a batch who leave now, and of the others, who are at least one."""

    model: Model
    gone: BatchedPoints
    left: BatchedPoints

    def gradients(self, step: DescentStep, parameters_P: Doubles) -> tuple[Doubles, Doubles]:
        """Return the mean over those who are left, and over all."""
        left_P = self.model.gradient(parameters_P, *self.left.of(step))
        left_count, gone_count = self.left.count(step), self.gone.count(step)
        if not gone_count:
            return left_P, left_P
        gone_P = self.model.gradient(parameters_P, *self.gone.of(step))
        return left_P, (left_count * left_P + gone_count * gone_P) / (left_count + gone_count)

    def subtracted(self, step: DescentStep, parameters_P: Doubles, whole_P: Doubles) -> Doubles:
        """Return the mean over those who are left, from the mean over all."""
        gone_count = self.gone.count(step)
        if not gone_count:
            return whole_P
        left_count = self.left.count(step)
        gone_P = self.model.gradient(parameters_P, *self.gone.of(step))
        found_P: Doubles = ((left_count + gone_count) * whole_P - gone_count * gone_P) / left_count
        return found_P


class CompactHessian:
    """The compact form of L-BFGS (Byrd, Nocedal & Schnabel 1994, theorem 2.3) over the last pairs.

    Pairs are scaled to changes of length 1, which does not change the matrix and keeps it well conditioned.
    """

    def __init__(self, history: int) -> None:
        self._history = history
        self._changes_MP: list[Doubles] = []
        self._growths_MP: list[Doubles] = []
        self._usable = False
        self._compact: tuple[float, Doubles, Doubles] | None = None

    def add(self, change_P: Doubles, growth_P: Doubles) -> None:
        """Add a change of the parameters and how the gradient, with the penalty, grew by it."""
        length = float(np.linalg.norm(change_P))
        if not length:
            return
        change_P, growth_P = change_P / length, growth_P / length
        self._usable = bool(change_P @ growth_P > LEAST_CURVATURE)
        if self._usable:
            self._changes_MP = [*self._changes_MP, change_P][-self._history :]
            self._growths_MP = [*self._growths_MP, growth_P][-self._history :]
            self._compact = None

    def times(self, change_P: Doubles, most: float) -> Doubles | None:
        """Return the Hessian times the change.

        None when there is no pair, the last one had no curvature, or the result is more than ``most`` times the change.
        """
        if not change_P.any():
            return np.zeros_like(change_P)
        if not self._usable:
            return None
        if self._compact is None:
            self._compact = self._inverted()
        scale, both_2MP, inverse_2M2M = self._compact
        found_P: Doubles = scale * change_P - both_2MP.T @ (inverse_2M2M @ (both_2MP @ change_P))
        return found_P if np.linalg.norm(found_P) <= most * np.linalg.norm(change_P) else None

    def _inverted(self) -> tuple[float, Doubles, Doubles]:
        """Return the multiple of the identity, the rows Y and scale * S, and the inverse of the middle matrix."""
        changes_MP, growths_MP = np.array(self._changes_MP), np.array(self._growths_MP)
        products_MM = changes_MP @ growths_MP.T
        scale = float(products_MM[-1, -1])
        below_MM = np.tril(products_MM, -1)
        middle_2M2M = np.block(
            [[-np.diag(np.diag(products_MM)), below_MM.T], [below_MM, scale * changes_MP @ changes_MP.T]]
        )
        inverse_2M2M: Doubles = np.linalg.inv(middle_2M2M).astype(np.float64, copy=False)
        return scale, np.concatenate([growths_MP, scale * changes_MP]), inverse_2M2M


def _row(array_TP: Doubles, number: int) -> Doubles:
    found_P: Doubles = array_TP[number]
    return found_P
