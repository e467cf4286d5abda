"""Requests as earlier releases stored them: they are read, give the same answers, and are written in this format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.decisions.batching import plan_batch
from coordinator.decisions.decide import next_state
from coordinator.decisions.events import (
    AttemptFailed,
    DueExtended,
    RequestCancelled,
    RequestHeld,
    RequestReleased,
)
from coordinator.engine.codec import (
    EndedBucket,
    decode_ended,
    decode_event,
    decode_state,
    encode_ended,
    encode_event,
    encode_state,
)
from coordinator.requests import ErasureRequest, RequestState
from coordinator.state import FederationState
from coordinator.status import describe_request
from shards.specification import ShardId
from storage.errors import Corrupt
from tests.coordinator.decisions.test_batching import EPOCHS, erased, only
from tests.coordinator.decisions.test_decide import place, trained
from tests.coordinator.records import federation

NOW = datetime(2026, 1, 15, tzinfo=UTC)
DAYS = [f"2026-01-{day:02d}T00:00:00.000+00:00" for day in range(1, 9)]
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9)
days = st.sampled_from(DAYS)
counts = st.integers(0, 9)
stages = st.sampled_from([each.value for each in RequestState if each.value not in ("waiting", "failed")])
HOLD = {"reason": "r", "held_at": DAYS[1], "released_at": DAYS[2], "previous_due_at": DAYS[3]}

PLAIN: dict[str, Any] = {
    "request_id": "er-1",
    "body": "0" * 64,
    "names": None,
    "subjects": 1,
    "ids": 0,
    "before": None,
    "receipt": None,
    "received_at": DAYS[0],
    "due_at": DAYS[7],
    "state": "accepted",
    "shards": [],
    "from_slices": {},
    "points": 0,
    "unknown": 0,
    "reason": "",
    "times": {},
    "held": "",
    "held_at": "",
    "holds": [],
    "extensions": [],
    "failure": "",
    "failed_at": "",
    "expected": None,
    "spent": {"point_epochs": 0, "seconds": 0.0},
}


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a request as formats 2 to 4 stored it: empty texts for what is absent, newer fields where they are set."""
    shards = draw(st.lists(st.integers(0, 12), max_size=3, unique=True).map(sorted))
    held = draw(st.just("") | texts)
    failure = draw(st.just("") | texts)
    record = {
        **PLAIN,
        "subjects": draw(counts),
        "receipt": draw(st.none() | counts),
        "due_at": draw(days),
        "state": draw(stages),
        "shards": shards,
        "from_slices": {str(shard): draw(st.integers(1, 4)) for shard in shards if draw(st.booleans())},
        "points": draw(counts),
        "unknown": draw(counts),
        "reason": draw(st.just("") | texts),
        "held": held,
        "held_at": draw(days) if held else "",
        "holds": [HOLD] * draw(counts),
        "extensions": [{"at": DAYS[1], "reason": "many", "previous_due_at": DAYS[3]}] * draw(st.integers(0, 1)),
        "failure": failure,
        "failed_at": draw(days) if failure else "",
        "expected": draw(st.none() | st.just({"point_epochs": 3, "seconds": 0.5})),
        "spent": {"point_epochs": draw(counts), "seconds": 0.5},
    }
    news = {
        "include_similar": True,
        "commitment": "1" * 64,
        "by": "token-1",
        "missing": {"payload": "AAAA"},
        "similar": {"points": draw(st.integers(1, 9)), "subjects": 1},
    }
    return record | {name: value for name, value in news.items() if draw(st.booleans())}


def of_state(*requests: Mapping[str, Any], version: int = 4) -> dict[str, Any]:
    """Return a manifest's body of an earlier format with these requests."""
    body = encode_state(federation((3, 3)))
    return {"format_version": version, "state": {**body["state"], "requests": list(requests)}}


def read(record: Mapping[str, Any]) -> ErasureRequest:
    """Return the request that an earlier release stored."""
    return decode_state(of_state(record)).requests[0]


