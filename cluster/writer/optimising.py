"""Which numbers of shards and slices to take for a federation: measured on this machine, computed, and tried if asked.

Nothing is written to the federation's store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cluster.config.specification import FederationSpecification
from cluster.writer.forecast import FEATURE_BYTES, measured_basis
from cluster.writer.pace import PaceTrial, recorded_pace
from cluster.writer.throw_away import TriedLayout, WhoStaysOut, layout_of, try_layout
from cluster.writer.training_data import open_holdout, open_train
from coordinator.decisions.forecast import POINT_OVERHEAD_BYTES
from coordinator.decisions.optimise import (
    Candidate,
    Layout,
    MeasuredFigure,
    Recommendation,
    Stock,
    Workload,
    candidate_of,
    proposed_layouts,
    recommended,
)
from coordinator.decisions.pace import Pace
from coordinator.settings import BatchUntil, ErasureSettings
from coordinator.state import FederationState
from shards.data.columns import choose_columns
from shards.data.samples import count_points, sampled
from shards.data.sources import Source
from shards.learner_kinds.kinds import LEARNERS, TORCH
from shards.slices.ingest import feature_width
from storage.errors import Invalid, Unavailable
from storage.objects import ObjectStore

_SAMPLE_BYTES: Final = 64 * 2**20
_MOST_SAMPLED: Final = 50_000
_BUDGET_SECONDS: Final = 15.0
_TOLERANCE: Final = 0.01
_LEAST_POINTS: Final = 20
"""Data points of a shard, of learners without batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asks of an optimised plan."""

    requests_per_month: float
    points_per_request: float = 1.0
    months: float = 12.0
    price_cpu_hour: float | None = None
    price_gib_month: float | None = None
    tries: tuple[Layout, ...] = ()
    """Federations of these numbers are trained, and their answers measured."""
    tolerance: float = _TOLERANCE
    """How much worse than the best answers others may be, to be recommended because they are cheaper."""
    budget_seconds: float = _BUDGET_SECONDS
    """About how long the pace is measured, in seconds of the processor."""

    def demand(self, specification: FederationSpecification, batch: BatchUntil | None = None) -> Workload:
        """Return the demand under the specification's rule for batches, or another one."""
        has_several = bool(specification.data.further_subjects)
        return Workload(
            requests_per_month=self.requests_per_month,
            points_per_request=self.points_per_request,
            slices_per_request=max(1.0, self.points_per_request) if has_several else 1.0,
            months=self.months,
            batch_days=0.0 if specification.model.is_whole else waiting_days(specification.erasure, batch),
            price_cpu_hour=self.price_cpu_hour,
            price_gib_month=self.price_gib_month,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimisedPlan:
    """A recommendation, and all that it rests on."""

    stock: Stock
    demand: Workload
    pace: Pace
    batch: BatchUntil
    """When batches are retrained, as specified."""
    current: Layout
    candidates: tuple[Candidate, ...]
    tried: tuple[TriedLayout, ...]
    recommendation: Recommendation
    until_due: Candidate | None
    """The recommended numbers with ``batch = "until_due"``; None where that is the rule already, or changes nothing."""
    is_begun: bool
    """Whether the federation has data in its store, which keeps its numbers of shards and slices."""
    notes: tuple[str, ...] = field(default=())

    def candidate(self, layout: Layout) -> Candidate:
        """Return what these numbers cost."""
        return next(each for each in self.candidates if each.layout == layout)


def waiting_days(settings: ErasureSettings, batch: BatchUntil | None = None) -> float:
    """Return how long the first request of a batch waits for others, in days."""
    if (batch or settings.batch) == "window":
        return settings.batch_window_seconds / 86_400
    return max(0.0, settings.deadline_days - settings.lead_days)


def optimise(
    specification: FederationSpecification,
    store: ObjectStore,
    state: FederationState | None,
    wish: Wish,
    *,
    remark: Callable[[str], None] = lambda _: None,
) -> OptimisedPlan:
    """Return which numbers of shards and slices to take, and what each costs.

    The pace is measured on this machine with a sample of the source; without the source it follows from what the
    federation's own training has on record. Raises ``Invalid`` for impossible wishes, data or models, ``Unavailable``
    when the data cannot be reached.
    """
    demand = wish.demand(specification)
    _check_tries(specification, wish)
    is_begun = state is not None and state.is_begun
    who = WhoStaysOut.of(specification, store, state)
    source: Source | None = None
    try:
        opened = source = open_train(specification)
    except (Invalid, Unavailable):
        if state is None or wish.tries or (known := _on_record(specification, state)) is None:
            raise
        stock, pace = known
    else:
        stock, pace = _measured(specification, who, opened, state, wish, remark)
    current = Layout(specification.partition.shards, specification.partition.slices)
    _check_subjects(stock, wish.tries)
    layouts = proposed_layouts(
        stock,
        slices=current.slices,
        least_points=_least_points(specification),
        include=(current, *wish.tries),
    )
    candidates = tuple(candidate_of(layout, stock, pace, demand) for layout in layouts)
    tried = tuple(_tries(specification, who, source, wish.tries, remark)) if source is not None else ()
    figures = [
        MeasuredFigure(
            layout=each.layout,
            figure=each.figure,
            value=each.value,
            points=each.points,
            is_larger_better=each.is_larger_better,
        )
        for each in tried
        if not each.failed
    ]
    found = recommended(candidates, figures, tolerance=wish.tolerance)
    waits = not specification.model.is_whole and specification.erasure.batch == "window"
    later = wish.demand(specification, "until_due")
    return OptimisedPlan(
        stock=stock,
        demand=demand,
        pace=pace,
        batch=specification.erasure.batch,
        current=current,
        candidates=candidates,
        tried=tried,
        recommendation=found,
        until_due=candidate_of(found.layout, stock, pace, later) if waits else None,
        is_begun=is_begun,
        notes=tuple(_notes(specification, stock, demand, pace)),
    )


def _check_tries(specification: FederationSpecification, wish: Wish) -> None:
    if not wish.tolerance >= 0:
        raise Invalid(f"the tolerance must be 0 or more, got {wish.tolerance:g}")
    for layout in wish.tries:
        layout_of(specification, layout)
    if wish.tries and specification.data.holdout is None:
        raise Invalid(
            "there are no hold-out points, so accuracy cannot be measured",
            "Set [data] holdout, such as holdout = 0.1, or leave out --try.",
        )


def _check_subjects(stock: Stock, tries: Sequence[Layout]) -> None:
    people = stock.points if stock.subjects is None else stock.subjects
    for layout in tries:
        if layout.shards > people:
            what = "data points" if stock.subjects is None else "subjects"
            raise Invalid(
                f"--try {layout} has more shards than the {people:,} {what} to train on: most would be empty",
                f"Try at most {people} shards.",
            )


def _least_points(specification: FederationSpecification) -> int:
    is_torch = specification.model.learner == TORCH
    return max(_LEAST_POINTS, specification.training.batch_size if is_torch else 1)


def _measured(
    specification: FederationSpecification,
    who: WhoStaysOut,
    source: Source,
    state: FederationState | None,
    wish: Wish,
    remark: Callable[[str], None],
) -> tuple[Stock, Pace]:
    data = specification.data
    read, subjects = count_points(source, data)
    width = feature_width(source, data)
    most = max(1, min(_MOST_SAMPLED, _SAMPLE_BYTES // (4 * width + 16)))
    sample = sampled(source, data, most, read)
    sample_points, _ = count_points(sample, data)
    remark("measuring what steps, slices and requests cost: small federations are trained and thrown away")
    trial = PaceTrial(specification, who, sample, points=sample_points, budget=wish.budget_seconds, remark=remark)
    pace = trial.pace()
    trained = state is not None and bool(sum(shard.points for shard in state.shards))
    left = 1.0 - data.held_out_share
    points = sum(shard.points for shard in state.shards) if state is not None and trained else round(read * left)
    each = width * FEATURE_BYTES[choose_columns(source, data).dtype] + POINT_OVERHEAD_BYTES
    return _stock(specification, max(1, points), max(1, round(subjects * left)), float(points * each)), pace


def _on_record(specification: FederationSpecification, state: FederationState) -> tuple[Stock, Pace] | None:
    """Return what the federation's own training says; None: nothing was trained."""
    basis = measured_basis(state)
    if basis is None:
        return None
    pace = recorded_pace(
        basis.seconds_per_point_epoch,
        float(basis.checkpoint_bytes),
        points_per_shard=basis.points / len(state.shards),
        is_whole=specification.model.is_whole,
    )
    each = basis.width * basis.feature_bytes + POINT_OVERHEAD_BYTES
    return _stock(specification, basis.points, None, float(basis.points * each)), pace


def _stock(specification: FederationSpecification, points: int, subjects: int | None, size: float) -> Stock:
    return Stock(
        points=points,
        subjects=subjects,
        slice_bytes=size,
        epochs=specification.training.epochs,
        is_whole=specification.model.is_whole,
    )


def _tries(
    specification: FederationSpecification,
    who: WhoStaysOut,
    source: Source,
    tries: Sequence[Layout],
    remark: Callable[[str], None],
) -> list[TriedLayout]:
    holdout = open_holdout(specification) if tries else None
    found = []
    for layout in dict.fromkeys(tries):
        remark(f"trying {layout}: training a federation of {layout.shards} shards, to be thrown away")
        found.append(try_layout(specification, layout, who, source, holdout))
    return found


def _notes(specification: FederationSpecification, stock: Stock, demand: Workload, pace: Pace) -> list[str]:
    found = []
    if stock.is_whole:
        found.append("all slices of a shard are learned at once: their number changes hardly anything")
    if not LEARNERS[specification.model.learner].is_sure:
        found.append(
            "this learner cannot always take data points out directly: the price of an erasure is the mean of those"
            " that were tried, at most that of learning the shard again"
        )
    if specification.data.further_subjects:
        found.append("data points have several subjects: a request is taken to be in as many slices as it has points")
    if pace.source == "records":
        found.append(
            "there is no source to measure with: times are those of the workers' own records, and what slices and"
            " requests cost besides is not in them"
        )
    if demand.requests_per_month * demand.points_per_request * demand.months > stock.points / 2:
        found.append(
            "these requests erase more than half of the data points; costs are those of all that there are now"
        )
    return found
