"""What ``sisa erase`` reads and says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coordinator.plan import RetrainPlan
from coordinator.requests import RequestState
from coordinator.status import RequestStatus
from deploy.output import ExitCode, Outcome, Problem, plain
from deploy.text import erasure_text, plan_text
from storage.errors import Invalid

_MOST_LINES_TOLD = 10


def named(
    subjects: Sequence[str], ids: Sequence[str], more: Sequence[str], file: Path | None, file_of: str
) -> tuple[list[str], list[str]]:
    """Return the subjects and the ids that the command line names.

    ``more`` are bare words after ``--subject A`` or ``--id A``. Raises ``Invalid`` when it is not clear which they are,
    when nothing is named, and when the file has lines that name nothing: all or nothing.
    """
    if file_of not in ("subjects", "ids"):
        raise Invalid(f"--file-of takes subjects or ids, got {file_of!r}", "choose one of the two")
    if more and bool(subjects) == bool(ids):
        raise Invalid("bare words follow both --subject and --id, or neither", "write --subject or --id before each")
    all_subjects, all_ids = list(subjects), list(ids)
    (all_subjects if subjects else all_ids).extend(more)
    if file is not None:
        (all_subjects if file_of == "subjects" else all_ids).extend(_lines(file))
    if not all_subjects and not all_ids:
        raise Invalid("no subject and no data point is named", "name them with --subject, --id or --file")
    if "" in all_subjects or "" in all_ids:
        raise Invalid("an empty name cannot be erased", "check the quoting of --subject and --id")
    return all_subjects, all_ids


def erase_outcome(request: RequestStatus) -> Outcome:
    """Return how an erasure request ended."""
    problem = None
    code = ExitCode.DONE
    if request.state == RequestState.REFUSED.value:
        problem = Problem(
            kind="refused",
            message=f"{request.reason} [request={request.request_id}]",
            remedy="check the spelling; 'sisa status' shows earlier requests. Nothing was changed.",
        )
        code = ExitCode.INVALID
    return Outcome(data=plain(request), text=erasure_text(request), problem=problem, code=code)


def price_outcome(plan: RetrainPlan) -> Outcome:
    """Return what an erasure would cost."""
    data = {
        "request_id": None,
        "state": "dry-run",
        "shards": [each.shard for each in plan.shards],
        "points": plan.points,
        "plan": plain(plan) | {"fraction": plan.fraction},
    }
    return Outcome(data=data, text=plan_text(plan))


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise Invalid("there is no such file of names", "check the path after --file", file=str(file)) from None
    except UnicodeDecodeError as error:
        raise Invalid("the file of names is not UTF-8 text", "save it as UTF-8", file=str(file)) from error
    except OSError as error:
        raise Invalid("the file of names cannot be read", "name a readable text file", file=str(file)) from error
    bad = [number for number, line in enumerate(lines, start=1) if not line.strip()]
    if bad or not lines:
        told = ", ".join(map(str, bad[:_MOST_LINES_TOLD])) or "none at all"
        raise Invalid(
            f"the file of names has lines that name nobody: {told}",
            "write one name a line; nothing was erased",
            file=str(file),
        )
    return lines
