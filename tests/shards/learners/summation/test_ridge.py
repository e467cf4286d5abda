"""Ridge has scikit-learn's coefficients, and forgets."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from shards.learner_kinds.summation import RidgeArguments
from shards.learners.summation.ridge import Ridge
from tests.shards.learners.direct import chosen, learned, moved, points_of

GENERATOR = np.random.default_rng(5)
FEATURES_NF = (np.round(GENERATOR.normal(size=(200, 4)) * 256) / 256).astype(np.float32)
NUMBERS_NW = (FEATURES_NF[:, :2] * 3 + FEATURES_NF[:, 2:] + np.round(GENERATOR.normal(size=(200, 2)), 2)).astype("f4")


def test_answers_are_those_of_scikit_learn() -> None:
    """Numbers are equal but for the grid of the labels."""
    learner = Ridge(RidgeArguments(penalty=2.5), inputs=4, outputs=2, target="number", seed=0)
    state = learned(learner, points_of(FEATURES_NF[:150], NUMBERS_NW[:150]))
    expected = Reference(alpha=2.5).fit(FEATURES_NF[:150].astype(float), NUMBERS_NW[:150].astype(float))
    found = learner.probabilities(state, FEATURES_NF[150:])
    assert found == pytest.approx(expected.predict(FEATURES_NF[150:].astype(float)), abs=1e-4)


def test_classes_are_shares() -> None:
    """The shares of each point add up to 1, and most points get their class."""
    labels_N = (NUMBERS_NW[:, 0] > 0).astype(np.int64) + (NUMBERS_NW[:, 0] > 4)
    learner = Ridge(RidgeArguments(), inputs=4, outputs=3, target="class", seed=0)
    found = learner.probabilities(learned(learner, points_of(FEATURES_NF, labels_N)), FEATURES_NF)
    assert found.sum(axis=1) == pytest.approx(1)
    assert (found >= 0).all()
    assert (found.argmax(axis=1) == labels_N).mean() > 0.7


@pytest.mark.parametrize("target", ["number", "class"])
def test_points_are_subtracted_exactly(target: str) -> None:
    """The sums after any change are those of a run on the points that are left; without any they are zeros."""
    labels = NUMBERS_NW if target == "number" else (NUMBERS_NW[:, 0] > 0).astype(np.int64)
    learner = Ridge(RidgeArguments(), inputs=4, outputs=2, target=target, seed=0)
    every = points_of(FEATURES_NF, labels)
    was, now = np.arange(200) % 3 > 0, np.arange(200) % 5 > 1
    state = moved(learner, learned(learner, chosen(every, was)), every, was, now)
    assert learner.digest(state) == learner.digest(learned(learner, chosen(every, now)))
    nobody = moved(learner, state, every, now, np.zeros(200, dtype=bool))
    assert not any(values.any() for values in nobody.values.values())
    assert np.isfinite(learner.probabilities(nobody, FEATURES_NF)).all()
