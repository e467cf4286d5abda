"""Roles: every cell of the page's table is tried; and a token of the role erase sees only its own requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from cluster.coordinator_actor.resident import Resident
from cluster.runtime.system import SystemClock
from cluster.serving.erasures import Accepting
from cluster.tokens import TokenRegister
from cluster.writer.writer import drafted, writer_setup
from coordinator.interventions import Release
from coordinator.receipts.bundles import bundle_from_bytes
from coordinator.requests import ErasureRequest
from shards.tombstones import DigestSet
from tests.doubles.user_folder import MARKED
from tests.serving.access.table import CALLERS, NO_TOKEN, UNKNOWN, UNKNOWN_TOKEN, Route, routes_of, table
from tests.serving.world import World, error_of, points

OTHER = "secret-person-001"
TABLE = table("route")
NAMED = {
    "/v1/erasures/{request_id}",
    "/v1/erasures/{request_id}/receipt",
}
CHANGES = {
    ("POST", "/v1/erasures/{request_id}/hold"): {"reason": "legal hold 17"},
    ("POST", "/v1/erasures/{request_id}/release"): {},
    ("POST", "/v1/erasures/{request_id}/extend"): {"days": 3, "reason": "for the court"},
    ("POST", "/v1/erasures/{request_id}/cancel"): {"reason": "withdrawn"},
}
"""Routes to a request: with "own" the one that the token has submitted answers, and any other is missing."""
BODIES: dict[Route, Any] = {
    ("POST", "/v1/predictions"): points(),
    ("POST", "/v1/erasures"): {"subjects": [MARKED]},
    ("POST", "/v1/subjects:lookup"): {"subjects": [MARKED]},
    ("POST", "/v1/subjects:trace"): {"subjects": [MARKED]},
    ("POST", "/v1/subjects:readmit"): {"subjects": [MARKED], "reason": "a new contract"},
    **CHANGES,
}
REFUSED = {
    (("GET", "/v1/checkpoints/{shard}/{sha256}"), "federate"): (403, "withheld"),
    (("GET", "/v1/measure"), "federate"): (403, "withheld"),
    (("POST", "/v1/subjects:lookup"), "federate"): (403, "withheld"),
    **dict.fromkeys(((change, "officer") for change in CHANGES), (409, "conflict")),
}
"""The errors that an allowed role gets: here no weights and no measures leave, no federation looks people up, and the
request is complete."""


@pytest.fixture(scope="module")
def asked(still_world: World) -> World:
    """A server to which a token of the role erase has submitted er-own, an officer er-other; both are complete."""
    for key, subject, role in (("er-own", MARKED, "erase"), ("er-other", OTHER, "officer")):
        headers = still_world.headers(role, Idempotency_Key=key)  # type: ignore[arg-type]
        body = {"subjects": [subject]}
        assert still_world.client.post("/v1/erasures", json=body, headers=headers).status_code == 202
    still_world.until_idle()
    while still_world.client.get("/healthz").status_code != 200:
        pass
    return still_world


def ask(world: World, route: Route, caller: str, request_id: str = "er-own") -> Any:
    """Use a route as a caller does, with a body that is good for it."""
    method, path = route
    headers = {NO_TOKEN: {}, UNKNOWN_TOKEN: UNKNOWN}.get(caller)
    if headers is None:
        headers = world.headers(caller)  # type: ignore[arg-type]
    if path == "/v1/erasures":
        headers = headers | {"Idempotency-Key": request_id}
    shard = world.resident.state().shards[0]
    filled = path.format(
        request_id=request_id, shard=0, sha256=shard.chain[-1].sha256 if "{shard}" in path else "", name="start.js"
    )
    return world.client.request(method, filled, json=BODIES.get(route), headers=headers)


def test_the_table_names_every_route(asked: World) -> None:
    """No route of the API is missing from the page's table, and none is in it that does not exist."""
    assert set(TABLE) == routes_of(asked.client.app)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", TABLE, ids=" ".join)
def test_the_table_is_true(asked: World, route: Route, caller: str) -> None:
    """Each route answers each role, and those without a token or with an unknown one, as the page's table says."""
    answer, word = ask(asked, route, caller), TABLE[route][caller]
    if word == "–":
        is_known = caller not in (NO_TOKEN, UNKNOWN_TOKEN)
        error_of(answer, *((403, "forbidden") if is_known else (401, "unauthorized")))
        return
    if (route, caller) in REFUSED:
        error_of(answer, *REFUSED[route, caller])
    else:
        assert answer.status_code == 200, answer.text
    if route[1] in NAMED:
        others = ask(asked, route, caller, "er-other")
        assert others.status_code == (404 if word == "own" else answer.status_code)


@pytest.fixture
def second(world: World) -> dict[str, str]:
    """The headers of another token of the role erase."""
    token = TokenRegister(world.home.objects, SystemClock()).create("erase", days=1).text
    return {"Authorization": f"Bearer {token}"}


def by_command(world: World, request_id: str) -> None:
    """Submit a request as a command does, without a token."""
    setup = writer_setup(world.service.specification, listener=lambda _: None)
    world.resident.accept(*drafted(setup, subjects=[OTHER], ids=[], request_id=request_id, held=""))