def answers(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what earlier releases answered about a request that they had stored so."""
    is_open = RequestState(record["state"]).is_open
    shown = "waiting" if record["held"] else "failed" if record["failure"] else record["state"]
    return {
        "state": shown if is_open else record["state"],
        "reason": record["failure"] or record["reason"],
        "include_similar": record.get("include_similar", False),
        "similar": record.get("similar", {"points": 0, "subjects": 0}),
        **{name: tuple(record[name]) for name in ("shards", "holds", "extensions")},
        **{name: record[name] for name in ("points", "unknown", "held", "held_at", "failed_at", "expected", "spent")},
    }


@given(record=records())
def test_what_an_earlier_release_stored_gives_the_same_answers(record: dict[str, Any]) -> None:
    """Status shows every field as before, and a shard without a recorded slice is affected from its first one."""
    request = read(record)
    status = asdict(describe_request(request, NOW))
    expected = answers(record)
    assert {name: status[name] for name in expected} == expected
    first = {shard: record["from_slices"].get(str(shard), 1) for shard in record["shards"]}
    assert request.found.from_slices == first
    assert (request.commitment or "", request.by or "") == (record.get("commitment", ""), record.get("by", ""))


@given(record=records())
def test_it_is_written_in_this_format_and_read_back(record: dict[str, Any]) -> None:
    """In a state, a bucket and an event, after one reading and after two."""
    state = decode_state(of_state(record))
    text = json.dumps(encode_state(state), sort_keys=True)
    assert decode_state(json.loads(text)) == state
    assert json.dumps(encode_state(decode_state(json.loads(text))), sort_keys=True) == text
    old = {"format_version": 4, "requests": [[7, record]], "readmissions": []}
    bucket = decode_ended(old)
    assert bucket == decode_ended(old, only="er-1") == EndedBucket(requests=((7, state.requests[0]),), readmissions=())
    assert decode_ended(json.loads(json.dumps(encode_ended(bucket)))) == bucket
    accepted = decode_event({"format_version": 3, "event": "erasure_accepted", "request": record})
    assert decode_event(json.loads(json.dumps(encode_event(accepted)))) == accepted


INTERVENTIONS = (
    RequestHeld(request_id="er-1", reason="court", at=DAYS[2]),
    RequestReleased(request_id="er-1", at=DAYS[4]),
    DueExtended(request_id="er-1", due_at=DAYS[7], reason="many", at=DAYS[3]),
    RequestCancelled(request_id="er-1", reason="by mistake", at=DAYS[5]),
    AttemptFailed(request_ids=("er-1",), reason="no room", at=DAYS[5]),
)


@given(record=records(), events=st.lists(st.sampled_from(INTERVENTIONS), max_size=4), cut=st.integers(0, 4))
def test_a_journal_goes_on_from_what_an_earlier_release_stored(
    record: dict[str, Any], events: list[Any], cut: int
) -> None:
    """Events lead to the same state, whether or not a manifest of this format was written between them."""

    def after(state: FederationState, some: list[Any]) -> FederationState:
        for event in some:
            state = next_state(state, event)
        return state

    begun = decode_state(of_state(record))
    between = json.dumps(encode_state(after(begun, events[:cut])))
    assert after(decode_state(json.loads(between)), events[cut:]) == after(begun, events)


def test_a_request_of_the_first_version_is_read() -> None:
    """Without what was added since, a request has neither pause nor failure."""
    record = {**PLAIN, "names": {"key": "requests/1", "sha256": "0" * 64}}
    newer = ("from_slices", "held", "held_at", "holds", "extensions", "failure", "failed_at", "expected", "spent")
    older = {name: value for name, value in record.items() if name not in newer}
    assert read(older) == read(record)


def test_requests_of_an_earlier_version_count_from_the_first_slice() -> None:
    """If a request does not name its slices, its whole shard counts: the estimate may be too high, never too low."""
    state = erased(trained((3, 3), (3, 3)), place(0, 2))
    old = read({**PLAIN, "state": "quarantined", "shards": [0]})
    (retrain,) = plan_batch(replace(state, requests=(old,)), EPOCHS).shards
    assert (retrain.shard, retrain.from_slice) == (0, 1)
    assert only(state).found.from_slices == {ShardId(0): 2}


@pytest.mark.parametrize(
    "spoilt",
    [
        {"from_slices": ["1"]},
        {"from_slices": {"one": 1}},
        {"shards": None},
        {"extensions": {"at": DAYS[0]}},
        {"held": "court", "held_at": "yesterday"},
        {"failure": "no room", "failed_at": "yesterday"},
    ],
)
def test_a_damaged_request_is_corrupt(spoilt: dict[str, Any]) -> None:
    """What no release wrote is not guessed at, wherever it is."""
    record = {**PLAIN, **spoilt}
    with pytest.raises(Corrupt, match="does not hold a federation"):
        read(record)
    with pytest.raises(Corrupt, match="does not hold ended requests"):
        decode_ended({"format_version": 4, "requests": [[0, record]], "readmissions": []})
    with pytest.raises(Corrupt, match="does not hold the event"):
        decode_event({"format_version": 4, "event": "erasure_accepted", "request": record})


@pytest.mark.parametrize("requests", [None, 1, [None], [1], ["er-1"], [[]]])
def test_what_is_no_request_is_corrupt(requests: Any) -> None:
    """A list of something else is not read as no requests."""
    body = of_state()
    body["state"]["requests"] = requests
    with pytest.raises(Corrupt, match="does not hold a federation"):
        decode_state(body)
