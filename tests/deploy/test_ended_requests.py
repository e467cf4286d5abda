"""Requests that ended so long ago that they left the state, as people and scripts see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

import cluster
from coordinator.decisions import ended
from coordinator.engine.ledger import read_state
from tests.doubles.user_folder import MARKED, UserFolder, run

OTHER = "secret-person-001"
IDS = ("er-complete", "er-cancelled", "er-refused", *(f"no-{number}" for number in range(4)))


@pytest.fixture
def old(trained: UserFolder, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A federation in which requests have ended in every way, and whose state has the last one alone."""
    monkeypatch.setattr(ended, "TOGETHER", 1)
    trained.json("erase", "--subject", MARKED, "--request-id", "er-complete")
    trained.json("erase", "--subject", OTHER, "--request-id", "er-cancelled", "--hold", "legal hold")
    assert _request(trained, "cancel", "er-cancelled", "--reason", "by mistake").code == 0
    trained.json("erase", "--subject", "nobody", "--request-id", "er-refused")
    for number in range(4):
        trained.json("erase", "--subject", "nobody", "--request-id", f"no-{number}")
    state = read_state(trained.objects)
    assert state is not None
    assert [each.request_id for each in state.requests] == ["no-3"]
    return trained


def _request(home: UserFolder, action: str, *words: str) -> Any:
    return run("request", action, *words, "--config", str(home.config), "--json")


def test_the_status_lists_the_last_ones_and_counts_the_others(old: UserFolder) -> None:
    """The status says which command lists all of them, and that lists them in the order of their arrival."""
    status = old.json("status")
    assert status.code == 0
    assert [each["request_id"] for each in status.data["requests"]] == ["no-3"]
    assert status.data["ended_before"] == 6
    assert "6 more ended before these: 'sisa request list' lists all" in old.run("status").out
    listed = _request(old, "list").data["requests"]
    assert tuple(each["request_id"] for each in listed) == IDS
    assert [each["state"] for each in listed[:3]] == ["complete", "cancelled", "refused"]
    assert "er-cancelled" in run("request", "list", "--config", str(old.config)).out


@pytest.mark.parametrize("request_id", IDS)
def test_each_is_shown(old: UserFolder, request_id: str) -> None:
    """Every command that shows a request shows it."""
    shown = _request(old, "show", request_id)
    assert (shown.code, shown.data["request_id"]) == (0, request_id)
    assert old.json("status", request_id).data == shown.data
    receipt = old.json("receipt", request_id)
    assert receipt.code == (0 if request_id != "er-cancelled" else receipt.code)


def test_nothing_is_done_to_one_that_has_ended(old: UserFolder) -> None:
    """It is said how it ended, and not that it never was."""
    for action, words in (("hold", ("--reason", "x")), ("cancel", ("--reason", "x")), ("release", ())):
        said = _request(old, action, "er-cancelled", *words)
        assert said.code == 4
        assert "the request is cancelled already" in said.out
    unknown = _request(old, "show", "er-never")
    assert (unknown.code, "there is no such erasure request" in unknown.out) == (2, True)


def test_an_id_is_used_for_ever(old: UserFolder) -> None:
    """The same request again says how it ended then; other names under its id are a conflict."""
    again = old.json("erase", "--subject", MARKED, "--request-id", "er-complete")
    assert (again.code, again.data["state"], again.data["points"]) == (0, "complete", 4)
    assert old.json("erase", "--subject", "nobody", "--request-id", "er-refused").data["state"] == "refused"
    assert old.json("erase", "--subject", OTHER, "--request-id", "er-cancelled").data["state"] == "cancelled"
    for request_id in IDS:
        other = old.json("erase", "--subject", "secret-person-002", "--request-id", request_id)
        assert other.code == 4
        assert "this request id was used before" in other.out


def test_everything_is_verified(old: UserFolder) -> None:
    """Receipts of those that have left count as before, and the doctor counts all."""
    proof = old.json("verify")
    assert (proof.code, proof.data["receipts"]) == (0, {"checked": 6, "broken": []})
    (bundle, *_) = (old.folder / "federation" / "receipts" / "bundles").iterdir()
    bundle.unlink()
    broken = old.json("verify").data["receipts"]["broken"]
    assert any("it has no receipt" in each for each in broken)


def test_a_person_who_comes_back_is_known_for_ever(old: UserFolder) -> None:
    """A readmission leaves the state as well, and its id is its own."""
    with cluster.connect(old.config) as federation:
        federation.readmit(subjects=[MARKED], reason="asked", request_id="back")
        old.json("erase", "--subject", "nobody", "--request-id", "later")
        old.json("erase", "--subject", "nobody", "--request-id", "later-2")
        state = read_state(old.objects)
        assert state is not None
        assert state.readmissions == ()
        again = federation.readmit(subjects=[MARKED], reason="asked", request_id="back")
        assert (again.request_id, again.subjects) == ("back", 1)
    refused = old.json("erase", "--subject", OTHER, "--request-id", "back")
    assert refused.code == 4
    statement = json.loads(old.run("receipt", "back").out)
    assert statement


def test_an_older_command_is_refused_by_the_format(old: UserFolder) -> None:
    """What it would misread is of a format that it does not know."""
    manifests = sorted((old.folder / "federation" / "manifest").iterdir())
    assert json.loads(manifests[-1].read_bytes())["body"]["format_version"] == 5
