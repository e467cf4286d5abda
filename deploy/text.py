"""Results as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.outcome import Evaluation, Verification
from cluster.planning import Plan
from coordinator.plan import RetrainPlan
from coordinator.status import FederationStatus, RequestStatus


def table(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Return aligned columns; numbers to the right."""
    cells = [[str(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in [list(header), *cells]) for column in range(len(header))]
    right = [
        all(isinstance(line[column], int | float) for line in lines) and bool(lines) for column in range(len(header))
    ]

    def laid(line: Sequence[str]) -> str:
        parts = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        return "  ".join(parts).rstrip()

    return "\n".join([laid(list(header)), *(laid(line) for line in cells)])


def status_text(status: FederationStatus) -> str:
    """Return the federation at a glance: constituents, requests, what differs."""
    parts = [
        f"federation {status.name} in {status.store}",
        (
            f"{status.points:,} data points in {status.shards} shards × {status.slices} slices; "
            f"generation {status.generation} (erasure floor {status.floor}), "
            f"{status.serving} of {status.shards} constituents answer"
        ),
        table(
            ("shard", "points", "state", "serves slice", "slices", "digest"),
            [
                (each.shard, each.points, each.state, each.serving_slice, each.slices, (each.digest or "-")[:16])
                for each in status.constituents
            ],
        ),
    ]
    if status.requests:
        parts.append(requests_text(status.requests))
    if status.differences:
        parts.append(f"the specification differs from what was trained in: {', '.join(status.differences)}")
    return "\n\n".join(parts)


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
                "overdue" if each.overdue else each.reason,
            )
            for each in requests
        ],
    )


def evaluation_text(evaluation: Evaluation) -> str:
    """Return accuracy, overall and per class."""
    per_class = table(
        ("class", "accuracy", "points"),
        [
            (name, "-" if share is None else f"{share:.4f}", evaluation.points_per_class[name])
            for name, share in evaluation.per_class.items()
        ],
    )
    return (
        f"accuracy {evaluation.accuracy:.4f} on {evaluation.points:,} data points"
        f" (generation {evaluation.generation}, constituents {evaluation.constituents} of {evaluation.shards})\n"
        f"{per_class}"
    )


def plan_text(plan: RetrainPlan) -> str:
    """Return what an erasure would cost."""
    if not plan.points:
        return "nothing to erase: no data point of these subjects or ids is in the federation"
    shards = table(
        ("shard", "from slice", "point-epochs", "seconds last time"),
        [(each.shard, each.from_slice, each.point_epochs, each.seconds) for each in plan.shards],
    )
    return (
        f"{plan.points} data points would be erased, retraining {plan.fraction:.1%} of the federation's work\n{shards}"
    )


def erasure_text(request: RequestStatus) -> str:
    """Return how an erasure request ended."""
    if request.state == "refused":
        return f"request {request.request_id}: refused"
    shards = ", ".join(map(str, request.shards))
    done = f"{request.points} data points erased, shards retrained: {shards}"
    if request.unknown:
        done += f"; {request.unknown} names have no data points here (unknown, or erased before)"
    sources = "files outside the store are yours to rewrite: 'sisa doctor' names those that still hold them"
    return f"request {request.request_id}: {request.state}; {done}\n{sources}"


def verification_text(verification: Verification) -> str:
    """Return the proof, shard by shard, and the scan's findings."""
    residue = verification.residue
    shards = table(
        ("shard", "constituent", "retrained from nothing", "equal"),
        [
            (each.shard, (each.digest or "-")[:16], (each.retrained_digest or "-")[:16], "yes" if each.exact else "NO")
            for each in verification.shards
        ],
    )
    scan = f"scan: {residue.objects} objects, {residue.bytes:,} bytes, {len(residue.found)} findings"
    receipts = f"receipts: {verification.receipts.checked} checked, {len(verification.receipts.broken)} broken"
    broken = (f"  {each}" for each in verification.receipts.broken)
    return "\n".join([shards, scan, *(f"  {finding}" for finding in residue.found), receipts, *broken])


def forecast_text(plan: Plan) -> str:
    """Return what training and erasing will cost."""
    found, basis = plan.forecast, plan.basis
    rests = "this federation's own training" if basis.measured else "a short trial on this machine"
    costs = [
        ("train everything", _duration(found.full_training_seconds), "the yardstick"),
        ("erase one data point", _duration(found.erasure_seconds), f"{found.erasure_speed_up:.1f}x faster"),
    ]
    if found.requests > 1:
        share = f"{found.batch_speed_up:.2f}x faster, {found.batch_fraction:.1%} of the work"
        costs.append((f"erase {found.requests} in one batch", _duration(found.batch_seconds), share))
    lines = table(("", "time", "against a full retrain"), costs)
    parts = [
        (
            f"{basis.points:,} data points, {plan.partition.shards} shards × {plan.partition.slices} slices,"
            f" {plan.workers} workers; times rest on {rests}"
        ),
        lines,
        (
            f"storage: {found.checkpoint_bytes / 1e6:,.1f} MB of checkpoints,"
            f" up to {found.slice_bytes / 1e6:,.1f} MB of slice files before compression"
        ),
        *(f"note: {warning}" for warning in found.warnings),
    ]
    return "\n".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
