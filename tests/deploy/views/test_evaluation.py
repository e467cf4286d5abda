"""The evaluation as people and programs get it."""

from __future__ import annotations

import pytest

from cluster.results.federation import Evaluation
from deploy.views.text import evaluation_data, evaluation_text
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
