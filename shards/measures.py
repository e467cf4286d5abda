"""How good answers are: measures of classes, numbers and several labels, by scikit-learn; of clusters and of items.

Pure functions of labels and scores. scikit-learn is imported when something is measured, because it takes a second.
A measure that the labels do not define, such as the recall of a class without a data point, is left out with a reason.
Shape legend: N points, C classes, W columns of labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

MAJORITY: Final = "majority_share"
"""The metric that says how often the largest class, or the most frequent set of labels, is right if always answered."""
BINS: Final = 15
"""Bins of equal width from 0 to 1 in the expected calibration error."""
QUANTILES: Final[Mapping[str, float]] = {"error_q50": 0.5, "error_q90": 0.9, "error_q99": 0.99}
"""The quantiles of the absolute error, by the names of their metrics."""
MEANS: Final = frozenset(
    {"accuracy", "log_loss", "brier", "mae", "coverage", "interval_width", "inertia", "hit_rate", "mrr"}
)
"""Metrics that are means over data points: those of several sets follow from each set's, weighted by its points."""
ROOT_OF_MEAN: Final = "rmse"
"""The metric of which that is true of its square, if one column is predicted."""
_MOST_NAMED: Final = 3

_Floats = npt.NDArray[np.float64]
_Labels = npt.NDArray[np.int32]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """How good answers are. ``as_json`` and ``of_json`` are inverses."""

    points: int
    metrics: Mapping[str, float]
    """Over all data points, by name; none without data points."""
    undefined: Mapping[str, str] = field(default_factory=dict)
    """Why other metrics of the target have no value, by name."""
    per_class: Mapping[str, float | None] | None = None
    """Share of each class's points, or of each label's values, that were recognised; None if it has none."""
    points_per_class: Mapping[str, int] | None = None
    breakdown: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The measures of each class, label or column of numbers that are defined, by its name and theirs."""
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """How many data points of a class (first name) were predicted as a class (second name); zeros are left out."""

    def as_json(self) -> dict[str, Any]:
        """Return the measures as JSON values, without empty ones."""
        return {name: value for name, value in asdict(self).items() if value not in ({}, None) or name == "metrics"}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the measures that ``as_json`` gave."""
        return cls(**values)


def class_measures(names: Sequence[str], labels_N: _Labels, probabilities_NC: _Floats) -> Measures:
    """Return the measures of probabilities, given the positions of the true classes. Each line of them sums to about 1.

    Of equal probabilities the first is predicted. Macro F1 is over the classes that occur among labels or predictions,
    balanced accuracy over those that occur among labels.
    """
    from sklearn import metrics as sk  # noqa: PLC0415  it takes a second

    everyone, points = np.arange(len(names)), len(labels_N)
    # For the measures of probabilities alone: areas compare the answers as they are, ties included.
    shares_NC = probabilities_NC / probabilities_NC.sum(axis=1, keepdims=True)
    predicted_N = probabilities_NC.argmax(axis=1)
    precision, recall, f1, counts = sk.precision_recall_fscore_support(
        labels_N, predicted_N, labels=everyone, zero_division=np.nan
    )
    areas = [_areas(labels_N == place, probabilities_NC[:, place]) for place in everyone]
    metrics = {
        "accuracy": float(sk.accuracy_score(labels_N, predicted_N)),
        MAJORITY: int(counts.max()) / points,
        "balanced_accuracy": float(np.nanmean(recall)),
        "macro_f1": float(np.nanmean(f1)),
        "log_loss": float(sk.log_loss(labels_N, shares_NC, labels=everyone)),
        "brier": float(sk.brier_score_loss(labels_N, shares_NC, labels=everyone)),
        "calibration_error": calibration_error(shares_NC.max(axis=1), labels_N == predicted_N),
    }
    areas_macro, undefined = _macro(names, areas, "class", "has no data point, or all of them")
    return Measures(
        points=points,
        metrics=metrics | areas_macro,
        undefined=undefined,
        per_class={name: _or_none(share) for name, share in zip(names, recall, strict=True)},
        points_per_class={name: int(count) for name, count in zip(names, counts, strict=True)},
        breakdown=_breakdown(names, areas, precision=precision, recall=recall, f1=f1, points=counts),
        confusion=_confusion(names, labels_N, predicted_N),
    )