def test_a_request_records_its_token(world: World) -> None:
    """What is stored of a request says which token it came with, by its id alone; what is answered does not."""
    answer = world.erase(MARKED, key="er-1")
    by_command(world, "er-2")
    state = world.service.standing.current()
    assert state is not None
    assert [request.by for request in state.requests] == [world.tokens["erase"].split("_")[1], None]
    assert "by" not in answer.json()


@pytest.mark.parametrize("path", sorted(NAMED))
def test_requests_of_others_do_not_exist(world: World, second: dict[str, str], path: str) -> None:
    """What another token, or a command, has submitted is answered to the letter as what nobody has submitted."""
    world.erase(MARKED, key="er-1")
    by_command(world, "er-2")
    world.until_idle()
    strangers = [world.client.get(path.format(request_id=name), headers=second) for name in ("er-1", "er-2", "er-3")]
    assert {(answer.status_code, answer.content) for answer in strangers} == {(404, strangers[0].content)}
    assert "er-" not in strangers[0].text
    error_of(world.get(path.format(request_id="er-2"), "erase"), 404, "missing")
    own = world.get(path.format(request_id="er-1"), "erase")
    assert own.status_code == 200
    for role in ("audit", "officer", "federate"):
        assert world.get(path.format(request_id="er-1"), role).content == own.content
        assert world.get(path.format(request_id="er-2"), role).status_code == 200


def test_its_own_receipt(world: World) -> None:
    """The submitter of a request gets its receipt with the same token, once it is complete."""
    world.erase(MARKED, key="er-1", hold="legal hold 17")
    assert (
        "no receipt for this request"
        in error_of(world.get("/v1/erasures/er-1/receipt", "erase"), 404, "missing")["message"]
    )
    world.resident.intervene("er-1", Release())
    world.until_idle()
    assert bundle_from_bytes(world.get("/v1/erasures/er-1/receipt", "erase").content).index == 0


def test_a_key_of_another_token_is_a_conflict(world: World, second: dict[str, str]) -> None:
    """The answer says that the key was used, and does not show whether the names are the same."""
    world.erase(MARKED, key="er-1")
    by_command(world, "er-2")
    answers = [
        world.client.post("/v1/erasures", json={"subjects": [name]}, headers=second | {"Idempotency-Key": key})
        for key in ("er-1", "er-2")
        for name in (MARKED, OTHER)
    ]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert "used before, and not with this token" in error_of(answers[0], 409, "conflict")["message"]
    assert "er-" not in answers[0].text
    assert world.erase(MARKED, key="er-1").status_code == 200


def test_who_sees_a_request_may_repeat_it(world: World) -> None:
    """To an officer and a federation the same request is the same one, and stays that of the token it came with."""
    world.erase(MARKED, key="er-1")
    for role in ("officer", "federate"):
        headers = world.headers(role, Idempotency_Key="er-1")
        assert world.client.post("/v1/erasures", json={"subjects": [MARKED]}, headers=headers).status_code == 200
        answer = world.client.post("/v1/erasures", json={"subjects": [OTHER]}, headers=headers)
        assert "for other subjects" in error_of(answer, 409, "conflict")["message"]
    assert world.get("/v1/erasures/er-1", "erase").status_code == 200


@dataclass
class _Overtaken:
    """A coordinator that accepts the same id a moment earlier with another token."""

    resident: Resident
    names: DigestSet | None

    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """Accept the other one, then this one."""
        body = names if self.names is None else self.names
        self.resident.accept(replace(request, by="another", body=body.digest()), body)
        return self.resident.accept(request, names)


@pytest.mark.parametrize("same", [True, False])
def test_a_key_used_a_moment_before_is_reported_alike(world: World, same: bool) -> None:
    """If two tokens use one key at the same moment, the second one gets the same error as it would later."""
    setup = writer_setup(world.service.specification, listener=lambda _: None)
    _, names = drafted(setup, subjects=[OTHER], ids=[], request_id="er-1", held="")
    overtaken: Any = _Overtaken(world.resident, None if same else names)
    accepting: Accepting = overtaken
    world.coordinator[:] = [accepting]
    answer = world.erase(MARKED, key="er-1")
    assert "used before, and not with this token" in error_of(answer, 409, "conflict")["message"]


def test_an_officer_from_request_to_receipt(world: World) -> None:
    """One token submits, reads the status, all requests and the receipts; it predicts nothing."""
    headers = world.headers("officer", Idempotency_Key="er-1")
    assert world.client.post("/v1/erasures", json={"subjects": [MARKED]}, headers=headers).status_code == 202
    world.until_idle()
    assert world.get("/v1/erasures/er-1", "officer").json()["state"] == "complete"
    assert bundle_from_bytes(world.get("/v1/erasures/er-1/receipt", "officer").content).index == 0
    status = world.get("/v1/status", "officer").json()
    assert status == world.get("/v1/status", "audit").json()
    assert [request["request_id"] for request in status["requests"]] == ["er-1"]
    answer = world.client.post("/v1/predictions", json=points(), headers=world.headers("officer"))
    error_of(answer, 403, "forbidden")
