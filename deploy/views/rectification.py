"""Carrying out and printing for ``sisa rectify``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.writer.drafting import new_request_id
from coordinator.requests import RequestState
from coordinator.status import RequestStatus
from deploy.views.erasure import carried_out, listed, refuse_late_hold, request_if_known
from deploy.views.output import Outcome, json_value
from deploy.views.text import held_out_text, plan_table
from storage.objects import new_name

if TYPE_CHECKING:
    from cluster.federation import Federation
    from cluster.results.federation import ErasureAnswer, Search


def rectify(federation: Federation, file: Path, *, request_id: str | None, hold: str | None, wait: bool) -> Outcome:
    """Submit the corrected rows in a file, and carry the request out as far as possible now; see ``erasure.submit``."""
    earlier = None if request_id is None else request_if_known(federation, request_id)
    refuse_late_hold(hold, earlier)
    own_id = new_request_id(new_name) if request_id is None else request_id
    answers: list[ErasureAnswer] = []

    def act() -> RequestStatus:
        answers.append(
            federation.rectify(file, request_id=own_id, held=hold or "", wait=wait, on_accepted=answers.append)
        )
        return request_if_known(federation, own_id) or answers[-1]

    outcome = carried_out(federation, own_id, act, earlier)
    if outcome.data is None or not answers:
        return outcome
    rows = _rows(answers[-1].unknown_ids)
    salt = "" if outcome.data["state"] == RequestState.REFUSED.value else answers[0].salt  # no statement to open
    private: dict[str, Any] = {"unknown_rows": rows, "salt": salt}
    lines = _unknown_text(rows, file)
    if salt and outcome.data["state"] == RequestState.COMPLETE.value:
        lines.append(
            f"'sisa receipt {own_id}' prints the signed receipt. Keep this salt: it is stored nowhere else, and shows"
            f" which data points the receipt is about: {salt}"
        )
    private = {name: value for name, value in private.items() if value}
    return replace(outcome, data={**outcome.data, **private}, text="\n".join([outcome.text or "", *lines]).strip())


def correction_price(found: Search, file: Path) -> Outcome:
    """Return what a correction would change and cost, and which of its rows have no data point here."""
    plan, rows = found.plan, _rows(found.unknown_ids)
    data = {
        "request_id": None,
        "kind": "rectification",
        "state": "dry-run",
        "shards": [each.shard for each in plan.shards],
        "points": plan.points,
        "ids": found.ids,
        "unknown": found.unknown,
        "unknown_rows": rows,
        "plan": json_value(plan) | {"fraction": plan.fraction},
    }
    first = (
        f"{plan.points} data points would be corrected{held_out_text(plan.held_out)}, retraining {plan.fraction:.1%} of"
        " the federation's work; those that have these values already cost nothing"
        if plan.points
        else "nothing to correct: none of these data points is in the federation"
    )
    lines = [first, *([plan_table(plan)] if plan.points else []), *_unknown_text(rows, file)]
    return Outcome(data=data, text="\n".join(lines))


def _rows(positions: tuple[int, ...]) -> list[int]:
    return [position + 1 for position in positions]


def _unknown_text(rows: list[int], file: Path) -> list[str]:
    return [f"no data point here of these rows of {file}: {listed(rows)}"] if rows else []
