"""The learning rate follows how much of the declared training is done."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.recipe.learning_rate import Schedule, progress_at, schedule_problems

_SHARES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("table", "shares"),
    [
        ({}, [1.0, 1.0, 1.0, 1.0]),
        ({"warmup": 0.5}, [0.25, 0.75, 1.0, 1.0]),
        ({"kind": "linear"}, [0.875, 0.625, 0.375, 0.125]),
        ({"kind": "linear", "end": 0.5, "final": 0.2}, [0.8, 0.4, 0.2, 0.2]),
        ({"kind": "step", "at": [0.375, 0.8], "factor": 0.5}, [1.0, 0.5, 0.5, 0.25]),
        ({"kind": "step", "at": [0.5], "warmup": 0.25}, [0.5, 1.0, 0.1, 0.1]),
    ],
)
def test_shares_in_the_middle_of_four_batches(table: dict[str, Any], shares: list[float]) -> None:
    """Each kind of schedule gives the shares that its settings say, on the first epoch of one."""
    assert schedule_problems(table) == []
    found = [Schedule.of(table).share(progress_at(0, batch, 4, 1)) for batch in range(4)]
    assert found == pytest.approx(shares)


@given(progress=_SHARES, warmup=st.floats(0, 0.9), final=_SHARES)
def test_the_cosine_is_one(progress: float, warmup: float, final: float) -> None:
    """It is the cosine of Python's library, without the differences between libraries."""
    found = Schedule(kind="cosine", warmup=warmup, final=final).share(progress)
    wave = (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2
    assert found == pytest.approx(progress / warmup if progress < warmup else final + (1 - final) * wave, abs=1e-12)


@given(table=st.sampled_from([{"kind": "linear"}, {"kind": "cosine", "warmup": 0.1}]), batches=st.integers(1, 9))
def test_no_step_has_a_rate_of_zero(table: dict[str, Any], batches: int) -> None:
    """The first step of a warm-up and the last one of a decay still learn."""
    schedule = Schedule.of(table)
    places = [progress_at(epoch, batch, batches, 3) for epoch in range(3) for batch in range(batches)]
    assert places == sorted(set(places))
    assert all(0 < schedule.share(place) <= 1 for place in places)
