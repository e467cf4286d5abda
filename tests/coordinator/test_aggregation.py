"""Aggregation: every constituent counts the same, in any order (SISA section IV, E6)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.aggregation import Rule, aggregate
from coordinator.settings import AggregationSettings
from shards.targets import Class
from storage.errors import Invalid, Unavailable

RULES: list[Rule] = ["mean_probability", "majority_vote"]
CLASSES = Class(("a", "b", "c", "d"))


def predicted(scores_NS: npt.NDArray[np.float64]) -> list[int]:
    """Return the positions of the predicted classes."""
    return [CLASSES.names.index(name) for name in CLASSES.texts(scores_NS)]


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
    answer = aggregate(np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]]), "mean_probability", CLASSES)
    assert predicted(answer) == [0]
    assert answer == pytest.approx(np.array([[1.7 / 3, 1.3 / 3]]))


def test_the_majority_of_votes() -> None:
    """Two constituents outvote a sure one under majority_vote; scores are shares of votes."""
    answer = aggregate(np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]]), "majority_vote", Class(("a", "b")))
    assert predicted(answer) == [1]
    assert answer == pytest.approx(np.array([[1 / 3, 2 / 3]]))


def test_ties_go_to_the_class_declared_first() -> None:
    """Between equal votes, and within an undecided constituent, the class declared first wins."""
    split = np.array([[[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    undecided = np.array([[[0.2, 0.4, 0.4]]])
    for rule in RULES:
        assert predicted(aggregate(split, rule, CLASSES)) == [1]
        assert predicted(aggregate(undecided, rule, CLASSES)) == [1]


@pytest.mark.parametrize("rule", RULES)
@given(given_KNC=probabilities(), data=st.data())
def test_the_order_of_constituents_decides_nothing(
    rule: Rule, given_KNC: npt.NDArray[np.float64], data: st.DataObject
) -> None:
    """Votes are the same to the last bit in any order of the constituents, means up to the rounding of a sum."""
    shuffled = data.draw(st.permutations(range(len(given_KNC))))
    one, other = aggregate(given_KNC, rule, CLASSES), aggregate(given_KNC[shuffled], rule, CLASSES)
    if rule == "majority_vote":
        assert predicted(one) == predicted(other)
        assert one.tolist() == other.tolist()
    assert one == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
@given(given_KNC=probabilities())
def test_scores_are_shares(rule: Rule, given_KNC: npt.NDArray[np.float64]) -> None:
    """Every line of scores sums to 1, and the answer is a class with the highest score."""
    answer = aggregate(given_KNC, rule, CLASSES)
    assert answer.sum(axis=1) == pytest.approx(np.ones(given_KNC.shape[1]))
    assert answer[np.arange(given_KNC.shape[1]), predicted(answer)].tolist() == answer.max(1).tolist()


@pytest.mark.parametrize("rule", RULES)
@given(given_KNC=probabilities())
def test_points_are_answered_one_by_one(rule: Rule, given_KNC: npt.NDArray[np.float64]) -> None:
    """A point's answer does not depend on the points asked about with it."""
    together = aggregate(given_KNC, rule, CLASSES)
    alone = [predicted(aggregate(given_KNC[:, n : n + 1], rule, CLASSES))[0] for n in range(given_KNC.shape[1])]
    assert alone == predicted(together)


@pytest.mark.parametrize("rule", RULES)
def test_constituents_that_abstain_do_not_count(rule: Rule) -> None:
    """What is left answers; when nothing is left, that is said."""
    rest = np.array([[[0.2, 0.8]]])
    assert aggregate(rest, rule, Class(("a", "b"))).shape == (1, 2)
    with pytest.raises(Unavailable, match="every constituent abstains"):
        aggregate(rest[:0], rule, CLASSES)


def test_an_unknown_rule_is_refused() -> None:
    """Settings name the rules there are."""
    with pytest.raises(Invalid, match=r"rule must be one of mean_probability, majority_vote, got 'best'"):
        AggregationSettings(rule="best")  # type: ignore[arg-type]
