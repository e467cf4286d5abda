"""Naive Bayes predicts what scikit-learn's does, and forgets data points exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2_contingency
from sklearn.feature_selection import chi2
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB, MultinomialNB

from shards.learner_kinds.summation import NaiveBayesArguments
from shards.learners.summation.naive_bayes import NaiveBayes, best_features
from storage.errors import Invalid
from tests.shards.learners.direct import chosen, learned, moved, points_of

CODES = 4
FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "gaussian": ({}, GaussianNB(var_smoothing=1e-9)),
    "bernoulli": ({"smoothing": 0.5}, BernoulliNB(alpha=0.5, binarize=0.5)),
    "multinomial": ({}, MultinomialNB()),
    "categorical": ({"values": CODES}, CategoricalNB(min_categories=CODES)),
}


def _data(form: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    generator = np.random.default_rng(11)
    labels_N = generator.integers(3, size=300)
    features_NF = generator.normal(size=(300, 5)) + labels_N[:, None] * generator.normal(size=5)
    if form != "gaussian":
        features_NF = np.abs(np.round(features_NF)) % CODES
    return (np.round(features_NF * 64) / 64).astype(np.float32), labels_N


def _learner(form: str) -> NaiveBayes:
    return NaiveBayes(NaiveBayesArguments(form=form, **FORMS[form][0]), inputs=5, outputs=3, target="class", seed=0)


@pytest.mark.parametrize("form", FORMS)
def test_answers_are_those_of_scikit_learn(form: str) -> None:
    """The probabilities of new points are equal up to rounding."""
    features_NF, labels_N = _data(form)
    learner = _learner(form)
    state = learned(learner, points_of(features_NF[:200], labels_N[:200]))
    # After the cast to float64, scikit-learn compares a feature with 0.5 as we do.
    expected = FORMS[form][1].fit(features_NF[:200].astype(np.float64), labels_N[:200])
    found = learner.probabilities(state, features_NF[200:])
    assert found == pytest.approx(expected.predict_proba(features_NF[200:].astype(np.float64)), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_points_are_subtracted_exactly(form: str) -> None:
    """After some points were removed and others added, the constituent equals one that never saw the removed ones."""
    features_NF, labels_N = _data(form)
    every, learner = points_of(features_NF, labels_N), _learner(form)
    was, now = np.arange(300) % 3 > 0, np.arange(300) % 4 > 0
    state = moved(learner, learned(learner, chosen(every, was)), every, was, now)
    assert learner.digest(state) == learner.digest(learned(learner, chosen(every, now)))
    nobody = moved(learner, state, every, now, np.zeros(300, dtype=bool))
    assert learner.digest(nobody) == learner.digest(learner.initial(state))


def test_a_class_without_points_is_never_predicted() -> None:
    """Its probability is 0, and the probabilities of the other classes still add up to 1."""
    features_NF, labels_N = _data("gaussian")
    state = learned(_learner("gaussian"), chosen(points_of(features_NF, labels_N), labels_N < 2))
    found = _learner("gaussian").probabilities(state, features_NF)
    assert (found[:, 2] == 0).all()
    assert found.sum(axis=1) == pytest.approx(1)


def test_a_code_that_no_point_had_is_no_error() -> None:
    """A value that was not in training, in or outside the declared range, still gets finite probabilities."""
    features_NF, labels_N = _data("categorical")
    state = learned(_learner("categorical"), points_of(features_NF, labels_N))
    strange = np.array([[CODES, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [0.5, 0, 0, 0, 0]], dtype=np.float32)
    assert np.isfinite(_learner("categorical").probabilities(state, strange)).all()


@pytest.mark.parametrize(
    ("form", "value", "problem"), [("multinomial", -1, "below 0"), ("categorical", 7, r"0 \.\. 3")]
)
def test_features_that_the_form_does_not_take_are_refused(form: str, value: float, problem: str) -> None:
    """The error names the allowed values, and not the value itself."""
    features_NF, labels_N = _data(form)
    features_NF[17, 2] = value
    with pytest.raises(Invalid, match=problem):
        learned(_learner(form), points_of(features_NF, labels_N))


CHOICES = np.random.default_rng(31)
LABELS_N = CHOICES.integers(0, 3, size=300)
TABLES_NF = (
    np.stack(
        [
            (LABELS_N if place in {2, 5} else CHOICES.integers(0, 3, size=300)) + CHOICES.integers(0, 2, size=300)
            for place in range(7)
        ],
        axis=1,
    )
    % 3
)
"""Features 3 and 6 depend on the class."""


def _selecting(form: str, select: int) -> NaiveBayes:
    values = 3 if form == "categorical" else 0
    arguments = NaiveBayesArguments(form=form, values=values, select=select)
    assert arguments.problems() == []
    return NaiveBayes(arguments, inputs=7, outputs=3, target="class", seed=0)


def test_features_are_chosen_by_chi_square() -> None:
    """The order is that of SciPy's statistic for contingency tables, or of scikit-learn's for sums."""
    tables = [
        np.stack([np.bincount(TABLES_NF[each == LABELS_N, f], minlength=3) for each in range(3)]) for f in range(7)
    ]
    order = np.argsort([-chi2_contingency(table, correction=False).statistic for table in tables])
    points_C = np.bincount(LABELS_N)
    counts_CFV = np.stack(tables, axis=1)
    for count in range(1, 7):
        assert best_features(points_C, counts_CFV, count, "categorical").tolist() == sorted(order[:count])
    assert set(order[:2]) == {2, 5}
    present_CF = counts_CFV[:, :, 1:].sum(axis=2)
    pairs = [np.stack([present_CF[:, f], points_C - present_CF[:, f]], axis=1) for f in range(7)]
    order = np.argsort([-chi2_contingency(pair, correction=False).statistic for pair in pairs])
    assert best_features(points_C, present_CF, 3, "bernoulli").tolist() == sorted(order[:3])
    sums_CF = np.stack([TABLES_NF[each == LABELS_N].sum(axis=0) for each in range(3)])
    order = np.argsort(-chi2(TABLES_NF, LABELS_N)[0])
    assert best_features(points_C, sums_CF, 3, "multinomial").tolist() == sorted(order[:3])


def test_of_equal_features_the_first_are_chosen() -> None:
    """Ties are broken by position, and a class or a code without data points changes nothing."""
    counts_CFV = np.array([[[3, 1, 0]] * 4, [[1, 3, 0]] * 4, [[0, 0, 0]] * 4])
    assert best_features(np.array([4, 4, 0]), counts_CFV, 2, "categorical").tolist() == [0, 1]
    assert best_features(np.zeros(3, dtype=np.int64), counts_CFV * 0, 2, "categorical").tolist() == [0, 1]


@pytest.mark.parametrize("form", ["bernoulli", "multinomial", "categorical"])
def test_answers_look_at_the_chosen_features_alone(form: str) -> None:
    """Answers equal those of a learner with only the chosen features; the constituent keeps the counts of all."""
    learner, every = _selecting(form, 2), points_of(TABLES_NF, LABELS_N)
    state = learned(learner, every)
    found = learner.probabilities(state, every.features_NF)
    (name,) = state.values.keys() - {"points"}
    chosen = best_features(state.values["points"], state.values[name], 2, form)
    plain = NaiveBayes(learner._arguments, inputs=2, outputs=3, target="class", seed=0)
    of_two = points_of(TABLES_NF[:, chosen], LABELS_N)
    assert found == pytest.approx(plain.probabilities(learned(plain, of_two), of_two.features_NF))
    assert learner.digest(state) == learner.digest(learned(_selecting(form, 0), every))
    every_one, none = (
        each.probabilities(learned(each, every), every.features_NF)
        for each in (_selecting(form, 7), _selecting(form, 0))
    )
    assert (every_one == none).all()


def test_another_choice_follows_an_erasure() -> None:
    """When the points that made a feature depend on the class are erased, another is chosen, as in a fresh run."""
    labels_N = np.repeat([0, 1], 20)
    features_NF = np.zeros((40, 2))
    features_NF[:18, 0] = 1
    features_NF[20:34, 1] = 1
    arguments = NaiveBayesArguments(form="bernoulli", select=1)
    learner = NaiveBayes(arguments, inputs=2, outputs=2, target="class", seed=0)
    every, stays = points_of(features_NF, labels_N), np.arange(40) >= 18
    before = learned(learner, every)
    after = moved(learner, before, every, np.ones(40, dtype=bool), stays)
    choices = [
        best_features(state.values["points"], state.values["present"], 1, "bernoulli").tolist()
        for state in (before, after)
    ]
    assert choices == [[0], [1]]
    asked_NF = np.eye(2, dtype=np.float32)
    fresh = learner.probabilities(learned(learner, chosen(every, stays)), asked_NF)
    assert (learner.probabilities(after, asked_NF) == fresh).all()
