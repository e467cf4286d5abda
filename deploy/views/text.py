"""Results as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from coordinator.decisions.plan import RetrainPlan
from coordinator.decisions.times import MOST_SECONDS_BEHIND, clock_is_behind
from coordinator.effects import HoldoutMeasure
from coordinator.requests import Cost, RequestState, Similar
from coordinator.status import WHY_BY_ID, BatchStatus, FederationStatus, RequestStatus, outdated_text
from deploy.views.tables import table
from shards.learner_kinds.guarantees import EXACT

if TYPE_CHECKING:  # the planner loads torch, and commands with --url do without
    from cluster.results.federation import Verification
    from cluster.writer.forecast import Plan

_MOST_OF_A_NOTE = 60
_ONE_SIMILAR = "1 subject whose name differs"
_MOST_FORGOTTEN = 20


def status_text(status: FederationStatus) -> str:
    """Return the federation at a glance: constituents, requests, what differs."""
    has_budget = any(each.budget_used is not None for each in status.constituents)
    parts = [
        f"federation {status.name} in {status.store}",
        (
            f"{status.points:,} data points in {status.shards} shards × {status.slices} slices"
            f"{'' if status.held_out is None else f', and {status.held_out:,} hold-out points'}; "
            f"generation {status.generation} (erasure floor {status.floor}), "
            f"{status.serving} of {status.shards} constituents answer; guarantee: {status.guarantee}"
        ),
        table(
            ("shard", "points", "state", "serves slice", "slices", "digest", *(["budget used"] if has_budget else [])),
            [
                (
                    each.shard,
                    "-" if each.points is None else each.points,
                    each.state,
                    each.serving_slice,
                    each.slices,
                    (each.digest or "-")[:16],
                    *(["-" if each.budget_used is None else f"{each.budget_used:.0%}"] if has_budget else []),
                )
                for each in status.constituents
            ],
        ),
    ]
    if status.measure is not None:
        stale = "" if status.is_measured else "; what is served now is not measured yet, 'sisa train' measures it"
        parts.append(f"hold-out points: {_measure_text(status.measure)}{stale}")
    if status.forgotten:
        parts.append(
            "THE STATE WAS PUT BACK to before what the receipts' log states; nothing is answered from it. It does not"
            f" know: {', '.join(status.forgotten[:_MOST_FORGOTTEN])}. Restore the store as a whole, or submit these"
            " requests again, under their ids (docs/backup.md: Restore from a backup)"
        )
    if status.clock_behind_seconds > MOST_SECONDS_BEHIND:
        parts.append(clock_is_behind(status.clock_behind_seconds))
    if listed := _names_text(status):
        parts.append("\n".join(listed))
    if status.requests:
        parts.append("\n".join([requests_text(status.requests), *_ended_text(status), *_left_text(status)]))
    if status.differences:
        parts.append(f"the specification differs from what was trained in: {', '.join(status.differences)}")
    if "probe" in status.unrecorded:
        parts.append(
            "trained by a release that recorded no probe of arithmetic: only 'sisa verify' notices here if another kind"
            " of processor computes other bits; the next training from scratch records a probe"
        )
    if "code_manifest" in status.unrecorded:
        parts.append(
            "trained by a release that kept no manifest of the model's code: changes of modules that are imported late,"
            " of installed packages and of files are not noticed; the next training from scratch records one"
        )
    return "\n\n".join(parts)


def releases_text(releases: Mapping[str, str]) -> str:
    """Return the releases of the running processes if they differ; otherwise empty."""
    if len(set(releases.values())) < 2:
        return ""
    listed = ", ".join(f"{process} {release}" for process, release in releases.items())
    return f"\n\nreleases differ: {listed}; see docs/upgrades.md"


def requests_text(requests: Sequence[RequestStatus]) -> str:
    """Return erasure requests as a table."""
    return table(
        ("request", "state", "points", "shards", "received", "due", "note"),
        [
            (
                each.request_id,
                each.state,
                each.points,
                ",".join(map(str, each.shards)) or "-",
                each.received_at[:19],
                each.due_at[:10],
                _note(each),
            )
            for each in requests
        ],
    )


def similar_text(similar: Similar) -> list[str]:
    """Return the note about data points that stay because their subject is spelt differently; empty if none do."""
    if not similar.points:
        return []
    belong, stay = ("s belong", "stay") if similar.points > 1 else (" belongs", "stays")
    points = f"{similar.points:,} data point{belong}"
    subjects = f"{similar.subjects:,} subjects whose names differ" if similar.subjects > 1 else _ONE_SIMILAR
    return [f"{points} to {subjects} only in case or spacing, and {stay} (--include-similar takes them along)"]


def plan_text(plan: RetrainPlan) -> str:
    """Return what an erasure would cost."""
    if not plan.points:
        return "nothing to erase: no data point of these subjects or ids is in the federation"
    would = (
        f"{plan.points} data points would be erased{held_out_text(plan.held_out)}, retraining {plan.fraction:.1%} of"
        " the federation's work"
    )
    return f"{would}\n{plan_table(plan)}"


def plan_table(plan: RetrainPlan) -> str:
    """Return which shards a plan trains again."""
    return table(
        ("shard", "from slice", "point-epochs", "seconds last time"),
        [(each.shard, each.from_slice, each.point_epochs, each.seconds) for each in plan.shards],
    )


def erasure_text(request: RequestStatus, status: FederationStatus | None = None) -> str:
    """Return how a request ended, or what it waits for; with ``status``, its cost compared with a full retrain's."""
    is_correction = request.kind == "rectification"
    begins = f"request {request.request_id}: {request.state}"
    if request.state in {RequestState.REFUSED.value, RequestState.CANCELLED.value}:
        return "; ".join([begins, *similar_text(request.similar)])
    if request.state == RequestState.WAITING.value:
        released = f"'sisa request release {request.request_id}' lets it be carried out"
        done = "corrected" if is_correction else "removed"
        return f"{begins}; nothing of it is {done} while it is paused: {request.held}\n{released}"
    if request.state == RequestState.ACCEPTED.value:
        return f"{begins}; 'sisa status {request.request_id}' shows how it is carried out"
    retrained = "shards retrained" if request.state == RequestState.COMPLETE.value else "shards to retrain"
    done = "corrected" if is_correction else "erased"
    done = (
        f"{request.points} data points {done}{held_out_text(request.held_out)}, {retrained}:"
        f" {', '.join(map(str, request.shards)) or 'none'}"
    )
    if request.unknown:
        names = "rows" if is_correction else "names"
        done += f"; {request.unknown} {names} have no data points here (unknown, or erased before)"
    if is_correction:
        sources = "correct the source, too: until then training keeps the corrected values and says so"
    else:
        sources = "files outside the store are yours to rewrite: 'sisa doctor' names those that still hold them"
    costs = [*_cost_text(request, status), *_effect_text(request), *_batch_text(request, status)]
    return "\n".join(["; ".join([begins, done, *similar_text(request.similar)]), *costs, sources])


