"""What may happen to a request besides being carried out: more time, a pause, a way out, a failed attempt. Pure.

Each change is made only where it still applies: repeated, or too late, it changes nothing.
``coordinator.decisions.policy`` decides whether it is allowed at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from coordinator.requests import ErasureRequest, Extension, ObjectRef, Pause, RequestState
from coordinator.state import FederationState


def accept(state: FederationState, request: ErasureRequest) -> FederationState:
    """Return the state with the request, which may come paused; one of an id that is known changes nothing (D4)."""
    if state.request(request.request_id) is not None or state.readmission(request.request_id) is not None:
        return state
    held_at = request.received_at if request.held else ""
    accepted = replace(request, times={RequestState.ACCEPTED.value: request.received_at}, held_at=held_at)
    return replace(state, requests=(*state.requests, accepted))


def extend_due(state: FederationState, request_id: str, due_at: str, reason: str, at: str) -> FederationState:
    """Return the state in which the request is due at ``due_at``; a due date is moved so once."""
    request = state.request(request_id)
    if request is None or not request.state.is_open or request.extensions:
        return state
    extension = Extension(at=at, reason=reason, previous_due_at=request.due_at)
    return change(state, request, replace(request, due_at=due_at, extensions=(extension,)))


def hold(state: FederationState, request_id: str, reason: str, at: str) -> FederationState:
    """Return the state in which the request pauses, if nothing of it is removed yet."""
    request = state.request(request_id)
    if request is None or not is_ready(request):
        return state
    return change(state, request, replace(request, held=reason, held_at=at))


def release(state: FederationState, request_id: str, at: str) -> FederationState:
    """Return the state in which the request's pause is over."""
    request = state.request(request_id)
    return state if request is None or not request.held else change(state, request, _released(request, at))


def cancel(state: FederationState, request_id: str, reason: str, at: str) -> FederationState:
    """Return the state in which the request is withdrawn, if nothing of it is removed yet."""
    request = state.request(request_id)
    if request is None or not is_untouched(request):
        return state
    ended = _released(request, at) if request.held else request
    return close_names(change(state, request, ended), ended, RequestState.CANCELLED, at, reason=reason)


def mark_failed(state: FederationState, request_ids: Collection[str], reason: str, at: str) -> FederationState:
    """Return the state in which those of the requests that are being carried out have a failure on record."""
    named = frozenset(request_ids)

    def marked(request: ErasureRequest) -> ErasureRequest:
        if request.request_id not in named or request.held or not request.state.is_open:
            return request
        return replace(request, failure=reason, failed_at=at)

    return each_request(state, marked)


def is_untouched(request: ErasureRequest) -> bool:
    """Return whether nothing of the request is removed yet: the only time when it can be paused or withdrawn."""
    return request.state is RequestState.ACCEPTED


def is_ready(request: ErasureRequest) -> bool:
    """Return whether the request's points may be removed now."""
    return is_untouched(request) and not request.held


def is_training(request: ErasureRequest) -> bool:
    """Return whether the request's points are removed and its constituents have not taken over yet."""
    return request.state in {RequestState.QUARANTINED, RequestState.RETRAINING}


def advance(request: ErasureRequest, reached: RequestState, at: str, **fields: Any) -> ErasureRequest:
    """Return the request after a step that succeeded: no failure is left on record."""
    return replace(request, failure="", failed_at="", **fields).reach(reached, at)


def close_names(
    state: FederationState, request: ErasureRequest, reached: RequestState, at: str, **fields: Any
) -> FederationState:
    """Move the request on, without its names, and condemn the object with them if there is one."""
    gone = (request.names.key,) if isinstance(request.names, ObjectRef) else ()
    after = replace(state, condemned=(*state.condemned, *gone))
    return change(after, request, advance(request, reached, at, names=None, **fields))


def change(state: FederationState, old: ErasureRequest, new: ErasureRequest) -> FederationState:
    """Return the state with ``new`` in place of ``old``."""
    return each_request(state, lambda request: new if request is old else request)


def each_request(state: FederationState, changed: Callable[[ErasureRequest], ErasureRequest]) -> FederationState:
    """Return the state with every request as ``changed`` returns it, in one pass: there may be many thousands."""
    return replace(state, requests=tuple(map(changed, state.requests)))


def later(moment: str, by: timedelta) -> str:
    """Return ``moment``, ISO 8601, moved by ``by``."""
    return (datetime.fromisoformat(moment) + by).isoformat(timespec="milliseconds")


def _released(request: ErasureRequest, at: str) -> ErasureRequest:
    """Return the request with its pause on record and its due date moved: the clock of the law stood still."""
    paused = datetime.fromisoformat(at) - datetime.fromisoformat(request.held_at)
    due_at = later(request.due_at, max(paused, timedelta()))  # clocks of two machines may differ
    over = Pause(reason=request.held, held_at=request.held_at, released_at=at, previous_due_at=request.due_at)
    return replace(request, held="", held_at="", due_at=due_at, holds=(*request.holds, over))
