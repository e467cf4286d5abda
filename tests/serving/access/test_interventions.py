"""What an officer may do to an erasure request over HTTP: the words, errors and effects of 'sisa request'."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from cluster.serving.bodies import JSON
from cluster.writer.writer import Writer
from tests.doubles.user_folder import MARKED
from tests.serving.world import World, error_of

OTHER = "secret-person-001"
WHY = {"reason": "legal hold 17"}


def change(world: World, request_id: str, what: str, body: object, **headers: str) -> Any:
    """Have an officer do something to a request."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = world.headers("officer", **{"Content_Type": JSON, **headers})
    return world.client.post(f"/v1/erasures/{request_id}/{what}", content=content, headers=sent)


def test_a_request_is_paused_moved_and_released(world: World) -> None:
    """A released request is carried out; the answer to each step is the request's new status."""
    accepted = world.erase(MARKED, key="er-1", hold="legal hold 16").json()
    moved = change(world, "er-1", "extend", {"days": 30, "reason": "for the court"})
    assert moved.status_code == 200
    passed = datetime.fromisoformat(moved.json()["due_at"]) - datetime.fromisoformat(accepted["due_at"])
    assert passed == timedelta(days=30)
    assert moved.json() == world.get("/v1/erasures/er-1").json()
    released = change(world, "er-1", "release", {}).json()
    assert (released["request_id"], released["held"]) == ("er-1", "")
    assert [each["reason"] for each in released["holds"]] == ["legal hold 16"]
    world.until_idle()
    found = world.get("/v1/erasures/er-1", "officer").json()
    assert (found["state"], found["extensions"][0]["reason"]) == ("complete", "for the court")


def test_a_request_is_paused_before_anything_is_removed(world: World) -> None:
    """A request that nobody has begun with is paused: nothing of it is removed until it is released."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "quarantine", lambda _: None)
        patch.setattr(Writer, "settle", lambda _, **__: None)
        world.erase(MARKED, key="er-1")
        held = change(world, "er-1", "hold", WHY).json()
    assert (held["state"], held["stage"], held["held"]) == ("waiting", "accepted", "legal hold 17")
    world.until_idle()
    assert world.get("/v1/erasures/er-1").json() == held
    assert change(world, "er-1", "release", {}).status_code == 200
    world.until_idle()
    assert world.get("/v1/erasures/er-1").json()["state"] == "complete"


def test_a_cancelled_request_erases_nobody(world: World) -> None:
    """What is withdrawn in time changes no data point, and has no receipt."""
    world.erase(MARKED, key="er-1", hold="legal hold 16")
    before = world.resident.state().shards
    cancelled = change(world, "er-1", "cancel", {"reason": "withdrawn by the person"}).json()
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "withdrawn by the person")
    world.until_idle()
    assert world.resident.state().shards == before
    error_of(world.get("/v1/erasures/er-1/receipt"), 404, "missing")


@pytest.fixture(scope="module")
def lives(still_world: World) -> World:
    """One with a paused request, a complete one, a cancelled one and one that was extended."""
    for key, body in (
        ("er-held", {"subjects": [OTHER], "hold": "legal hold 17"}),
        ("er-complete", {"subjects": [MARKED]}),
        ("er-cancelled", {"subjects": ["secret-person-002"], "hold": "legal hold 17"}),
        ("er-extended", {"subjects": ["secret-person-003"], "hold": "legal hold 17"}),
    ):
        headers = still_world.headers("officer", Idempotency_Key=key)
        assert still_world.client.post("/v1/erasures", json=body, headers=headers).status_code == 202
    assert change(still_world, "er-cancelled", "cancel", WHY).status_code == 200
    assert change(still_world, "er-extended", "extend", {"days": 3, **WHY}).status_code == 200
    still_world.until_idle()
    return still_world


LATE: Mapping[str, tuple[str, str, object, str]] = {
    "paused already": ("er-held", "hold", WHY, "has been paused since 2"),
    "complete, hold": ("er-complete", "hold", WHY, "is complete already"),
    "complete, release": ("er-complete", "release", {}, "is complete already"),
    "complete, extend": ("er-complete", "extend", {"days": 3, **WHY}, "is complete already"),
    "complete, cancel": ("er-complete", "cancel", WHY, "is complete already"),
    "cancelled": ("er-cancelled", "cancel", WHY, "is cancelled already"),
    "extended": ("er-extended", "extend", {"days": 3, **WHY}, "was moved before"),
}


@pytest.mark.parametrize("name", LATE)
def test_what_comes_too_late(lives: World, name: str) -> None:
    """What the request's stage rules out is a conflict that says why, and changes nothing."""
    request_id, what, body, text = LATE[name]
    before = lives.get("/v1/status").json()
    assert text in error_of(change(lives, request_id, what, body), 409, "conflict")["message"]
    assert lives.get("/v1/status").json() == before


