"""Similar and unknown names in an erasure request: what only the submitter gets to know, and what is signed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from cluster.client import Client
from cluster.coordinator_actor.resident import Resident
from cluster.serving.erasures import Accepting
from cluster.writer.drafting import readmission_of, roll_of
from coordinator.interventions import Release
from coordinator.receipts.bundles import ReceiptBundle, bundle_from_bytes, statement_of
from coordinator.receipts.openings import commitment
from coordinator.requests import ErasureRequest
from shards.tombstones import DigestSet
from storage.digests import Sha256
from tests.doubles.user_folder import MARKED, CommandResult, run
from tests.serving.world import World, error_of

RESPELT = "Secret Person 001"
FOR_THE_ASKER = {"salt", "unknown_names", "unknown_subjects", "unknown_ids"}
NOBODY = "nobody-of-this-name"


def statement(payload: bytes) -> dict[str, Any]:
    """Return what a receipt states, checked to be one."""
    bundle: ReceiptBundle = bundle_from_bytes(payload)
    found: dict[str, Any] = statement_of(bundle)["predicate"]
    return found


def test_who_is_spelt_alike_stays_unless_they_are_meant(world: World) -> None:
    """Without include_similar another spelling is unknown, and similar names are counted; with it they are erased."""
    world.erase(RESPELT, key="er-1")
    world.until_idle()
    found = world.get("/v1/erasures/er-1").json()
    assert (found["state"], found["similar"]) == ("refused", {"points": 4, "subjects": 1})
    assert world.erase(RESPELT, key="er-2", include_similar=True).json()["include_similar"]
    error_of(world.erase(RESPELT, key="er-2"), 409, "conflict")
    world.until_idle()
    found = world.get("/v1/erasures/er-2").json()
    assert (found["state"], found["points"]) == ("complete", 4)


def test_unknown_names_are_reported_to_who_asks_again(world: World) -> None:
    """Once a request is carried out its repetition names who is unknown, as they were given; nothing else does."""
    body = {"subjects": [NOBODY, MARKED, 17], "ids": ["secret-id-0001", "no-such-id"]}
    first = world.client.post("/v1/erasures", json=body, headers=world.headers("erase", Idempotency_Key="er-1")).json()
    assert (first["unknown_names"], bool(first["salt"])) == ([], True)
    world.until_idle()
    for role in ("erase", "officer", "federate"):
        headers = world.headers(role, Idempotency_Key="er-1")
        again = world.client.post("/v1/erasures", json=body, headers=headers)
        assert again.status_code == 200
        found = again.json()
        assert (found["state"], found["unknown"]) == ("complete", 3)
        assert found["unknown_names"] == [NOBODY, "17", "no-such-id"]
        assert (found["unknown_subjects"], found["unknown_ids"], found["salt"]) == ([0, 2], [1], "")
    for role in ("erase", "audit", "officer", "federate"):
        got = world.get("/v1/erasures/er-1", role)  # type: ignore[arg-type]
        assert not FOR_THE_ASKER & got.json().keys()
        assert NOBODY not in got.text
    status = world.get("/v1/status").text
    assert NOBODY not in status
    assert '"salt"' not in status


def test_the_salt_opens_the_statement_that_nothing_was_found(world: World) -> None:
    """The first submitter gets the salt, once; it proves that a refused request's signed statement is about them."""
    salt = world.erase(NOBODY, key="er-1").json()["salt"]
    world.until_idle()
    again = world.erase(NOBODY, key="er-1").json()
    assert (again["state"], again["salt"], again["unknown_names"]) == ("refused", "", [NOBODY])
    receipts = [world.get("/v1/erasures/er-1/receipt", role) for role in ("erase", "audit", "officer", "federate")]
    assert {(each.status_code, each.content) for each in receipts} == {(200, receipts[0].content)}
    stated = statement(receipts[0].content)["request"]
    assert (stated["state"], stated["digest"]) == ("refused", commitment(salt, subjects=[NOBODY]))
    assert stated["digest"] != commitment(salt, subjects=[MARKED])


@dataclass
class _Overtaken:
    """A coordinator that accepts the same request from somebody else a moment earlier."""

    resident: Resident

    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """Accept the other one, then this one."""
        self.resident.accept(replace(request, commitment=Sha256("0" * 64)), names)
        return self.resident.accept(request, names)


def test_no_salt_that_opens_nothing(world: World) -> None:
    """Whose request was made a moment before by another call is not given a salt for that call's commitment."""
    overtaken: Any = _Overtaken(world.resident)
    accepting: Accepting = overtaken
    world.coordinator[:] = [accepting]
    answer = world.erase(NOBODY, key="er-1")
    assert (answer.status_code, answer.json()["salt"]) == (202, "")


