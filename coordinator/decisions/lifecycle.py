"""Changes of a request besides carrying it out: more time, a pause, withdrawal, a failed attempt. Pure.

A change is made only if it still applies: an event that is repeated or too late changes nothing.
``coordinator.decisions.policy`` decides whether the change is allowed at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from coordinator.delays import Extension, FailedAttempt, Pause
from coordinator.requests import Correction, ErasureRequest, ObjectRef, RequestState
from coordinator.state import FederationState


def accept(state: FederationState, request: ErasureRequest) -> FederationState:
    """Return the state with the request, which may arrive paused; a known id changes nothing (D4)."""
    if state.request(request.request_id) is not None or state.readmission(request.request_id) is not None:
        return state
    accepted = replace(request, times={RequestState.ACCEPTED.value: request.received_at})
    return replace(state, requests=(*state.requests, accepted))


def extend_due(state: FederationState, request_id: str, due_at: str, reason: str, at: str) -> FederationState:
    """Return the state in which the request is due at ``due_at``; this can be done once."""
    request = state.request(request_id)
    if request is None or not request.state.is_open or request.extension is not None:
        return state
    extension = Extension(at=at, reason=reason, previous_due_at=request.due_at)
    return change(state, request, replace(request, due_at=due_at, extension=extension))


def hold(state: FederationState, request_id: str, reason: str, at: str) -> FederationState:
    """Return the state in which the request is paused, unless its data points are removed."""
    request = state.request(request_id)
    if request is None or not is_ready(request):
        return state
    return change(state, request, replace(request, pause=Pause(reason=reason, held_at=at)))


def release(state: FederationState, request_id: str, at: str) -> FederationState:
    """Return the state in which the request's pause has ended."""
    request = state.request(request_id)
    return state if request is None else change(state, request, _released(request, at))


def cancel(state: FederationState, request_id: str, reason: str, at: str) -> FederationState:
    """Return the state in which the request is withdrawn, unless its data points are removed."""
    request = state.request(request_id)
    if request is None or not is_untouched(request):
        return state
    ended = _released(request, at)
    return close_names(change(state, request, ended), ended, RequestState.CANCELLED, at, reason=reason)


def mark_failed(state: FederationState, request_ids: Collection[str], reason: str, at: str) -> FederationState:
    """Return the state that records a failure for those of the requests that are being carried out."""
    named = frozenset(request_ids)

    def marked(request: ErasureRequest) -> ErasureRequest:
        if request.request_id not in named or request.pause is not None or not request.state.is_open:
            return request
        return replace(request, failure=FailedAttempt(reason=reason, at=at))

    return each_request(state, marked)


def is_untouched(request: ErasureRequest) -> bool:
    """Return whether no data point is removed yet: only then can the request be paused or withdrawn."""
    return request.state is RequestState.ACCEPTED


def is_ready(request: ErasureRequest) -> bool:
    """Return whether the request's points may be removed now."""
    return is_untouched(request) and request.pause is None


def is_training(request: ErasureRequest) -> bool:
    """Return whether the request's points are removed but its retrained constituents are not published yet."""
    # By identity: the hash of an enum's member is Python code, and each checkpoint asks for each request of a batch.
    return request.state is RequestState.QUARANTINED or request.state is RequestState.RETRAINING


def lacks_measure(request: ErasureRequest) -> bool:
    """Return whether the request is complete but the measure on the hold-out points after it is still missing."""
    return request.state is RequestState.COMPLETE and request.effect is not None and request.effect.after is None


def advance(request: ErasureRequest, reached: RequestState, at: str, **fields: Any) -> ErasureRequest:
    """Return the request after a successful step, which clears a recorded failure."""
    return replace(request, failure=None, **fields).reach(reached, at)


def close_names(
    state: FederationState, request: ErasureRequest, reached: RequestState, at: str, **fields: Any
) -> FederationState:
    """Advance the request, drop its names and drafts, and condemn the objects that hold them."""
    gone = [request.names.key] if isinstance(request.names, ObjectRef) else []
    gone += [part.key for rows in request.drafts for part in rows.record.parts]
    after = replace(state, condemned=(*state.condemned, *gone))
    correction = None if request.correction is None else Correction()
    return change(after, request, advance(request, reached, at, names=None, correction=correction, **fields))


def change(state: FederationState, old: ErasureRequest, new: ErasureRequest) -> FederationState:
    """Return the state with ``new`` in place of ``old``."""
    # By identity, and the rest is copied: a batch changes each of its requests by itself, and may be thousands.
    place = next((number for number, request in enumerate(state.requests) if request is old), None)
    if place is None:
        return state
    return replace(state, requests=(*state.requests[:place], new, *state.requests[place + 1 :]))


def each_request(state: FederationState, changed: Callable[[ErasureRequest], ErasureRequest]) -> FederationState:
    """Return the state with ``changed(request)`` for every request, in one pass: there may be many thousands."""
    return replace(state, requests=tuple(map(changed, state.requests)))


def later(moment: str, by: timedelta) -> str:
    """Return ``moment``, ISO 8601, moved by ``by``."""
    return (datetime.fromisoformat(moment) + by).isoformat(timespec="milliseconds")


def _released(request: ErasureRequest, at: str) -> ErasureRequest:
    """Return the request without a pause, and due later by its length: a pause stops the legal clock."""
    if request.pause is None:
        return request
    over = request.pause.released(at, request.due_at)
    return replace(request, pause=None, holds=(*request.holds, over), due_at=later(request.due_at, over.length))
