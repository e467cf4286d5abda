"""Tracing people over HTTP: what is on record of somebody who is here, who was erased, and who never was."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.interventions import Release
from tests.doubles.user_folder import MARKED
from tests.serving.world import World, error_of

PERSON = "secret-person-001"
OTHER = "secret-person-002"
NOBODY = "nobody-of-this-name"


def trace(world: World, *subjects: str) -> Any:
    """Trace people, as an officer; return the answer's JSON."""
    answer = world.client.post("/v1/subjects:trace", json={"subjects": subjects}, headers=world.headers("officer"))
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(requests: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return id, kind and state of traced requests."""
    return [(each["request_id"], each["kind"], each["state"]) for each in requests]


def test_somebody_who_is_here(world: World) -> None:
    """The slices are those that the state counts; every checkpoint from there on has seen them, the last one serves."""
    (found,) = trace(world, PERSON)["subjects"]
    state = world.resident.state()
    assert found["points"] == sum(each["points"] for each in found["slices"]) == 4
    (shard,) = {each["shard"] for each in found["slices"]}
    first = min(each["slice"] for each in found["slices"])
    chain = state.shards[shard].chain
    assert [each["sha256"] for each in found["checkpoints"]] == [each.sha256 for each in chain[first - 1 :]]
    assert [each["digest"] for each in found["checkpoints"]] == [each.digest for each in chain[first - 1 :]]
    assert [each["serving"] for each in found["checkpoints"]] == [False] * (len(chain) - first) + [True]
    assert [(each["number"], each["until"], each["shards"]) for each in found["generations"]] == [(1, "", [shard])]
    assert found["generations"][0]["since"] == state.history[0].since
    assert (found["requests"], found["erased"]) == ([], False)


def test_somebody_who_was_erased(world: World) -> None:
    """No data are left to trace; the request, its receipt and the generations before it are on record."""
    (here,) = trace(world, MARKED)["subjects"]
    world.erase(MARKED, key="er-1")
    world.until_idle()
    (gone,) = trace(world, MARKED)["subjects"]
    assert (gone["points"], gone["slices"], gone["checkpoints"], gone["erased"]) == (0, [], [], True)
    assert ids(gone["requests"]) == [("er-1", "erasure", "complete")]
    assert gone["requests"][0]["receipt"] == 0
    quarantined = world.get("/v1/erasures/er-1").json()["times"]["quarantined"]
    assert [(each["number"], each["until"]) for each in gone["generations"]] == [(1, quarantined)]
    assert gone["generations"][0]["shards"] == here["generations"][0]["shards"]


def test_generations_that_never_knew_somebody_are_left_out(world: World) -> None:
    """A generation that served the shard only up to the slice before is not among those that may have known them."""
    names = [f"secret-person-{number:03d}" for number in range(29)]
    everybody = trace(world, *names)["subjects"]
    place = {name: each["slices"][0] for name, each in zip(names, everybody, strict=True)}
    late = next(name for name, where in place.items() if where["slice"] == 2)
    shard = place[late]["shard"]
    other = next(name for name, where in place.items() if name != late and where == place[late])
    world.erase(other, key="er-1")
    world.until_idle()
    assert [each.serving[shard] for each in world.resident.state().history] == [2, 1, 2]
    (found,) = trace(world, late)["subjects"]
    assert [each["number"] for each in found["generations"]] == [1, 3]


def test_a_request_of_several_people_shows_none_of_them(world: World) -> None:
    """Which one of several an ended request named is not on record; all of its names together find it."""
    world.erase(PERSON, MARKED, key="er-1", hold="legal hold 7")
    waiting = trace(world, PERSON)["subjects"][0]["requests"]
    assert ids(waiting) == [("er-1", "erasure", "waiting")]  # open: its names are still needed
    assert (waiting[0]["ended_at"], waiting[0]["receipt"]) == ("", None)
    world.resident.intervene("er-1", Release())
    world.until_idle()
    found = trace(world, PERSON, MARKED)
    assert [(each["erased"], each["requests"], each["generations"]) for each in found["subjects"]] == [
        (True, [], []),
        (True, [], []),
    ]
    assert ids(found["together"]) == [("er-1", "erasure", "complete")]
    assert trace(world, PERSON, OTHER)["together"] == []


def test_similar_names_refusals_and_somebody_who_came_back(world: World) -> None:
    """A request with similar names, one that found nobody, and a readmission are found by the same name."""
    world.erase(NOBODY, key="er-1")
    world.erase(MARKED, key="er-2", include_similar=True)
    world.until_idle()
    headers = world.headers("officer", Idempotency_Key="re-1")
    body = {"subjects": [MARKED], "reason": "a new contract"}
    assert world.client.post("/v1/subjects:readmit", json=body, headers=headers).status_code == 200
    world.until_idle()
    nobody, marked = trace(world, NOBODY, MARKED)["subjects"]
    assert ids(nobody["requests"]) == [("er-1", "erasure", "refused")]
    assert ids(marked["requests"]) == [("er-2", "erasure", "complete"), ("re-1", "readmission", "readmitted")]
    assert marked["erased"] is False


def test_tracing_writes_nothing_down(world: World) -> None:
    """No byte of the store differs afterwards, and the log has the number of names alone."""
    world.erase(MARKED, key="er-1")
    world.until_idle()
    before = {path: path.read_bytes() for path in world.home.store.rglob("*") if path.is_file()}
    found = trace(world, PERSON, MARKED)
    assert {path: path.read_bytes() for path in world.home.store.rglob("*") if path.is_file()} == before
    assert "secret" not in str(found)
    last = world.lines()[-1]
    assert (last["route"], last["names"]) == ("/v1/subjects:trace", 2)
    assert PERSON not in world.log.getvalue()


def test_it_counts_as_a_look_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces and look-ups of a token share one limit; more than a hundred names are refused."""
    moment = world.service.clock.monotonic()
    monkeypatch.setattr(world.service.clock, "monotonic", lambda: moment)
    routes = ("/v1/subjects:lookup", "/v1/subjects:trace")
    for number in range(30):
        body = {"subjects": [PERSON] * 101}
        answer = world.client.post(routes[number % 2], json=body, headers=world.headers("officer"))
        error_of(answer, 413, "too_large")
    answer = world.client.post(routes[1], json={"subjects": [PERSON]}, headers=world.headers("officer"))
    error_of(answer, 429, "rate_limited")
