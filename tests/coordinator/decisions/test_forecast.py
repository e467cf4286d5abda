"""The forecast: SISA's figures in seconds and bytes, and the warnings an operator needs before training."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.decisions.forecast import Forecast, forecast, with_direct
from shards.specification import PartitionSettings, TrainingSettings
from storage.errors import Invalid


def make(  # one argument each thing a test varies
    *, points: int = 60_000, shards: int = 5, slices: int = 5, requests: int = 1, workers: int = 1, pace: float = 1e-5
) -> Forecast:
    """Return a forecast for something like Fashion-MNIST."""
    return forecast(
        points=points,
        width=784,
        partition=PartitionSettings(shards=shards, slices=slices),
        training=TrainingSettings(epochs=20, batch_size=16, learning_rate=0.05),
        requests=requests,
        seconds_per_point_epoch=pace,
        checkpoint_bytes=1000,
        workers=workers,
        feature_bytes=1,
    )


def test_one_erasure_of_five_by_five() -> None:
    """With S = R = 5 one erasure costs 0.147 of a training, which is 6.8 times faster."""
    plan = make()
    assert plan.full_training_seconds == pytest.approx(12.0)
    assert plan.erasure_seconds == pytest.approx(12.0 * 0.146667, rel=1e-4)
    assert plan.erasure_speed_up == pytest.approx(6.818, abs=0.001)
    assert plan.batch_speed_up == pytest.approx(plan.erasure_speed_up)
    assert plan.warnings == ()


def test_workers_train_shards_in_rounds() -> None:
    """Five shards on two workers take three rounds; more workers than shards gain nothing and are named."""
    assert make(workers=2).full_training_seconds == pytest.approx(12.0 / 5 * 3)
    assert make(workers=8).full_training_seconds == pytest.approx(12.0 / 5)
    assert make(workers=8).warnings == ("3 of 8 workers stay idle: a shard trains on one worker",)


def test_storage() -> None:
    """There is one checkpoint for each slice of each shard, and every point is stored once."""
    plan = make()
    assert plan.checkpoint_bytes == 25_000
    assert plan.slice_bytes == 60_000 * (784 + 36)
    assert plan.storage_bytes == plan.checkpoint_bytes + plan.slice_bytes


@pytest.mark.parametrize(("requests", "warned"), [(14, False), (15, True), (40, True)])
def test_gain_gone_is_reported_from_three_requests_a_shard(requests: int, warned: bool) -> None:
    """From K = 3S on, the forecast says that the gain is mostly gone and how many shards would help."""
    warnings = make(requests=requests).warnings
    assert any("mostly gone" in warning for warning in warnings) == warned
    assert any(f"more than {requests // 3} shards" in warning for warning in warnings) == warned


def test_too_fine_a_partition_is_reported() -> None:
    """Slices that must stay empty, and shards smaller than a batch, are named with their remedy."""
    assert "leave many slices empty" in make(points=24).warnings[0]
    assert "less than one batch of 16" in make(points=70).warnings[0]


def test_no_requests_cost_nothing() -> None:
    """A batch of no requests costs nothing and is infinitely faster."""
    plan = make(requests=0)
    assert (plan.batch_seconds, plan.batch_speed_up) == (0, math.inf)


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 300), st.integers(1, 64))
def test_batch_is_bounded(shards: int, slices: int, requests: int, workers: int) -> None:
    """For every partition, a batch costs at most the work of a full training and at least that of one erasure."""
    plan = make(shards=shards, slices=slices, requests=requests, workers=workers)
    assert plan.batch_speed_up >= 1
    assert plan.batch_fraction >= 1 / plan.erasure_speed_up - 1e-9
    assert plan.batch_seconds >= 0


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"points": 0}, "points must be at least 1, got 0"),
        ({"requests": -1}, "requests must be at least 0, got -1"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"pace": math.nan}, "seconds_per_point_epoch must be above 0, got nan"),
    ],
)
def test_senseless_numbers_are_refused(values: dict[str, float], text: str) -> None:
    """A number outside its range is named with its value."""
    with pytest.raises(Invalid, match=text):
        make(**values)  # type: ignore[arg-type]


def test_points_that_are_taken_out_directly_cost_the_same_each() -> None:
    """A batch costs its points, workers share the shards that it touches, and other figures stay as they are."""
    found = make(shards=1, requests=6)
    direct = with_direct(found, 0.5, shards=1, workers=2)
    assert (direct.direct_seconds, direct.direct_batch_seconds) == (0.5, 3.0)
    assert (direct.erasure_seconds, direct.batch_seconds) == (found.erasure_seconds, found.batch_seconds)
    spread = with_direct(make(shards=1000, requests=6), 0.5, shards=1000, workers=2)
    assert spread.direct_batch_seconds == pytest.approx(1.5)
    assert found.direct_seconds is None