BODIES: Mapping[str, tuple[str, object, int, str]] = {
    "not JSON": ("hold", b"secret", 400, "not JSON"),
    "no body": ("release", b"", 400, "not JSON"),
    "a key twice": ("hold", b'{"reason": "secret-1", "reason": "secret-2"}', 400, "a key stands twice"),
    "a list": ("hold", ["secret"], 422, "an object with 'reason', a text, and no more"),
    "no reason": ("cancel", {}, 422, "an object with 'reason', a text, and no more"),
    "reason of no kind": ("hold", {"reason": 1}, 422, "an object with 'reason', a text"),
    "an empty reason": ("hold", {"reason": ""}, 422, "a reason is 1 to 500 printable characters"),
    "spaces": ("cancel", {"reason": "  "}, 422, "a reason is 1 to 500 printable characters"),
    "a reason that acts": ("hold", {"reason": "secret\x1b[2J"}, 422, "not all printable"),
    "half a character": ("hold", b'{"reason": "\\ud800"}', 422, "not all printable"),
    "a long reason": ("extend", {"days": 3, "reason": "x" * 501}, 422, "got 501 characters"),
    "more": ("hold", {**WHY, "secret": 1}, 422, "and no more"),
    "more to release": ("release", WHY, 422, "an object with nothing in it"),
    "no days": ("extend", WHY, 422, "'days', a whole number and 'reason', a text"),
    "days as text": ("extend", {"days": "3", **WHY}, 422, "'days', a whole number"),
    "days true": ("extend", {"days": True, **WHY}, 422, "'days', a whole number"),
    "half a day": ("extend", {"days": 0.5, **WHY}, 422, "'days', a whole number"),
    "no day": ("extend", {"days": 0, **WHY}, 422, "moved by 1 .. 60 days, got 0"),
    "too many days": ("extend", {"days": 61, **WHY}, 422, "moved by 1 .. 60 days, got 61"),
    "too large": ("hold", {"reason": "x" * 100_001}, 413, "more than 100,000 bytes"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_cannot_be_taken(lives: World, name: str) -> None:
    """A body that is not just what the change needs is refused as a whole, without a word of what it says."""
    what, body, status, text = BODIES[name]
    before = lives.get("/v1/status").json()
    answer = change(lives, "er-held", what, body)
    assert text in error_of(answer, status, "too_large" if status == 413 else "invalid")["message"]
    assert "secret" not in answer.text
    assert lives.get("/v1/status").json() == before


@pytest.mark.parametrize(
    ("what", "body"), [("hold", WHY), ("release", {}), ("extend", {"days": 3, **WHY}), ("cancel", WHY)]
)
def test_what_is_not_there(lives: World, what: str, body: object) -> None:
    """No such request is 404, no coordinator 503, another media type 415: as everywhere in the API."""
    error_of(change(lives, "er-none", what, body), 404, "missing")
    error_of(change(lives, "%1b%5b2J", what, body), 422, "invalid")
    error_of(change(lives, "er-held", what, body, Content_Type="text/plain"), 415, "unsupported_media_type")
    lives.coordinator.clear()
    answer = change(lives, "er-held", what, body)
    lives.coordinator.append(lives.resident)
    assert "sisa launch" in error_of(answer, 503, "unavailable")["remedy"]
    assert int(answer.headers["retry-after"]) >= 1


def test_the_log_says_nothing_of_reasons(world: World) -> None:
    """A line names the route, the request and the token, not why something was done."""
    world.erase(MARKED, key="er-1", hold="legal hold 16")
    change(world, "er-1", "cancel", {"reason": "secret-person-001 called"})
    assert "secret" not in world.log.getvalue()
    line = world.lines()[-1]
    assert (line["route"], line["request_id"], line["role"]) == ("/v1/erasures/{request_id}/cancel", "er-1", "officer")
