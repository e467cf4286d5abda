"""Which numbers of shards and slices are cheapest: against the closed form, brute force and sums over draws."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.decisions.ended import TOGETHER
from coordinator.decisions.optimise import (
    GIB,
    MONTH_DAYS,
    Candidate,
    Layout,
    MeasuredFigure,
    Stock,
    Workload,
    candidate_of,
    good_enough,
    proposed_layouts,
    recommended,
)
from coordinator.decisions.pace import (
    ALL,
    BATCH_WORK,
    BATCHES,
    LEARNED,
    PLACES,
    RECORDED,
    REQUESTS,
    REWRITTEN,
    TASKS,
    GrowingCost,
    Pace,
)
from shards.cost import batch_fraction, erasure_cost_epochs, repeated_step
from shards.schedule import minimum_epochs
from storage.errors import Invalid

SECOND = 1e-4
"""Seconds of a data point in an epoch."""
STEPS_ALONE = Pace(workers={BATCHES: SECOND}, coordinator={}, checkpoint_bytes=1000.0)
WHOLE = Pace(
    workers={},
    coordinator={RECORDED: 0.001, BATCH_WORK: 0.01},
    checkpoint_bytes=0.0,
    learning=GrowingCost((100.0,), (2.0,)),
    forgetting=GrowingCost((100.0,), (0.1,)),
    learned_bytes=GrowingCost((100.0,), (5000.0,)),
)

paces = st.builds(
    lambda step, learned, task, batch, request, place, listed, rewritten: Pace(
        workers={BATCHES: step, LEARNED: learned, TASKS: task},
        coordinator={BATCH_WORK: batch, REQUESTS: request, PLACES: place, ALL: listed, REWRITTEN: rewritten},
        checkpoint_bytes=2e5,
    ),
    *(st.floats(0, each) for each in (1e-3, 0.1, 0.1, 0.1, 0.1, 0.01, 1e-3, 1e-5)),
)
layouts = st.builds(Layout, st.integers(1, 60), st.integers(1, 15))


def stock(points: int = 6000, epochs: int = 12, **others: object) -> Stock:
    """Return some data."""
    given: dict[str, object] = {"subjects": points, "slice_bytes": 1e6, **others}
    return Stock(points=points, epochs=epochs, **given)  # type: ignore[arg-type]


def priced(layout: Layout, pace: Pace = STEPS_ALONE, held: Stock | None = None, **demand: float) -> Candidate:
    """Return what the numbers cost."""
    return candidate_of(layout, held or stock(), pace, Workload(**{"requests_per_month": 10.0, **demand}))


@pytest.mark.parametrize(("shards", "slices", "epochs"), [(5, 1, 12), (5, 5, 12), (20, 7, 12), (1, 3, 4)])
def test_of_steps_alone_the_cost_is_the_closed_form(shards: int, slices: int, epochs: int) -> None:
    """Where the schedule is not rounded, and nothing else costs anything: e'N, and e'(N/S)(2/3 + 1/(3R))."""
    found = priced(Layout(shards, slices), held=stock(epochs=epochs))
    assert found.training_seconds == pytest.approx(SECOND * 6000 * epochs)
    one = erasure_cost_epochs(points=6000, shards=shards, slices=slices, epochs=epochs)
    assert found.erasure_seconds == pytest.approx(SECOND * one)
    assert found.month_seconds == pytest.approx(10 * found.erasure_seconds)
    assert found.total_seconds == pytest.approx(found.training_seconds + 12 * found.month_seconds)
    assert found.checkpoint_bytes == shards * slices * 1000


@given(layouts, st.integers(1, 60))
def test_repeated_steps_are_those_of_a_batch(layout: Layout, requests: int) -> None:
    """Weighted by their work they add up to the fraction of SISA's section IV."""
    shards, slices = layout
    steps = range(1, slices + 1)
    found = sum(j * repeated_step(j, shards=shards, slices=slices, first=requests) for j in steps)
    assert 2 * found / (slices * (slices + 1)) == pytest.approx(batch_fraction(shards, slices, requests))


