"""Where releases differ, commands show which ones are at work."""

from __future__ import annotations

import pytest

from cluster.coordinator_actor import launch, record
from cluster.coordinator_actor.record import Launched, note_release, write_record
from coordinator.engine import codec
from storage.release import RELEASE
from tests.doubles.user_folder import MARKED, UserFolder

OTHER = "9.9.9+api1.sites1.state9.training1"


@pytest.mark.parametrize(
    "words", [("status",), ("train",), ("erase", "--subject", MARKED), ("evaluate", "train.parquet"), ("verify",)]
)
def test_a_store_that_a_newer_release_wrote_is_refused_and_left_alone(
    trained: UserFolder, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back on an older release nothing is guessed at: exit code 2, both formats, the remedy, and nothing is changed."""
    before = trained.kept()
    monkeypatch.setattr(codec, "FORMAT_VERSION", 1)
    said = trained.json(*words)
    assert (said.code, said.error["kind"]) == (2, "invalid")
    assert "was written in format" in said.error["message"]
    assert "this version reads up to 1" in said.error["message"]
    assert "see docs/upgrades.md" in said.error["remedy"]
    assert trained.kept() == before


@pytest.fixture
def left_over(trained: UserFolder, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A federation that is served by what another release has started."""
    with monkeypatch.context() as patch:
        patch.setattr(record, "own_release", lambda: OTHER)
        note_release(trained.objects, "server", is_there=True)
    return trained


def test_status_shows_them(left_over: UserFolder) -> None:
    """To people in one line, and only where they differ; to programs always."""
    assert left_over.json("status").data["releases"] == {"command": RELEASE, "server": "9.9.9"}
    assert f"releases differ: command {RELEASE}, server 9.9.9; see docs/upgrades.md" in left_over.run("status").out
    note_release(left_over.objects, "server", is_there=False)
    assert left_over.json("status").data["releases"] == {"command": RELEASE}
    assert "releases differ" not in left_over.run("status").out


def test_launch_tells_of_replicas_that_are_left_over(left_over: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """They answer predictions, and send erasure requests away, until they are replaced."""
    launched = Launched(address="127.0.0.1:1", namespace="sisa", head=None)

    def launch_coordinator(_: object) -> Launched:
        write_record(left_over.objects, launched)
        note_release(left_over.objects, "coordinator", is_there=True)
        return launched

    monkeypatch.setattr(launch, "launch_coordinator", launch_coordinator)
    reported = left_over.run("launch").out
    assert f"its release is {RELEASE}" in reported
    assert "the API is still served by release 9.9.9: run 'sisa serve'" in reported
    releases = left_over.json("launch").data["releases"]
    assert releases == {"command": RELEASE, "coordinator": RELEASE, "server": "9.9.9"}
    note_release(left_over.objects, "server", is_there=True)
    assert "still served" not in left_over.run("launch").out
