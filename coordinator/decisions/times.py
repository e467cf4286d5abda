"""Recorded times never run backwards: a clock that was set back must not make late work look timely. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final

from coordinator.decisions.lifecycle import later
from coordinator.requests import ErasureRequest
from coordinator.state import FederationState

MOST_SECONDS_BEHIND: Final = 60
"""The clocks of several machines differ by less than this."""


def latest_time(state: FederationState | None) -> datetime | None:
    """Return the newest recorded time; None: no time is recorded.

    Times in the state are UTC and have the same format, so that the greatest text is the latest time.
    """
    newest = "" if state is None else max(_times(state), default="")
    return datetime.fromisoformat(newest) if newest else None


def steady(now: datetime, state: FederationState | None) -> datetime:
    """Return ``now``, from a machine's clock, or the newest recorded time if that is later."""
    latest = latest_time(state)
    return now if latest is None else max(now, latest)


def received_by(request: ErasureRequest, now: datetime) -> ErasureRequest:
    """Return the request, received at ``now`` if it says later, and due the same time after that as before."""
    received = datetime.fromisoformat(request.received_at)
    if received <= now:
        return request
    moment = now.isoformat(timespec="milliseconds")
    pause = replace(request.pause, held_at=moment) if request.pause else None
    return replace(request, received_at=moment, pause=pause, due_at=later(request.due_at, now - received))


def clock_is_behind(seconds: float) -> str:
    """Return the message about a clock that is so far behind the newest recorded time."""
    return (
        f"this machine's clock is {seconds:,.0f} seconds behind the newest time on record: it was set back, or another"
        " machine's is ahead; times on record go on from there, so that nothing late looks timely"
    )


def _times(state: FederationState) -> Iterator[str]:
    for generation in state.history:
        yield max(generation.since, generation.until)
    for readmission in state.readmissions:
        yield readmission.at
    for refutation in state.refuted:
        yield refutation.at
    for request in state.requests:
        yield from _times_of(request)


def _times_of(request: ErasureRequest) -> Iterator[str]:
    yield request.received_at
    yield from request.times.values()
    yield from (hold.released_at for hold in request.holds)
    if request.pause is not None:
        yield request.pause.held_at
    if request.extension is not None:
        yield request.extension.at
    if request.failure is not None:
        yield request.failure.at
