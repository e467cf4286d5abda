"""Targets: what a federation predicts: a class, numbers, several labels, a cluster, items. Nothing else asks which.

A target owns the labels' form, the losses, how constituents' answers become one, the columns of answers, and which
measures there are. Scores are an answer's numbers, in the order of its columns.
Shape legend: K constituents or sites, N points, W outputs of the model, S scores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt

from shards.measures import (
    Measures,
    class_measures,
    cluster_measures,
    interval_measures,
    label_measures,
    number_measures,
    recommendation_measures,
)
from storage.errors import Invalid

LabelArray = npt.NDArray[np.int32] | npt.NDArray[np.float32]
"""Positions of classes, shape (N,), or numbers, shape (N, W); zeros, shape (N,), where there are no labels."""

_Floats32 = npt.NDArray[np.float32]

ColumnKind = Literal["text", "texts", "number", "index"]
"""An index is a number, too: a whole one."""

Interval = Literal["", "predictive", "credible"]
"""What an answer's interval is about: the label of a data point, or the predicted rate or probability. Empty: answers
have no intervals."""

_ROUNDING: Final = 1e-3
"""Largest deviation of a sum of float32 probabilities from 1."""
_ENDS: Final = ("low", "high")


@dataclass(frozen=True, slots=True)
class Target(ABC):
    """What is predicted; ``names`` has a name for each output of the model."""

    names: tuple[str, ...]
    interval: Interval = field(default="", kw_only=True)
    """Follows from the learner. Of several constituents the answer's interval is the hull of theirs: it holds at least
    as much of the mean of their distributions as each holds of its own."""
    kind: ClassVar[str]
    losses: ClassVar[tuple[str, ...]]
    """The losses there are; the first one is the default."""
    rules: ClassVar[tuple[str, ...]]
    """The rules of aggregation that may be declared."""
    has_classes: ClassVar[bool] = False
    """Whether labels are positions in declared classes; else they are numbers, one from each label column."""
    has_labels: ClassVar[bool] = True
    """Whether there are labels at all."""

    @property
    @abstractmethod
    def columns(self) -> tuple[tuple[str, ColumnKind], ...]:
        """Names and kinds of an answer's columns; the numbers among them are its scores, in this order."""

    @abstractmethod
    def aggregate(self, outputs_KNW: npt.NDArray[np.float64], rule: str) -> npt.NDArray[np.float64]:
        """Return the scores (N, S) of one or more constituents together. All count the same (E6)."""

    def combine(self, scores: Sequence[npt.NDArray[np.floating[Any]]], counts: Sequence[int], rule: str) -> Any:
        """Return the scores (N, S) of ensembles with these numbers of constituents, as if all were one ensemble."""
        parts = [each.astype(np.float64) * count for each, count in zip(scores, counts, strict=True)]
        if rule == "majority_vote":
            parts = [np.rint(part) for part in parts]  # votes: whole again, so that a tie is one
        return np.sum(parts, axis=0) / sum(counts)

    def values(self, scores_NS: npt.NDArray[np.floating[Any]]) -> list[Sequence[Any]]:
        """Return the answer's columns, in the order of ``columns``; numbers in float32."""
        numbers = iter(scores_NS.astype(np.float32).T.copy())
        return [
            next(numbers).astype(_DTYPES[kind]) if kind in _DTYPES else self.texts(scores_NS)
            for _, kind in self.columns
        ]

    def texts(self, scores_NS: npt.NDArray[np.floating[Any]]) -> Sequence[Any]:
        """Return the column that is not numbers; there is none here."""
        del scores_NS
        return ()

    def facts(self) -> dict[str, Any]:
        """Return the part of a JSON body that is the same for all of its answers."""
        return {}

    @abstractmethod
    def objects(self, scores_NS: npt.NDArray[np.floating[Any]]) -> Iterator[dict[str, Any]]:
        """Yield each answer as a JSON value."""

    def fault(self, scores_NS: npt.NDArray[np.floating[Any]]) -> str | None:
        """Return what is wrong with scores that came from elsewhere; None: nothing."""
        return None if np.isfinite(scores_NS).all() else "it has numbers that are not finite"

    def learned(self, labels_NW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return labels that are numbers as models learn them."""
        return labels_NW

    def asked(self, labels: LabelArray, features_NF: _Floats32) -> tuple[LabelArray, _Floats32]:
        """Return truths, and the features whose answers are compared with them, in order to measure."""
        return labels, features_NF

    @abstractmethod
    def made_up(self, index_N: npt.NDArray[np.uint64]) -> Any:
        """Return labels for made-up data points, as in training."""

    @abstractmethod
    def measures(self, labels: Any, scores_NS: npt.NDArray[np.float64]) -> Measures:
        """Return how good the scores are, of one data point at least."""

    def measure(self, batches: Iterable[tuple[LabelArray, npt.NDArray[np.floating[Any]]]]) -> Measures:
        """Return how good the scores are, given batches of labels and scores, which are held together in memory.

        Without data points there are no metrics. Raises ``Invalid`` for impossible scores, such as NaN.
        """
        kept = [(labels, scores_NS) for labels, scores_NS in batches if len(labels)]
        if not kept:
            return Measures(points=0, metrics={})
        labels = np.concatenate([each for each, _ in kept])
        scores_NS = np.concatenate([each for _, each in kept]).astype(np.float64, copy=False)
        if fault := self.fault(scores_NS):
            raise Invalid(
                f"an answer cannot be measured: {fault}", "Correct the model: it has to answer each data point."
            )
        return self.measures(labels, scores_NS)


class Class(Target):
    """One of several classes."""

    __slots__ = ()
    kind = "class"
    losses = ("cross_entropy",)
    rules = ("mean_probability", "majority_vote")
    has_classes = True

    @property
    def columns(self) -> tuple[tuple[str, ColumnKind], ...]:
        """See ``Target.columns``."""
        parts = ("probability", *_ENDS) if self.interval else ("probability",)
        return (("prediction", "text"), *((f"{part}_{name}", "number") for part in parts for name in self.names))

    def aggregate(self, outputs_KNW: npt.NDArray[np.float64], rule: str) -> npt.NDArray[np.float64]:
        """Return mean probabilities, or shares of votes; each line sums to 1. Ties go to the class declared first."""
        wide = len(self.names)
        likely_KNC, ends_KN = outputs_KNW[:, :, :wide], outputs_KNW[:, :, wide:]
        if rule == "majority_vote":
            likely_KNC = np.eye(wide, dtype=np.float64)[likely_KNC.argmax(axis=2)]
        if not self.interval:
            return _mean(likely_KNC)
        return np.concatenate([_mean(likely_KNC), _hull(ends_KN)], axis=1)

    def combine(self, scores: Sequence[npt.NDArray[np.floating[Any]]], counts: Sequence[int], rule: str) -> Any:
        """See ``Target.combine``."""
        wide = len(self.names)
        ends_KN = np.stack([each[:, wide:].astype(np.float64) for each in scores])
        shares_NC = super().combine([each[:, :wide] for each in scores], counts, rule)
        return np.concatenate([shares_NC, _hull(ends_KN)], axis=1)

    def texts(self, scores_NS: npt.NDArray[np.floating[Any]]) -> Sequence[str]:
        """Return the names of the predicted classes."""
        return [self.names[position] for position in scores_NS[:, : len(self.names)].argmax(axis=1)]

    def facts(self) -> dict[str, Any]:
        """Return the order of the probabilities."""
        return {"classes": self.names}

    def objects(self, scores_NS: npt.NDArray[np.floating[Any]]) -> Iterator[dict[str, Any]]:
        """See ``Target.objects``."""
        wide = len(self.names)
        for name, row in zip(self.texts(scores_NS), scores_NS.astype(np.float32).tolist(), strict=True):
            ends = zip(_ENDS, (row[wide : 2 * wide], row[2 * wide :]), strict=True)
            yield {"prediction": name, "probabilities": row[:wide]} | (dict(ends) if self.interval else {})

    def fault(self, scores_NS: npt.NDArray[np.floating[Any]]) -> str | None:
        """See ``Target.fault``."""
        wide = len(self.names)
        sums_N = scores_NS[:, :wide].sum(axis=1, dtype=np.float64)
        if _strange(scores_NS) or _off(sums_N):
            return "it has numbers that are not probabilities"
        return _turned(scores_NS[:, wide:])

    def made_up(self, index_N: npt.NDArray[np.uint64]) -> Any:
        """Return each class in turn."""
        return (index_N % np.uint64(len(self.names))).astype(np.int64)

    def measures(self, labels: npt.NDArray[np.int32], scores_NS: npt.NDArray[np.float64]) -> Measures:
        """See ``Target.measures``."""
        return class_measures(self.names, labels, scores_NS[:, : len(self.names)])


@dataclass(frozen=True, slots=True)
class Number(Target):
    """One number, or several. The spread over the constituents is an answer's uncertainty.

    Of learners whose answers have intervals, the spread is the standard deviation of the mean of the constituents'
    distributions: that within the constituents and that between them.

    Models learn ``(number - shift) / scale``, and answers are numbers again.
    """

    shift: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0
    """Declared constants: one for all, or one for each of ``names``."""
    kind = "number"
    losses = ("mse", "mae", "huber")
    rules = ("mean_probability",)
    # Of no consequence: numbers are always aggregated by their mean.

    @property
    def columns(self) -> tuple[tuple[str, ColumnKind], ...]:
        """See ``Target.columns``."""
        ends = ("",) if len(self.names) == 1 else tuple(f"_{name}" for name in self.names)
        return tuple((f"{what}{end}", "number") for what in self._parts for end in ends)

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("prediction", "spread", *_ENDS) if self.interval else ("prediction", "spread")

    def aggregate(self, outputs_KNW: npt.NDArray[np.float64], rule: str) -> npt.NDArray[np.float64]:
        """Return the constituents' mean and their standard deviation from it (0 of a single one).

        With intervals, outputs are means, standard deviations and both ends.
        """
        if not self.interval:
            numbers_KNW = self._numbers(outputs_KNW)
            return np.concatenate([numbers_KNW.mean(axis=0), numbers_KNW.std(axis=0)], axis=1)
        means, spreads, low, high = np.split(outputs_KNW, 4, axis=2)
        parts = [self._numbers(means), spreads * self.scale, self._numbers(low), self._numbers(high)]
        return np.asarray(self.combine(list(np.concatenate(parts, axis=2)), [1] * len(outputs_KNW), rule))

    def learned(self, labels_NW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See ``Target.learned``."""
        if (self.shift, self.scale) == (0.0, 1.0):
            return labels_NW
        return ((labels_NW.astype(np.float64) - self.shift) / self.scale).astype(np.float32)

    def _numbers(self, learned: npt.NDArray[np.number[Any]]) -> npt.NDArray[np.float64]:
        numbers = learned.astype(np.float64)
        return numbers if (self.shift, self.scale) == (0.0, 1.0) else numbers * self.scale + self.shift

    def combine(self, scores: Sequence[npt.NDArray[np.floating[Any]]], counts: Sequence[int], rule: str) -> Any:
        """See ``Target.combine``: variances within and between the ensembles add up."""
        del rule
        wide = len(self.names)
        shares_K = np.array(counts, dtype=np.float64)[:, None, None] / sum(counts)
        all_KNS = np.stack([each.astype(np.float64) for each in scores])
        means_KNW, spreads_KNW = all_KNS[:, :, :wide], all_KNS[:, :, wide : 2 * wide]
        mean_NW = (shares_K * means_KNW).sum(axis=0)
        variance_NW = (shares_K * (spreads_KNW**2 + (means_KNW - mean_NW) ** 2)).sum(axis=0)
        return np.concatenate([mean_NW, np.sqrt(variance_NW), _hull(all_KNS[:, :, 2 * wide :])], axis=1)

    def objects(self, scores_NS: npt.NDArray[np.floating[Any]]) -> Iterator[dict[str, Any]]:
        """See ``Target.objects``; with several labels an object by their names in place of each number."""
        wide = len(self.names)
        for row in scores_NS.astype(np.float32).tolist():
            parts = {what: row[place * wide : (place + 1) * wide] for place, what in enumerate(self._parts)}
            yield {
                what: values[0] if wide == 1 else dict(zip(self.names, values, strict=True))
                for what, values in parts.items()
            }

    def fault(self, scores_NS: npt.NDArray[np.floating[Any]]) -> str | None:
        """See ``Target.fault``."""
        wide = len(self.names)
        if not np.isfinite(scores_NS).all() or (scores_NS[:, wide : 2 * wide] < 0).any():
            return "it has numbers that are not finite, or a spread below 0"
        return _turned(scores_NS[:, 2 * wide :])

    def made_up(self, index_N: npt.NDArray[np.uint64]) -> Any:
        """Return numbers from 0 to 1."""
        mixed_NW = index_N[:, None] * (np.uint64(0x9E3779B97F4A7C15) + np.arange(len(self.names), dtype=np.uint64))
        return ((mixed_NW >> np.uint64(40)) / 2.0**24).astype(np.float32)

    def measures(self, labels: npt.NDArray[np.float32], scores_NS: npt.NDArray[np.float64]) -> Measures:
        """See ``Target.measures``; the spread is not measured, and of intervals those of labels."""
        numbers_NW = self._numbers(labels)
        found = number_measures(self.names, numbers_NW, scores_NS[:, : len(self.names)])
        if self.interval != "predictive":
            return found
        _, _, low_NW, high_NW = np.split(scores_NS, 4, axis=1)
        return interval_measures(found, self.names, numbers_NW, low_NW, high_NW)


class MultiLabel(Target):
    """Any number of labels at once, each with a probability of its own."""

    __slots__ = ()
    kind = "multi_label"
    losses = ("bce",)
    rules = ("mean_probability", "majority_vote")

    @property
    def columns(self) -> tuple[tuple[str, ColumnKind], ...]:
        """See ``Target.columns``."""
        return (("labels", "texts"), *((f"probability_{name}", "number") for name in self.names))

    def aggregate(self, outputs_KNW: npt.NDArray[np.float64], rule: str) -> npt.NDArray[np.float64]:
        """Return each label's mean probability, or the share of constituents that give it at least 0.5."""
        return _mean((outputs_KNW >= _GIVEN).astype(np.float64) if rule == "majority_vote" else outputs_KNW)

    def texts(self, scores_NS: npt.NDArray[np.floating[Any]]) -> Sequence[list[str]]:
        """Return the labels that are given."""
        return [[self.names[place] for place in np.flatnonzero(row)] for row in scores_NS >= _GIVEN]

    def objects(self, scores_NS: npt.NDArray[np.floating[Any]]) -> Iterator[dict[str, Any]]:
        """See ``Target.objects``."""
        rows = zip(self.texts(scores_NS), scores_NS.astype(np.float32).tolist(), strict=True)
        return ({"labels": given, "probabilities": dict(zip(self.names, row, strict=True))} for given, row in rows)

    def fault(self, scores_NS: npt.NDArray[np.floating[Any]]) -> str | None:
        """See ``Target.fault``."""
        return "it has numbers that are not probabilities" if _strange(scores_NS) else None

    def made_up(self, index_N: npt.NDArray[np.uint64]) -> Any:
        """Return combinations of the labels in turn."""
        places_W = np.arange(len(self.names), dtype=np.uint64) % np.uint64(8)
        return ((index_N[:, None] >> places_W) & np.uint64(1)).astype(np.float32)

    def measures(self, labels: npt.NDArray[np.float32], scores_NS: npt.NDArray[np.float64]) -> Measures:
        """See ``Target.measures``."""
        return label_measures(self.names, labels >= _GIVEN, scores_NS, scores_NS >= _GIVEN)


@dataclass(frozen=True, slots=True)
class Cluster(Target):
    """The cluster whose centroid is nearest, and the distance from it. There are no labels.

    Constituents do not answer one by one: what a cluster's number means is one constituent's own affair. Their learner
    makes one set of clusters out of theirs (``shards.learners.protocol.AnswersTogether``).
    """

    names: tuple[str, ...] = ("prediction", "distance")
    kind = "cluster"
    losses = ()
    rules = ("mean_probability",)
    # Of no consequence: a single answer is aggregated.
    has_labels = False

    @property
    def columns(self) -> tuple[tuple[str, ColumnKind], ...]:
        """See ``Target.columns``."""
        return (("prediction", "index"), ("distance", "number"))

    def aggregate(self, outputs_KNW: npt.NDArray[np.float64], rule: str) -> npt.NDArray[np.float64]:
        """Return the only answer."""
        del rule
        scores_NS: npt.NDArray[np.float64]
        (scores_NS,) = outputs_KNW
        return scores_NS

    def objects(self, scores_NS: npt.NDArray[np.floating[Any]]) -> Iterator[dict[str, Any]]:
        """See ``Target.objects``."""
        rows = scores_NS.astype(np.float32).tolist()
        return ({"prediction": int(place), "distance": distance} for place, distance in rows)

    def fault(self, scores_NS: npt.NDArray[np.floating[Any]]) -> str | None:
        """See ``Target.fault``."""
        is_wrong = not np.isfinite(scores_NS).all() or (scores_NS < 0).any()
        return "it has numbers that are not finite, or below 0" if is_wrong else None

    def made_up(self, index_N: npt.NDArray[np.uint64]) -> Any:
        """Return zeros."""
        return np.zeros(len(index_N), dtype=np.int64)

    def measures(self, labels: npt.NDArray[np.int32], scores_NS: npt.NDArray[np.float64]) -> Measures:
        """See ``Target.measures``."""
        del labels
        return cluster_measures(scores_NS[:, 0].astype(np.int64), scores_NS[:, 1])


@dataclass(frozen=True, slots=True)
class Recommend(Target):
    """The items that go best with those of a basket, which is the data point. There are no labels.

    ``names`` are the items, one for each feature. Constituents do not answer one by one: their learner makes one of
    them all. Scores are the places of the best items, -1 where there are fewer, and then their scores.
    """

    top: int = field(default=5, kw_only=True)
    """How many items an answer names at most. Follows from the learner's arguments."""
    kind = "recommend"
    losses = ()
    rules = ("mean_probability",)
    # Of no consequence: a single answer is aggregated.
    has_labels = False

    @property
    def columns(self) -> tuple[tuple[str, ColumnKind], ...]:
        """See ``Target.columns``; ``item_3`` is the third best one, and empty where there is none."""
        kinds: tuple[tuple[str, ColumnKind], ...] = (("item", "text"), ("score", "number"))
        return tuple((f"{name}_{rank}", kind) for rank in range(1, self._most + 1) for name, kind in kinds)

    @property
    def _most(self) -> int:
        return min(self.top, len(self.names))

    def aggregate(self, outputs_KNW: npt.NDArray[np.float64], rule: str) -> npt.NDArray[np.float64]:
        """Return the best items of the only answer; of equal scores the item declared first, of 0 none."""
        del rule
        (scores_NW,) = outputs_KNW
        best_NK = np.argsort(-scores_NW, axis=1, kind="stable")[:, : self._most]
        scores_NK = np.take_along_axis(scores_NW, best_NK, axis=1)
        return np.concatenate([np.where(scores_NK > 0, best_NK, -1), scores_NK], axis=1)

    def values(self, scores_NS: npt.NDArray[np.floating[Any]]) -> list[Sequence[Any]]:
        """See ``Target.values``."""
        places_KN, scores_KN = np.split(scores_NS.astype(np.float32).T.copy(), 2)
        named = ([self._name(int(place)) for place in places_N] for places_N in places_KN)
        return [column for both in zip(named, scores_KN, strict=True) for column in both]

    def _name(self, place: int) -> str | None:
        return self.names[place] if place >= 0 else None

    def objects(self, scores_NS: npt.NDArray[np.floating[Any]]) -> Iterator[dict[str, Any]]:
        """See ``Target.objects``."""
        for row in scores_NS.astype(np.float32).tolist():
            pairs = zip(row[: self._most], row[self._most :], strict=True)
            yield {"items": [{"item": self._name(int(place)), "score": score} for place, score in pairs if place >= 0]}

    def asked(self, labels: LabelArray, features_NF: _Floats32) -> tuple[LabelArray, _Floats32]:
        """Return an item of each basket of two or more, and the basket without it.

        The basket alone decides which one it is, so that equal baskets are measured equally, at any time.
        """
        del labels
        features_NF = features_NF[(features_NF > PRESENT).sum(axis=1) > 1].copy()
        present_NF = features_NF > PRESENT
        draws_F = np.arange(1, features_NF.shape[1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        draw_N = (present_NF * draws_F).sum(axis=1, dtype=np.uint64) >> np.uint64(33)
        which_N = 1 + draw_N.astype(np.int64) % present_NF.sum(axis=1)
        hidden_N = (present_NF.cumsum(axis=1) == which_N[:, None]).argmax(axis=1)
        features_NF[np.arange(len(hidden_N)), hidden_N] = 0
        return hidden_N.astype(np.int32), features_NF

    def made_up(self, index_N: npt.NDArray[np.uint64]) -> Any:
        """Return zeros."""
        return np.zeros(len(index_N), dtype=np.int64)

    def measures(self, labels: npt.NDArray[np.int32], scores_NS: npt.NDArray[np.float64]) -> Measures:
        """See ``Target.measures``; labels are the hidden items that ``asked`` returns."""
        return recommendation_measures(labels, scores_NS[:, : self._most])


PRESENT: Final = 0.5
"""An item is in a basket if its feature is above this."""

_DTYPES: Final[Mapping[ColumnKind, Any]] = {"number": np.float32, "index": np.int32}
"""Element types of score columns, by kind."""

_GIVEN: Final = 0.5
"""Least probability, or share of votes, of a label that is given."""

TARGETS: Final[Mapping[str, type[Target]]] = {
    each.kind: each for each in (Class, Number, MultiLabel, Cluster, Recommend)
}
"""By the name in ``[data] target``."""


def outputs_of(kind: str, outputs: int) -> Target:
    """Return a target of this kind with this many outputs, whose names do not matter."""
    return TARGETS[kind](tuple(map(str, range(outputs))))


def _mean(values_KNW: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    means_NW: npt.NDArray[np.float64] = values_KNW.mean(axis=0)
    return means_NW


def _hull(ends_KNE: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the lowest of the low ends and the highest of the high ones; without ends there are none."""
    low_KNW, high_KNW = np.split(ends_KNE, 2, axis=2)
    return np.concatenate([low_KNW.min(axis=0), high_KNW.max(axis=0)], axis=1)


def _turned(ends_NE: npt.NDArray[np.floating[Any]]) -> str | None:
    low_NW, high_NW = np.split(ends_NE, 2, axis=1)
    return "it has an interval whose low end is above its high one" if (low_NW > high_NW).any() else None


def _strange(scores_NS: npt.NDArray[np.floating[Any]]) -> bool:
    return not bool(np.isfinite(scores_NS).all() and (scores_NS >= 0).all() and (scores_NS <= 1).all())


def _off(sums_N: npt.NDArray[np.float64]) -> bool:
    return bool((np.abs(sums_N - 1) > _ROUNDING).any())
