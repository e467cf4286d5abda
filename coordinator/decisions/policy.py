"""Which interventions in a request are allowed, and when: returns the event, or raises an error with the reason. Pure.

Data protection law allows a month, one recorded extension, and pauses while there is a reason to wait, such as a legal
hold. A request can be withdrawn until its data points are removed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

from coordinator.decisions.events import (
    DueExtended,
    RequestCancelled,
    RequestHeld,
    RequestReleased,
)
from coordinator.decisions.lifecycle import is_untouched, later
from coordinator.delays import check_reason
from coordinator.interventions import Cancel, Extend, Hold, Intervention, Release
from coordinator.requests import ErasureRequest
from coordinator.settings import ErasureSettings
from coordinator.state import FederationState
from storage.errors import Conflict, Invalid


def ruling(
    state: FederationState, request_id: str, wanted: Intervention, *, settings: ErasureSettings, at: str
) -> DueExtended | RequestHeld | RequestReleased | RequestCancelled:
    """Return the event that carries out the wanted intervention in the request.

    Raises ``Invalid`` when the request is unknown, or the days or the reason are invalid, and ``Conflict`` when the
    request has ended or it is too late: its data points are removed, it is overdue, or its due date was moved before.
    ``Hold`` also raises ``Conflict`` when the request is paused, ``Release`` when it is not paused.
    """
    request = _open(state, request_id)
    match wanted:
        case Hold(reason=reason):
            return _held(request, reason, at)
        case Release():
            return _released(request, at)
        case Extend(days=days, reason=reason):
            return _extended(request, days, reason, settings, at)
        case Cancel(reason=reason):
            check_reason(reason)
            _refuse_touched(request, "be withdrawn")
            return RequestCancelled(request_id=request_id, reason=reason, at=at)
        case _:
            assert_never(wanted)


def _extended(request: ErasureRequest, days: int, reason: str, settings: ErasureSettings, at: str) -> DueExtended:
    check_reason(reason)
    _check_days(days, settings, request.request_id)
    if request.extension is not None:
        raise request.extension.refusal(request.request_id, request.due_at)
    if is_overdue(request, datetime.fromisoformat(at)):
        raise Conflict(
            f"the request was due on {request.due_at[:10]}: more time has to be recorded before that",
            "Carry it out now.",
            request=request.request_id,
        )
    due_at = later(request.due_at, timedelta(days=days))
    return DueExtended(request_id=request.request_id, due_at=due_at, reason=reason, at=at)


def _held(request: ErasureRequest, reason: str, at: str) -> RequestHeld:
    check_reason(reason)
    _refuse_touched(request, "be paused")
    if request.pause is not None:
        raise request.pause.refusal(request.request_id)
    return RequestHeld(request_id=request.request_id, reason=reason, at=at)


def _released(request: ErasureRequest, at: str) -> RequestReleased:
    if request.pause is None:
        raise Conflict("the request is not paused", "See its state with 'sisa status'.", request=request.request_id)
    return RequestReleased(request_id=request.request_id, at=at)


def is_overdue(request: ErasureRequest, now: datetime) -> bool:
    """Return whether the request is open past its due date; a paused request is judged by when its pause began."""
    moment = now if request.pause is None else datetime.fromisoformat(request.pause.held_at)
    return request.state.is_open and datetime.fromisoformat(request.due_at) < moment


def _open(state: FederationState, request_id: str) -> ErasureRequest:
    request = state.request(request_id)
    if request is None:
        raise Invalid(
            "there is no such erasure request", "See 'sisa request list' for all of them.", request=request_id
        )
    if not request.state.is_open:
        raise Conflict(
            f"the request is {request.state.value} already",
            "Submit a new request for a new demand: this one has ended.",
            request=request_id,
        )
    return request


def _refuse_touched(request: ErasureRequest, what: str) -> None:
    if is_untouched(request):
        return
    raise Conflict(
        f"the request cannot {what}: its data points are removed, it is {request.state.value}",
        "Let it be carried out: what is erased does not come back.",
        request=request.request_id,
    )


def _check_days(days: int, settings: ErasureSettings, request_id: str) -> None:
    most = settings.extension_days
    if 1 <= days <= most:
        return
    raise Invalid(
        f"a due date can be moved by 1 .. {most} days, got {days}" if most else "due dates are not moved here",
        f"{'Choose another number, or see' if most else 'See'} [erasure] extension_days, which is {most}.",
        request=request_id,
    )
