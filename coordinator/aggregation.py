"""Aggregation: combines the constituents' outputs into one answer (SISA section IV).

Every constituent that answers has the same weight: weights by shard size would carry a trace of erased points (E6).
Shape legend: K constituents that answer, N points, W outputs of the model, S scores of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.guarantees import EXACT
from shards.targets import Target
from storage.errors import Invalid, Unavailable

Rule = Literal["mean_probability", "majority_vote"]


class ModelFailed(Invalid):
    """The model cannot answer for a data point: its code raises an error, or does not return numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnsweredBy:
    """The constituents behind an answer, all of one generation; those that are being retrained abstain (E10)."""

    generation: int
    constituents: int
    """How many answered, of ``shards``."""
    shards: int
    guarantee: str = str(EXACT)
    """What the learner promises about erased data points: ``exact``, or ``certified(epsilon=1.0, delta=0.0001)``."""

    @property
    def facts(self) -> dict[str, Any]:
        """The four fields by name, for JSON, HTTP and the constructors of answers."""
        return {name: getattr(self, name) for name in _FACTS}


_FACTS: Final = tuple(each.name for each in fields(AnsweredBy))


def aggregate(outputs_KNW: npt.NDArray[np.float64], rule: Rule, target: Target) -> npt.NDArray[np.float64]:
    """Return the scores of the ensemble's answer; the target has the rules.

    Scores are the answer's numbers: for classes the mean probability, or share of votes, of each.
    For classes ``mean_probability`` takes the class with the highest mean probability, ``majority_vote`` the class that
    most constituents put first. Ties, within a constituent and between classes, go to the class declared first.
    Raises ``Unavailable`` when no constituent answers.
    """
    if len(outputs_KNW) == 0:
        raise Unavailable("every constituent abstains", "Wait for the retraining to finish: see 'sisa status'.")
    scores_NS: npt.NDArray[np.float64] = target.aggregate(outputs_KNW, rule)
    return scores_NS


def model_failed(fact: str, point: int | None) -> ModelFailed:
    """Return the error; ``point`` is the data point's position among those asked about, if it is known."""
    return ModelFailed(
        f"the model has no answer for a data point: {fact}",
        "Correct the data point or leave it out: the model may not take its values, such as a category that it does"
        " not know.",
        **({} if point is None else {"point": point}),
    )


def placed(error: ModelFailed, first: int) -> ModelFailed:
    """Return the error of a part that starts at data point ``first``, with the position among all data points."""
    point = error.context.get("point")
    return error if point is None else ModelFailed(error.fact, error.remedy, point=int(point) + first)
