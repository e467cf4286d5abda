"""Recorded times: when the clock is behind the newest of them, that one counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coordinator.decisions.times import latest_time, received_by, steady
from coordinator.delays import EndedPause, Extension, FailedAttempt, Pause
from coordinator.requests import ErasureRequest, Readmission
from coordinator.state import FederationState, GenerationRecord
from storage.digests import sha256
from tests.coordinator.records import paused

EARLY, LATE = "2026-01-01T00:00:00.000+00:00", "2026-02-01T00:00:00.500+00:00"
REQUEST = ErasureRequest(
    request_id="er-1",
    body=sha256(b""),
    names=None,
    subjects=1,
    ids=0,
    received_at=EARLY,
    due_at="2026-05-01T00:00:00.000+00:00",
)
STATE = FederationState(name="small", settings={}, key_digest=sha256(b""), shards=(), requests=(REQUEST,))


@pytest.mark.parametrize(
    "state",
    [
        replace(STATE, requests=(replace(REQUEST, received_at=LATE), REQUEST)),
        replace(STATE, requests=(replace(REQUEST, times={"accepted": EARLY, "purged": LATE}),)),
        replace(STATE, requests=(replace(REQUEST, pause=Pause(reason="court", held_at=LATE)),)),
        replace(STATE, requests=(replace(REQUEST, failure=FailedAttempt(reason="no room", at=LATE)),)),
        replace(
            STATE,
            requests=(
                replace(REQUEST, holds=(EndedPause(reason="", held_at=EARLY, released_at=LATE, previous_due_at=""),)),
            ),
        ),
        replace(STATE, requests=(replace(REQUEST, extension=Extension(at=LATE, reason="", previous_due_at="")),)),
        replace(STATE, readmissions=(Readmission(request_id="b", body=sha256(b""), subjects=1, reason="", at=LATE),)),
        replace(STATE, history=(GenerationRecord(number=1, since=EARLY, until=LATE, serving=(1,)),)),
        replace(STATE, history=(GenerationRecord(number=1, since=LATE, until="", serving=(1,)),)),
    ],
)
def test_every_time_on_record_counts(state: FederationState) -> None:
    """The time never falls behind the last recorded one; a due date does not count as a recorded time."""
    late = datetime.fromisoformat(LATE)
    assert latest_time(state) == late
    assert steady(datetime(2026, 1, 15, tzinfo=UTC), state) == late
    assert steady(late + timedelta(days=1), state) == late + timedelta(days=1)


def test_without_a_record_the_clock_counts() -> None:
    """A federation without a state has no recorded time."""
    now = datetime(2026, 1, 15, tzinfo=UTC)
    assert latest_time(None) is None
    assert steady(now, None) == steady(now, replace(STATE, requests=())) == now


def test_nothing_is_received_in_the_future() -> None:
    """A request whose sender's clock is ahead is received now, and due as long after that as it would have been."""
    now = datetime.fromisoformat(EARLY) - timedelta(hours=1)
    found = received_by(REQUEST, now)
    assert (found.received_at, found.due_at) == ("2025-12-31T23:00:00.000+00:00", "2026-04-30T23:00:00.000+00:00")
    assert received_by(REQUEST, datetime.fromisoformat(EARLY)) is REQUEST
    assert received_by(paused(REQUEST), now) == paused(found)
