"""Targets: constituents' outputs become answers, and answers become columns, JSON and metrics."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shards.targets import TARGETS, Class, Cluster, MultiLabel, Number, Recommend, Target, outputs_of

_LABELLED = sorted(kind for kind, target in TARGETS.items() if target.has_labels)
OUTPUTS = np.array([[[1.0], [4.0]], [[3.0], [4.0]]])
"""Outputs of two constituents for two data points."""


def _combined(target: Target, outputs_KNW: npt.NDArray[np.float64], first: int) -> npt.NDArray[np.float64]:
    """Return the scores of two ensembles together, the first of which has ``first`` constituents."""
    parts = [outputs_KNW[:first], outputs_KNW[first:]]
    scores = [target.aggregate(part, "mean_probability").astype(np.float32) for part in parts]
    found: npt.NDArray[np.float64] = target.combine(scores, [len(part) for part in parts], "mean_probability")
    return found


def test_a_number_is_the_mean_with_its_spread() -> None:
    """The spread is the constituents' standard deviation; it is 0 where they agree."""
    target = Number(("price",))
    scores = target.aggregate(OUTPUTS, "mean_probability")
    assert scores.tolist() == [[2.0, 1.0], [4.0, 0.0]]
    assert target.columns == (("prediction", "number"), ("spread", "number"))
    assert [list(column) for column in target.values(scores)] == [[2.0, 4.0], [1.0, 0.0]]
    assert list(target.objects(scores)) == [{"prediction": 2.0, "spread": 1.0}, {"prediction": 4.0, "spread": 0.0}]


def test_several_numbers_have_names() -> None:
    """With several label columns every column of answers ends in the label's, and JSON has objects."""
    target = Number(("low", "high"))
    scores = target.aggregate(np.array([[[1.0, 5.0]], [[2.0, 5.0]]]), "mean_probability")
    names = [name for name, _ in target.columns]
    assert names == ["prediction_low", "prediction_high", "spread_low", "spread_high"]
    assert list(target.objects(scores)) == [
        {"prediction": {"low": 1.5, "high": 5.0}, "spread": {"low": 0.5, "high": 0.0}}
    ]


def test_several_labels_are_those_of_at_least_a_half() -> None:
    """Each label has a probability of its own; under majority_vote the share of constituents that give it."""
    target = MultiLabel(("red", "round"))
    outputs = np.array([[[0.9, 0.3]], [[0.2, 0.3]], [[0.4, 0.9]]])
    mean = target.aggregate(outputs, "mean_probability")
    assert next(target.objects(mean))["labels"] == ["red", "round"]
    assert next(target.objects(mean))["probabilities"] == pytest.approx({"red": 0.5, "round": 0.5})
    votes = target.aggregate(outputs, "majority_vote")
    assert target.texts(votes) == [[]]
    assert votes.tolist() == [[1 / 3, 1 / 3]]


@pytest.mark.parametrize("kind", _LABELLED)
@given(data=st.data())
def test_sites_together_answer_as_one_ensemble(kind: str, data: st.DataObject) -> None:
    """Every constituent counts the same, wherever it is, in means and in spreads."""
    shape = tuple(data.draw(st.integers(least, 5)) for least in (2, 1, 1))
    outputs = data.draw(arrays(np.float64, shape, elements=st.floats(0, 1, width=32)))
    target = outputs_of(kind, shape[2])
    together = _combined(target, outputs, data.draw(st.integers(1, shape[0] - 1)))
    assert together == pytest.approx(target.aggregate(outputs, "mean_probability"), abs=1e-3)


INTERVALS_KNW = np.array([[[1.0, 0.3, 0.5, 1.5]], [[2.0, 0.4, 1.0, 3.0]]])
"""Mean, spread, low and high end of two constituents."""


