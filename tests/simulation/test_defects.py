"""The simulation sees defects: with each of some put into the product, one of the first schedules breaks a law."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pytest

from tests.doubles.remembered import remembering
from tests.simulation.defects import DEFECTS, Defect
from tests.simulation.simulate import Failure, simulate

_ENOUGH = 1_000
"""Schedules in which a defect has to show: a tenth of those that every run of all tests carries out."""


def _first_failure(seeds: Iterable[int]) -> tuple[int, str] | None:
    for seed in seeds:
        try:
            simulate(seed)
        except Failure as failure:
            return seed, str(failure).partition("\n")[0]
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("defect", "seed"), DEFECTS, ids=[defect.__name__ for defect, _ in DEFECTS])
def test_a_defect_shows(defect: Defect, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect breaks a law in one of the first schedules."""
    defect(monkeypatch)
    with remembering():
        found = _first_failure([seed, *range(_ENOUGH)])
    assert found is not None, f"{defect.__name__} is not seen"
    sys.stdout.write(f"{defect.__name__}: seed {found[0]}: {found[1]}\n")


def test_without_them_the_same_seeds_hold() -> None:
    """The seeds that show the defects show nothing in the product as it is."""
    with remembering():
        assert _first_failure({seed for _, seed in DEFECTS}) is None
