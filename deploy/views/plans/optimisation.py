"""A recommendation of shards and slices, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from deploy.views.tables import table

if TYPE_CHECKING:  # the planner loads torch
    from cluster.writer.optimising import OptimisedPlan
    from cluster.writer.throw_away import TriedLayout
    from coordinator.decisions.optimise import Candidate

_SHOWN: Final = 9
_ORDER: Final = (
    "the order of people in slices and of data points in epochs follows from the partition key: there is nothing to"
    " choose, and no order makes unforeseeable requests cheaper"
)


def optimised_text(plan: OptimisedPlan) -> str:
    """Return the recommendation, the measurements it is based on, and the costs of neighbouring numbers."""
    demand, pace = plan.demand, plan.pace
    measured = (
        f"measured on this machine (mean error of the fit {pace.misfit:.0%})"
        if pace.source == "measured"
        else "from this federation's own records"
    )
    each = f"{demand.points_per_request:g} data point{'' if demand.points_per_request == 1 else 's'} each"
    batches = f"{1 + demand.more:.1f} in a batch on average" if demand.more >= 0.05 else "each in a batch of its own"
    parts = [
        (
            f"{plan.stock.points:,} data points, {demand.requests_per_month:g} requests a month, {each},"
            f" {batches}, for {demand.months:g} months;"
            f" processor times {measured}"
        ),
        _table(plan),
        *_tried_lines(plan),
        *_advice(plan),
        *(f"note: {each}" for each in plan.notes),
        f"note: {_ORDER}",
    ]
    return "\n".join(parts)


def optimised_fields(plan: OptimisedPlan) -> dict[str, Any]:
    """Return the same as JSON."""
    found = plan.recommendation
    return {
        "recommended": {
            "shards": found.layout.shards,
            "slices": found.layout.slices,
            "accuracy_measured": found.is_measured,
            "reason": _reason(plan),
        },
        "current": {"shards": plan.current.shards, "slices": plan.current.slices},
        "points": plan.stock.points,
        "subjects": plan.stock.subjects,
        "requests_per_month": plan.demand.requests_per_month,
        "points_per_request": plan.demand.points_per_request,
        "months": plan.demand.months,
        "price_cpu_hour": plan.demand.price_cpu_hour,
        "price_gib_month": plan.demand.price_gib_month,
        "batch": plan.batch,
        "measured_with": plan.pace.source,
        "misfit": plan.pace.misfit,
        "candidates": [_candidate_fields(each) for each in plan.candidates],
        "tried": [_tried_fields(each, plan) for each in plan.tried],
        "until_due": None if plan.until_due is None else _candidate_fields(plan.until_due),
        "notes": [*plan.notes, _ORDER],
    }


def _candidate_fields(candidate: Candidate) -> dict[str, Any]:
    fields = asdict(candidate)
    del fields["layout"]
    shards, slices = candidate.layout
    return {"shards": shards, "slices": slices, **fields, "cost": candidate.cost}


def _tried_fields(tried: TriedLayout, plan: OptimisedPlan) -> dict[str, Any]:
    shards, slices = tried.layout
    about = {"shards": shards, "slices": slices}
    if tried.failed:
        return {**about, "failed": tried.failed}
    fields = asdict(tried)
    del fields["layout"], fields["failed"]
    return {**about, **fields, "predicted_training_seconds": plan.candidate(tried.layout).training_seconds}


def _table(plan: OptimisedPlan) -> str:
    figures = {each.layout: f"{each.value:.4f}" for each in plan.tried if not each.failed}
    figure = next((each.figure for each in plan.tried if not each.failed), "")
    is_priced = plan.demand.is_priced
    header = (
        "shards x slices",
        "train",
        "one request",
        "a month",
        "checkpoints",
        "price in all" if is_priced else "CPU in all",
        *((figure,) if figure else ()),
        "",
    )
    lines = [
        (
            str(each.layout),
            _cpu(each.training_seconds),
            _cpu(each.erasure_seconds),
            _cpu(each.month_seconds),
            _size(each.checkpoint_bytes),
            f"{each.price:,.4g}" if each.price is not None else _cpu(each.total_seconds),
            *((figures.get(each.layout, "not measured"),) if figure else ()),
            ", ".join(_marks(each, plan)),
        )
        for each in _shown(plan)
    ]
    return table(header, lines)


def _marks(candidate: Candidate, plan: OptimisedPlan) -> Iterator[str]:
    if candidate.layout == plan.recommendation.layout:
        yield "recommended"
    if candidate.layout == plan.current:
        yield "as specified"


def _shown(plan: OptimisedPlan) -> list[Candidate]:
    """Return the recommended, the current and the tried numbers, and the cheapest of some numbers of shards."""
    wanted = {plan.recommendation.layout, plan.current, *(each.layout for each in plan.tried)}
    cheapest: dict[int, Candidate] = {}
    for each in plan.candidates:
        best = cheapest.get(each.layout.shards)
        if best is None or each.cost < best.cost:
            cheapest[each.layout.shards] = each
    by_shards = [cheapest[shards] for shards in sorted(cheapest)]
    step = max(1, -(-len(by_shards) // _SHOWN))
    wanted |= {each.layout for each in by_shards[::step]}
    return [each for each in plan.candidates if each.layout in wanted]


def _tried_lines(plan: OptimisedPlan) -> Iterator[str]:
    for each in plan.tried:
        if each.failed:
            yield f"--try {each.layout} failed, and does not count: {each.failed}"
            continue
        predicted = plan.candidate(each.layout).training_seconds
        empty = f"; {each.empty_shards} shards had no data point" if each.empty_shards else ""
        yield (
            f"{each.layout}: {each.figure} {each.value:.4f} on {each.points:,} hold-out points, trained in"
            f" {_cpu(each.training_seconds)} ({_cpu(predicted)} predicted){empty}"
        )


def _advice(plan: OptimisedPlan) -> Iterator[str]:
    found = plan.recommendation
    yield f"recommended: {found.layout.shards} shards × {found.layout.slices} slices: {_reason(plan)}"
    if not found.is_measured:
        yield (
            "accuracy was not measured, and more shards cost some: each constituent learns from fewer data points."
            f" Measure it with hold-out points: {_proposal(plan)}"
        )
    if plan.until_due is not None:
        month = plan.candidate(found.layout).month_seconds
        yield (
            f'with [erasure] batch = "until_due" a month takes {_cpu(plan.until_due.month_seconds)} instead of'
            f" {_cpu(month)}: people's data are removed at once in both cases, and retraining waits"
        )
    if plan.is_begun and found.layout != plan.current:
        yield (
            "a federation keeps its shards and slices: to change them, name another store in the specification and"
            " train there"
        )


def _reason(plan: OptimisedPlan) -> str:
    found = plan.recommendation
    chosen, current = plan.candidate(found.layout), plan.candidate(plan.current)
    what = "price" if plan.demand.is_priced else "processor time"
    if found.is_measured and len(found.good_enough) == 1:
        others = sum(not each.failed for each in plan.tried) - 1
        reason = (
            "the only one that was measured" if not others else f"the best answers; {others} others are too far below"
        )
    elif found.is_measured:
        among = f"the smallest {what} of {len(found.good_enough)} measured with answers about as good as the best"
        reason = f"{among} ({found.best})"
    else:
        reason = f"the smallest {what} of {len(plan.candidates)} compared"
    if found.layout == plan.current or not current.cost:
        return f"{reason}; it is as specified" if found.layout == plan.current else reason
    return f"{reason}, {chosen.cost / current.cost:.0%} of that of {plan.current} as specified"


def _proposal(plan: OptimisedPlan) -> str:
    """Return options that try a few numbers between the current and the recommended ones."""
    shown = [each.layout for each in _shown(plan) if each.layout != plan.current]
    chosen = [plan.current, *dict.fromkeys([shown[len(shown) // 2], plan.recommendation.layout])] if shown else []
    return " ".join(f"--try {each}" for each in dict.fromkeys(chosen or [plan.current]))


def _cpu(seconds: float) -> str:
    """Return a processor time."""
    for limit, size, unit in ((0.1, 0.001, "ms"), (120, 1.0, "s"), (7200, 60.0, "min")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:,.1f} h"


def _size(count: float) -> str:
    for limit, size, unit in ((1e6, 1e3, "kB"), (1e9, 1e6, "MB")):
        if count < limit:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e9:,.2f} GB"
