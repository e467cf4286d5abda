"""Naive Bayes answers as scikit-learn's does, and forgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB, MultinomialNB

from shards.learner_kinds.summation import NaiveBayesArguments
from shards.learners.summation.naive_bayes import NaiveBayes
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
    """Probabilities of new points are equal but for rounding."""
    features_NF, labels_N = _data(form)
    learner = _learner(form)
    state = learned(learner, points_of(features_NF[:200], labels_N[:200]))
    # It compares a present feature with 0.5 as we do, after the cast to float64.
    expected = FORMS[form][1].fit(features_NF[:200].astype(np.float64), labels_N[:200])
    found = learner.probabilities(state, features_NF[200:])
    assert found == pytest.approx(expected.predict_proba(features_NF[200:].astype(np.float64)), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_points_are_subtracted_exactly(form: str) -> None:
    """After points left and others came, the constituent is the one that never saw the former."""
    features_NF, labels_N = _data(form)
    every, learner = points_of(features_NF, labels_N), _learner(form)
    was, now = np.arange(300) % 3 > 0, np.arange(300) % 4 > 0
    state = moved(learner, learned(learner, chosen(every, was)), every, was, now)
    assert learner.digest(state) == learner.digest(learned(learner, chosen(every, now)))
    nobody = moved(learner, state, every, now, np.zeros(300, dtype=bool))
    assert learner.digest(nobody) == learner.digest(learner.initial(state))


def test_a_class_without_points_is_never_predicted() -> None:
    """Its probability is 0, and that of the others is not disturbed."""
    features_NF, labels_N = _data("gaussian")
    state = learned(_learner("gaussian"), chosen(points_of(features_NF, labels_N), labels_N < 2))
    found = _learner("gaussian").probabilities(state, features_NF)
    assert (found[:, 2] == 0).all()
    assert found.sum(axis=1) == pytest.approx(1)


def test_a_code_that_no_point_had_is_no_error() -> None:
    """Neither a declared one nor one beyond: it says little about the class."""
    features_NF, labels_N = _data("categorical")
    state = learned(_learner("categorical"), points_of(features_NF, labels_N))
    strange = np.array([[CODES, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [0.5, 0, 0, 0, 0]], dtype=np.float32)
    assert np.isfinite(_learner("categorical").probabilities(state, strange)).all()


@pytest.mark.parametrize(
    ("form", "value", "problem"), [("multinomial", -1, "below 0"), ("categorical", 7, r"0 \.\. 3")]
)
def test_features_that_the_form_does_not_take_are_refused(form: str, value: float, problem: str) -> None:
    """With the remedy, and without the value."""
    features_NF, labels_N = _data(form)
    features_NF[17, 2] = value
    with pytest.raises(Invalid, match=problem):
        learned(_learner(form), points_of(features_NF, labels_N))
