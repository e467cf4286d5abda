"""What ``sisa trace`` prints: where a person's data are, and which generations may have answered with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.results.traces import SubjectTrace, SubjectTraces, TracedRequest
from deploy.views.output import Outcome, json_value
from deploy.views.tables import table

_ERASED_IN_SOME_REQUEST = (
    "erased, and kept out since then. By which request is not on record, because that named several people, or another"
    " spelling: trace all of its names together"
)


def trace_outcome(found: SubjectTraces, names: Sequence[str]) -> Outcome:
    """Return what is on record about the ``names``, in their order. JSON repeats no name."""
    parts = [f"{name}\n{_text(each)}" for name, each in zip(names, found.subjects, strict=True)]
    if len(names) > 1:
        parts.append("\n".join(["requests that named all of these and nobody else:", *_requests(found.together)]))
    return Outcome(data=json_value(found), text="\n\n".join(parts))


def _text(trace: SubjectTrace) -> str:
    lines = [f"  {_held(trace)}"]
    if trace.similar.points:
        lines.append(
            f"  {trace.similar.subjects:,} subjects with {trace.similar.points:,} data points have names that differ"
            " only in spelling"
        )
    if trace.slices:
        rows = [
            ("hold-out" if each.held_out else str(each.shard), str(each.slice), str(each.points))
            for each in trace.slices
        ]
        lines += table(("shard", "slice", "data points"), rows).splitlines()
    if trace.checkpoints:
        seen = [
            (str(each.shard), str(each.slice), "yes" if each.serving else "", each.digest[:16], each.sha256[:16])
            for each in trace.checkpoints
        ]
        lines.append("  checkpoints that have seen them:")
        lines += table(("shard", "slice", "serves", "constituent", "object"), seen).splitlines()
    lines += _generations(trace)
    return "\n".join([*lines, "  requests that named this subject:", *_requests(trace.requests)])


def _held(trace: SubjectTrace) -> str:
    held = f"{trace.points:,} data points are held" if trace.points else "nothing is held"
    if not trace.erased:
        return held
    is_known = any(each.kind == "erasure" and each.state == "complete" for each in trace.requests)
    return f"{held}; {'erased, and kept out since then' if is_known else _ERASED_IN_SOME_REQUEST}"


def _generations(trace: SubjectTrace) -> Iterator[str]:
    if not trace.generations:
        return
    yield "  generations that may have answered with them (since when they were here is not on record):"
    rows = [
        (
            str(each.number),
            each.since or "not on record",
            each.until or "now",
            ", ".join(map(str, each.shards)),
        )
        for each in trace.generations
    ]
    yield from table(("generation", "since", "until", "shards"), rows).splitlines()


def _requests(requests: Sequence[TracedRequest]) -> list[str]:
    if not requests:
        return ["  none on record; an ended request with several names does not show whom it named"]
    rows = [
        (
            each.request_id,
            each.kind,
            each.state,
            each.received_at,
            each.ended_at or "open",
            "" if each.receipt is None else str(each.receipt),
        )
        for each in requests
    ]
    return table(("request", "kind", "state", "received", "ended", "entry of the log"), rows).splitlines()
