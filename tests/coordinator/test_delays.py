"""What delays a request: each value has a reason and a time, and refuses a second one in its own words."""

from __future__ import annotations

from datetime import timedelta

import pytest

from coordinator.delays import EndedPause, Extension, FailedAttempt, Pause
from storage.errors import Invalid

AT, LATER, DUE = "2026-01-01T00:00:00.000+00:00", "2026-01-03T12:00:00.000+00:00", "2026-01-31T00:00:00.000+00:00"


@pytest.mark.parametrize(("reason", "at"), [("", AT), ("court", ""), ("court", "yesterday")])
def test_without_a_reason_or_a_time_it_is_not_made(reason: str, at: str) -> None:
    """An empty text never stands for no pause or no failure."""
    with pytest.raises(Invalid, match="has no reason or no time"):
        Pause(reason=reason, held_at=at)
    with pytest.raises(Invalid, match="has no reason or no time"):
        FailedAttempt(reason=reason, at=at)


def test_a_pause_ends_with_its_length() -> None:
    """Two days and a half; a clock that runs back makes it no shorter than nothing."""
    ended = Pause(reason="court", held_at=AT).released(LATER, DUE)
    assert ended == EndedPause(reason="court", held_at=AT, released_at=LATER, previous_due_at=DUE)
    assert ended.length == timedelta(days=2, hours=12)
    assert Pause(reason="court", held_at=LATER).released(AT, DUE).length == timedelta()


def test_a_second_one_is_refused() -> None:
    """The error names the day of the first one, and the request."""
    paused = Pause(reason="court", held_at=LATER).refusal("er-1")
    assert str(paused) == (
        "the request has been paused since 2026-01-03 [request=er-1]. To give another reason, release it first."
    )
    extended = Extension(at=AT, reason="many", previous_due_at=DUE).refusal("er-1", LATER)
    assert str(extended) == (
        "the due date was moved before, on 2026-01-01: this can be done once [request=er-1]. "
        "Carry the request out by 2026-01-03."
    )
