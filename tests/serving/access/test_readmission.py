"""Readmissions over HTTP: what an officer may do with a running coordinator, as 'sisa readmit' does."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.receipts.bundles import bundle_from_bytes, statement_of
from coordinator.receipts.kinds import READMISSION_TYPE
from tests.doubles.user_folder import MARKED
from tests.serving.world import World, error_of

WHY = "a new contract"
NOBODY = "nobody-of-this-name"


def readmit(world: World, body: object, **headers: str) -> Any:
    """Have an officer readmit people."""
    return world.client.post("/v1/subjects:readmit", json=body, headers=world.headers("officer", **headers))


@pytest.fixture
def erased(world: World) -> World:
    """A federation that has erased somebody."""
    world.erase(MARKED, key="er-1")
    world.until_idle()
    return world


def test_somebody_comes_back(erased: World) -> None:
    """The answer says who was not erased; the statement is there as the receipt of the readmission's id."""
    answer = readmit(erased, {"subjects": [NOBODY, MARKED], "reason": WHY}, Idempotency_Key="re-1")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["request_id"], found["subjects"], found["reason"]) == ("re-1", 1, WHY)
    assert (found["unknown_subjects"], found["erased_since"]) == ([0], 0)
    assert MARKED not in answer.text
    erased.until_idle()
    statement = statement_of(bundle_from_bytes(erased.get("/v1/erasures/re-1/receipt", "officer").content))
    assert statement["predicateType"] == READMISSION_TYPE
    assert statement["predicate"]["reason"] == WHY
    body = {"subjects": [MARKED]}
    looked_up = erased.client.post("/v1/subjects:lookup", json=body, headers=erased.headers("officer")).json()
    assert looked_up["subjects"][0]["erased"] is False


def test_the_same_readmission_again(erased: World) -> None:
    """The same key with the same names is the same readmission; with others, or an erasure's, it is a conflict."""
    body = {"subjects": [MARKED], "reason": WHY}
    first = readmit(erased, body, Idempotency_Key="re-1").json()
    again = readmit(erased, {**body, "reason": "another one"}, Idempotency_Key="re-1").json()
    assert (again["at"], again["reason"]) == (first["at"], WHY)
    error_of(readmit(erased, {**body, "subjects": [NOBODY]}, Idempotency_Key="re-1"), 409, "conflict")
    error_of(readmit(erased, body, Idempotency_Key="er-1"), 409, "conflict")


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        ({"subjects": [NOBODY], "reason": WHY}, "none of these subjects was erased here"),
        ({"subjects": [], "reason": WHY}, "no subject and no data point is named"),
        ({"subjects": [MARKED], "reason": ""}, "a reason is 1 to 500 printable characters"),
        ({"subjects": [MARKED], "reason": "a\nb"}, "a reason is 1 to 500 printable characters"),
        ({"subjects": [MARKED]}, "'subjects', a list and 'reason', a text"),
        ({"subjects": [1.5], "reason": WHY}, "something that is not a name"),
    ],
)
def test_what_is_refused(erased: World, body: object, fact: str) -> None:
    """Nobody, nobody who was erased, and a reason that cannot be shown are refused; nothing changes."""
    assert fact in error_of(readmit(erased, body), 422, "invalid")["message"]
    assert erased.resident.state().readmitted == 0


def test_an_id_that_is_a_name(erased: World) -> None:
    """A readmission must not be named after the person: its id stays in the log for good."""
    answer = readmit(erased, {"subjects": [MARKED], "reason": WHY}, Idempotency_Key=MARKED)
    assert "the request id is one of the names" in error_of(answer, 422, "invalid")["message"]


def test_too_many_and_nobody_to_accept(erased: World) -> None:
    """More names than an erasure may have are refused, and so is a readmission while no coordinator runs."""
    many = {"subjects": ["x"] * (erased.service.serve.max_names + 1), "reason": WHY}
    error_of(readmit(erased, many), 413, "too_large")
    erased.coordinator.clear()
    error_of(readmit(erased, {"subjects": [MARKED], "reason": WHY}), 503, "unavailable")