def test_an_interval_is_the_hull_of_the_constituents() -> None:
    """The spread is that of the mean of their distributions: within them, and between them."""
    target = Number(("price",), interval="predictive")
    scores = target.aggregate(INTERVALS_KNW, "mean_probability")
    variance = (0.3**2 + 0.4**2) / 2 + 0.5**2
    assert scores == pytest.approx(np.array([[1.5, np.sqrt(variance), 0.5, 3.0]]))
    assert [name for name, _ in target.columns] == ["prediction", "spread", "low", "high"]
    (answer,) = target.objects(scores)
    assert answer == pytest.approx({"prediction": 1.5, "spread": np.sqrt(variance), "low": 0.5, "high": 3.0})
    scaled = Number(("price",), shift=10.0, scale=2.0, interval="predictive")
    assert scaled.aggregate(INTERVALS_KNW, "mean_probability") == pytest.approx(scores * 2 + [[10.0, 0.0, 10.0, 10.0]])


def test_intervals_of_several_numbers_and_classes_have_names() -> None:
    """Columns end in the label's name, and JSON has the same form as the predictions."""
    numbers = Number(("a", "b"), interval="predictive")
    assert [name for name, _ in numbers.columns][4:] == ["low_a", "low_b", "high_a", "high_b"]
    (answer,) = numbers.objects(np.array([[1.0, 2.0, 0.5, 0.5, 0.0, 1.0, 2.0, 3.0]]))
    assert (answer["low"], answer["high"]) == ({"a": 0.0, "b": 1.0}, {"a": 2.0, "b": 3.0})
    classes = Class(("a", "b"), interval="credible")
    outputs_KNW = np.array([[[0.25, 0.75, 0.0, 0.5, 0.5, 1.0]], [[0.5, 0.5, 0.25, 0.25, 0.75, 0.75]]])
    scores = classes.aggregate(outputs_KNW, "mean_probability")
    (answer,) = classes.objects(scores)
    assert answer == {"prediction": "b", "probabilities": [0.375, 0.625], "low": [0.0, 0.25], "high": [0.75, 1.0]}
    assert classes.aggregate(outputs_KNW, "majority_vote")[0, :2].tolist() == [0.5, 0.5]
    assert classes.measures(np.array([1], dtype=np.int32), scores).metrics["accuracy"] == 1.0


@pytest.mark.parametrize("target", [Number(("a", "b"), interval="predictive"), Class(("a", "b"), interval="credible")])
@given(data=st.data())
def test_intervals_of_sites_together_are_those_of_one_ensemble(target: Target, data: st.DataObject) -> None:
    """The hull of hulls is the hull; all parts of scores go with their own."""
    parts = 4 if isinstance(target, Number) else 3
    shape = (data.draw(st.integers(2, 5)), data.draw(st.integers(1, 4)), 2 * parts)
    outputs = data.draw(arrays(np.float64, shape, elements=st.floats(0, 1, width=32)))
    together = _combined(target, outputs, data.draw(st.integers(1, shape[0] - 1)))
    assert together == pytest.approx(target.aggregate(outputs, "mean_probability"), abs=1e-3)


def test_how_many_labels_are_in_their_intervals_is_measured() -> None:
    """The share of them, and the width; not of intervals that are of a rate."""
    scores = np.array([[1.0, 0.5, 0.0, 2.0], [1.0, 0.5, 0.0, 4.0]])
    labels = np.array([[2.0], [5.0]], dtype=np.float32)
    found = Number(("price",), interval="predictive").measure([(labels, scores)])
    assert (found.metrics["coverage"], found.metrics["interval_width"]) == (0.5, 3.0)
    assert "coverage" not in Number(("price",), interval="credible").measure([(labels, scores)]).metrics


@pytest.mark.parametrize(
    ("target", "scores", "fault"),
    [
        (Class(("a", "b")), [[0.5, 0.4]], "not probabilities"),
        (MultiLabel(("a", "b")), [[0.5, 1.5]], "not probabilities"),
        (MultiLabel(("a", "b")), [[0.5, 0.9]], None),
        (Number(("a",)), [[-3.0, 1.0]], None),
        (Number(("a",)), [[0.0, -1.0]], "a spread below 0"),
        (Number(("a",)), [[np.inf, 1.0]], "not finite"),
        (Number(("a",), interval="predictive"), [[0.0, 1.0, 2.0, 1.0]], "whose low end is above its high one"),
        (Class(("a", "b"), interval="credible"), [[0.5, 0.5, 0.4, 0.4, 0.6, 0.6]], None),
        (Class(("a", "b"), interval="credible"), [[0.5, 0.5, 0.4, 0.7, 0.6, 0.6]], "whose low end is above its high"),
    ],
)
def test_impossible_scores_are_noticed(target: Target, scores: list[list[float]], fault: str | None) -> None:
    """What another site answers is checked against what the target can be."""
    found = target.fault(np.array(scores))
    assert fault is None if found is None else fault is not None and fault in found


