"""``[receipts] witness``: another store that keeps the log's checkpoints, through the command."""

from __future__ import annotations

import shutil

import pytest

import cluster.doctor
from tests.doubles.user_folder import UserFolder


def _witness(home: UserFolder) -> dict[str, object]:
    found: dict[str, object] = {each["check"]: each for each in home.json("doctor").data["checks"]}["witness"]
    return found


def test_a_witness_may_be_named_at_any_time(trained: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """From then on it gets the log's checkpoints, the doctor reports how many, and a truncated log fails."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    assert trained.json("erase", "--subject", "secret-person-001", "--request-id", "er-1").code == 0
    assert "witness" not in {each["check"] for each in trained.json("doctor").data["checks"]}
    trained.specify(receipts__witness="./witness")
    reported = _witness(trained)
    assert (reported["ok"], reported["message"]) == (False, "the witness keeps the log up to entry 0 of 1")
    shutil.copytree(trained.store, trained.folder / "earlier")
    assert trained.json("erase", "--subject", "secret-person-002", "--request-id", "er-2").code == 0
    assert _witness(trained)["message"] == "keeps the receipts' log up to its last entry, 2"
    assert trained.json("log").data["earlier"] == 2
    shutil.rmtree(trained.store)
    (trained.folder / "earlier").rename(trained.store)
    assert _witness(trained)["ok"] is False
    assert trained.json("log").code == 3
    trained.specify()
    assert trained.json("log").code == 0


def test_a_witness_in_the_store_is_none(trained: UserFolder) -> None:
    """A place inside the federation's own store is refused, and so is an empty one."""
    trained.specify(receipts__witness="federation/witness")
    said = trained.json("log")
    assert (said.code, "the witness is in the federation's own store" in said.error["message"]) == (2, True)
    trained.specify(receipts__witness="")
    assert "[receipts] witness is empty" in trained.json("log").error["message"]


def test_a_witness_out_of_reach_is_reported(trained: UserFolder) -> None:
    """An erasure is complete and says that the witness could not be written."""
    (trained.folder / "blocked").write_text("a file", encoding="utf-8")
    trained.specify(receipts__witness="blocked/witness")
    said = trained.json("erase", "--subject", "secret-person-001", "--request-id", "er-1")
    assert (said.code, said.data["state"]) == (0, "complete")
    assert "the witness did not take the log's checkpoint" in said.err
    assert trained.json("log").code == 0
