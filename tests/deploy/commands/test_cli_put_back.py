"""A state that was put back to before an erasure, with the receipts' log as it is: the store itself can prove it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster.config.specification import read_specification
from cluster.ensemble.replica_state import Standing
from cluster.runtime.system import SystemClock
from storage.errors import Corrupt
from tests.doubles.user_folder import MARKED, UserFolder, small_points, without

KEPT = ("log", "receipts")
"""Folders of the store that are not rolled back."""
TOLD = "the state was put back to before what the receipts' log states: it does not know er-1"


def put_back(home: UserFolder, before: Path) -> None:
    """Put the store back as it was, but for the log and the receipts."""
    for entry in home.store.iterdir():
        if entry.name not in KEPT:
            shutil.rmtree(entry)
    for entry in before.iterdir():
        if entry.name not in KEPT:
            shutil.copytree(entry, home.store / entry.name)


@pytest.fixture
def restored(trained: UserFolder, tmp_path_factory: pytest.TempPathFactory) -> UserFolder:
    """A federation that has erased somebody, and whose state has not."""
    before = tmp_path_factory.mktemp("before") / "store"
    shutil.copytree(trained.store, before)
    assert trained.json("erase", "--subject", MARKED, "--request-id", "er-1").code == 0
    put_back(trained, before)
    return trained


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "train.parquet", "--out", "out.csv"),
        ("evaluate", "train.parquet"),
        ("erase", "--subject", "secret-person-001", "--dry-run"),
    ],
)
def test_readers_refuse_it(restored: UserFolder, words: tuple[str, ...]) -> None:
    """Nothing is answered from it, and what is missing is named."""
    refused = restored.json(*words)
    assert refused.code == 1
    assert TOLD in refused.error["message"]
    assert "submit these requests again" in refused.error["remedy"]


def test_a_replica_refuses_it(restored: UserFolder) -> None:
    """Serving loads no generation of it."""
    standing = Standing(read_specification(restored.config), restored.objects, SystemClock())
    with pytest.raises(Corrupt, match=TOLD):
        standing.load()


def test_it_is_reported_wherever_somebody_looks(restored: UserFolder) -> None:
    """Status names the requests, and verify does not hold."""
    assert restored.json("status").data["forgotten"] == ["er-1"]
    assert "THE STATE WAS PUT BACK" in restored.run("status").out
    verified = restored.json("verify")
    assert verified.code == 3
    assert "request er-1: the log states it, and the state does not know it" in verified.data["receipts"]["broken"]


def test_submitted_again_all_is_well(restored: UserFolder) -> None:
    """The same request, carried out again, is what the log states: its receipt is the old one, and answers go out."""
    again = restored.json("erase", "--subject", MARKED, "--request-id", "er-1")
    assert (again.code, again.data["state"], again.data["points"]) == (0, "complete", 4)
    assert restored.json("predict", "train.parquet", "--out", "out.csv").code == 0
    assert restored.json("status").data["forgotten"] == []
    verified = restored.json("verify")
    assert (verified.code, verified.data["receipts"]["checked"]) == (0, 1)


def test_each_missing_request_counts(trained: UserFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Submitting the last request again is not enough: an older one that is missing is still named."""
    before = tmp_path_factory.mktemp("before") / "store"
    shutil.copytree(trained.store, before)
    for number in (1, 2):
        assert trained.json("erase", "--subject", f"secret-person-00{number}", "--request-id", f"er-{number}").code == 0
    put_back(trained, before)
    assert trained.json("status").data["forgotten"] == ["er-1", "er-2"]
    assert trained.json("erase", "--subject", "secret-person-002", "--request-id", "er-2").code == 0
    assert trained.json("status").data["forgotten"] == ["er-1"]
    assert trained.json("predict", "train.parquet", "--out", "out.csv").code == 1


def test_a_whole_restore_is_no_matter(trained: UserFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A copy of the whole store knows what its log states; what came after only a witness can tell."""
    assert trained.json("erase", "--subject", "secret-person-001", "--request-id", "er-1").code == 0
    before = tmp_path_factory.mktemp("before") / "store"
    shutil.copytree(trained.store, before)
    assert trained.json("erase", "--subject", "secret-person-002", "--request-id", "er-2").code == 0
    shutil.rmtree(trained.store)
    shutil.copytree(before, trained.store)
    assert trained.json("predict", "train.parquet", "--out", "out.csv").code == 0
    assert trained.json("status").data["forgotten"] == []


def test_what_found_nothing_is_submitted_again(trained: UserFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its new salt makes it no other request: the statement in the log, and the first salt, stay its own."""
    before = tmp_path_factory.mktemp("before") / "store"
    shutil.copytree(trained.store, before)
    salt = trained.json("erase", "--subject", "nobody", "--request-id", "er-1").data["salt"]
    put_back(trained, before)
    assert trained.json("status").data["forgotten"] == ["er-1"]
    again = trained.json("erase", "--subject", "nobody", "--request-id", "er-1")
    assert again.data["state"] == "refused"
    assert trained.json("status").data["forgotten"] == []
    assert trained.json("train").code == 0
    assert trained.json("verify").code == 0
    (trained.folder / "statement.json").write_text(trained.run("receipt", "er-1").out)
    words = ("receipt", "--check", "statement.json", "--salt", salt, "--subject", "nobody")
    assert trained.json(*words).data["about_these_names"] is True


def test_an_erasure_submitted_again_may_find_nothing(restored: UserFolder) -> None:
    """A person removed from the source before it is read again is not found, and the erasure's receipt stays valid."""
    restored.fill(without(small_points(), subjects=[MARKED]))
    assert restored.json("train").code == 0
    again = restored.json("erase", "--subject", MARKED, "--request-id", "er-1")
    assert again.data["state"] == "refused"
    assert restored.json("status").data["forgotten"] == []
    assert restored.json("train").code == 0
    assert restored.json("verify").code == 0
    assert "erased: 4 data points" in restored.run("receipt", "er-1").err
