"""A store in a folder that is half there, in the wrong place, full, locked or forbidden, through the command.

Each ends in the kind that says what to do, with a remedy and the exit code of that kind, and loses nothing. Elsewhere:
damaged slice files, checkpoints and partition keys, orphans and foreign files:
``tests/deploy/commands/test_cli_damage.py``; every failing system call: ``tests/storage/stores/test_local.py``.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

import cluster.training.workers
from shards.learners.trainer import TrainingEvent, TrainTask
from storage.stores import local
from storage.stores.local import LocalStore
from tests.doubles.stores.system_calls import struck
from tests.doubles.user_folder import MARKED, UserFolder, duplicate, small_points, without
from tests.doubles.workers.local_workers import LocalWorkers
from tests.storage.bad_homes import (
    ALTERED,
    LOST,
    REQUEST,
    Damage,
    first,
    kept,
    missing,
    newer,
    train_and_erase,
    without_ray,
)

ERASE = ("erase", "--subject", MARKED, "--request-id", "er-2")
EVALUATE = ("evaluate", "train.parquet")
CHECK_LOG = ("log", "--check")


@pytest.fixture(scope="module")
def _trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_and_erase(UserFolder(tmp_path_factory.mktemp("trained")).fill()).folder


@pytest.fixture
def home(tmp_path: Path, _trained_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserFolder]:
    """A folder with a trained federation of this test's own, in which one person is erased."""
    duplicate(_trained_folder, tmp_path)
    monkeypatch.chdir(tmp_path)
    with without_ray():
        yield UserFolder(tmp_path)


# --------------------------------------------------------------------------------------------------- half a store

Row = tuple[str, Sequence[Damage], tuple[str, ...], int, str, str]

TABLE: Sequence[Row] = (
    ("manifest/*", (missing,), ("status",), 1, "corrupt", "manifests are gone from the store"),
    ("manifest/*", ALTERED, ("status",), 1, "corrupt", "key=manifest/"),
    ("manifest/*", (newer,), ("status",), 2, "invalid", "newer version of this system [key=manifest/"),
    ("control/floor", ALTERED, EVALUATE, 1, "corrupt", "key=control/floor"),
    ("control/floor", (newer,), EVALUATE, 2, "invalid", "newer version of this system [key=control/floor"),
    ("control/journal-floor", ALTERED, ("status",), 1, "corrupt", "key=control/journal-floor"),
    ("control/journal-floor", (newer,), ("status",), 2, "invalid", "newer version of this system"),
    ("keyrings/0000/kek-*", LOST, EVALUATE, 1, "corrupt", "key=keyrings/0000/kek-"),
    ("keyrings/0000/ring", (missing,), EVALUATE, 1, "corrupt", "the key of this object was destroyed"),
    ("keyrings/0000/ring", ALTERED, EVALUATE, 1, "corrupt", "key=keyrings/0000/ring"),
    ("keyrings/0000/ring", (newer,), EVALUATE, 2, "invalid", "newer version of this system [key=keyrings/0000/ring"),
    ("tombstones/*", LOST, ERASE, 1, "corrupt", "key=tombstones/"),
    ("receipts/bundles/*", (missing,), ("receipt", REQUEST), 2, "missing", "there is no receipt for this request"),
    ("receipts/bundles/*", ALTERED, ("receipt", REQUEST), 1, "corrupt", "this is not a receipt of ours"),
    ("log/origin", LOST, CHECK_LOG, 3, "proof_failed", "log"),
    ("log/origin", (newer,), CHECK_LOG, 2, "invalid", "newer version of this system [key=log/origin"),
    ("log/entries/*", LOST, CHECK_LOG, 3, "proof_failed", "log"),
    ("log/checkpoint/*", ALTERED, CHECK_LOG, 3, "proof_failed", "log"),
    ("log/keys/checkpoints/*", LOST, CHECK_LOG, 3, "proof_failed", "log"),
)
"""Which file, how it is damaged, which command finds it, and how that ends: exit code, kind, part of the message."""

CASES = [(row, damage) for row in TABLE for damage in row[1]]


@pytest.mark.parametrize(
    ("row", "damage"), CASES, ids=[f"{row[0]} {damage.__name__}".replace("*", "") for row, damage in CASES]
)
def test_half_a_store_is_reported(home: UserFolder, row: Row, damage: Damage) -> None:
    """An object that is missing, empty, cut off, another program's or a newer version's is reported; nothing is
    invented in its place and nothing is lost. Restored from a copy, everything works as before.
    """
    pattern, _, words, code, kind, text = row
    path = first(home, pattern)
    whole = path.read_bytes()
    damage(path)
    spoilt, held = path.read_bytes() if path.exists() else None, kept(home)
    said = home.json(*words)
    assert (said.code, said.error["kind"]) == (code, kind)
    assert text in said.error["message"]
    assert said.error["remedy"]
    assert held.items() <= kept(home).items()
    assert (path.read_bytes() if path.exists() else None) == spoilt
    path.write_bytes(whole)
    assert home.json(*words).code == 0