def number_measures(names: Sequence[str], truth_NW: _Floats, predicted_NW: _Floats) -> Measures:
    """Return the measures of numbers; those of several columns are the means of the columns'."""
    from sklearn import metrics as sk  # noqa: PLC0415  it takes a second

    errors_NW = np.abs(predicted_NW - truth_NW)
    raw: dict[str, Any] = {
        "mae": sk.mean_absolute_error(truth_NW, predicted_NW, multioutput="raw_values"),
        "rmse": sk.root_mean_squared_error(truth_NW, predicted_NW, multioutput="raw_values"),
    }
    raw |= {name: np.quantile(errors_NW, share, axis=0) for name, share in QUANTILES.items()}
    constant_W = np.ptp(truth_NW, axis=0) == 0
    if constant_W.all():
        raw["r2"] = np.full(len(names), np.nan)
    else:
        raw["r2"] = np.where(constant_W, np.nan, sk.r2_score(truth_NW, predicted_NW, multioutput="raw_values"))
    same = [name for name, is_constant in zip(names, constant_W, strict=True) if is_constant]
    return Measures(
        points=len(truth_NW),
        metrics={name: float(np.mean(values)) for name, values in raw.items() if not np.isnan(values).any()},
        undefined={"r2": f"all data points have the same value of {_some(same)}"} if same else {},
        breakdown=_breakdown(names, **raw) if len(names) > 1 else {},
    )


def interval_measures(
    found: Measures, names: Sequence[str], truth_NW: _Floats, low_NW: _Floats, high_NW: _Floats
) -> Measures:
    """Return the measures with the share of the numbers that are in their intervals, and the mean width of these."""
    raw = {"coverage": ((low_NW <= truth_NW) & (truth_NW <= high_NW)).mean(axis=0)}
    raw["interval_width"] = (high_NW - low_NW).mean(axis=0)
    own = _breakdown(names, **raw)
    return replace(
        found,
        metrics={**found.metrics, **{name: float(np.mean(values_W)) for name, values_W in raw.items()}},
        breakdown={name: {**each, **own[name]} for name, each in found.breakdown.items()},
    )


def label_measures(names: Sequence[str], truth_NW: _Flags, probabilities_NW: _Floats, given_NW: _Flags) -> Measures:
    """Return the measures of several labels; ``given_NW`` says which labels the answers give.

    Macro F1 is over the labels that are true or given somewhere.
    """
    from sklearn import metrics as sk  # noqa: PLC0415  it takes a second

    each = [
        sk.precision_recall_fscore_support(truth_N, given_N, average="binary", zero_division=np.nan)[:3]
        for truth_N, given_N in zip(truth_NW.T, given_NW.T, strict=True)
    ]
    precision, recall, f1 = np.array(each, dtype=np.float64).T
    right = (truth_NW == given_NW).mean(axis=0)
    areas = [_areas(truth_N, scores_N) for truth_N, scores_N in zip(truth_NW.T, probabilities_NW.T, strict=True)]
    _, sets = np.unique(truth_NW, axis=0, return_counts=True)
    metrics = {
        "accuracy": float((truth_NW == given_NW).all(axis=1).mean()),
        MAJORITY: int(sets.max()) / len(truth_NW),
        # Over all labels together it is the F1 of the flattened matrix.
        "micro_f1": float(sk.f1_score(truth_NW.ravel(), given_NW.ravel(), zero_division=1.0)),
    }
    areas_macro, undefined = _macro(names, areas, "label", "is true of no data point, or of all")
    if np.isnan(f1).all():
        undefined["macro_f1"] = "no label is true of a data point, or given"
    else:
        metrics["macro_f1"] = float(np.nanmean(f1))
    return Measures(
        points=len(truth_NW),
        metrics=metrics | areas_macro,
        undefined=undefined,
        per_class={name: float(share) for name, share in zip(names, right, strict=True)},
        breakdown=_breakdown(
            names, areas, accuracy=right, precision=precision, recall=recall, f1=f1, points=truth_NW.sum(axis=0)
        ),
    )