def held_out_text(held_out: int) -> str:
    """Return how many of the data points just mentioned are hold-out points; empty if none of them is."""
    return f" ({held_out} of them hold-out points)" if held_out else ""


def ended_before_text(request: RequestStatus) -> str:
    """Return that a request had ended before it was submitted once more."""
    since = _moment(request.times[request.state])
    return f"request {request.request_id} was submitted before and is {request.state} since {since}: nothing was done"


def request_text(request: RequestStatus, status: FederationStatus | None = None) -> str:
    """Return everything known about one request; with ``status``, its cost compared with a full retrain's."""
    passed = [state.value for state in RequestState if state.value in request.times]
    return "\n".join(
        [
            requests_text([request]),
            *(f"  {request.times[state]}  {state}" for state in passed),
            *(["it corrects data points"] if request.kind == "rectification" else []),
            f"subjects named: {request.subjects}, data points named: {request.ids}, unknown here: {request.unknown}",
            *similar_text(request.similar),
            *_pauses_text(request),
            *(
                f"extended on {each.at[:10]}, due on {each.previous_due_at[:10]} until then: {each.reason}"
                for each in request.extensions
            ),
            *_cost_text(request, status),
            *_effect_text(request),
            *_batch_text(request, status),
            *_reason_text(request),
        ]
    )