@pytest.mark.parametrize("damage", LOST)
def test_a_lost_token_does_no_harm(home: UserFolder, damage: Damage) -> None:
    """Nobody needs the number of a writer that has ended: without it the next one still has a higher one."""
    before = max(int(path.name) for path in home.store.glob("control/token/*"))
    damage(first(home, "control/token/*"))
    assert home.json(*ERASE).data["state"] == "complete"
    assert max(int(path.name) for path in home.store.glob("control/token/*")) > before


@pytest.mark.parametrize("purpose", ["receipts", "checkpoints"])
@pytest.mark.parametrize("damage", [missing, ALTERED[1]])
def test_a_lost_signing_key_keeps_a_request_from_being_complete(home: UserFolder, damage: Damage, purpose: str) -> None:
    """Without a key that signs, an erasure is carried out and not called complete; with the key back it is both."""
    path = first(home, f"control/signing/{purpose}/*")
    whole = path.read_bytes()
    damage(path)
    said = home.json(*ERASE)
    assert (said.code, said.error["kind"]) in {(5, "unavailable"), (1, "corrupt")}
    assert "signing key" in said.error["message"]
    assert said.error["remedy"]
    assert home.json("receipt", "er-2").error["kind"] == "missing"
    path.write_bytes(whole)
    assert home.json("train").code == 0
    assert home.json("status", "er-2").data["state"] == "complete"
    assert home.json("receipt", "er-2").code == 0


@pytest.mark.parametrize("damage", LOST)
def test_nobody_comes_back_when_tombstones_are_lost(home: UserFolder, damage: Damage) -> None:
    """When the record of erased subjects is lost, no new source is read: it may hold their data points."""
    damage(first(home, "tombstones/*"))
    home.write("train.parquet", without(small_points(), subjects=["secret-person-001"]))
    held = kept(home)
    said = home.json("train")
    assert (said.code, said.error["kind"]) == (1, "corrupt")
    assert "key=tombstones/" in said.error["message"]
    assert kept(home) == held


def test_an_empty_folder_is_a_new_federation(home: UserFolder) -> None:
    """Where nothing is left of a store, no command makes anything up but ``train``, which starts from scratch."""
    shutil.rmtree(home.store)
    assert "there is no federation here" in home.refused("status").error["message"]
    for words in (EVALUATE, ERASE, ("verify",)):
        said = home.refused(*words)
        assert "the federation holds no data yet" in said.error["message"]
    assert home.json("train").code == 0


# ---------------------------------------------------------------------------------------------------- wrong places


def _is_a_file(home: UserFolder) -> None:
    shutil.rmtree(home.store)
    home.store.write_bytes(b"mine")


def _leads_nowhere(home: UserFolder) -> None:
    shutil.rmtree(home.store)
    home.store.symlink_to(home.folder / "nowhere")


def _is_within_a_file(home: UserFolder) -> None:
    home.specify(store="./train.parquet/store")


def _holds_its_keys(home: UserFolder) -> None:
    home.specify(keys="./federation/keys")


