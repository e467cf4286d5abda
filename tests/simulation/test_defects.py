"""The simulation finds defects: with each injected defect, one of the first schedules breaks a law."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import pytest

from tests.doubles.remembered import remembering
from tests.simulation import simulate as simulation
from tests.simulation.defects import DEFECTS, Defect
from tests.simulation.simulate import LawBroken, simulate

_ENOUGH = 1_000
"""Number of schedules in which a defect must show: the first thousandth of those of a soak."""


@pytest.fixture(autouse=True)
def _nothing_is_left_of_a_defect() -> Iterator[None]:
    """What a product with a defect has trained is not where later tests in this process begin."""
    yield
    simulation._trained.cache_clear()
    simulation._fresh.cache_clear()


def _first_failure(seeds: Iterable[int]) -> tuple[int, str] | None:
    for seed in seeds:
        try:
            simulate(seed)
        except LawBroken as failure:
            return seed, str(failure).partition("\n")[0]
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("defect", "seed"), DEFECTS, ids=[defect.__name__ for defect, _ in DEFECTS])
def test_a_defect_shows(defect: Defect, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect breaks a law in one of the first schedules."""
    defect(monkeypatch)
    with remembering():
        found = _first_failure([seed, *range(_ENOUGH)])
    assert found is not None, f"{defect.__name__} is not found"
    sys.stdout.write(f"{defect.__name__}: seed {found[0]}: {found[1]}\n")


def test_without_them_the_same_seeds_hold() -> None:
    """Without the defects, the same seeds break no law."""
    with remembering():
        assert _first_failure({seed for _, seed in DEFECTS}) is None