def verification_text(verification: Verification) -> str:
    """Return the proof, shard by shard, and the scan's findings."""
    residue = verification.residue
    is_exact = verification.guarantee == str(EXACT)
    columns = ("retrained from nothing", "equal") if is_exact else ("residual", "accounted", "at most that")
    shards = table(
        ("shard", "constituent", *columns),
        [
            (
                each.shard,
                (each.digest or "-")[:16],
                *(
                    [(each.retrained_digest or "-")[:16]]
                    if is_exact
                    else map(_residual, (each.residual, each.accounted))
                ),
                "yes" if each.holds else "NO",
            )
            for each in verification.shards
        ],
    )
    scan = f"scan: {residue.objects} objects, {residue.bytes:,} bytes, {len(residue.found)} findings"
    receipts = f"receipts: {verification.receipts.checked} checked, {len(verification.receipts.broken)} broken"
    if residue.unread:
        scan += f"; records of {residue.unread} finished requests were not read ('sisa verify --all')"
    if unread := verification.receipts.unread:
        receipts += f"; {unread} that an earlier verification found sound were not read again ('sisa verify --all')"
    broken = (f"  {each}" for each in verification.receipts.broken)
    return "\n".join([shards, scan, *(f"  {finding}" for finding in residue.found), receipts, *broken])