@given(layouts, st.floats(0, 30))
def test_arrivals_at_random_are_the_mean_over_their_number(layout: Layout, more: float) -> None:
    """The closed form with an expected number is the sum over all numbers, each with its probability (Poisson)."""
    shards, slices = layout
    likely = [
        math.exp(-more + count * math.log(more) - math.lgamma(count + 1)) if more else 0.0 for count in range(160)
    ]
    if not more:
        likely[0] = 1.0
    for step in {1, slices}:
        means = (
            share * repeated_step(step, shards=shards, slices=slices, first=1 + count)
            for count, share in enumerate(likely)
        )
        assert repeated_step(step, shards=shards, slices=slices, more=more) == pytest.approx(sum(means), abs=1e-9)


@given(paces, layouts, st.floats(0, 1e4), st.floats(1, 3), st.floats(0, 30))
def test_more_requests_never_cost_less(pace: Pace, layout: Layout, rate: float, times: float, days: float) -> None:
    """Neither the cost of a month nor the total falls when there are more requests."""
    one, more = (
        priced(layout, pace, requests_per_month=each, batch_days=days, price_cpu_hour=2.0)
        for each in (rate, rate * times)
    )
    assert more.month_seconds >= one.month_seconds * (1 - 1e-9)
    assert more.cost >= one.cost * (1 - 1e-9)
    assert more.training_seconds == one.training_seconds


@given(paces, st.floats(0, 1e3), st.floats(0, 2), st.floats(0, 2), st.sets(layouts, min_size=1, max_size=12))
def test_the_recommendation_is_the_best_of_all(
    pace: Pace, rate: float, cpu: float, gib: float, wanted: set[Layout]
) -> None:
    """By brute force, with prices computed apart."""
    candidates = [
        priced(each, pace, requests_per_month=rate, price_cpu_hour=cpu, price_gib_month=gib) for each in wanted
    ]
    chosen = recommended(candidates)
    costs = {
        each.layout: (each.training_seconds + 12 * each.month_seconds) / 3600 * cpu
        + 12 * (each.checkpoint_bytes + 1e6) / GIB * gib
        for each in candidates
    }
    assert costs[chosen.layout] == pytest.approx(min(costs.values()))
    assert not chosen.is_measured


@given(paces, layouts, st.floats(0.5, 1e3))
def test_waiting_longer_never_costs_more(pace: Pace, layout: Layout, rate: float) -> None:
    """Because requests share batches."""
    months = [priced(layout, pace, requests_per_month=rate, batch_days=days).month_seconds for days in (0, 1, 27)]
    assert months == sorted(months, reverse=True) or months[0] == pytest.approx(months[-1])


def test_batches_of_a_month() -> None:
    """The first of a batch waits for a day: at a request a day there are two in each, and half as many batches."""
    demand = Workload(requests_per_month=MONTH_DAYS, batch_days=1.0)
    assert demand.more == pytest.approx(1)
    assert demand.batches_per_month == pytest.approx(MONTH_DAYS / 2)


def test_how_many_ended_requests_a_state_lists() -> None:
    """It grows with the requests, up to between 64 and 127."""
    few, many = (Workload(requests_per_month=each, months=2.0).past for each in (10, 1e6))
    assert few == 10
    assert many == pytest.approx(1.5 * TOGETHER, rel=1e-3)


def test_data_points_of_several_people_are_in_more_slices() -> None:
    """A request then repeats more, and rewrites more slices."""
    one, two = (priced(Layout(5, 5), slices_per_request=each) for each in (1.0, 2.0))
    assert one.erasure_seconds < two.erasure_seconds < 2 * one.erasure_seconds
    assert two.erasure_seconds == pytest.approx(SECOND * 12 * 6000 * batch_fraction(5, 5, 2))