def test_metrics_of_numbers() -> None:
    """Errors are over all batches; R² compares with the mean of the labels, and absent where these are equal."""
    batches = [
        (np.array([[1.0], [2.0]], dtype=np.float32), np.array([[1.0, 0.0], [4.0, 0.0]])),
        (np.array([[6.0]], dtype=np.float32), np.array([[6.0, 0.1]])),
    ]
    found = Number(("price",)).measure(batches)
    assert found.points == 3
    errors = {"error_q50": 0.0, "error_q90": 1.6, "error_q99": 1.96}
    assert found.metrics == pytest.approx({"mae": 2 / 3, "rmse": (4 / 3) ** 0.5, "r2": 1 - 4 / 14, **errors})
    assert found.per_class is None
    assert "r2" not in Number(("price",)).measure(batches[1:]).metrics


def test_the_share_of_the_largest_class_stands_beside_the_accuracy() -> None:
    """A model that misses every rare case has just this accuracy."""
    truth = np.array([0, 0, 0, 1], dtype=np.int32)
    found = Class(("on time", "late")).measure([(truth, np.tile([0.9, 0.1], (4, 1)))])
    assert (found.metrics["accuracy"], found.metrics["majority_share"]) == (0.75, 0.75)
    assert found.metrics["balanced_accuracy"] == 0.5
    assert found.per_class == {"on time": 1.0, "late": 0.0}


def test_metrics_of_several_labels() -> None:
    """All labels right, micro-averaged F1, and the share of right values per label."""
    truth = np.array([[1.0, 0.0], [1.0, 1.0]], dtype=np.float32)
    found = MultiLabel(("red", "round")).measure([(truth, np.array([[0.9, 0.1], [0.8, 0.2]]))])
    expected = {"accuracy": 0.5, "micro_f1": 0.8, "macro_f1": 0.5, "majority_share": 0.5}
    assert found.metrics == pytest.approx(expected)
    assert found.per_class == {"red": 1.0, "round": 0.5}


@pytest.mark.parametrize("kind", TARGETS)
def test_nothing_to_measure_has_no_metrics(kind: str) -> None:
    """Without data points there are no metrics."""
    found = outputs_of(kind, 2).measure([])
    assert (found.points, dict(found.metrics)) == (0, {})


@pytest.mark.parametrize("kind", TARGETS)
def test_answers_survive_json(kind: str) -> None:
    """JSON objects hold plain values, one object a data point."""
    target = outputs_of(kind, 2)
    scores = target.aggregate(np.full((2 if target.has_labels else 1, 3, 2), 0.5), "mean_probability")
    objects = list(target.objects(scores))
    assert json.loads(json.dumps(objects)) == objects
    assert len(objects) == 3
    assert [len(column) for column in target.values(scores)] == [3] * len(target.columns)


@pytest.mark.parametrize("kind", _LABELLED)
def test_made_up_labels_are_of_the_target(kind: str) -> None:
    """They have the shape and type that training reads from slices, and are not all equal."""
    labels = outputs_of(kind, 2).made_up(np.arange(10, dtype=np.uint64))
    assert (labels.dtype, labels.shape) == ((np.int64, (10,)) if kind == "class" else (np.float32, (10, 2)))
    assert len(np.unique(labels)) > 1