def _residual(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def forecast_text(plan: Plan) -> str:
    """Return what training and erasing will cost."""
    found, basis = plan.forecast, plan.basis
    rests = "this federation's own training" if basis.measured else "a short trial on this machine"
    again = "" if found.direct_seconds is None else ", by retraining"
    costs = [
        ("train everything", _duration(found.full_training_seconds), "the yardstick"),
        *_direct_costs(plan),
        (f"erase one data point{again}", _duration(found.erasure_seconds), f"{found.erasure_speed_up:.1f}x faster"),
    ]
    if found.requests > 1:
        share = f"{found.batch_speed_up:.2f}x faster, {found.batch_fraction:.1%} of the work"
        costs.append((f"erase {found.requests} in one batch{again}", _duration(found.batch_seconds), share))
    lines = table(("", "time", "against a full retrain"), costs)
    parts = [
        (
            f"{basis.points:,} data points, {plan.partition.shards} shards × {plan.partition.slices} slices,"
            f" {plan.workers} workers; times are based on {rests}"
        ),
        lines,
        (
            f"storage: {found.checkpoint_bytes / 1e6:,.1f} MB of checkpoints,"
            f" up to {found.slice_bytes / 1e6:,.1f} MB of slice files before compression"
        ),
        *(f"note: {warning}" for warning in found.warnings),
    ]
    return "\n".join(parts)


_SHORT = 0.1
"""From this many seconds on, two decimals are enough."""


def _direct_costs(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield what erasures cost that take points out directly, if the learner does so."""
    found, work = plan.forecast, plan.basis.points * plan.basis.seconds_per_point_epoch
    for name, seconds in (
        ("erase one data point, directly", found.direct_seconds),
        (f"erase {found.requests} in one batch, directly", found.direct_batch_seconds if found.requests > 1 else None),
    ):
        if seconds is not None:
            time = _duration(seconds) if seconds >= _SHORT else f"{1000 * seconds:.1f} ms"
            yield name, time, f"{work / seconds:,.1f}x faster" if seconds else "-"


def _names_text(status: FederationStatus) -> list[str]:
    """Return notes on how people's names are compared, where that may surprise, and on data points kept out."""
    lines = []
    if status.similar_subjects:
        lines.append(
            f"{status.similar_subjects:,} subjects have names that differ from another's only in case or spacing:"
            " erasing one leaves the other, unless --include-similar is given"
        )
    elif status.similar_subjects is None:
        lines.append("names are taken exactly as written: a federation of release 0.1 cannot compare spellings")
    if status.tombstoned_at_ingest:
        by_id = f", {status.kept_out_by_id:,} of them {WHY_BY_ID}"
        lines.append(
            f"{status.tombstoned_at_ingest:,} data points of the source are kept out, because they were erased"
            f"{by_id if status.kept_out_by_id else ''}"
        )
    if status.outdated_at_ingest:
        lines.append(outdated_text(status.outdated_at_ingest))
    if status.respelt_at_ingest:
        lines.append(
            f"{status.respelt_at_ingest:,} data points were taken in whose subject differs from an erased one only in"
            " case or spacing; 'sisa erase' takes them out"
        )
    return lines


def _ended_text(status: FederationStatus) -> list[str]:
    """Return how many requests have ended that are not listed."""
    count = status.ended_before
    return [f"{count:,} more ended before these: 'sisa request list' lists all"] if count else []


def _left_text(status: FederationStatus) -> list[str]:
    """Return what happens next to the open requests: when they are retrained, or which command continues."""
    closed = {state.value for state in RequestState if not state.is_open}
    waits = frozenset(status.batch.requests) if status.batch and status.batch.retrains_from else frozenset[str]()
    paused = RequestState.WAITING.value
    others = [each for each in status.requests if each.state not in {*closed, paused} and each.request_id not in waits]
    lines = [] if status.batch is None else _wait_text(status.batch)
    if others:
        lines.append(f"to be carried out: {len(others)}; if no command is working on them, 'sisa train' continues")
    return lines


def _wait_text(batch: BatchStatus) -> list[str]:
    if not batch.retrains_from:
        return []
    so_far = f"{len(batch.requests)} so far, {_work(batch.expected)} expected"
    all_until = f"for all requests that arrive until then: {so_far}"
    return [f"retrains from {_moment(batch.retrains_from)} {all_until}; 'sisa train' does it now"]


def _batch_text(request: RequestStatus, status: FederationStatus | None) -> list[str]:
    """Return when the shards are retrained for the request, if it waits for others to share that."""
    batch = status.batch if status else None
    return _wait_text(batch) if batch is not None and request.request_id in batch.requests else []


def _cost_text(request: RequestStatus, status: FederationStatus | None) -> list[str]:
    """Return the expected and the actual cost; empty before they are known."""
    if request.expected is None:
        return []
    expected, spent = f"expected {_work(request.expected)}", request.spent
    if request.stage == RequestState.QUARANTINED.value:
        return [f"{expected}; nothing is spent yet"]
    full = status.full_point_epochs if status else 0
    share = f", {spent.point_epochs / full:.1%} of a full retrain" if full else ""
    return [f"{expected}; spent {_work(spent)}{share}"]


def _effect_text(request: RequestStatus) -> list[str]:
    """Return the measures on hold-out points before and after the request, and the alarm if there is one."""
    if request.effect is None:
        return []
    before, after = request.effect.before, request.effect.after
    moments = [f"{_measure_text(each)} {name}" for name, each in (("before", before), ("after", after)) if each]
    lines = [f"hold-out points: {', '.join(moments)}"] if moments else []
    if after is None and request.state == RequestState.COMPLETE.value:
        why = request.effect.unmeasured
        lines.append(f"hold-out points: not measured after it{f': {why}' if why else ' yet'}")
    if before and after and request.alarms:
        shares = [
            f"{name} from {_share_of(before, name):.4f} to {_share_of(after, name):.4f}" for name in request.alarms
        ]
        lines.append(f"ALARM: worse by more than {request.effect.margin:g}: {', '.join(shares)}")
    return lines


def _measure_text(measure: HoldoutMeasure) -> str:
    name = next((name for name in ("accuracy", "rmse", "inertia", "hit_rate") if name in measure.metrics), "")
    value = f"{name} {measure.metrics[name]:.4f} " if name else ""
    return f"{value}on {measure.points:,} (generation {measure.generation})"


def _share_of(measure: HoldoutMeasure, name: str) -> float:
    return (measure.per_class or {}).get(name) or measure.metrics.get(name, 0.0)


def _work(cost: Cost) -> str:
    return f"{cost.point_epochs:,} point-epochs ({_duration(cost.seconds)})"


def _pauses_text(request: RequestStatus) -> list[str]:
    lines = [
        f"paused from {_moment(each.held_at)} to {_moment(each.released_at)}: {each.reason}" for each in request.holds
    ]
    return [*lines, f"paused since {_moment(request.held_at)}: {request.held}"] if request.held else lines


def _reason_text(request: RequestStatus) -> list[str]:
    if not request.reason:
        return []
    when = f" on {_moment(request.failed_at)}" if request.failed_at else ""
    return [f"{request.state}{when}: {request.reason}"]


def _note(request: RequestStatus) -> str:
    """Return as much as fits into a line of a table; ``request_text`` returns all of it."""
    if request.overdue:
        return "overdue"
    note = request.held or request.reason
    return note if len(note) <= _MOST_OF_A_NOTE else f"{note[: _MOST_OF_A_NOTE - 3]}..."


def _moment(at: str) -> str:
    """Return a moment as people read it, to the minute."""
    return f"{at[:16].replace('T', ' ')} UTC"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
