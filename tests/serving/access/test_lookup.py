"""Looking people up over HTTP: what an officer gets, how often, and that nothing of it is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from cluster.serving.bodies import JSON
from cluster.tokens import Role
from tests.doubles.user_folder import MARKED
from tests.serving.world import World, error_of

PERSON = "secret-person-001"
RESPELT = "Secret Person 001"
NOBODY = "nobody-of-this-name"
NONE_ALIKE = {"points": 0, "subjects": 0}


def lookup(world: World, body: object, role: Role = "officer", **headers: str) -> Any:
    """Look people up."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = world.headers(role, **{"Content_Type": JSON, **headers})
    return world.client.post("/v1/subjects:lookup", content=content, headers=sent)


def test_who_is_here(world: World) -> None:
    """For each name, in order, the answer has its data points, those of similar names, and whether it was erased."""
    world.erase(MARKED, key="er-1")
    world.until_idle()
    answer = lookup(world, {"subjects": [PERSON, MARKED, NOBODY, RESPELT, 17, PERSON]})
    assert answer.status_code == 200
    here = {"points": 4, "similar": NONE_ALIKE, "erased": False}
    nobody = {"points": 0, "similar": NONE_ALIKE, "erased": False}
    alike = {"points": 0, "similar": {"points": 4, "subjects": 1}, "erased": False}
    assert answer.json() == {"subjects": [here, {**nobody, "erased": True}, nobody, alike, nobody, here]}
    assert "secret" not in answer.text.lower()
    assert answer.headers["cache-control"] == "no-store"


def test_looking_changes_nothing(still_world: World) -> None:
    """No byte of the store is another one afterwards: nobody can read there who was looked for."""
    store = still_world.home.store
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert lookup(still_world, {"subjects": [PERSON, NOBODY]}).status_code == 200
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("role", ["predict", "erase", "audit"])
def test_it_tells_others_nothing(still_world: World, role: Role) -> None:
    """Other roles get the same answer for a person who is here, for one who is not, and for an invalid body."""
    answers = [lookup(still_world, body, role) for body in ({"subjects": [PERSON]}, {"subjects": [NOBODY]}, b"{")]
    assert len({answer.content for answer in answers}) == 1
    assert "'officer' or 'federate'" in error_of(answers[0], 403, "forbidden")["remedy"]


def test_a_federation_that_is_not_let(still_world: World) -> None:
    """Unless this is a site that allows it, a federation learns nothing about anybody."""
    answers = [lookup(still_world, {"subjects": [name]}, "federate") for name in (PERSON, NOBODY)]
    assert len({answer.content for answer in answers}) == 1
    assert "does not let the federation look people up" in error_of(answers[0], 403, "withheld")["message"]


BODIES: Mapping[str, tuple[object, int, str]] = {
    "not JSON": (b"secret", 400, "not JSON"),
    "a key twice": (b'{"subjects": ["secret-1"], "subjects": ["secret-2"]}', 400, "a key stands twice"),
    "a list": ([PERSON], 422, "an object with 'subjects', a list, and no more"),
    "a text": ({"subjects": PERSON}, 422, "an object with 'subjects', a list, and no more"),
    "something beside": ({"subjects": [PERSON], "ids": []}, 422, "an object with 'subjects', a list, and no more"),
    "nobody": ({"subjects": []}, 422, "no subject is named"),
    "an empty name": ({"subjects": [""]}, 422, "something that is not a name"),
    "only spaces": ({"subjects": ["  "]}, 422, "nothing but white space"),
    "a fraction": ({"subjects": [PERSON, 1.5]}, 422, "something that is not a name"),
    "true": ({"subjects": [True]}, 422, "something that is not a name"),
    "a list of lists": ({"subjects": [[PERSON]]}, 422, "something that is not a name"),
    "too many": ({"subjects": [PERSON] * 21}, 413, "more than 20"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_name_nobody(still_world: World, name: str) -> None:
    """What names nobody, or more than are looked up at once, is refused as a whole and not repeated."""
    body, status, text = BODIES[name]
    answer = lookup(still_world, body)
    assert text in error_of(answer, status, "too_large" if status == 413 else "invalid")["message"]
    assert "secret" not in answer.text


def test_at_most_a_hundred(world: World) -> None:
    """However many names an erasure may have, a look-up has a hundred at most."""
    assert len(lookup(world, {"subjects": [PERSON] * 100}).json()["subjects"]) == 100
    assert "more than 100" in error_of(lookup(world, {"subjects": [PERSON] * 101}), 413, "too_large")["message"]
    media = lookup(world, {"subjects": [PERSON]}, Content_Type="text/plain")
    assert media.status_code == 415


def test_it_is_asked_less_often_than_the_rest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token looks people up thirty times a minute; then it waits, and everything else it may do it does."""
    moment = world.service.clock.monotonic()  # it stands still, however slow the machine is
    monkeypatch.setattr(world.service.clock, "monotonic", lambda: moment)
    answers = [lookup(world, b"{") for _ in range(31)]
    assert [answer.status_code for answer in answers] == [400] * 30 + [429]
    assert "looks people up more than 30 times a minute" in error_of(answers[-1], 429, "rate_limited")["message"]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert world.get("/v1/status", "officer").status_code == 200
    assert lookup(world, {"subjects": [PERSON]}, "federate").status_code == 403


def test_the_log_counts_the_names(world: World) -> None:
    """Each look-up, successful or not, is one line with the token and the number of names, without any name."""
    cases: list[tuple[object, int]] = [
        ({"subjects": [PERSON, NOBODY, 17_171_717]}, 200),
        ({"subjects": [PERSON] * 101}, 413),
        ({"subjects": [PERSON, [NOBODY]]}, 422),
    ]
    for body, status in cases:
        assert lookup(world, body).status_code == status
    assert lookup(world, {"subjects": [PERSON]}, "federate").status_code == 403
    found = [(line["status"], line["names"], line["role"], line["token_id"]) for line in world.lines()]
    officer, federate = (world.tokens[role].split("_")[1] for role in ("officer", "federate"))
    assert found == [
        (200, 3, "officer", officer),
        (413, 101, "officer", officer),
        (422, 2, "officer", officer),
        (403, 1, "federate", federate),
    ]
    assert {line["route"] for line in world.lines()} == {"/v1/subjects:lookup"}
    for secret in (PERSON, NOBODY, "17171717", "secret"):
        assert secret not in world.log.getvalue()


def test_nothing_to_look_into(world: World) -> None:
    """While the federation cannot be read, a look-up is refused for now rather than answered with nobody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.service.standing.reading, "current", lambda: None)
        error_of(lookup(world, {"subjects": [PERSON]}), 503, "unavailable")
