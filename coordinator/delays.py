"""What delays an erasure request or moves its due date: a pause, more time, a failed attempt.

Absent is None: each of these values has a reason and a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from storage.errors import Conflict, Invalid, SisaError

_MOST_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause that lasts: nothing is removed during it, and the due date will move by its length."""

    reason: str
    held_at: str
    """When it began, UTC, ISO 8601."""

    def __post_init__(self) -> None:
        _check(self.reason, self.held_at)

    def released(self, at: str, due_at: str) -> EndedPause:
        """Return the pause as it ended at ``at``, when the request was due at ``due_at``."""
        return EndedPause(reason=self.reason, held_at=self.held_at, released_at=at, previous_due_at=due_at)

    def refusal(self, request_id: str) -> Conflict:
        """Return the error for a second pause."""
        return Conflict(
            f"the request has been paused since {self.held_at[:10]}",
            "To give another reason, release it first.",
            request=request_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedPause:
    """A pause that has ended; it moved the due date by its length."""

    reason: str
    held_at: str
    """UTC, ISO 8601."""
    released_at: str
    previous_due_at: str

    @property
    def length(self) -> timedelta:
        """How long it lasted; never negative, although the clocks of two machines may differ."""
        lasted = datetime.fromisoformat(self.released_at) - datetime.fromisoformat(self.held_at)
        return max(lasted, timedelta())


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """More time, granted once (GDPR Art. 12(3))."""

    at: str
    """When it was recorded, UTC, ISO 8601."""
    reason: str
    previous_due_at: str

    def refusal(self, request_id: str, due_at: str) -> Conflict:
        """Return the error for a second extension of a request that is now due at ``due_at``."""
        return Conflict(
            f"the due date was moved before, on {self.at[:10]}: this can be done once",
            f"Carry the request out by {due_at[:10]}.",
            request=request_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """A failed attempt to carry the request out, and no progress since."""

    reason: str
    """What happened and what to do."""
    at: str
    """UTC, ISO 8601."""

    def __post_init__(self) -> None:
        _check(self.reason, self.at)


def check_reason(reason: str) -> None:
    """Raise ``Invalid`` unless the reason has 1 to 500 printable characters, not only spaces."""
    if len(reason) <= _MOST_CHARACTERS and reason.isprintable() and reason.strip():
        return
    # The reason itself is left out: it could control the terminal that shows this.
    raise Invalid(
        f"a reason is 1 to {_MOST_CHARACTERS} printable characters, got {len(reason)} characters"
        f"{'' if reason.isprintable() else ', not all printable'}",
        "Write a short reason without personal data: it is kept with the request.",
    )


def _check(reason: str, at: str) -> None:
    """Raise ``Invalid`` unless there are a reason and a time. A stored reason may be longer than a new one."""
    try:
        datetime.fromisoformat(at)
    except ValueError:
        reason = ""
    if not reason:
        raise Invalid("a pause or a failure of a request has no reason or no time", "Give it both.")


def reason_of(error: SisaError) -> str:
    """Return the text to record for an error, without the model's own error text, which may hold a person's data."""
    if type(error) is SisaError:
        return "a worker failed in the model's code; run 'sisa train' to see its error, and again once it is corrected"
    return str(error)
