"""Measures: scikit-learn's own values, and a reason in place of a value that the labels do not define."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from shards.measures import Measures, calibration_error
from shards.targets import Class, MultiLabel, Number, Target, outputs_of
from storage.errors import Invalid

CLASSES = Class(("on time", "late", "cancelled"))
LABELS = MultiLabel(("red", "round"))
ROWS = st.integers(1, 30)


def measured(target: Target, labels: Any, scores: Any) -> Measures:
    """Return the measures of these labels and scores."""
    of_kind: Any = np.array(labels, dtype=np.int32 if target.has_classes else np.float32)
    return target.measure([(of_kind, np.array(scores, dtype=np.float64))])


@st.composite
def answers(draw: st.DrawFn, width: int) -> npt.NDArray[np.float64]:
    """Draw scores between 0 and 1, with ties."""
    rows = draw(ROWS)
    found: npt.NDArray[np.float64] = draw(arrays(np.float64, (rows, width), elements=st.integers(0, 20))) / 20
    return found


@settings(max_examples=40)
@given(scores=answers(3), data=st.data())
def test_measures_of_classes_are_scikit_learns(scores: npt.NDArray[np.float64], data: st.DataObject) -> None:
    """Also where a class occurs nowhere, and with a single data point."""
    scores_NC = (scores + 0.01) / (scores + 0.01).sum(axis=1, keepdims=True)
    truth = data.draw(arrays(np.int32, len(scores), elements=st.integers(0, 2)))
    found, predicted = measured(CLASSES, truth, scores_NC), scores_NC.argmax(axis=1)
    several = len(np.unique(truth)) == 3
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "majority_share": np.bincount(truth).max() / len(truth),
        "balanced_accuracy": sk.recall_score(truth, predicted, labels=np.unique(truth), average="macro"),
        "macro_f1": sk.f1_score(truth, predicted, average="macro"),
        "log_loss": sk.log_loss(truth, scores_NC, labels=[0, 1, 2]),
        "brier": ((scores_NC - np.eye(3)[truth]) ** 2).sum(axis=1).mean(),
        "calibration_error": found.metrics["calibration_error"],
    }
    if several:
        expected["roc_auc"] = sk.roc_auc_score(truth, scores_NC, multi_class="ovr", labels=[0, 1, 2])
        expected["pr_auc"] = sk.average_precision_score(np.eye(3)[truth], scores_NC)
    assert found.metrics == pytest.approx(expected)
    assert set(found.undefined) == (set() if several else {"roc_auc", "pr_auc"})
    square = [[found.confusion.get(row, {}).get(column, 0) for column in CLASSES.names] for row in CLASSES.names]
    assert square == sk.confusion_matrix(truth, predicted, labels=[0, 1, 2]).tolist()
    report = sk.classification_report(
        truth, predicted, labels=[0, 1, 2], target_names=CLASSES.names, output_dict=True, zero_division=np.nan
    )
    for name in CLASSES.names:
        row, each = report[name], found.breakdown[name]
        for mine, theirs in (
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "f1-score"),
            ("points", "support"),
        ):
            assert each.get(mine, np.nan) == pytest.approx(row[theirs], nan_ok=True)


@settings(max_examples=40)
@given(scores=answers(2), data=st.data())
def test_measures_of_numbers_are_scikit_learns(scores: npt.NDArray[np.float64], data: st.DataObject) -> None:
    """Those of several columns are the columns' means; R² only where no column is constant."""
    target = Number(("low", "high"))
    truth = data.draw(arrays(np.float32, scores.shape, elements=st.integers(-5, 5)))
    found = measured(target, truth, np.hstack([scores, scores]))
    expected = {
        "mae": sk.mean_absolute_error(truth, scores),
        "rmse": sk.root_mean_squared_error(truth, scores),
        **{
            f"error_q{share}": np.mean([np.quantile(abs(truth - scores)[:, place], share / 100) for place in (0, 1)])
            for share in (50, 90, 99)
        },
    }
    constant = (truth == truth[0]).all(axis=0)
    if not constant.any():
        expected["r2"] = sk.r2_score(truth, scores)
    assert found.metrics == pytest.approx(expected)
    for place, name in enumerate(target.names):
        assert found.breakdown[name]["mae"] == pytest.approx(sk.mean_absolute_error(truth[:, place], scores[:, place]))
        assert ("r2" in found.breakdown[name]) == (not constant[place])
    assert (found.undefined != {}) == bool(constant.any())


