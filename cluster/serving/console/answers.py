"""Whether a request's data are gone, in an officer's words: the first line of its page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coordinator.status import RequestStatus

STATES: Final = {
    "accepted": ("busy", "Accepted"),
    "planned": ("busy", "Accepted"),
    "quarantined": ("busy", "No longer used"),
    "retraining": ("busy", "No longer used"),
    "published": ("busy", "No longer used"),
    "purged": ("busy", "Deleted, receipt to come"),
    "complete": ("good", "Complete"),
    "waiting": ("", "On hold"),
    "failed": ("bad", "Failed, to be repeated"),
    "refused": ("", "Nothing held"),
    "cancelled": ("", "Withdrawn"),
    "readmitted": ("", "May come back"),
}
"""For each state of a request, the kind of its badge and its words."""

KINDS: Final = {"erasure": "Erasure", "rectification": "Correction", "readmission": "Readmission"}

STEPS: Final = {
    "accepted": "Accepted, and on record for good",
    "quarantined": "No answer uses a model that has learned from the data any more",
    "published": "Models without the data took over",
    "purged": "The last objects with the data were deleted from the store",
    "complete": "The store was searched for leftovers, and the receipt was signed",
    "refused": "All data was searched, and nothing was found",
    "cancelled": "Withdrawn",
}
"""What each recorded time means."""

_OUT_OF_USE: Final = frozenset({"quarantined", "retraining", "published", "purged"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAnswer:
    """The answer to "is the data gone?"."""

    kind: str
    """Kind of the notice: ``good``, ``busy`` or ``bad``; or empty."""
    verdict: str
    remains: str
    """What remains to be done, or to be known."""


def page_answer(request: RequestStatus) -> PageAnswer:
    """Return the answer for a request as it stands."""
    corrects = request.kind == "rectification"
    kind, verdict, remains = _said(request, corrects=corrects)
    late = " It is overdue." if request.overdue else ""
    return PageAnswer(kind="bad" if late else kind, verdict=verdict, remains=f"{remains}{late}")


def _said(request: RequestStatus, *, corrects: bool) -> tuple[str, str, str]:
    done = "corrected" if corrects else "erased"
    points = "1 data point" if request.points == 1 else f"{request.points:,} data points"
    match request.state:
        case "complete":
            unknown = f" {request.unknown:,} of the names were not known here." if request.unknown else ""
            verdict = "Yes, the data is corrected." if corrects else "Yes, the data is gone."
            return "good", verdict, f"{points} were {done}, and the receipt is signed.{unknown}"
        case "refused":
            nothing = "Nothing was to be corrected." if corrects else "Nothing is held under these names."
            return "good", nothing, "A signed statement says so. Nothing was changed."
        case "cancelled":
            return "", "The request was withdrawn.", f"Nothing was {done}. Reason: {request.reason}"
        case "waiting":
            return "", "No, it is on hold.", f"Nothing is {done} until it is released. Reason: {request.held}"
    again = f" The last attempt failed: {request.reason}" if request.state == "failed" else ""
    if request.stage in _OUT_OF_USE:
        left = "What remains: training the affected models again, deleting the last copies, signing the receipt."
        if request.stage == "purged":
            return "busy", f"Yes, the data is {'corrected' if corrects else 'gone'}.", f"The receipt is to come.{again}"
        return "bad" if again else "busy", f"Partly: {points} are out of use, not yet deleted.", f"{left}{again}"
    return "bad" if again else "busy", "Not yet: it waits to be carried out.", f"Nothing is {done} yet.{again}"