def test_a_readmission_has_a_statement(world: World) -> None:
    """Its signed statement is read like a receipt by who sees every request; to the role erase it does not exist."""
    world.erase(MARKED, key="er-1")
    world.until_idle()
    specification, state = world.service.specification, world.resident.state()
    _, key = world.service.standing.reading.trained()
    names = roll_of(specification, key, state.naming, [MARKED], ()).names
    world.resident.readmit(readmission_of(names, "re-1", "she came back", world.service.clock.now()), names)
    world.until_idle()
    for role in ("audit", "officer", "federate"):
        stated = statement(world.get("/v1/erasures/re-1/receipt", role).content)
        assert (stated["request"]["state"], stated["reason"]) == ("readmitted", "she came back")
    error_of(world.get("/v1/erasures/re-1/receipt", "erase"), 404, "missing")
    error_of(world.get("/v1/erasures/re-1"), 404, "missing")


def test_the_client_tells_the_same(world: World, url: str) -> None:
    """One call that waits has the unknown names and the salt of its receipt; a repetition has no salt."""
    with Client(url, world.tokens["erase"]) as client:
        names = iter([RESPELT, NOBODY])
        done = client.erase(subjects=names, request_id="er-1", include_similar=True, wait_seconds=60)
        assert (done.state, done.points, done.unknown_names) == ("complete", 4, (NOBODY,))
        receipt = statement(client.receipt("er-1"))["request"]
        assert receipt["commitment"] == commitment(done.salt, subjects=[RESPELT, NOBODY])
        asked_again = client.erase(subjects=[RESPELT, NOBODY], request_id="er-1", include_similar=True)
        assert asked_again == replace(done, salt="")
        assert done.request == client.request("er-1")
        none = client.erase(subjects=[NOBODY], ids=["no-such-id"], request_id="er-2", wait_seconds=60)
        assert (none.state, none.unknown_names) == ("refused", (NOBODY, "no-such-id"))
        stated = statement(client.receipt("er-2"))["request"]
        assert stated["digest"] == commitment(none.salt, subjects=[NOBODY], ids=["no-such-id"])
        again = client.erase(subjects=[NOBODY], ids=["no-such-id"], request_id="er-2")
        assert again == replace(none, salt="")


def reported(world: World, url: str, *words: str) -> CommandResult:
    """Return what 'sisa erase' says there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SISA_TOKEN", world.tokens["erase"])
        return run("erase", *words, "--wait", "--url", url)


def test_the_command_tells_the_same(world: World, url: str) -> None:
    """'sisa erase --url' reports unknown names, by name or by the file's line, and the salt, as it does on the spot."""
    file = world.home.folder / "names.txt"
    file.write_text(f"{MARKED}\n{NOBODY}\n", encoding="utf-8")
    words = ("--subject", "no-such-person", "--file", str(file), "--request-id", "er-1")
    said = reported(world, url, *words, "--json")
    assert (said.code, said.data["unknown_names"], said.data["unknown_lines"]) == (0, ["no-such-person"], [2])
    text = reported(world, url, *words).out
    assert "no data point here of: no-such-person" in text
    assert f"names in these lines of {file}: 2" in text
    assert NOBODY not in said.out + text
    said = reported(world, url, "--subject", RESPELT, "--request-id", "er-2", "--json")
    assert (said.code, said.data["similar"]) == (2, {"points": 4, "subjects": 1})
    stated = statement(world.get("/v1/erasures/er-2/receipt").content)["request"]
    assert stated["digest"] == commitment(said.data["salt"], subjects=[RESPELT])
    text = reported(world, url, "--subject", RESPELT, "--request-id", "er-3").out
    assert "4 data points belong to 1 subject whose name differs only in case or spacing" in text
    stated = statement(world.get("/v1/erasures/er-3/receipt").content)["request"]
    assert stated["digest"] == commitment(text.split()[-1], subjects=[RESPELT])
    said = reported(world, url, "--subject", RESPELT, "--request-id", "er-4", "--include-similar", "--json")
    assert (said.code, said.data["state"], said.data["points"]) == (0, "complete", 4)


def test_who_does_not_wait_has_the_salt_too(world: World, url: str) -> None:
    """A command that ends before anybody was looked for prints the salt: nobody could tell it later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SISA_TOKEN", world.tokens["erase"])
        said = run("erase", "--subject", NOBODY, "--request-id", "er-1", "--hold", "legal hold 17", "--url", url)
    world.resident.intervene("er-1", Release())
    world.until_idle()
    stated = statement(world.get("/v1/erasures/er-1/receipt").content)["request"]
    assert stated["digest"] == commitment(said.out.split()[-1], subjects=[NOBODY])


def test_the_log_names_nobody_who_is_unknown(world: World) -> None:
    """Whether a name is known, unknown, spelt otherwise or refused: no line has it, nor the salt."""
    salts = [world.erase(name, RESPELT, key=f"er-{n}").json()["salt"] for n, name in enumerate((NOBODY, MARKED))]
    world.until_idle()
    world.erase(NOBODY, RESPELT, key="er-0")
    world.erase(NOBODY, key=NOBODY)
    world.erase(NOBODY, include_similar=NOBODY)
    log = world.log.getvalue()
    for secret in (NOBODY, RESPELT, MARKED, *salts):
        assert secret not in log
