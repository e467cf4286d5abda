"""Which interventions in a request are allowed, when, and how they move its due date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from coordinator.decisions.decide import decide, outstanding
from coordinator.decisions.events import (
    AttemptFailed,
    DueExtended,
    ErasureAccepted,
    Event,
    NothingToErase,
    RemovePoints,
    RequestCancelled,
    RequestHeld,
    RequestReleased,
    Train,
)
from coordinator.decisions.policy import is_overdue, ruling
from coordinator.delays import EndedPause, Extension, FailedAttempt, Pause, check_reason
from coordinator.interventions import Cancel, Extend, Hold, Intervention, Release
from coordinator.requests import ErasureRequest, ObjectRef, RequestState
from coordinator.settings import ErasureSettings
from coordinator.state import FederationState
from coordinator.status import describe_federation
from storage.errors import Conflict, Invalid, SisaError
from tests.coordinator.decisions.test_decide import AT, accepted, learn, place, removal, trained
from tests.coordinator.records import paused, request_of

DAY_5 = "2026-01-05T00:00:00.000+00:00"
DAY_8 = "2026-01-08T12:00:00.000+00:00"
DUE = "2026-01-31T00:00:00+00:00"
LATE = "2026-02-01T00:00:00.000+00:00"
SETTINGS = ErasureSettings()

State = Callable[[], FederationState]


def waiting() -> FederationState:
    """A trained federation with a request that was only accepted."""
    return accepted(trained((3, 3), (3, 3)))


def touched() -> FederationState:
    """The same, with its points removed."""
    state = waiting()
    return decide(state, removal(state, place(0, 1)))[0]


def held() -> FederationState:
    """The same, paused."""
    return then(waiting(), ruled(waiting(), "er-1", Hold(reason="court"), DAY_5))


def refused() -> FederationState:
    """The same, refused."""
    return then(waiting(), NothingToErase(request_id="er-1", reason="none", at=AT))


def cancelled() -> FederationState:
    """The same, withdrawn."""
    return then(waiting(), ruled(waiting(), "er-1", Cancel(reason="a mistake"), DAY_5))


def extended() -> FederationState:
    """The same, with more time."""
    return then(waiting(), ruled(waiting(), "er-1", Extend(days=10, reason="many"), DAY_5))


def then(state: FederationState, *events: Event) -> FederationState:
    """The state after these events."""
    for event in events:
        state = decide(state, event)[0]
    return state


def only(state: FederationState) -> ErasureRequest:
    """Its one request."""
    (request,) = state.requests
    return request


def ruled(state: FederationState, request_id: str, wanted: Intervention, at: str) -> Event:
    """The event of the intervention, under the usual settings."""
    return ruling(state, request_id, wanted, settings=SETTINGS, at=at)


def extend(state: FederationState, days: int = 10, reason: str = "many", at: str = DAY_5, most: int = 60) -> Event:
    """Ask for more time."""
    settings = ErasureSettings(extension_days=most)
    return ruling(state, "er-1", Extend(days=days, reason=reason), settings=settings, at=at)


REFUSALS: list[tuple[str, State, Callable[[FederationState], Event], type[SisaError], str]] = [
    ("hold unknown", waiting, lambda s: ruled(s, "er-2", Hold(reason="x"), DAY_5), Invalid, "no such erasure request"),
    ("hold touched", touched, lambda s: ruled(s, "er-1", Hold(reason="x"), DAY_5), Conflict, "cannot be paused: its"),
    ("hold twice", held, lambda s: ruled(s, "er-1", Hold(reason="x"), DAY_8), Conflict, "since 2026-01-05 .*release"),
    ("hold refused", refused, lambda s: ruled(s, "er-1", Hold(reason="x"), DAY_5), Conflict, "is refused already"),
    ("hold, no reason", waiting, lambda s: ruled(s, "er-1", Hold(reason=" "), DAY_5), Invalid, "got 1 characters"),
    ("hold, control", waiting, lambda s: ruled(s, "er-1", Hold(reason="a\x1b"), DAY_5), Invalid, "not all printable"),
    ("hold, long", waiting, lambda s: ruled(s, "er-1", Hold(reason="a" * 501), DAY_5), Invalid, "500 .* got 501"),
    ("release unknown", held, lambda s: ruled(s, "er-2", Release(), DAY_5), Invalid, "no such erasure request"),
    ("release free", waiting, lambda s: ruled(s, "er-1", Release(), DAY_5), Conflict, "is not paused"),
    ("release cancelled", cancelled, lambda s: ruled(s, "er-1", Release(), DAY_5), Conflict, "is cancelled already"),
    ("cancel unknown", waiting, lambda s: ruled(s, "x", Cancel(reason="r"), DAY_5), Invalid, "no such erasure"),
    ("cancel touched", touched, lambda s: ruled(s, "er-1", Cancel(reason="r"), DAY_5), Conflict,
     "cannot be withdrawn: its data points are removed, it is quarantined"),
    ("cancel twice", cancelled, lambda s: ruled(s, "er-1", Cancel(reason="r"), DAY_8), Conflict, "cancelled already"),
    ("cancel, no reason", waiting, lambda s: ruled(s, "er-1", Cancel(reason=""), DAY_5), Invalid, "got 0 characters"),
    ("extend unknown", lambda: trained((3, 3)), extend, Invalid, "no such erasure request"),
    ("extend refused", refused, extend, Conflict, "is refused already"),
    ("extend, no reason", waiting, lambda s: extend(s, reason=""), Invalid, "a reason is 1 to 500 printable"),
    ("extend by nothing", waiting, lambda s: extend(s, days=0), Invalid, "by 1 .. 60 days, got 0"),
    ("extend too far", waiting, lambda s: extend(s, days=61), Invalid, "by 1 .. 60 days, got 61 .*Choose another"),
    ("extend, policy", waiting, lambda s: extend(s, days=8, most=7), Invalid, r"extension_days, which is 7\.$"),
    ("extend, never", waiting, lambda s: extend(s, most=0), Invalid, r"not moved here.* See .*days, which is 0\.$"),
    ("extend twice", extended, extend, Conflict, "was moved before, on 2026-01-05: .* by 2026-02-10"),
    ("extend late", waiting, lambda s: extend(s, at=LATE), Conflict, "was due on 2026-01-31: more time has to be"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "ask", "kind", "match"), [each[1:] for each in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_what_is_refused(
    state: State, ask: Callable[[FederationState], Event], kind: type[SisaError], match: str
) -> None:
    """A refusal names the reason, the remedy and, where it is known, the request's id."""
    with pytest.raises(kind, match=match) as caught:
        ask(state())
    assert caught.value.remedy