PLACES: dict[str, tuple[Callable[[UserFolder], None], tuple[str, ...], str]] = {
    "a file": (_is_a_file, ("status", "train", "verify", "doctor"), "the store's location is not a folder"),
    "a link to nowhere": (_leads_nowhere, ("status", "train", "verify"), "the store's location is not a folder"),
    "within a file": (_is_within_a_file, ("train", "verify"), "a file has the place of a folder"),
    "keys within": (_holds_its_keys, ("status", "train", "verify", "doctor"), "'keys' and 'store' are one place"),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_wrong_place_is_reported(home: UserFolder, case: str) -> None:
    """A store that cannot be where it is said to be is bad input, and what is there stays."""
    spoil, commands, text = PLACES[case]
    spoil(home)
    held = kept(home)
    for command in commands:
        said = home.json(command)
        assert (said.code, said.error["kind"]) == (2, "invalid")
        assert text in said.error["message"]
        assert said.error["remedy"]
    assert kept(home) == held


def _named_too_late(home: UserFolder) -> None:
    home.specify(keys="./keys")


def _lost(home: UserFolder) -> None:
    shutil.rmtree(home.store)
    home.specify(keys="./keys")
    assert home.json("train").code == 0
    shutil.rmtree(home.folder / "keys")


def _forgotten(home: UserFolder) -> None:
    _lost(home)
    home.specify()


@pytest.mark.parametrize("spoil", [_named_too_late, _lost, _forgotten])
def test_a_wrong_place_for_keys_is_reported(home: UserFolder, spoil: Callable[[UserFolder], None]) -> None:
    """Keys that are not where the specification says, or no longer: nothing is read or made in their place."""
    spoil(home)
    held = kept(home)
    for words in (EVALUATE, ("train",), ERASE):
        said = home.json(*words)
        assert (said.code, said.error["kind"]) == (4, "conflict")
        assert "this is not where the store's keys are" in said.error["message"]
        assert "Set 'keys' in the specification" in said.error["remedy"]
    assert kept(home) == held


# ------------------------------------------------------------------------------------------- the operating system


def _fails(code: int) -> Callable[[str], None]:
    def strike(_: str) -> None:
        raise OSError(code, os.strerror(code))

    return strike


FAILURES = {
    errno.EACCES: "the operating system refuses access",
    errno.EPERM: "the operating system refuses access",
    errno.EROFS: "the operating system refuses access",
    errno.ENOSPC: "the store has no room",
    errno.EDQUOT: "the store has no room",
    errno.EFBIG: "the store has no room",
    errno.EIO: "the store's file system failed",
}


@pytest.mark.parametrize("code", FAILURES, ids=errno.errorcode.get)
@pytest.mark.parametrize("at", [4, 30])
def test_a_disk_that_fails_is_reported(home: UserFolder, code: int, at: int) -> None:
    """No room, no permission, a failing disk, at once or in the middle: said with what to do, and once it is better the
    same command ends well.
    """
    with struck(at, _fails(code)) as calls:
        said = home.json(*ERASE)
    assert len(calls) >= at
    assert (said.code, said.error["kind"]) == (5, "unavailable")
    assert FAILURES[code] in said.error["message"]
    assert errno.errorcode[code] in said.error["message"]
    assert said.error["remedy"]
    assert home.json(*ERASE).data["state"] == "complete"


def test_a_disk_that_cannot_be_read_is_reported(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose files cannot be read is away, not damaged."""
    read = local.read_whole

    def fail(path: str) -> bytes:
        if Path(path).is_relative_to(home.store):
            raise OSError(errno.EIO, "planned", path)
        return read(path)

    monkeypatch.setattr(local, "read_whole", fail)
    for words in (("status",), EVALUATE, ("train",)):
        said = home.json(*words)
        assert (said.code, said.error["kind"]) == (5, "unavailable")
        assert "the store's file system failed" in said.error["message"]
        assert said.error["remedy"] == "Check the disk."


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_of_someone_else_is_reported(home: UserFolder) -> None:
    """A store that this account may not write to can be read, and is refused to writers."""
    folders = [home.store, *(path for path in home.store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert home.json("status").code == 0
        said = home.json(*ERASE)
    finally:
        for folder in folders:
            folder.chmod(0o700)
    assert (said.code, said.error["kind"]) == (5, "unavailable")
    assert "the operating system refuses access" in said.error["message"]


# --------------------------------------------------------------------------------------------------------- writers


def test_a_lock_that_is_held_is_reported(home: UserFolder) -> None:
    """While another command writes, writers are refused with its name, readers are not, and nothing changes."""
    raw = home.raw()
    with home.objects.exclusive("writer", holder="'sisa erase' (process 7)"):
        for writer in (("train",), ERASE, ("verify",)):
            said = home.json(*writer)
            assert (said.code, said.error["kind"]) == (4, "conflict")
            assert "'sisa erase' (process 7)" in said.error["message"]
            assert "Wait until it ends" in said.error["remedy"]
        for reader in (("status",), EVALUATE, CHECK_LOG, ("receipt", REQUEST)):
            assert home.json(*reader).code == 0
    assert {name: payload for name, payload in home.raw().items() if not name.startswith(".locks/")} == {
        name: payload for name, payload in raw.items() if not name.startswith(".locks/")
    }


def test_a_writer_whose_lease_ended_is_stopped(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that lost its right to write without knowing, while another one took over and did all the work, is
    refused at its next commit, exit code 4; what the other one did stands.
    """
    others: list[int] = []

    class Overtaken(LocalWorkers):
        def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
            monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
            others.append(home.json("train").code)
            yield from LocalWorkers.train(self, tasks)

    monkeypatch.setattr(LocalStore, "exclusive", lambda *_, **__: nullcontext())
    monkeypatch.setattr(cluster.training.workers, "RayPool", Overtaken)
    said = home.json(*ERASE)
    assert others == [0]
    assert said.code == 4
    assert said.error["kind"] in {"fenced", "conflict"}
    assert "another" in said.error["message"]
    assert said.error["remedy"]
    assert home.json("status", "er-2").data["state"] == "complete"
    assert home.json("verify").code == 0
