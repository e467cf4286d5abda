"""The conjugate families: posteriors by group, intervals, and cells that vanish with the last of their points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from shards.learner_kinds.bayesian import DirichletArguments, RateArguments
from shards.learner_kinds.kinds import LEARNERS as KINDS
from shards.learners.summation.cells import sums_by_cell, with_few
from shards.learners.summation.conjugate import BetaBernoulli, DirichletCategorical, GammaPoisson
from storage.errors import Corrupt, Invalid
from tests.doubles.lineages import lineage_of
from tests.shards.learners.direct import SHARD, chosen, learned, moved, points_of

GENERATOR = np.random.default_rng(8)
GROUPS_NF = GENERATOR.integers(0, 3, size=(90, 2)).astype(np.float32)
HERE_N = (GROUPS_NF == [2, 0]).all(axis=1)
"""Mask of the data points in the group under test."""
ASKED_NF = np.array([[2, 0], [7, 7], [0.5, 0]], dtype=np.float32)
"""A group with data points, one without, and what is not a group."""


def test_the_posterior_of_a_rate_of_zeros_and_ones() -> None:
    """Mean, standard deviation and ends of a beta distribution; the prior's where there is no data point."""
    labels_NW = GENERATOR.integers(0, 2, size=(90, 2)).astype(np.float32)
    learner = BetaBernoulli(RateArguments(alpha=0.5, beta=2.0, interval=0.8), 2, 2, "number", 0)
    answers = learner.probabilities(learned(learner, points_of(GROUPS_NF, labels_NW)), ASKED_NF)
    ones_W = labels_NW[HERE_N].sum(axis=0)
    for place in range(2):
        posterior = stats.beta(0.5 + ones_W[place], 2.0 + HERE_N.sum() - ones_W[place])
        for row, known in ((0, posterior), (1, stats.beta(0.5, 2.0))):
            expected = [known.mean(), known.std(), *known.interval(0.8)]
            assert answers[row, place::2] == pytest.approx(expected)
    assert (answers[2] == answers[1]).all()


def test_the_posterior_of_a_rate_of_counts() -> None:
    """A gamma distribution."""
    labels_N1 = GENERATOR.poisson(4.0, size=(90, 1)).astype(np.float32)
    learner = GammaPoisson(RateArguments(alpha=2.0, beta=0.5, interval=0.9), 2, 1, "number", 0)
    answers = learner.probabilities(learned(learner, points_of(GROUPS_NF, labels_N1)), ASKED_NF)
    total, points = labels_N1[HERE_N].sum(), HERE_N.sum()
    for row, known in ((0, stats.gamma(2.0 + total, scale=1 / (0.5 + points))), (1, stats.gamma(2.0, scale=2.0))):
        assert answers[row] == pytest.approx([known.mean(), known.std(), *known.interval(0.9)])


def test_the_posterior_of_classes() -> None:
    """A Dirichlet distribution, of which each class's own is a beta distribution."""
    labels_N = GENERATOR.integers(0, 3, size=90)
    learner = DirichletCategorical(DirichletArguments(alpha=0.5, interval=0.9), 2, 3, "class", 0)
    answers = learner.probabilities(learned(learner, points_of(GROUPS_NF, labels_N)), ASKED_NF)
    counts_C = np.bincount(labels_N[HERE_N], minlength=3) + 0.5
    assert answers[0, :3] == pytest.approx(stats.dirichlet(counts_C).mean())
    for place in range(3):
        low, high = stats.beta(counts_C[place], counts_C.sum() - counts_C[place]).interval(0.9)
        assert answers[0, [3 + place, 6 + place]] == pytest.approx([low, high])
    assert answers[1, :3] == pytest.approx(1 / 3)


def test_without_groups_features_do_not_matter() -> None:
    """They may be any numbers."""
    labels_N1 = np.ones((90, 1), dtype=np.float32)
    learner = BetaBernoulli(RateArguments(group=False), 2, 1, "number", 0)
    state = learned(learner, points_of(GROUPS_NF + 0.25, labels_N1))
    assert learner.probabilities(state, ASKED_NF)[:, 0] == pytest.approx(91 / 92)


LEARNERS: list[tuple[Any, Any, Any]] = [
    (BetaBernoulli, RateArguments(), (GROUPS_NF.sum(axis=1) % 2)[:, None]),
    (BetaBernoulli, RateArguments(group=False), (GROUPS_NF.sum(axis=1) % 2)[:, None]),
    (GammaPoisson, RateArguments(), GROUPS_NF[:, :1] * 2),
    (DirichletCategorical, DirichletArguments(), GROUPS_NF[:, 0].astype(np.int64)),
]