def test_a_pause_keeps_everything_until_its_end() -> None:
    """No point of a paused request is removed; once released, it continues, and the pause has moved its due date."""
    state = held()
    assert (only(state).shown, only(state).pause) == (RequestState.WAITING, Pause(reason="court", held_at=DAY_5))
    assert outstanding(state) == ()
    assert then(state, removal(state, place(0, 1))) == state
    free = then(state, ruled(state, "er-1", Release(), DAY_8))
    assert (only(free).shown, only(free).pause) == (RequestState.ACCEPTED, None)
    assert only(free).due_at == "2026-02-03T12:00:00.000+00:00"
    assert only(free).holds == (EndedPause(reason="court", held_at=DAY_5, released_at=DAY_8, previous_due_at=DUE),)
    assert outstanding(free) == (RemovePoints(request_id="er-1"),)


def test_a_pause_holds_nobody_else_up() -> None:
    """Other requests are carried out while one is paused, and keep their due dates."""
    state = accepted(held(), "er-2")
    assert outstanding(state) == (RemovePoints(request_id="er-2"),)
    state, effects = decide(state, removal(state, place(1, 1), request_id="er-2"))
    assert effects == (Train(shards=(1,)),)  # type: ignore[arg-type]
    done = learn(state, 1, 2)
    assert [each.state for each in done.requests] == [RequestState.ACCEPTED, RequestState.PUBLISHED]
    assert done.requests[1].due_at == DUE


def test_a_request_may_arrive_paused() -> None:
    """A request that arrives under a hold waits from its arrival on."""
    arrived = paused(request_of("er-1"))
    state = then(trained((3, 3)), ErasureAccepted(request=arrived))
    assert (only(state).shown, only(state).pause) == (RequestState.WAITING, arrived.pause)
    assert outstanding(state) == ()
    free = then(state, ruled(state, "er-1", Release(), DAY_5))
    assert only(free).due_at == "2026-02-04T00:00:00.000+00:00"


def test_a_clock_that_runs_back_takes_no_time_away() -> None:
    """A release that seems to come before its hold, by another machine's clock, leaves the due date."""
    state = held()
    free = then(state, RequestReleased(request_id="er-1", at=AT))
    assert datetime.fromisoformat(only(free).due_at) == datetime.fromisoformat(DUE)


def test_an_extension_is_recorded_and_given_once() -> None:
    """The due date moves; the time, the reason and the old date are recorded. A second event changes nothing."""
    state = extended()
    assert only(state).due_at == "2026-02-10T00:00:00.000+00:00"
    assert only(state).extension == Extension(at=DAY_5, reason="many", previous_due_at=DUE)
    again = DueExtended(request_id="er-1", due_at="2027-01-01T00:00:00+00:00", reason="more", at=DAY_8)
    assert then(state, again) == state


