"""Which requests leave the state, and what it still counts of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.decisions import ended
from coordinator.decisions.decide import next_state
from coordinator.decisions.ended import NO_HOLDOUT, leaving, numbered, without_ended
from coordinator.decisions.events import EndedKept, ErasureAccepted
from coordinator.decisions.times import latest_time
from coordinator.effects import ErasureEffect
from coordinator.requests import Cost, ErasureRequest, Readmission, RequestState
from coordinator.state import FederationState, is_within
from storage.digests import sha256
from tests.coordinator.records import federation, ref, request_of

AT = "2026-01-01T00:00:00.000+00:00"
OVER = (RequestState.COMPLETE, RequestState.REFUSED, RequestState.CANCELLED)


def request(number: int, state: RequestState, receipt: int | None = None) -> ErasureRequest:
    """Return one of many requests, in this state since a moment of its own."""
    at = f"2026-01-01T00:00:{number:02d}.000+00:00"
    return replace(request_of(f"er-{number}"), names=None, state=state, receipt=receipt, times={state.value: at})


def holding(*requests: ErasureRequest) -> FederationState:
    """Return a state with these requests."""
    return replace(federation((2, 1)), requests=requests)


@pytest.fixture(autouse=True)
def _two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended, "TOGETHER", 2)


def test_those_that_ended_first_leave_first() -> None:
    """The first requests to leave are not simply the oldest: open ones stay, and so do a few ended ones."""
    late, early = request(9, RequestState.CANCELLED), request(1, RequestState.COMPLETE, receipt=0)
    others = (request(5, RequestState.REFUSED), request(3, RequestState.CANCELLED))
    open_ = request(0, RequestState.RETRAINING)
    assert leaving(holding(late, open_, *others)) == ()
    assert leaving(holding(late, open_, *others, early)) == (early, others[1])


def test_what_is_owed_a_statement_stays() -> None:
    """A refused request or a readmission leaves once its statement is in the log."""
    owed = replace(request(1, RequestState.REFUSED), commitment=sha256(b"names"))
    back = Readmission(request_id="back", body=sha256(b""), subjects=1, reason="asked", at=AT)
    over = tuple(request(n, RequestState.CANCELLED) for n in range(2, 6))
    state = replace(holding(owed, *over), readmissions=(back,))
    assert [each.request_id for each in leaving(state)] == ["er-2", "er-3"]
    stated = replace(state, requests=(replace(owed, receipt=4), *over), readmissions=(replace(back, receipt=5),))
    assert [each.request_id for each in leaving(stated)] == ["back", "er-1"]


def test_what_is_still_to_be_measured_leaves_last_and_says_why_it_was_not() -> None:
    """A request waits for its measure while others can leave, but not forever."""
    lacking = replace(request(1, RequestState.COMPLETE, receipt=0), effect=ErasureEffect(before=None))
    over = tuple(request(n, RequestState.CANCELLED) for n in range(2, 5))
    assert leaving(holding(lacking, *over)) == over[:2]
    many = [replace(lacking, request_id=f"er-{n}") for n in range(4)]
    gone = leaving(holding(*many))
    assert [each.request_id for each in gone] == ["er-0", "er-1"]
    reasons = [each.effect.unmeasured for each in gone if isinstance(each, ErasureRequest) and each.effect]
    assert reasons == [NO_HOLDOUT] * 2
    state = holding(*many)
    left = leaving(replace(state, holdout=(state.shards[0].slices[0],)))
    (why, _) = (each.effect.unmeasured for each in left if isinstance(each, ErasureRequest) and each.effect)
    assert "no generation could be measured" in why


@given(st.lists(st.tuples(st.sampled_from([*OVER, RequestState.RETRAINING]), st.integers(0, 3)), max_size=40))
def test_nothing_is_lost_by_leaving(drawn: list[tuple[RequestState, int]]) -> None:
    """In any order of arrivals and ends, each request keeps its number, and all are counted once."""
    state, gone, bucket = holding(), dict[int, str](), (ref(),)
    for number, (kind, turns) in enumerate(drawn):
        cost = Cost(point_epochs=number, seconds=0.0)
        new = replace(request(number, kind), receipt=number if kind is RequestState.COMPLETE else None, spent=cost)
        state = replace(state, requests=(*state.requests, new))
        for _ in range(turns):
            if ids := [each.request_id for each in leaving(state)]:
                gone |= {n: each.request_id for n, each in numbered(state) if each.request_id in ids}
                state = next_state(state, EndedKept(request_ids=tuple(ids), buckets=bucket))
    left = {number: each.request_id for number, each in numbered(state)}
    assert {**gone, **left} == {number: f"er-{number}" for number in range(len(drawn))}
    assert state.ended.requests == len(gone)
    complete = [number for number in gone if drawn[number][0] is RequestState.COMPLETE]
    assert (state.ended.complete, state.ended.spent.point_epochs) == (len(complete), sum(complete))
    assert [number for number in range(len(drawn)) if is_within(state.ended.receipts, number)] == sorted(complete)


def test_leaving_twice_is_leaving_once() -> None:
    """An event of an earlier attempt, or of requests that the state never had, changes nothing."""
    state = holding(*(request(n, RequestState.CANCELLED) for n in range(4)))
    after = without_ended(state, ["er-0", "er-1"], (ref(),))
    assert after.ended.cancelled == 2
    assert without_ended(after, ["er-0", "er-1"], (ref(),)) is after
    assert without_ended(after, ["er-2", "er-9"], (ref(),)) is after


def test_the_newest_time_on_record_stays_in_the_state() -> None:
    """Requests that leave ended before those that stay: the newest recorded time does not go back."""
    state = holding(*(request(n, OVER[n % 3], receipt=n) for n in (9, 2, 7, 4, 5)))
    before = latest_time(state)
    while going := leaving(state):
        state = without_ended(state, [each.request_id for each in going], (ref(),))
    assert state.ended.count == 2
    assert latest_time(state) == before


def test_an_acceptance_that_looked_before_others_left_is_none() -> None:
    """If requests left since, the new request may have one of their ids: it must be looked up again (D4)."""
    state = without_ended(holding(*(request(n, RequestState.CANCELLED) for n in range(4))), ["er-0"], (ref(),))
    again = request_of("er-0")
    assert next_state(state, ErasureAccepted(request=again)) == state
    assert next_state(state, ErasureAccepted(request=request_of("er-7"), looked=1)).request("er-7") is not None
