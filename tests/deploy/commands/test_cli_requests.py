"""The life of an erasure request through the command: paused, released, extended, withdrawn, batched, interrupted."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import cluster
import cluster.training.workers
from cluster.runtime.system import SystemClock
from coordinator.engine.engine import Engine
from deploy.views.erasure import erase_outcome
from tests.deploy.commands.test_cli_erase import fresh_digests
from tests.doubles.user_folder import MARKED, UserFolder, duplicate, run, small_points, without
from tests.doubles.workers.local_workers import LocalWorkers

ACTIONS = ("hold", "release", "extend", "cancel", "show")
EARLY = "secret-person-001"
"""Whose data points are in a first slice of shard 1."""
OTHER = "secret-person-004"
REASON = ("--reason", "for the court")


@pytest.fixture
def waiting(trained: UserFolder) -> UserFolder:
    """A federation whose requests wait for each other until they are due."""
    trained.specify(erasure__batch="until_due")
    return trained


@pytest.fixture(scope="module")
def _lives_folder(_trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose federation has a request of every kind; made once for all tests."""
    folder = tmp_path_factory.mktemp("lives")
    home = duplicate(_trained_folder, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        for request_id, name in (("er-complete", EARLY), ("er-refused", "nobody")):
            home.json("erase", "--subject", name, "--request-id", request_id)
        home.specify(erasure__batch="until_due")
        for request_id in ("er-held", "er-extended", "er-cancelled"):
            home.json("erase", "--subject", OTHER, "--request-id", request_id, "--hold", "legal hold")
        assert request(home, "extend", "er-extended", "--days", "5", *REASON).code == 0
        assert request(home, "cancel", "er-cancelled", *REASON).code == 0
        assert home.json("erase", "--subject", MARKED, "--request-id", "er-removed").data["state"] == "quarantined"
    return folder


@pytest.fixture
def lives(home: UserFolder, _lives_folder: Path) -> UserFolder:
    """A federation of this test's own with a request of every kind."""
    return duplicate(_lives_folder, home.folder)


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Let every command from here on run so many days later."""
    now = SystemClock.now
    monkeypatch.setattr(SystemClock, "now", lambda self: now(self) + timedelta(days=days))


def interrupt(*_: object, **__: object) -> Any:
    """Do what Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


def request(home: UserFolder, action: str, *words: str) -> Any:
    """Run ``sisa request`` with ``--json``."""
    return run("request", action, *words, "--config", str(home.config), "--json")


@pytest.mark.parametrize("action", ACTIONS)
def test_help_and_usage_of_every_action(action: str) -> None:
    """Each action has its own help; a missing argument or an unknown option is a usage error, reported as JSON."""
    said = run("request", action, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"sisa request {action}" in said.out
    assert "--json" in said.out
    strange = run("request", action, "er-1", "--no-such-option", "--json")
    assert (strange.code, strange.error["kind"]) == (2, "usage")
    assert f"sisa request {action} --help" in strange.error["remedy"]
    assert run("request", action, "--json").code == 2


def test_the_group_alone_shows_its_help() -> None:
    """``sisa request`` alone lists its actions and fails; the error for a misspelt action names it."""
    said = run("request")
    assert said.code == 2
    assert all(action in said.out + said.err for action in ACTIONS)
    assert "error:" not in said.err
    assert "realese" in run("request", "realese", "--json").error["message"]


@pytest.mark.parametrize("words", [("hold", "er-1"), ("cancel", "er-1"), ("extend", "er-1", "--days", "3")])
def test_a_reason_is_needed(words: Sequence[str]) -> None:
    """What departs from carrying a request out in time has a reason on record."""
    said = run("request", *words, "--json")
    assert (said.code, said.error["kind"]) == (2, "usage")
    assert "--reason" in said.error["message"]


def test_a_paused_request_touches_nothing_until_it_is_released(trained: UserFolder) -> None:
    """Submitted with ``--hold`` it waits and all models stay; released, it ends in the bytes of who never saw them,
    due later by as long as it was paused.
    """
    before = trained.json("status")
    words = ("erase", "--subject", MARKED, "--request-id", "er-1")
    held = trained.json(*words, "--hold", "legal hold 7/26")
    assert (held.code, held.data["state"], held.data["stage"], held.data["points"]) == (0, "waiting", "accepted", 0)
    assert held.data["held"] == "legal hold 7/26"
    assert trained.json("status").digests == before.digests
    shown = {name: value for name, value in held.data.items() if name != "salt"}  # shown once, and not stored
    assert held.data["salt"]
    assert trained.json(*words).data == trained.json(*words, "--hold", "another").data == shown
    assert trained.json("train").digests == before.digests
    done = request(trained, "release", "er-1")
    assert (done.code, done.data["state"], done.data["points"]) == (0, "complete", 4)
    (pause,) = done.data["holds"]
    assert (pause["reason"], pause["previous_due_at"]) == ("legal hold 7/26", held.data["due_at"])
    assert done.data["due_at"] > held.data["due_at"]
    columns = without(small_points(), subjects=[MARKED])
    assert trained.json("status").digests == fresh_digests(trained.folder / "fresh", columns)
    assert request(trained, "show", "er-1").data == trained.json("status", "er-1").data == done.data


def test_people_are_reported_a_pause(trained: UserFolder) -> None:
    """The text names the reason and the way on; the table of all requests shows it too."""
    said = trained.run("erase", "--subject", MARKED, "--request-id", "er-1", "--hold", "legal hold 7/26")
    assert "request er-1: waiting; nothing of it is removed while it is paused: legal hold 7/26" in said.out
    assert "'sisa request release er-1'" in said.out
    assert "request er-1: waiting" in said.err
    assert "er-1     waiting       0  -" in trained.run("status").out
    assert "paused since 2" in trained.run("status", "er-1").out
    reported = run("request", "release", "er-1", "--config", str(trained.config))
    assert "request er-1: complete; 4 data points erased, shards retrained: " in reported.out
    assert "paused from 2" in trained.run("status", "er-1").out


def test_a_request_may_be_paused_later_and_withdrawn(trained: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its points are removed, a request can be paused, released, and withdrawn. After that nothing of it is
    erased, even if it is submitted again.
    """
    words = ("erase", "--subject", MARKED, "--request-id", "er-1")
    before = trained.json("status").digests
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_remove_points", interrupt)
        assert trained.json(*words).code == 1
    refused = trained.refused(*words, "--hold", "too late", code=4)
    assert "submitted before, without a pause" in refused.error["message"]
    assert request(trained, "hold", "er-1", *REASON).data["state"] == "waiting"
    ended = request(trained, "cancel", "er-1", "--reason", "withdrawn by the person")
    assert (ended.code, ended.data["state"], ended.data["reason"]) == (0, "cancelled", "withdrawn by the person")
    assert trained.json("train").digests == before
    again = trained.json(*words)
    assert (again.code, again.error["kind"], again.data) == (4, "cancelled", ended.data)
    assert "withdrawn before anything was erased: withdrawn by the person [request=er-1]" in again.error["message"]
    assert "--request-id of its own" in again.error["remedy"]
    assert trained.json("status").digests == before
    assert trained.json("erase", "--subject", MARKED).data["points"] == 4


def test_a_request_submitted_after_its_end_is_reported_so(trained: UserFolder) -> None:
    """A request that is complete or refused is not done again, and the command says since when it is so."""
    for name, state, code in ((MARKED, "complete", 0), ("nobody", "refused", 2)):
        words = ("erase", "--subject", name, "--request-id", f"er-{name}")
        assert trained.json(*words).data["state"] == state
        kept = trained.kept()
        said = trained.run(*words)
        assert said.code == code
        assert f"request er-{name} was submitted before and is {state} since 2" in said.out
        assert trained.kept() == kept
    again = trained.json("erase", "--subject", "nobody", "--request-id", "er-nobody")
    assert "Give a new demand a --request-id of its own." in again.error["remedy"]


def test_a_due_date_is_extended_once(trained: UserFolder) -> None:
    """The extension and its reason are on record, the new due date counts, and pauses of the clock add to it."""
    held = trained.json("erase", "--subject", MARKED, "--request-id", "er-1", "--hold", "legal hold").data
    said = request(trained, "extend", "er-1", "--days", "60", *REASON)
    moved = datetime.fromisoformat(said.data["due_at"]) - datetime.fromisoformat(held["due_at"])
    assert (said.code, moved) == (0, timedelta(days=60))
    (extension,) = said.data["extensions"]
    assert (extension["reason"], extension["previous_due_at"]) == ("for the court", held["due_at"])
    reported = trained.run("status", "er-1").out
    assert f"extended on {extension['at'][:10]}, due on {held['due_at'][:10]} until then: for the court" in reported


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("show", "er-9"), 2, "there is no such erasure request [request=er-9]"),
        (("hold", "er-9", *REASON), 2, "there is no such erasure request [request=er-9]"),
        (("release", "er-9"), 2, "there is no such erasure request [request=er-9]"),
        (("cancel", "er-9", *REASON), 2, "there is no such erasure request [request=er-9]"),
        (("extend", "er-9", "--days", "3", *REASON), 2, "there is no such erasure request [request=er-9]"),
        (("hold", "er-removed", "--reason", ""), 2, "a reason is 1 to 500 printable characters, got 0"),
        (("hold", "er-removed", "--reason", "a\tb"), 2, "got 3 characters, not all printable"),
        (("cancel", "er-held", "--reason", "x" * 501), 2, "got 501 characters"),
        (("extend", "er-held", "--days", "3", "--reason", "  "), 2, "a reason is 1 to 500 printable characters"),
        (("extend", "er-held", "--days", "0", *REASON), 2, "moved by 1 .. 60 days, got 0"),
        (("extend", "er-held", "--days", "-3", *REASON), 2, "moved by 1 .. 60 days, got -3"),
        (("extend", "er-held", "--days", "61", *REASON), 2, "moved by 1 .. 60 days, got 61"),
        (("hold", "er-held", *REASON), 4, "the request has been paused since 2"),
        (("hold", "er-removed", *REASON), 4, "cannot be paused: its data points are removed, it is quarantined"),
        (("hold", "er-complete", *REASON), 4, "the request is complete already"),
        (("hold", "er-refused", *REASON), 4, "the request is refused already"),
        (("hold", "er-cancelled", *REASON), 4, "the request is cancelled already"),
        (("release", "er-removed"), 4, "the request is not paused"),
        (("release", "er-complete"), 4, "the request is complete already"),
        (("cancel", "er-removed", *REASON), 4, "cannot be withdrawn: its data points are removed"),
        (("cancel", "er-cancelled", *REASON), 4, "the request is cancelled already"),
        (("extend", "er-extended", "--days", "3", *REASON), 4, "the due date was moved before, on 2"),
        (("extend", "er-refused", "--days", "3", *REASON), 4, "the request is refused already"),
    ],
)
def test_what_may_not_be_done_is_refused(words: Sequence[str], code: int, text: str, lives: UserFolder) -> None:
    """Wrong input gives 2, an action that the request's stage rules out 4, each with the reason; nothing changes."""
    before = lives.json("status")
    said = request(lives, *words)
    assert said.code == code
    assert text in said.error["message"]
    assert said.error["remedy"]
    assert lives.json("status").data == before.data


def test_an_extension_comes_before_the_due_date(waiting: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An overdue request gets no more time; where none is granted at all, the setting is named."""
    assert waiting.json("erase", "--subject", MARKED, "--request-id", "er-1").code == 0
    waiting.specify(erasure__extension_days=0, erasure__batch="until_due")
    refused = request(waiting, "extend", "er-1", "--days", "3", *REASON)
    assert (refused.code, refused.error["message"][:31]) == (2, "due dates are not moved here [r")
    assert "extension_days" in refused.error["remedy"]
    waiting.specify(erasure__batch="until_due")
    later(monkeypatch, 31)
    late = request(waiting, "extend", "er-1", "--days", "3", *REASON)
    assert late.code == 4
    assert "more time has to be recorded before that" in late.error["message"]
    assert waiting.json("status", "er-1").data["overdue"]
    assert "overdue" in waiting.run("status").out


@pytest.mark.parametrize("reason", ["", " ", "a\nb", "x" * 501])
def test_a_pause_has_a_reason(reason: str, trained: UserFolder) -> None:
    """An empty reason must not submit the request unpaused."""
    said = trained.refused("erase", "--subject", MARKED, "--hold", reason)
    assert "a reason is 1 to 500 printable characters" in said.error["message"]


def test_requests_wait_for_each_other_until_they_are_due(waiting: UserFolder) -> None:
    """Under ``until_due`` a request ends at the quarantine, with success: no prediction uses what has seen the person,
    and it is said from when on it is retrained for, together with whom, at what cost.
    """
    served = waiting.json("status").data["serving"]
    first = waiting.json("erase", "--subject", EARLY, "--request-id", "er-1")
    assert (first.code, first.data["state"], first.data["points"]) == (0, "quarantined", 4)
    until = datetime.fromisoformat(first.data["due_at"]) - datetime.fromisoformat(first.data["retrains_from"])
    assert timedelta(days=3) <= until < timedelta(days=3, minutes=10)
    assert first.data["expected"]["point_epochs"] > 0
    assert first.data["spent"]["point_epochs"] == 0
    status = waiting.json("status").data
    assert status["serving"] == served - 1
    assert status["batch"]["requests"] == ["er-1"]
    assert status["batch"]["retrains_from"] == first.data["retrains_from"]
    second = waiting.run("erase", "--subject", OTHER, "--request-id", "er-2")
    day = first.data["retrains_from"][:10]
    assert f"retrains from {day}" in second.out
    assert "for all requests that arrive until then: 2 so far" in second.out
    assert "'sisa train' does it now" in second.out
    assert "nothing is spent yet" in second.out
    reported = waiting.run("status").out
    assert f"retrains from {day}" in reported
    assert "to be carried out" not in reported
    assert f"retrains from {day}" in waiting.run("status", "er-1").out


def test_train_retrains_a_waiting_batch_at_once(waiting: UserFolder) -> None:
    """``sisa train`` does not wait for the due date; each shard is retrained once for all requests of the batch, and
    the bytes are those of who never saw them.
    """
    for number, name in enumerate((EARLY, OTHER, MARKED)):
        assert waiting.json("erase", "--subject", name, "--request-id", f"er-{number}").data["state"] == "quarantined"
    batch = waiting.json("status").data["batch"]
    shards = {shard for number in range(3) for shard in waiting.json("status", f"er-{number}").data["shards"]}
    said = waiting.run("train")
    assert said.code == 0
    assert f"training {len(shards)} shards" in said.err
    assert "retrains from" not in said.out
    ended = [waiting.json("status", f"er-{number}").data for number in range(3)]
    assert [each["state"] for each in ended] == ["complete"] * 3
    assert sum(each["spent"]["point_epochs"] for each in ended) >= batch["expected"]["point_epochs"]
    assert waiting.json("status").data["batch"] is None
    columns = without(small_points(), subjects=[EARLY, OTHER, MARKED])
    assert waiting.json("status").digests == fresh_digests(waiting.folder / "fresh", columns)
    assert waiting.json("verify").code == 0


def test_a_batch_that_is_due_does_not_wait(waiting: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days before the earliest due date the next erasure retrains for all, itself included."""
    assert waiting.json("erase", "--subject", EARLY, "--request-id", "er-1").data["state"] == "quarantined"
    later(monkeypatch, 28)
    assert "to be carried out: 1;" in waiting.run("status").out
    assert waiting.json("status", "er-1").data["retrains_from"] == ""
    assert waiting.json("erase", "--subject", OTHER).data["state"] == "complete"
    assert waiting.json("status", "er-1").data["state"] == "complete"


def test_expected_cost_stands_beside_the_real_one(trained: UserFolder) -> None:
    """The expected cost of an erasure is shown beside the real one, and that also as a share of a full retrain."""
    priced = trained.json("erase", "--subject", MARKED, "--dry-run").data["plan"]
    said = trained.json("erase", "--subject", MARKED, "--request-id", "er-1").data
    assert said["expected"]["point_epochs"] == said["spent"]["point_epochs"] == priced["point_epochs"]
    full = trained.json("status").data["full_point_epochs"]
    assert full == priced["full_point_epochs"]
    line = f"expected {priced['point_epochs']:,} point-epochs ("
    reported = trained.run("status", "er-1").out
    assert line in reported
    assert f"{priced['point_epochs'] / full:.1%} of a full retrain" in reported
    again = trained.run("erase", "--subject", EARLY)
    assert "; spent " in again.out
    assert " of a full retrain" in again.out


@pytest.mark.parametrize(
    ("owner", "name", "state"), [(Engine, "_remove_points", "accepted"), (LocalWorkers, "train", "quarantined")]
)
def test_an_interrupted_erasure_is_accepted_all_the_same(
    owner: type, name: str, state: str, trained: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after the acceptance: the command says which request it is and that it will be carried out; the next
    command does so.
    """
    trained.specify(erasure__batch_window_seconds=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupt)
        said = trained.json("erase", "--subject", MARKED)
    assert (said.code, said.error["kind"]) == (1, "interrupted")
    own = said.data["request_id"]
    assert (said.data["state"], own[:3]) == (state, "er-")
    assert len(said.data["salt"]) >= 32
    assert f"accepted and will be carried out: it is {state} [request={own}]" in said.error["message"]
    assert "Run 'sisa train' to continue with it" in said.error["remedy"]
    assert "to be carried out: 1; if no command is working on them, 'sisa train' continues" in trained.run("status").out
    assert trained.json("train").code == 0
    assert trained.json("status", own).data["state"] == "complete"


def test_an_interrupt_before_the_acceptance_erases_nothing(
    trained: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C before the request is durable, the command says that it has to be submitted again."""
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "accept", interrupt)
        said = trained.json("erase", "--subject", MARKED, "--request-id", "er-1")
    assert (said.code, said.error["kind"]) == (1, "interrupted")
    assert "before the request was accepted: nothing will be erased" in said.error["message"]
    assert "Submit it again" in said.error["remedy"]
    assert trained.json("status").data["requests"] == []


def test_an_interrupt_of_what_is_paused_or_done(trained: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted as it pauses a request is paused, interrupted after its end it is complete: the command says so."""
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "settle", interrupt)
        held = trained.json("erase", "--subject", MARKED, "--request-id", "er-1", "--hold", "legal hold")
        assert (held.code, held.data["state"]) == (1, "waiting")
        assert "interrupted; the request is accepted, and paused [request=er-1]" in held.error["message"]
        assert "'sisa request release er-1'" in held.error["remedy"]
        released = request(trained, "release", "er-1")
        assert (released.code, released.data["state"]) == (1, "accepted")
    assert trained.json("train").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "settle", interrupt)
        done = trained.json("erase", "--subject", MARKED, "--request-id", "er-1")
    assert (done.code, done.data["state"]) == (1, "complete")
    assert "the request is nevertheless complete" in done.error["message"]


def test_a_failed_request_says_why_and_is_mended(waiting: UserFolder) -> None:
    """A request that cannot be carried out shows as failed, with the reason and since when; ``sisa train`` repairs the
    damage and carries it out.
    """
    place = waiting.json("erase", "--subject", EARLY, "--dry-run").data["plan"]["shards"][0]
    folder = waiting.store / f"shards/{place['shard']:04d}/slices/{place['from_slice']:04d}"
    for path in folder.rglob("*.parquet"):
        path.unlink()
    said = waiting.json("erase", "--subject", EARLY, "--request-id", "er-1")
    assert said.code == 1
    failed = waiting.json("status", "er-1").data
    assert (failed["state"], failed["stage"]) == ("failed", "accepted")
    assert failed["failed_at"]
    assert failed["reason"]
    reported = waiting.run("status", "er-1").out
    assert "failed on 2" in reported
    assert failed["reason"] in reported
    assert "er-1     failed" in waiting.run("status").out
    assert waiting.json("train").code == 0
    ended = waiting.json("status", "er-1").data
    assert (ended["state"], ended["reason"], ended["failed_at"]) == ("complete", "", "")


@pytest.mark.parametrize(
    ("state", "code", "kind"),
    [
        ("accepted", 0, None),
        ("planned", 0, None),
        ("retraining", 0, None),
        ("published", 0, None),
        ("waiting", 0, None),
        ("complete", 0, None),
        ("failed", 1, "failed"),
        ("refused", 2, "refused"),
        ("cancelled", 4, "cancelled"),
    ],
)
def test_every_state_has_its_exit_code(state: str, code: int, kind: str | None, lives: UserFolder) -> None:
    """The command fails only in a state that prevents the erasure; its text always begins with id and state."""
    with cluster.connect(lives.config) as federation:
        status = federation.status()
    request_ = replace(status.requests[0], state=state, reason="the disk is full", times={state: "2026-01-31T10:00:00"})
    outcome = erase_outcome(request_, status)
    assert outcome.code == code
    assert (outcome.problem.kind if outcome.problem else None) == kind
    assert outcome.text.startswith(f"request er-complete: {state}")
    if outcome.problem:
        assert "the disk is full [request=er-complete]" in outcome.problem.message