def test_more_time_is_for_any_open_request() -> None:
    """One whose points are removed, and one that is paused past its due date, may still get more time."""
    assert only(then(touched(), extend(touched()))).extension
    assert only(then(held(), extend(held(), at=LATE))).extension


def test_a_request_withdrawn_is_closed() -> None:
    """A withdrawn request keeps its reason; its names are condemned. A paused one can be withdrawn too."""
    for before in (waiting(), held()):
        names = only(before).names
        state = then(before, ruled(before, "er-1", Cancel(reason="a mistake"), DAY_8))
        request = only(state)
        assert (request.shown, request.reason, request.pause) == (RequestState.CANCELLED, "a mistake", None)
        assert isinstance(names, ObjectRef)
        assert (request.names, state.condemned) == (None, (names.key,))
        assert request.times["cancelled"] == DAY_8
        assert not any(isinstance(effect, RemovePoints) for effect in outstanding(state))
        assert state.shards == before.shards


def test_a_failure_is_shown_until_a_step_succeeds() -> None:
    """A failed attempt is recorded with its reason; the stage and the remaining work stay. The next step clears it."""
    failed = AttemptFailed(request_ids=("er-1", "unheard-of"), reason="no room: make some", at=DAY_5)
    state = then(waiting(), failed)
    assert (only(state).shown, only(state).state) == (RequestState.FAILED, RequestState.ACCEPTED)
    assert only(state).failure == FailedAttempt(reason="no room: make some", at=DAY_5)
    assert outstanding(state) == outstanding(waiting())
    for step in (removal(state, place(0, 1)), NothingToErase(request_id="er-1", reason="none", at=AT)):
        assert only(then(state, step)).failure is None
    retraining = then(learn(touched(), 0), failed)
    assert (only(retraining).shown, only(retraining).state) == (RequestState.FAILED, RequestState.RETRAINING)
    published = learn(retraining, 0)
    assert (only(published).shown, only(published).failure) == (RequestState.PUBLISHED, None)


def test_a_paused_or_closed_request_does_not_fail() -> None:
    """Nothing was tried for it."""
    failed = AttemptFailed(request_ids=("er-1",), reason="no room", at=DAY_8)
    for state in (held(), refused(), cancelled()):
        assert then(state, failed) == state


EVENTS = [
    DueExtended(request_id="er-1", due_at=LATE, reason="many", at=DAY_8),
    RequestHeld(request_id="er-1", reason="court", at=DAY_8),
    RequestReleased(request_id="er-1", at=DAY_8),
    RequestCancelled(request_id="er-1", reason="a mistake", at=DAY_8),
    AttemptFailed(request_ids=("er-1",), reason="no room", at=DAY_8),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", [waiting, touched, held, refused, cancelled, extended], ids=lambda s: s.__name__)
def test_events_reported_twice_change_nothing(event: Event, state: State) -> None:
    """At every stage, a replayed event finds its work done, and an event for an unknown request does nothing."""
    before = state()
    once = then(before, event)
    assert then(once, event) == once
    assert then(replace(before, requests=()), event) == replace(before, requests=())


def test_the_clock_stands_still_in_a_pause() -> None:
    """An open request is overdue after its due date; a paused one is not, unless it was when the pause began."""
    late = datetime(2026, 3, 1, tzinfo=UTC)
    assert is_overdue(only(waiting()), late)
    assert not is_overdue(only(held()), late)
    assert is_overdue(replace(only(held()), pause=Pause(reason="court", held_at=LATE)), late)
    assert not is_overdue(only(cancelled()), late)


def test_status_tells_pause_extension_and_failure() -> None:
    """People see the shown state, the stage and the reason; scripts get the records."""
    now = datetime(2026, 1, 9, tzinfo=UTC)
    (paused,) = describe_federation(held(), "here", now).requests
    assert (paused.state, paused.stage, paused.held, paused.held_at) == ("waiting", "accepted", "court", DAY_5)
    (longer,) = describe_federation(extended(), "here", now).requests
    assert (longer.due_at[:10], longer.extensions) == ("2026-02-10", (only(extended()).extension,))
    state = then(touched(), AttemptFailed(request_ids=("er-1",), reason="no room: make some", at=DAY_8))
    (broken,) = describe_federation(state, "here", now).requests
    assert (broken.state, broken.stage, broken.reason) == ("failed", "quarantined", "no room: make some")
    assert broken.failed_at == DAY_8
    (gone,) = describe_federation(cancelled(), "here", now).requests
    assert (gone.state, gone.stage, gone.reason, gone.overdue) == ("cancelled", "cancelled", "a mistake", False)


@pytest.mark.parametrize("reason", ["x", "legal hold, case 7/2026", "ß" * 500])
def test_reasons_that_can_be_kept(reason: str) -> None:
    """Any line of text of up to 500 characters is a reason."""
    check_reason(reason)
