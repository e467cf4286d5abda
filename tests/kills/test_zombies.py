"""Writers that slept, by SIGSTOP, while others took over: awake again they commit nothing and delete nothing (D3)."""

from __future__ import annotations

import pytest

from tests.kills.command_cases import CaseRunner
from tests.kills.fail_points import Moment, Strike
from tests.kills.random_cases import try_sleepers
from tests.kills.table import FailPoint
from tests.kills.zombies import PAIRS, SLEEPERS, complaints, run_zombie, try_sleeper, wake_both
from tests.volume import one_of_each, seeds_of, spread

pytestmark = [pytest.mark.slow, pytest.mark.volume]

SEEDS = seeds_of(8, few=2)


def test_enough_zombies() -> None:
    """At least 20 places to fall asleep."""
    assert len(set(SLEEPERS)) >= 20


@pytest.mark.parametrize(
    ("point", "moment"),
    [
        pytest.param(point, moment, id=f"{point.case_name}: {point.name}: {moment}")
        for point, moment in one_of_each(SLEEPERS, kind=lambda place: place[0].kind)
    ],
)
def test_a_zombie_is_fenced(point: FailPoint, moment: Moment, runner: CaseRunner) -> None:
    """A writer that wakes up after another has finished its work, erased someone else and cut the journal off ends
    with exit code 4, and the federation is as it was: nothing committed, deleted or left behind.
    """
    try_sleeper(runner, point, moment)


@pytest.mark.parametrize(
    ("first", "second"),
    [pytest.param(*pair, id=" then ".join(point.name for point in pair)) for pair in spread(PAIRS, 2)],
)
def test_a_zombie_does_not_disturb_who_took_over(first: FailPoint, second: FailPoint, runner: CaseRunner) -> None:
    """A writer that wakes up while its successor is still at work ends fenced, and the successor completes."""
    strikes = first.strike("before", "stop"), second.strike("before", "stop")
    assert wake_both(runner, first.case_name, *strikes) == ("fenced", "done")


@pytest.mark.parametrize("nth", [45, 75, 95])
def test_a_proof_that_slept_is_none(nth: int, runner: CaseRunner) -> None:
    """``sisa verify`` that wakes up after somebody was erased says that it was overtaken, not that data are lost."""
    strike = Strike(moment="after", looks=True, nth=nth, blow="stop")
    zombie_outcome = run_zombie(runner, runner.copy("erase nobody"), "verify", strike)
    assert list(complaints(zombie_outcome, {})) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_two_sleepers_end_as_one_writer(seed: int, runner: CaseRunner) -> None:
    """Two writers that sleep and wake up at any steps and in any states leave the same result as a single writer."""
    assert "done" in try_sleepers(runner, seed)
