"""The evaluation as people and programs get it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.results.federation import Evaluation, evaluation_of
from coordinator.aggregation import AnsweredBy
from deploy.views.evaluation import evaluation_data, evaluation_text
from shards.slices.overlap import TrainedOn
from shards.targets import Class, MultiLabel, Number, Target
from storage.errors import Invalid


def evaluation(accuracy: float) -> Evaluation:
    """Return an evaluation of two classes, one of them with three quarters of the data points."""
    return Evaluation(
        target="class",
        points=4,
        metrics={"accuracy": accuracy, "majority_share": 0.75},
        per_class={"on time": 1.0, "late": None},
        points_per_class={"on time": 4, "late": 0},
        generation=2,
        constituents=1,
        shards=1,
    )


NUMBERS = Evaluation(
    target="number",
    points=4,
    metrics={"mae": 0.5, "rmse": 0.75},
    per_class=None,
    points_per_class=None,
    generation=2,
    constituents=1,
    shards=1,
)


@pytest.mark.parametrize(("accuracy", "is_warned"), [(1.0, False), (0.75, True), (0.5, True)])
def test_a_model_no_better_than_the_largest_class_is_noticed(accuracy: float, is_warned: bool) -> None:
    """Below the table a warning compares the accuracy with that of a model that always predicts the largest class."""
    text = evaluation_text(evaluation(accuracy))
    assert text.startswith(f"accuracy {accuracy:.4f} on 4 data points (generation 2, constituents 1 of 1)\n")
    assert ("warning: to predict the largest class always has an accuracy of 0.7500" in text) == is_warned


def test_numbers_have_errors_and_no_accuracy() -> None:
    """Metrics of numbers are one line, and asking for their accuracy names the place of the metrics."""
    assert evaluation_text(NUMBERS) == "mae 0.5000, rmse 0.7500 on 4 data points (generation 2, constituents 1 of 1)"
    assert "accuracy" not in evaluation_data(NUMBERS)
    assert "per_class" not in evaluation_data(NUMBERS)
    with pytest.raises(Invalid, match=r"the target number has no accuracy.*Read \.metrics"):
        _ = NUMBERS.accuracy


def test_json_keeps_the_keys_of_classes() -> None:
    """Accuracy, per_class and points are where they always were; target and metrics stand beside them."""
    data = evaluation_data(evaluation(0.75))
    assert data["accuracy"] == 0.75
    assert data["per_class"] == {"on time": 1.0, "late": None}
    assert (data["points"], data["target"], data["metrics"]["majority_share"]) == (4, "class", 0.75)


def measured(target: Target, labels: object, scores: object) -> Evaluation:
    """Return the evaluation of these labels and scores by 2 of 3 constituents."""
    kind = np.int32 if target.has_classes else np.float32
    batch: Any = (np.array(labels, dtype=kind), np.array(scores, dtype=np.float64))
    return evaluation_of([batch], target, AnsweredBy(generation=2, constituents=2, shards=3))


def test_people_see_every_measure_of_classes() -> None:
    """The majority's share is below the accuracy; each class has a line, and what was taken for what is named."""
    found = measured(Class(("a", "b", "c")), [0, 0, 0, 1], [[0.75, 0.25, 0], [0.5, 0.5, 0], [0.25, 0.75, 0], [0, 1, 0]])
    assert evaluation_text(found).splitlines() == [
        "accuracy 0.7500 on 4 data points (generation 2, constituents 2 of 3)",
        "measure            value",
        "majority_share     0.7500",
        "balanced_accuracy  0.8333",
        "macro_f1           0.7333",
        "log_loss           0.5918",
        "brier              0.4375",
        "calibration_error  0.2500",
        "no roc_auc, pr_auc: class 'c' has no data point, or all of them",
        "class  precision  recall  f1      roc_auc  pr_auc  points",
        "a      1.0000     0.6667  0.8000  1.0000   1.0000       3",
        "b      0.5000     1.0000  0.6667  1.0000   1.0000       1",
        "c      -          -       -       -        -            0",
        "most often taken: a for b (1)",
        "warning: to predict the largest class always has an accuracy of 0.7500; the model does no better",
    ]


