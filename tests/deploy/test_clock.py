"""A machine's clock that was set back: no time on record runs backwards, and what is late stays late."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import cluster.doctor
from cluster.config.specification import read_specification
from cluster.runtime.system import SystemClock
from cluster.writer.writer import draft, writer_setup, writing
from tests.doubles.user_folder import MARKED, UserFolder, run

START = datetime(2026, 3, 1, 12, tzinfo=UTC)

SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Sets this machine's clock to so many days after the start."""

    def put(days: float) -> None:
        begun = datetime.now(UTC)
        monkeypatch.setattr(SystemClock, "now", lambda _: START + timedelta(days=days) + (datetime.now(UTC) - begun))

    put(0)
    return put


@pytest.fixture
def late(home: UserFolder, set_clock: SetClock) -> UserFolder:
    """A federation with a request of day 0, er-late, not carried out, and something that is recorded on day 40."""
    assert home.json("train").code == 0
    accept(home, "er-late", MARKED)
    set_clock(40)
    accept(home, "er-other", "secret-person-001")
    return home


def accept(home: UserFolder, request_id: str, subject: str) -> None:
    """Accept a request, and be interrupted."""
    setup = writer_setup(read_specification(home.config), listener=lambda _: None)
    made = draft(setup, subjects=[subject], ids=(), request_id=request_id, held="")
    with writing(setup, "erase") as writer:
        writer.accept(made.request, made.names)


def predicate(home: UserFolder, request_id: str) -> dict[str, Any]:
    """Return the facts of a receipt."""
    envelope = home.json("receipt", request_id).data["bundle"]["envelope"]
    found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    return found


def test_what_is_overdue_stays_so(late: UserFolder, set_clock: SetClock) -> None:
    """Neither the federation's status nor the request's is judged by a clock that is behind the record."""
    assert [each["overdue"] for each in late.json("status").data["requests"]] == [True, False]
    set_clock(10)
    status = late.json("status").data
    assert [each["overdue"] for each in status["requests"]] == [True, False]
    assert status["clock_behind_seconds"] == pytest.approx(30 * 86400, abs=60)
    assert "seconds behind the newest time on record" in late.run("status").out
    assert late.json("status", "er-late").data["overdue"] is True
    set_clock(41)
    assert late.json("status").data["clock_behind_seconds"] == 0
    assert "behind the newest time" not in late.run("status").out


def test_receipts_do_not_run_backwards(late: UserFolder, set_clock: SetClock) -> None:
    """Steps that are taken under a clock that was set back are recorded after those before them, and it is said."""
    set_clock(10)
    said = late.run("train")
    assert said.code == 0
    assert "behind the newest time on record" in said.err
    issued = [predicate(late, each) for each in ("er-late", "er-other")]
    for found in issued:
        request = found["request"]
        steps = ("accepted", "planned", "quarantined", "retraining", "published", "purged")
        times = [request["times"][step] for step in steps if step in request["times"]]
        assert [*times, found["issued_at"]] == sorted([*times, found["issued_at"]])
    assert issued[0]["request"]["times"]["purged"] > issued[0]["request"]["due_at"]
    set_clock(5)
    assert late.json("erase", "--subject", "secret-person-002", "--request-id", "er-next").code == 0
    after = predicate(late, "er-next")
    assert after["issued_at"] >= issued[1]["issued_at"]
    assert after["request"]["times"]["accepted"] >= issued[1]["request"]["times"]["purged"]


def test_more_time_is_not_had_by_setting_the_clock(late: UserFolder, set_clock: SetClock) -> None:
    """An overdue request is extended no more, and the end of a pause moves no due date back."""
    set_clock(10)
    where = ("--config", str(late.config), "--json")
    assert run("request", "extend", "er-late", "--days", "5", "--reason", "more time", *where).code == 4
    assert late.json("erase", "--subject", "secret-person-003", "--request-id", "er-held", "--hold", "court").code == 0
    due = late.json("status", "er-held").data["due_at"]
    set_clock(5)
    said = run("request", "release", "er-held", *where)
    assert (said.code, said.data["due_at"] >= due) == (0, True)


def test_the_doctor_looks_at_the_clock(late: UserFolder, set_clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """'sisa doctor' names a clock that stands behind the record, and the remedy."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    found = {each["check"]: each for each in late.json("doctor").data["checks"]}
    assert found["clock"]["ok"] is True
    set_clock(10)
    found = {each["check"]: each for each in late.json("doctor").data["checks"]}
    assert found["clock"]["ok"] is False
    assert "NTP" in found["clock"]["remedy"]