def test_shards_that_are_learned_at_once() -> None:
    """Points are taken out directly; where a batch has so many that learning again is cheaper, shards are."""
    held = stock(points=400, is_whole=True)
    alone = priced(Layout(4, 8), WHOLE, held)
    assert alone.training_seconds == pytest.approx(4 * 2.0 + 4 * 0.001)
    assert alone.erasure_seconds == pytest.approx(0.1 + 0.001 + 0.01)
    assert alone.checkpoint_bytes == 4 * 5000
    many = priced(Layout(4, 8), WHOLE, held, requests_per_month=1e6, batch_days=MONTH_DAYS)
    assert many.batch_seconds == pytest.approx(4 * 2.0 + 4 * 0.001 + 0.01, rel=1e-3)
    again = Pace(workers={}, coordinator={}, checkpoint_bytes=0.0, learning=GrowingCost((100.0,), (2.0,)))
    assert priced(Layout(4, 8), again, held).erasure_seconds == pytest.approx(2.0)


def test_without_prices_the_seconds_decide_and_then_the_bytes() -> None:
    """Without any request all numbers cost the same seconds here: fewer bytes are better."""
    free = [priced(each, requests_per_month=0.0) for each in (Layout(5, 5), Layout(5, 1), Layout(2, 2))]
    assert free[0].price is None
    assert recommended(free).layout == Layout(2, 2)
    stored = [priced(each, price_gib_month=1.0) for each in (Layout(5, 5), Layout(50, 1))]
    assert recommended(stored).layout == Layout(5, 5)
    assert recommended([priced(each) for each in (Layout(5, 5), Layout(50, 1))]).layout == Layout(50, 1)


def figure(layout: Layout, value: float, *, larger: bool = True) -> MeasuredFigure:
    """Return a measured figure."""
    return MeasuredFigure(layout=layout, figure="f", value=value, points=100, is_larger_better=larger)


def test_of_measured_ones_the_cheapest_that_is_good_enough() -> None:
    """Others do not count, however cheap: their accuracy is not known."""
    three = [Layout(2, 2), Layout(10, 2), Layout(50, 2)]
    candidates = [priced(each) for each in (*three, Layout(100, 2))]
    figures = [figure(each, value) for each, value in zip(three, (0.9, 0.895, 0.8), strict=True)]
    found = recommended(candidates, figures)
    assert (found.layout, found.best, found.is_measured) == (Layout(10, 2), Layout(2, 2), True)
    assert found.good_enough == (Layout(2, 2), Layout(10, 2))
    assert recommended(candidates, figures, tolerance=0.0).layout == Layout(2, 2)
    assert recommended(candidates, figures, tolerance=0.2).layout == Layout(50, 2)


def test_of_errors_the_smallest_is_best() -> None:
    """The tolerance is a share of it, because errors have a unit."""
    figures = [figure(Layout(1, 1), 100.0, larger=False), figure(Layout(2, 1), 100.9, larger=False)]
    best, fine = good_enough([*figures, figure(Layout(3, 1), 102.0, larger=False)], 0.01)
    assert best == figures[0]
    assert fine == figures


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 40), st.integers(1, 500), st.booleans())
def test_all_proposals_can_be_trained(points: int, subjects: int, epochs: int, least: int, is_whole: bool) -> None:
    """Each slice gets an epoch and might get a subject, and each shard has enough data points; R stays where it may."""
    held = stock(points=points, subjects=subjects, epochs=epochs, is_whole=is_whole)
    for shards, slices in proposed_layouts(held, slices=3, least_points=least):
        assert shards == 1 or points // shards >= least
        assert slices == 3 if is_whole else minimum_epochs(slices) <= epochs
        assert is_whole or shards * slices <= max(1, min(points, subjects))
    assert Layout(17, 3) in proposed_layouts(held, slices=3, least_points=least, include=[Layout(17, 3)])


def test_impossible_demands_are_refused_together() -> None:
    """One error lists everything that is wrong."""
    with pytest.raises(Invalid, match=r"requests a month must be 0 or more.*months must be.*points a request must be"):
        Workload(requests_per_month=-1, months=math.nan, points_per_request=0)
    with pytest.raises(Invalid, match="price of a CPU hour must be 0 or more, got -1"):
        Workload(requests_per_month=1, price_cpu_hour=-1.0)
