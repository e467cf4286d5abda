"""Aggregation: every constituent counts the same, in any order (SISA section IV, E6)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.aggregation import Rule, aggregate
from coordinator.settings import AggregationSettings
from storage.errors import Invalid, Unavailable

RULES: list[Rule] = ["mean_probability", "majority_vote"]


@st.composite
def probabilities(draw: st.DrawFn) -> npt.NDArray[np.float64]:
    """Return class probabilities of up to 6 constituents for up to 5 points, ties among them."""
    shape = tuple(draw(st.integers(1, most)) for most in (6, 5, 4))
    weights = np.array(draw(st.lists(st.integers(1, 4), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))))
    weights_KNC = weights.reshape(shape).astype(np.float64)
    result: npt.NDArray[np.float64] = weights_KNC / weights_KNC.sum(axis=2, keepdims=True)
    return result


def test_the_mean_of_probabilities() -> None:
    """A sure constituent outweighs two undecided ones under mean_probability."""
    answer = aggregate(np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]]), "mean_probability")
    assert answer.classes_N.tolist() == [0]
    assert answer.scores_NC == pytest.approx(np.array([[1.7 / 3, 1.3 / 3]]))


def test_the_majority_of_votes() -> None:
    """Two constituents outvote a sure one under majority_vote; scores are shares of votes."""
    answer = aggregate(np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]]), "majority_vote")
    assert answer.classes_N.tolist() == [1]
    assert answer.scores_NC == pytest.approx(np.array([[1 / 3, 2 / 3]]))


def test_ties_go_to_the_class_declared_first() -> None:
    """Between equal votes, and within an undecided constituent, the class declared first wins."""
    split = np.array([[[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    undecided = np.array([[[0.2, 0.4, 0.4]]])
    for rule in RULES:
        assert aggregate(split, rule).classes_N.tolist() == [1]
        assert aggregate(undecided, rule).classes_N.tolist() == [1]


@pytest.mark.parametrize("rule", RULES)
@given(given_KNC=probabilities(), data=st.data())
def test_the_order_of_constituents_decides_nothing(
    rule: Rule, given_KNC: npt.NDArray[np.float64], data: st.DataObject
) -> None:
    """Votes are the same to the last bit in any order of the constituents, means up to the rounding of a sum."""
    shuffled = data.draw(st.permutations(range(len(given_KNC))))
    one, other = aggregate(given_KNC, rule), aggregate(given_KNC[shuffled], rule)
    if rule == "majority_vote":
        assert one.classes_N.tolist() == other.classes_N.tolist()
        assert one.scores_NC.tolist() == other.scores_NC.tolist()
    assert one.scores_NC == pytest.approx(other.scores_NC, abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
@given(given_KNC=probabilities())
def test_scores_are_shares(rule: Rule, given_KNC: npt.NDArray[np.float64]) -> None:
    """Every line of scores sums to 1, and the answer is a class with the highest score."""
    answer = aggregate(given_KNC, rule)
    assert answer.scores_NC.sum(axis=1) == pytest.approx(np.ones(given_KNC.shape[1]))
    assert (
        answer.scores_NC[np.arange(given_KNC.shape[1]), answer.classes_N].tolist() == answer.scores_NC.max(1).tolist()
    )


@pytest.mark.parametrize("rule", RULES)
@given(given_KNC=probabilities())
def test_points_are_answered_one_by_one(rule: Rule, given_KNC: npt.NDArray[np.float64]) -> None:
    """A point's answer does not depend on the points asked about with it."""
    together = aggregate(given_KNC, rule)
    alone = [aggregate(given_KNC[:, n : n + 1], rule).classes_N[0] for n in range(given_KNC.shape[1])]
    assert alone == together.classes_N.tolist()


@pytest.mark.parametrize("rule", RULES)
def test_constituents_that_abstain_do_not_count(rule: Rule) -> None:
    """What is left answers; when nothing is left, that is said."""
    rest = np.array([[[0.2, 0.8]]])
    assert aggregate(rest, rule).scores_NC.shape == (1, 2)
    with pytest.raises(Unavailable, match="every constituent abstains"):
        aggregate(rest[:0], rule)


def test_an_unknown_rule_is_refused() -> None:
    """Settings name the rules there are."""
    with pytest.raises(Invalid, match=r"rule must be one of mean_probability, majority_vote, got 'best'"):
        AggregationSettings(rule="best")  # type: ignore[arg-type]