def test_a_cluster_is_a_whole_number_with_a_distance() -> None:
    """In files and JSON; the mean squared distance is measured, and each cluster's beside its size."""
    target, scores = Cluster(), np.array([[3.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    assert [column.dtype for column in target.values(scores)] == [np.int32, np.float32]  # type: ignore[attr-defined]
    assert next(target.objects(scores)) == {"prediction": 3, "distance": 2.0}
    found = target.measure([(target.made_up(np.arange(3, dtype=np.uint64)), scores)])
    assert found.metrics == pytest.approx({"inertia": 20 / 3, "largest_cluster": 2 / 3})
    assert found.breakdown == {"0": {"inertia": 0.0, "points": 1}, "3": {"inertia": 10.0, "points": 2}}
    assert target.fault(-scores) is not None
    assert target.fault(scores) is None
    with pytest.raises(ValueError, match="too many values"):
        target.aggregate(np.stack([scores, scores]), "mean_probability")


def test_numbers_are_learned_in_declared_units() -> None:
    """Labels are shifted and scaled for training; means, spreads and measures are in the label's unit again."""
    target = Number(("low", "high"), shift=(100.0, 0.0), scale=(50.0, 2.0))
    learned = target.learned(np.array([[150.0, 1.0], [75.0, -4.0]], dtype=np.float32))
    assert learned.tolist() == [[1.0, 0.5], [-0.5, -2.0]]
    assert learned.dtype == np.float32
    outputs = np.array([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 1.0]]])
    scores = target.aggregate(outputs, "mean_probability")
    assert scores.tolist() == [[200.0, 0.0, 50.0, 0.0], [100.0, 2.0, 0.0, 0.0]]
    measured = target.measure([(learned, scores)]).metrics
    plain = Number(("low", "high")).measure([(np.array([[150.0, 1.0], [75.0, -4.0]], dtype=np.float32), scores)])
    assert measured == pytest.approx(plain.metrics)
    assert _combined(target, outputs, 1) == pytest.approx(scores)


def test_recommended_items_are_named_with_their_scores() -> None:
    """The best ones, of equal scores the first; those with a score of 0 are not recommended."""
    target = Recommend(("milk", "bread", "eggs", "tea"), top=3)
    scores = target.aggregate(np.array([[[0, 0.5, 0.75, 0.5], [0, 0, 0, 0.25]]]), "mean_probability")
    names = [f"{what}_{rank}" for rank in (1, 2, 3) for what in ("item", "score")]
    assert [name for name, _ in target.columns] == names
    values = [list(column) for column in target.values(scores)]
    assert values == [["eggs", "tea"], [0.75, 0.25], ["bread", None], [0.5, 0.0], ["tea", None], [0.5, 0.0]]
    assert list(target.objects(scores))[1] == {"items": [{"item": "tea", "score": 0.25}]}
    assert len(Recommend(("milk", "bread"), top=3).columns) == 4


def test_a_basket_is_measured_by_an_item_that_it_hides() -> None:
    """The basket alone decides which; those of fewer than two items are left out."""
    target = Recommend(("milk", "bread", "eggs"))
    baskets_NF = np.array([[1, 1, 0], [0, 2, 0.5], [0, 1, 1], [0, 0, 0], [1, 1, 1], [1, 1, 0]], dtype=np.float32)
    hidden_N, asked_NF = target.asked(np.zeros(6, dtype=np.int32), baskets_NF)
    kept_NF = baskets_NF[[0, 2, 4, 5]]
    assert hidden_N.dtype == np.int32
    assert (kept_NF != asked_NF).sum(axis=1).tolist() == [1] * 4
    assert (kept_NF[np.arange(4), hidden_N] == 1).all()
    assert hidden_N[0] == hidden_N[3]
    again_N, _ = target.asked(np.zeros(1, dtype=np.int32), baskets_NF[4:5])
    assert again_N == hidden_N[2:3]
    scores = target.aggregate(np.array([[[0, 1, 2], [0, 0, 3], [0, 0, 0.0]]]), "mean_probability")
    found = target.measure([(np.array([1, 2, 0], dtype=np.int32), scores)])
    assert found.metrics == pytest.approx({"hit_rate": 2 / 3, "mrr": (1 / 2 + 1) / 3})
