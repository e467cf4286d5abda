"""Evaluations as text for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from deploy.views.tables import table
from shards.measures import MAJORITY

if TYPE_CHECKING:  # commands with --url do without what it loads
    from cluster.results.federation import Evaluation
    from shards.slices.overlap import TrainedOn

_FIRST: Final[Mapping[str, tuple[str, ...]]] = {
    "class": ("accuracy",),
    "number": ("mae", "rmse", "r2"),
    "multi_label": ("accuracy", "micro_f1"),
    "cluster": ("inertia",),
    "recommend": ("hit_rate", "mrr"),
}
"""The metrics on the first line, by target; the others are in a table."""
_NO_BETTER: Final[Mapping[str, str]] = {
    "class": "to predict the largest class always",
    "multi_label": "to give the most frequent set of labels always",
}
_PARTS: Final[Mapping[str, str]] = {"class": "class", "number": "column", "multi_label": "label", "cluster": "cluster"}
_MOST_CONFUSED: Final = 3


def evaluation_text(evaluation: Evaluation) -> str:
    """Return the metrics, those of each class, label or column, what was confused, and warnings."""
    metrics, first = evaluation.metrics, _FIRST[evaluation.target]
    others = [(name, f"{value:.4f}") for name, value in metrics.items() if name not in first]
    line = ", ".join(f"{name} {metrics[name]:.4f}" for name in first if name in metrics)
    return "\n".join(
        [
            (
                f"{line} on {evaluation.points:,} data points"
                f" (generation {evaluation.generation}, constituents {evaluation.constituents} of {evaluation.shards})"
            ),
            *([table(("measure", "value"), others)] if others else []),
            *_undefined(evaluation.undefined),
            *_breakdown(evaluation),
            *_confused(evaluation.confusion),
            *_warnings(evaluation),
        ]
    )


def evaluation_data(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation for JSON, with an accuracy as a field of its own besides the metrics."""
    return evaluation.as_json() | {name: value for name, value in evaluation.metrics.items() if name == "accuracy"}


def _undefined(undefined: Mapping[str, str]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for name, reason in undefined.items():
        reasons.setdefault(reason, []).append(name)
    return (f"no {', '.join(names)}: {reason}" for reason, names in reasons.items())


def _breakdown(evaluation: Evaluation) -> Iterator[str]:
    """Yield a table with a line for each class, label or column, if there is more than one."""
    parts = evaluation.breakdown
    if columns := tuple(dict.fromkeys(name for each in parts.values() for name in each)):
        # Counts last; columns that only some rows have are among the others.
        columns = tuple(sorted(columns, key=lambda name: name == "points"))
        lines = [(name, *(_cell(each.get(column)) for column in columns)) for name, each in parts.items()]
        yield table((_PARTS[evaluation.target], *columns), lines)


def _cell(value: float | None) -> object:
    if value is None:
        return "-"
    return value if isinstance(value, int) else f"{value:.4f}"


def _confused(confusion: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Yield which classes were most often taken for which."""
    wrong = [
        (count, truth, predicted)
        for truth, row in confusion.items()
        for predicted, count in row.items()
        if truth != predicted
    ]
    wrong.sort(key=lambda each: -each[0])
    if wrong:
        most = (f"{truth} for {predicted} ({count:,})" for count, truth, predicted in islice(wrong, _MOST_CONFUSED))
        yield f"most often taken: {', '.join(most)}"


def _warnings(evaluation: Evaluation) -> Iterator[str]:
    """Yield that the model has seen the data, and that it does no better than one that always gives the same answer."""
    if evaluation.trained_on is not None and evaluation.trained_on.points:
        yield _seen(evaluation.points, evaluation.trained_on)
    metrics = evaluation.metrics
    if MAJORITY in metrics and metrics["accuracy"] <= metrics[MAJORITY]:
        always = _NO_BETTER[evaluation.target]
        yield f"warning: {always} has an accuracy of {metrics[MAJORITY]:.4f}; the model does no better"
    if metrics.get("r2", 1.0) <= 0:
        yield "warning: to predict the mean of these labels always has an r2 of 0; the model does no better"


def _seen(points: int, trained_on: TrainedOn) -> str:
    least, compared = "", ""
    if trained_on.searched < 1:
        least, compared = "at least ", f" ({trained_on.searched:.0%} of its data were compared)"
    return (
        f"warning: the model was trained on {least}{trained_on.points:,} of these {points:,} data points{compared};"
        " the measures say little about others"
    )