def cluster_measures(clusters_N: npt.NDArray[np.int64], distances_N: _Floats) -> Measures:
    """Return the mean squared distance from the nearest centroid, and the same and the size of each cluster."""
    found, places_N, counts = np.unique(clusters_N, return_inverse=True, return_counts=True)
    squares_N = distances_N**2
    inertia = np.bincount(places_N, weights=squares_N) / counts
    return Measures(
        points=len(clusters_N),
        metrics={"inertia": float(squares_N.mean()), "largest_cluster": int(counts.max()) / len(clusters_N)},
        breakdown=_breakdown([str(each) for each in found], inertia=inertia, points=counts),
    )


def recommendation_measures(hidden_N: _Labels, places_NK: _Floats) -> Measures:
    """Return how often the hidden item is among those that are named, and the mean of 1 by its rank, of others 0."""
    is_it_NK = places_NK == hidden_N[:, None]
    ranks_K = np.arange(1, places_NK.shape[1] + 1)
    return Measures(
        points=len(hidden_N),
        metrics={"hit_rate": float(is_it_NK.any(axis=1).mean()), "mrr": float((is_it_NK / ranks_K).sum(axis=1).mean())},
    )


def calibration_error(confidence_N: _Floats, right_N: _Flags) -> float:
    """Return the expected calibration error (Guo et al. 2017): scikit-learn has none.

    The largest probabilities are put into 15 bins of equal width. It is the mean over the data points of how far their
    bin's share of right answers is from its mean probability.

    >>> round(calibration_error(np.array([0.94, 0.95, 0.96, 0.97]), np.array([True, True, True, False])), 3)
    0.205
    """
    bins_N = np.minimum((confidence_N * BINS).astype(np.intp), BINS - 1)
    apart = np.bincount(bins_N, weights=confidence_N - right_N, minlength=BINS)
    return float(np.abs(apart).sum() / len(bins_N))


def _areas(truth_N: _Flags, scores_N: _Floats) -> dict[str, float]:
    """Return the areas under the curves of one class or label against the rest; none where one of both is missing."""
    from sklearn import metrics as sk  # noqa: PLC0415  it takes a second

    if truth_N.all() or not truth_N.any():
        return {}
    return {
        "roc_auc": float(sk.roc_auc_score(truth_N, scores_N)),
        "pr_auc": float(sk.average_precision_score(truth_N, scores_N)),
    }


def _macro(
    names: Sequence[str], areas: Sequence[Mapping[str, float]], what: str, why: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the means of the areas, or the reason why there are none."""
    without = [name for name, each in zip(names, areas, strict=True) if not each]
    if without:
        return {}, dict.fromkeys(("roc_auc", "pr_auc"), f"{what} {_some(without)} {why}")
    return {name: float(np.mean([each[name] for each in areas])) for name in ("roc_auc", "pr_auc")}, {}


def _breakdown(
    names: Sequence[str], areas: Sequence[Mapping[str, float]] | None = None, **columns: npt.NDArray[Any]
) -> dict[str, dict[str, float]]:
    """Return the values that are numbers, by name of the class, label or column; and its areas beside them."""
    found = {
        name: {what: values[place].item() for what, values in columns.items() if not np.isnan(values[place])}
        for place, name in enumerate(names)
    }
    for name, each in zip(names, areas or (), strict=areas is not None):
        found[name] |= each
    return found


def _confusion(names: Sequence[str], labels_N: _Labels, predicted_N: npt.NDArray[np.intp]) -> dict[str, dict[str, int]]:
    # Not scikit-learn's, which has a cell for each pair of classes, however many there are.
    found: dict[str, dict[str, int]] = {}
    pairs, counts = np.unique(np.stack([labels_N, predicted_N]), axis=1, return_counts=True)
    rows: list[tuple[int, int]] = pairs.T.tolist()
    for (truth, predicted), count in zip(rows, counts.tolist(), strict=True):
        found.setdefault(names[truth], {})[names[predicted]] = count
    return found


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