def test_people_see_every_measure_of_numbers() -> None:
    """Quantiles are in the table, several columns have a line each; an r2 of 0 is warned of."""
    scores = [[2.0, 1.0, 0.0, 0.0], [2.0, 3.0, 0.0, 0.0]]
    assert evaluation_text(measured(Number(("low", "high")), [[1, 1], [3, 3]], scores)).splitlines() == [
        "mae 0.5000, rmse 0.5000, r2 0.5000 on 2 data points (generation 2, constituents 2 of 3)",
        "measure    value",
        "error_q50  0.5000",
        "error_q90  0.5000",
        "error_q99  0.5000",
        "column  mae     rmse    error_q50  error_q90  error_q99  r2",
        "low     1.0000  1.0000  1.0000     1.0000     1.0000     0.0000",
        "high    0.0000  0.0000  0.0000     0.0000     0.0000     1.0000",
    ]
    text = evaluation_text(measured(Number(("low",)), [[1], [3]], [[2.0, 0.0], [2.0, 0.0]]))
    assert text.endswith("warning: to predict the mean of these labels always has an r2 of 0; the model does no better")
    assert "no r2: all data points have the same value of 'low'" in evaluation_text(
        measured(Number(("low",)), [[1]], [[2.0, 0.0]])
    )


def test_people_see_every_measure_of_labels() -> None:
    """A set of labels that most data points have is a yardstick, too."""
    text = evaluation_text(measured(MultiLabel(("red", "round")), [[1, 0], [1, 0], [0, 1]], [[0.9, 0.2]] * 3))
    assert text.splitlines() == [
        "accuracy 0.6667, micro_f1 0.6667 on 3 data points (generation 2, constituents 2 of 3)",
        "measure         value",
        "majority_share  0.6667",
        "macro_f1        0.4000",
        "roc_auc         0.5000",
        "pr_auc          0.5000",
        "label  accuracy  precision  recall  f1      roc_auc  pr_auc  points",
        "red    0.6667    0.6667     1.0000  0.8000  0.5000   0.6667       2",
        "round  0.6667    -          0.0000  0.0000  0.5000   0.3333       1",
        "warning: to give the most frequent set of labels always has an accuracy of 0.6667; the model does no better",
    ]


def test_programs_get_the_same_measures() -> None:
    """``undefined``, ``breakdown`` and ``confusion`` stand beside what was there before, as plain JSON."""
    data = evaluation_data(measured(Class(("a", "b")), [0, 0], [[0.75, 0.25], [0.25, 0.75]]))
    assert json.loads(json.dumps(data)) == data
    assert set(data) == {
        *("accuracy", "per_class", "points", "target", "metrics", "points_per_class"),
        *("generation", "constituents", "shards", "guarantee", "undefined", "breakdown", "confusion"),
    }
    assert data["confusion"] == {"a": {"a": 1, "b": 1}}
    assert data["breakdown"]["a"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "points": 2}


@pytest.mark.parametrize(
    ("trained_on", "warning"),
    [
        (None, ""),
        (TrainedOn(points=0, searched=1.0), ""),
        (
            TrainedOn(points=3, searched=1.0),
            "on 3 of these 4 data points; the measures say little about others",
        ),
        (
            TrainedOn(points=1, searched=0.25),
            "on at least 1 of these 4 data points (25% of its data were compared);",
        ),
    ],
)
def test_data_points_that_were_trained_on_are_noticed(trained_on: TrainedOn | None, warning: str) -> None:
    """Measures of a model on what it has seen say little; without such data points there is no warning."""
    text = evaluation_text(replace(evaluation(1.0), trained_on=trained_on))
    assert ("warning" in text) == bool(warning)
    assert warning in text
