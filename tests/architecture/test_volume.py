"""What ``make test`` leaves out of many like cases, it runs at another turn, and ``make soak`` runs all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import volume

TESTS = Path(__file__).parents[1]
CASES = [f"{kind}{number}" for kind, size in (("a", 1), ("b", 2), ("c", 5)) for number in range(size)]


def _turn(monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    monkeypatch.setattr(volume, "_ALL", False)
    monkeypatch.setattr(volume, "_TURN", turn)


def _kind(case: str) -> str:
    return case[0]


def test_each_case_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within as many turns as a spread is apart each case is run, and so is each of a kind, and each seed."""
    spreads, kinds, seeds = list[str](), set[str](), list[int]()
    for turn in range(20_000, 20_010):
        _turn(monkeypatch, turn)
        chosen = volume.one_of_each(CASES, _kind)
        assert [_kind(each) for each in chosen] == ["a", "b", "c"]
        kinds.update(chosen)
        seeds += volume.seeds_of(100, few=10)
        if turn < 20_003:
            spreads += volume.spread(CASES, 3)
    assert sorted(spreads) == CASES
    assert kinds == set(CASES)
    assert sorted(seeds) == list(range(100))


def test_shifts_share_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that each take their own shift run every case once between them, at any turn; none goes without."""
    for turn in range(20_000, 20_005):
        _turn(monkeypatch, turn)
        assert sorted(each for shift in range(3) for each in volume.spread(CASES, 3, shift)) == CASES
        assert [len(volume.spread("ab", 7, shift)) for shift in range(7)] == [1] * 7
        assert volume.spread([], 3) == []


def test_a_soak_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all of the volume there is no choice."""
    monkeypatch.setattr(volume, "_ALL", True)
    assert volume.spread(CASES, 3, 1) == volume.one_of_each(CASES, _kind) == CASES
    assert volume.seeds_of(100, few=10) == range(100)
    assert volume.examples(100, few=10) == 100


def test_a_soak_runs_who_takes_a_spread() -> None:
    """Every file of tests that takes a spread has tests that a soak runs."""
    asking = [path for path in TESTS.rglob("test_*.py") if "from tests.volume import" in path.read_text("utf-8")]
    assert len(asking) >= 6
    assert [path.name for path in asking if "pytest.mark.volume" not in path.read_text("utf-8")] == []