@settings(max_examples=40)
@given(scores=answers(2), data=st.data())
def test_measures_of_labels_are_scikit_learns(scores: npt.NDArray[np.float64], data: st.DataObject) -> None:
    """Also where a label is always or never true."""
    truth = data.draw(arrays(np.int32, scores.shape, elements=st.integers(0, 1)))
    found, given_NW = measured(LABELS, truth, scores), (scores >= 0.5).astype(int)
    assert found.metrics["accuracy"] == pytest.approx(sk.accuracy_score(truth, given_NW))
    assert found.metrics["micro_f1"] == pytest.approx(sk.f1_score(truth, given_NW, average="micro", zero_division=1.0))
    macro = sk.f1_score(truth, given_NW, average="macro", zero_division=np.nan)
    assert found.metrics.get("macro_f1", np.nan) == pytest.approx(macro, nan_ok=True)
    whole = bool(((truth.sum(axis=0) > 0) & (truth.sum(axis=0) < len(truth))).all())
    assert ("roc_auc" in found.metrics) == whole == ("roc_auc" not in found.undefined)
    if whole:
        assert found.metrics["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, scores))
        assert found.metrics["pr_auc"] == pytest.approx(sk.average_precision_score(truth, scores))
    precision, recall, *_ = sk.precision_recall_fscore_support(truth, given_NW, average=None, zero_division=np.nan)
    for place, name in enumerate(LABELS.names):
        assert found.breakdown[name].get("precision", np.nan) == pytest.approx(precision[place], nan_ok=True)
        assert found.breakdown[name].get("recall", np.nan) == pytest.approx(recall[place], nan_ok=True)
        assert found.breakdown[name]["points"] == truth[:, place].sum()


def test_a_class_that_does_not_occur_has_no_recall_and_no_area() -> None:
    """Its name stands in the reason; what is predicted wrongly as this class counts as precision 0 and F1 0."""
    found = measured(CLASSES, [0, 0, 1], [[0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.2, 0.7, 0.1]])
    assert found.breakdown["cancelled"] == {"precision": 0.0, "f1": 0.0, "points": 0}
    assert found.per_class == {"on time": 0.5, "late": 1.0, "cancelled": None}
    reason = "class 'cancelled' has no data point, or all of them"
    assert found.undefined == {"roc_auc": reason, "pr_auc": reason}
    assert found.breakdown["late"]["roc_auc"] == 1.0
    assert found.confusion == {"on time": {"on time": 1, "cancelled": 1}, "late": {"late": 1}}


def test_data_points_of_one_class_alone_can_be_measured() -> None:
    """Everything but the areas has a value, also for one data point."""
    found = measured(CLASSES, [1], [[0.2, 0.7, 0.1]])
    assert (found.points, found.metrics["accuracy"], found.metrics["majority_share"]) == (1, 1.0, 1.0)
    assert found.metrics["log_loss"] == pytest.approx(-np.log(0.7))
    assert found.undefined["roc_auc"].startswith("class 'on time', 'late', 'cancelled' has no data point")


def test_many_classes_without_data_points_are_not_all_named() -> None:
    """A reason names three of them."""
    found = measured(outputs_of("class", 50), [0, 1], np.full((2, 50), 1 / 50))
    assert found.undefined["pr_auc"] == "class '2', '3', '4' and 45 more has no data point, or all of them"


def test_votes_can_be_measured() -> None:
    """Shares of votes of 0 and 1 have a finite log loss, however wrong they are."""
    found = measured(CLASSES, [0, 1], CLASSES.aggregate(np.eye(3)[[[0, 2]]], "majority_vote"))
    assert found.metrics["accuracy"] == 0.5
    assert 0 < found.metrics["log_loss"] < 40


def test_float32_sums_are_no_fault() -> None:
    """Answers of other sites arrive as float32, whose sums are not exactly 1."""
    shares_NC = np.full((2, 3), 1 / 3, dtype=np.float32)
    found = CLASSES.measure([(np.array([0, 1], dtype=np.int32), shares_NC)])
    assert found.metrics["log_loss"] == pytest.approx(np.log(3))


@pytest.mark.parametrize(
    ("target", "scores"),
    [
        (CLASSES, [[np.nan, 0.5, 0.5]]),
        (CLASSES, [[3.0, -1.0, -1.0]]),
        (LABELS, [[0.5, np.nan]]),
        (Number(("price",)), [[np.inf, 0.0]]),
    ],
)
def test_what_is_no_answer_is_not_measured(target: Target, scores: list[list[float]]) -> None:
    """NaN would turn up in all metrics; the error says what is wrong."""
    labels = [0] if target.has_classes else [[0.0] * len(target.names)]
    with pytest.raises(Invalid, match=r"an answer cannot be measured: it has numbers that are not .*Correct the model"):
        measured(target, labels, scores)


def test_a_label_that_never_occurs_has_no_recall() -> None:
    """Neither has it an F1, unless it is given; without any F1 there is no macro F1."""
    found = measured(LABELS, [[0, 1], [0, 0]], [[0.1, 0.9], [0.2, 0.6]])
    assert found.breakdown["red"] == {"accuracy": 1.0, "points": 0}
    assert found.metrics["macro_f1"] == pytest.approx(2 / 3)
    assert found.undefined == dict.fromkeys(("roc_auc", "pr_auc"), "label 'red' is true of no data point, or of all")
    nothing = measured(LABELS, [[0, 0]], [[0.1, 0.1]])
    assert nothing.undefined["macro_f1"] == "no label is true of a data point, or given"
    assert nothing.metrics["micro_f1"] == 1.0


def test_one_label_alone_is_measured_as_one_of_several() -> None:
    """F1 is that of the label, and not the mean of true and false."""
    found = measured(MultiLabel(("spam",)), [[1], [0], [1]], [[0.9], [0.8], [0.1]])
    assert found.metrics["macro_f1"] == found.metrics["micro_f1"] == found.breakdown["spam"]["f1"] == 0.5
    assert found.metrics["majority_share"] == pytest.approx(2 / 3)


def test_the_calibration_error_compares_bins_of_the_largest_probability() -> None:
    """Two thirds right at a probability of 0.6 are 0.0667 apart; a probability of 1 belongs to the last bin."""
    right = np.array([True, True, False, True])
    assert calibration_error(np.array([0.6, 0.6, 0.6, 1.0]), right) == pytest.approx(0.75 * (2 / 3 - 0.6))
    assert calibration_error(np.array([1.0]), np.array([False])) == 1.0


@pytest.mark.parametrize("kind", ["class", "number", "multi_label"])
def test_measures_survive_json(kind: str) -> None:
    """What is stored is what was measured, float by float."""
    target = outputs_of(kind, 2)
    scores = target.aggregate(np.array([[[0.3, 0.7], [0.9, 0.1], [0.8, 0.2]]]), "mean_probability")
    labels = np.array([0, 1, 1], dtype=np.int32) if target.has_classes else np.eye(3, 2, dtype=np.float32)
    for found in (target.measure([(labels, scores)]), target.measure([(labels[:1], scores[:1])]), target.measure([])):
        assert Measures.of_json(json.loads(json.dumps(found.as_json()))) == found
