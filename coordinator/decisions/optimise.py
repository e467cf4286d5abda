"""Which numbers of shards and slices to take: what each costs at the rate of requests, and which is cheapest. Pure.

Letters: N data points, S shards, R slices. Expected values hold for requests that name people at random (E11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, NamedTuple

from coordinator.decisions.ended import TOGETHER
from coordinator.decisions.pace import (
    BATCH_WORK,
    PLACES,
    POINTS_READ,
    RECORDED,
    REQUESTS,
    REWRITTEN,
    TASKS,
    Amounts,
    Pace,
    in_federation,
    scaled_amounts,
    summed,
)
from shards.cost import repeated_step
from shards.schedule import minimum_epochs, slice_epochs
from shards.specification import refuse_settings

MONTH_DAYS: Final = 365.25 / 12
GIB: Final = 2**30
_NICE: Final = (1, 2, 3, 5, 7)
"""Leading digits of the numbers that are proposed."""
_MOST: Final = 4096


class Layout(NamedTuple):
    """Numbers of shards and slices."""

    shards: int
    slices: int

    def __str__(self) -> str:
        return f"{self.shards}x{self.slices}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a federation will have to do, and what that costs."""

    requests_per_month: float
    points_per_request: float = 1.0
    slices_per_request: float = 1.0
    """All data points of a subject are in one slice, unless data points have several subjects."""
    months: float = 12.0
    """How long the federation is kept."""
    batch_days: float = 0.0
    """How long the first request of a batch waits for others."""
    price_cpu_hour: float | None = None
    """Price in any currency, the same as that of the next field. None: without a price."""
    price_gib_month: float | None = None

    def __post_init__(self) -> None:
        amounts = {
            "requests a month": self.requests_per_month,
            "months": self.months,
            "batch days": self.batch_days,
            "the price of a CPU hour": self.price_cpu_hour or 0.0,
            "the price of a GiB a month": self.price_gib_month or 0.0,
        }
        problems = [
            f"{name} must be 0 or more, got {value:g}"
            for name, value in amounts.items()
            if not (isfinite(value) and value >= 0)
        ]
        for name, value in (("points", self.points_per_request), ("slices", self.slices_per_request)):
            if not (isfinite(value) and value > 0):
                problems.append(f"{name} a request must be above 0, got {value:g}")
        refuse_settings("optimise", problems)

    @property
    def more(self) -> float:
        """Requests that arrive while the first of a batch waits, on average."""
        return self.requests_per_month * self.batch_days / MONTH_DAYS

    @property
    def batches_per_month(self) -> float:
        """Batches per month: from one batch to the next passes the waiting time and the time until the next request."""
        return self.requests_per_month / (1 + self.more)

    @property
    def past(self) -> float:
        """How many ended requests the state lists, on average over the months: it keeps 64 to 127 of them."""
        every, most = self.requests_per_month * self.months, 1.5 * TOGETHER
        return every / 2 if every <= most else most - most**2 / (2 * every)

    @property
    def is_priced(self) -> bool:
        """Whether any price is given."""
        return self.price_cpu_hour is not None or self.price_gib_month is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """What a federation has, regardless of its numbers of shards and slices."""

    points: int
    subjects: int | None
    """Number of subjects; None if it is unknown."""
    slice_bytes: float
    """Total size of all data points in slice files."""
    epochs: int
    """e'."""
    is_whole: bool = False
    """Whether all slices of a shard are learned at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a federation of these numbers of shards and slices is expected to cost. Seconds are of the processor."""

    layout: Layout
    training_seconds: float
    erasure_seconds: float
    """Time for one request that is served alone."""
    requests_per_batch: float
    batch_seconds: float
    month_seconds: float
    """Time for all requests of a month."""
    checkpoint_bytes: float
    stored_bytes: float
    """Checkpoints and slice files."""
    total_seconds: float
    """Training, and all months."""
    price: float | None
    """Price of training, all erasures and the storage of all months; None without prices."""

    @property
    def cost(self) -> float:
        """The quantity to minimise: the price, or the seconds if nothing is priced."""
        return self.total_seconds if self.price is None else self.price


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredFigure:
    """Quality of the answers of a federation that was trained with these numbers of shards and slices."""

    layout: Layout
    figure: str
    """Name of the measure."""
    value: float
    points: int
    """Hold-out points that it was measured on."""
    is_larger_better: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Which numbers to take, and why."""

    layout: Layout
    is_measured: bool
    """Whether accuracies were taken into account, not only costs."""
    good_enough: tuple[Layout, ...] = ()
    """The measured ones among which the cheapest was chosen."""
    best: Layout | None = None
    """The measured one with the best answers."""


def candidate_of(layout: Layout, stock: Stock, pace: Pace, demand: Workload) -> Candidate:
    """Return what a federation of these numbers costs."""
    training = pace.seconds(_training(layout, stock, pace)) + _learning(layout, stock, pace, float(layout.shards))
    alone = _batch_seconds(layout, stock, pace, demand, 0.0)
    batch = _batch_seconds(layout, stock, pace, demand, demand.more)
    month = demand.batches_per_month * batch
    checkpoints = layout.shards * pace.checkpoint_sizes(stock.points / layout.shards, _schedule(layout, stock))
    stored = checkpoints + stock.slice_bytes
    total = training + demand.months * month
    price = None
    if demand.is_priced:
        price = total / 3600 * (demand.price_cpu_hour or 0.0)
        price += demand.months * stored / GIB * (demand.price_gib_month or 0.0)
    return Candidate(
        layout=layout,
        training_seconds=training,
        erasure_seconds=alone,
        requests_per_batch=1 + demand.more,
        batch_seconds=batch,
        month_seconds=month,
        checkpoint_bytes=checkpoints,
        stored_bytes=stored,
        total_seconds=total,
        price=price,
    )


def expected_amounts(layout: Layout, stock: Stock, pace: Pace, *, first: float, more: float) -> dict[str, float]:
    """Return the expected amounts of the steps that a batch repeats, of all shards together.

    ``first`` of the slices that requests name are certain, and ``more`` are expected.
    """
    amounts: dict[str, float] = {}
    per_slice = stock.points / (layout.shards * layout.slices)
    each = pace.slice_amounts(per_slice, _schedule(layout, stock), at_once=False)
    for number, own in enumerate(each, start=1):
        times = layout.shards * repeated_step(
            number, shards=layout.shards, slices=layout.slices, first=first, more=more
        )
        amounts = summed(amounts, scaled_amounts(own, times))
    return amounts


def _training(layout: Layout, stock: Stock, pace: Pace) -> dict[str, float]:
    per_slice = stock.points / (layout.shards * layout.slices)
    every: dict[str, float] = {TASKS: float(layout.shards), POINTS_READ: float(stock.points)}
    if stock.is_whole:
        every[RECORDED] = float(layout.shards)
    for own in () if stock.is_whole else pace.slice_amounts(per_slice, _schedule(layout, stock), at_once=True):
        every = summed(every, scaled_amounts(own, layout.shards))
    return in_federation(every, float(layout.shards * layout.slices), 0.0)


def _learning(layout: Layout, stock: Stock, pace: Pace, shards: float) -> float:
    """Return the time for learning all slices of these shards at once; 0 for learners that learn slice after slice."""
    return 0.0 if pace.learning is None else shards * pace.learning.at(stock.points / layout.shards)


def _batch_seconds(layout: Layout, stock: Stock, pace: Pace, demand: Workload, more: float) -> float:
    """Return the seconds of a batch with one request and ``more`` on average."""
    hit, all_slices = demand.slices_per_request, float(layout.shards * layout.slices)
    first, expected = hit, more * hit
    shards = layout.shards * repeated_step(
        layout.slices, shards=layout.shards, slices=layout.slices, first=first, more=expected
    )
    places = all_slices * repeated_step(1, shards=layout.shards, slices=layout.slices, first=first, more=expected)
    amounts: Amounts = {
        BATCH_WORK: 1.0,
        REQUESTS: 1 + more,
        PLACES: places,
        REWRITTEN: places * stock.points / all_slices,
        TASKS: shards,
        POINTS_READ: 0.0 if stock.is_whole else shards * stock.points / layout.shards,
    }
    if stock.is_whole:
        amounts = summed(amounts, {RECORDED: shards})
    else:
        amounts = summed(amounts, expected_amounts(layout, stock, pace, first=first, more=expected))
    seconds = pace.seconds(in_federation(amounts, all_slices, demand.past))
    again = _learning(layout, stock, pace, shards)
    if pace.forgetting is None:
        return seconds + again
    return seconds + min(again, (1 + more) * hit * pace.forgetting.at(stock.points / layout.shards))


def _schedule(layout: Layout, stock: Stock) -> tuple[int, ...]:
    return (1,) if stock.is_whole else slice_epochs(stock.epochs, layout.slices)


def proposed_layouts(stock: Stock, *, slices: int, least_points: int, include: Iterable[Layout] = ()) -> list[Layout]:
    """Return the numbers to compare: round ones, and those of ``include``.

    A shard has at least ``least_points`` data points, there is a subject for each slice, and the schedule gives each
    slice an epoch. Where all slices are learned at once their number is ``slices``.
    """
    subjects = stock.points if stock.subjects is None else min(stock.subjects, stock.points)
    found = set(include)
    for shards in _round_numbers(min(_MOST, max(1, stock.points // max(1, least_points)), max(1, subjects))):
        for each in (slices,) if stock.is_whole else _round_numbers(min(_MOST, max(1, subjects // shards))):
            if stock.is_whole or minimum_epochs(each) <= stock.epochs:
                found.add(Layout(shards, each))
    return sorted(found)


def _round_numbers(most: int) -> list[int]:
    power, found = 1, list[int]()
    while power <= most:
        found += [digit * power for digit in _NICE if digit * power <= most]
        power *= 10
    return found


def good_enough(figures: Sequence[MeasuredFigure], tolerance: float) -> tuple[MeasuredFigure, list[MeasuredFigure]]:
    """Return the best figure, and all that are at most ``tolerance`` worse.

    For measures that are shares, such as accuracy, the tolerance is an absolute difference; for errors it is relative
    to the best.
    """
    best = max(figures, key=lambda each: each.value if each.is_larger_better else -each.value)
    if best.is_larger_better:
        return best, [each for each in figures if each.value >= best.value - tolerance]
    return best, [each for each in figures if each.value <= best.value * (1 + tolerance)]


def recommended(
    candidates: Sequence[Candidate], figures: Sequence[MeasuredFigure] = (), *, tolerance: float = 0.01
) -> Recommendation:
    """Return the cheapest candidate; with figures, the cheapest of the measured ones that are good enough.

    Of equal costs the smaller storage decides, then fewer shards and slices.
    """
    costs: Mapping[Layout, Candidate] = {each.layout: each for each in candidates}
    if not figures:
        return Recommendation(layout=min(candidates, key=_rank).layout, is_measured=False)
    best, fine = good_enough(figures, tolerance)
    chosen = min((costs[each.layout] for each in fine), key=_rank)
    return Recommendation(
        layout=chosen.layout,
        is_measured=True,
        good_enough=tuple(sorted(each.layout for each in fine)),
        best=best.layout,
    )


def _rank(candidate: Candidate) -> tuple[float, float, int, int]:
    return candidate.cost, candidate.stored_bytes, candidate.layout.shards, candidate.layout.slices