@pytest.mark.parametrize(("make", "arguments", "labels"), LEARNERS)
def test_a_cell_goes_with_its_last_data_point(make: Any, arguments: Any, labels: Any) -> None:
    """After any change the counts are those of a run on the points that are left, and no cell is zero."""
    learner = make(arguments, 2, 3 if labels.ndim == 1 else 1, "class" if labels.ndim == 1 else "number", 0)
    every = points_of(GROUPS_NF, labels)
    was, now = np.arange(90) % 3 > 0, (np.arange(90) % 5 > 1) & ~HERE_N
    state = moved(learner, learned(learner, chosen(every, was)), every, was, now)
    assert learner.digest(state) == learner.digest(learned(learner, chosen(every, now)))
    assert arguments.group is False or [2, 0] not in state.values["cells"].tolist()
    nobody = moved(learner, state, every, now, np.zeros(90, dtype=bool))
    assert len(nobody.values["cells"]) == 0
    assert learner.digest(nobody) == learner.digest(learner.initial(SHARD))


@pytest.mark.parametrize(("make", "arguments", "labels"), LEARNERS)
def test_a_checkpoint_is_read_as_it_was_written(make: Any, arguments: Any, labels: Any) -> None:
    """With any number of cells, none included; those of another learner are refused."""
    learner = make(arguments, 2, 3 if labels.ndim == 1 else 1, "class" if labels.ndim == 1 else "number", 0)
    lineage, payload = lineage_of(), b""
    for state in (learner.initial(SHARD), learned(learner, points_of(GROUPS_NF, labels))):
        payload = learner.to_bytes(state, lineage)
        read = learner.from_bytes(payload, SHARD)
        assert learner.digest(read) == learner.digest(state)
        assert learner.to_bytes(read, lineage) == payload
    other = BetaBernoulli(RateArguments(), 5, 7, "number", 0)
    with pytest.raises(Corrupt, match="a checkpoint's arrays are not this learner's"):
        other.from_bytes(payload, SHARD)


@pytest.mark.parametrize(
    ("make", "label", "feature", "problem"),
    [
        (BetaBernoulli, 2.0, 1.0, "takes labels 0 and 1, and that of a data point is another number"),
        (BetaBernoulli, 0.5, 1.0, "label 1 of a data point is not a whole number"),
        (GammaPoisson, -1.0, 1.0, "takes counts, and a label of a data point is below 0"),
        (GammaPoisson, 2.0**25, 1.0, "label 1 of a data point is not a whole number within"),
        (GammaPoisson, 1.0, 0.5, "feature 2 of a data point is not a whole number within"),
        (GammaPoisson, 1.0, np.nan, "feature 2 of a data point is not a whole number within"),
    ],
)
def test_other_values_are_refused(make: Any, label: float, feature: float, problem: str) -> None:
    """The error names the column's position and no value."""
    points = points_of(np.array([[0.0, feature]]), np.array([[label]], dtype=np.float32))
    with pytest.raises(Invalid, match=problem):
        learned(make(RateArguments(), 2, 1, "number", 0), points)


@settings(max_examples=60)
@given(data=st.data(), columns=st.integers(1, 3))
def test_few_cells_are_added_as_any_are(data: st.DataObject, columns: int) -> None:
    """Looked up, put in between, or taken out where they become zero: the result is that of sorting all of them."""
    elements = st.integers(-2, 2)

    def drawn(least: int) -> dict[str, Any]:
        count = data.draw(st.integers(least, 12))
        cells_NJ = data.draw(arrays(np.int64, (count, columns), elements=elements))
        return sums_by_cell(cells_NJ, data.draw(arrays(np.int64, (count, 2), elements=elements)))

    many, few = drawn(1), drawn(0)
    assume(len(many["cells"]))
    expected = sums_by_cell(*(np.concatenate([many[name], few[name]]) for name in ("cells", "counts")))
    found = with_few(many, few["cells"], few["counts"])
    assert all(np.array_equal(found[name], expected[name]) for name in ("cells", "counts"))
    assert all(np.array_equal(found[name].shape, expected[name].shape) for name in ("cells", "counts"))


@pytest.mark.parametrize(("learner", "make"), [("beta_bernoulli", BetaBernoulli), ("gamma_poisson", GammaPoisson)])
def test_a_source_is_refused_for_what_the_learner_would_refuse(learner: str, make: Any) -> None:
    """The declared ranges are those of the learner: without groups, every feature is taken."""
    values = [-(2.0**25), -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 2.0**24, 2.0**25]
    for group in (True, False):
        arguments = RateArguments(group=group)
        admitted = KINDS[learner].admits(arguments)
        assert (admitted.features is None) is not group
        assert admitted.labels is not None
        for value in values:
            for label, feature in ((value, 0.0), (1.0, value)):
                outside = bool(admitted.labels.outside(np.array([label]))[0]) or (
                    admitted.features is not None and bool(admitted.features.outside(np.array([feature]))[0])
                )
                points = points_of(np.array([[0.0, feature]]), np.array([[label]], dtype=np.float32))
                refused = False
                try:
                    learned(make(arguments, 2, 1, "number", 0), points)
                except Invalid:
                    refused = True
                assert refused == outside, (group, label, feature)
    codes = KINDS["dirichlet_categorical"].admits(DirichletArguments()).features
    assert str(codes) == "the whole numbers -16,777,216 .. 16,777,216"
