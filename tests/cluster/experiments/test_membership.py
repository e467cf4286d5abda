"""Membership inference against closed cases: every order of few data points, and scores that say everything."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from cluster.experiments.membership import attack_auc, chance_deviation, chance_interval, log_odds


def test_scores_that_say_everything_and_nothing() -> None:
    """1 where all members score higher, 0 where lower, and a half where all scores are equal."""
    high, low = np.array([5.0, 6.0, 7.0]), np.array([1.0, 2.0])
    assert attack_auc(high, low) == 1.0
    assert attack_auc(low, high) == 0.0
    assert attack_auc(np.zeros(3), np.zeros(5)) == 0.5


@pytest.mark.parametrize(("members", "others"), [(1, 1), (2, 3), (4, 3), (3, 6)])
def test_the_deviation_is_that_of_all_orders(members: int, others: int) -> None:
    """If scores say nothing, every choice of the members among the ranks is equally likely."""
    total = members + others
    areas = [
        attack_auc(np.array(chosen), np.setdiff1d(np.arange(total), chosen))
        for chosen in combinations(range(total), members)
    ]
    assert np.mean(areas) == pytest.approx(0.5)
    assert np.std(areas) == pytest.approx(chance_deviation(members, others))


def test_the_interval_is_that_of_the_textbook() -> None:
    """1.96 deviations for one area; wider where several are to be inside at once."""
    low, high = chance_interval(80, 600)
    assert high - 0.5 == 0.5 - low == pytest.approx(1.96 * chance_deviation(80, 600), rel=1e-4)
    wide = chance_interval(80, 600, tests=100)
    assert wide[1] - 0.5 == pytest.approx(3.4808 * chance_deviation(80, 600), rel=1e-4)


def test_log_odds_are_of_the_own_label() -> None:
    """Certain answers stay finite, on both sides alike."""
    scores = log_odds(np.array([[0.0, 1.0], [0.0, 1.0], [0.2, 0.8]], dtype=np.float32), np.array([1, 0, 1]))
    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(-scores[1], rel=1e-4)
    assert scores[2] == pytest.approx(np.log(4), rel=1e-6)
