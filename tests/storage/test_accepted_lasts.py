"""An erasure request that was answered is there after a power cut; one that may not be there is never answered so (D1).

Through the command, on a disk that forgets what was not synced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from coordinator.engine.ledger import read_state
from coordinator.requests import RequestState
from coordinator.state import FederationState
from storage.stores.local import LocalStore
from tests.doubles.stores import forgetful_disk
from tests.doubles.stores.forgetful_disk import Fault, ForgetfulDisk
from tests.doubles.user_folder import MARKED, UserFolder, duplicate, small_points
from tests.storage.bad_homes import train_and_erase, without_ray

ERASE = ("erase", "--subject", MARKED, "--request-id", "er-2")
CASES = (
    ("journal", 1),
    ("journal", 2),
    ("journal", None),
    ("manifest", None),
    ("control", None),
    ("keyrings/0000", None),
    ("tombstones", None),
    ("log/entries", None),
    ("receipts/bundles", None),
)
"""Where syncs fail, and up to which of them; None: all."""


@pytest.fixture(scope="module")
def _trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_and_erase(UserFolder(tmp_path_factory.mktemp("trained")).fill(small_points(people=6))).folder


@pytest.fixture
def home(tmp_path: Path, _trained_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserFolder]:
    """A folder with a trained federation of this test's own, in which one person is erased."""
    folder = tmp_path / "home"
    duplicate(_trained_folder, folder)
    monkeypatch.chdir(folder)
    with without_ray():
        yield UserFolder(folder)


def failing_syncs(folder: str, last: int | None) -> Fault:
    """Let the syncs of a folder fail, up to the ``last`` of them; None: all."""
    syncs = count(1)

    def fault(_number: int, call: str, path: str) -> OSError | None:
        if (call, path) != ("fsync", folder):
            return None
        return OSError(errno.EIO, "") if last is None or next(syncs) <= last else None

    return fault


def left(disk: ForgetfulDisk, folder: Path) -> FederationState:
    """Return the state that a power cut would leave at this moment."""
    state = read_state(LocalStore(str(disk.left(folder))))
    assert state is not None
    return state


@pytest.mark.parametrize(("folder", "last"), CASES)
def test_what_is_answered_lasts(home: UserFolder, folder: str, last: int | None, tmp_path: Path) -> None:
    """Where the command says that the request is complete it is, also after a power cut; where it fails, repeating it
    ends there, and what a power cut leaves can be read at any time.
    """
    with ForgetfulDisk(home.store).mounted() as disk:
        disk.restart(failing_syncs(folder, last))
        said = home.json(*ERASE)
        disk.restart()
        found = left(disk, tmp_path / "first").request("er-2")
        if said.code == 0:
            assert found is not None
            assert found.state is RequestState.COMPLETE
        else:
            assert said.error["kind"] in {"outcome_unknown", "unavailable"}
            assert said.error["remedy"]
        assert home.json(*ERASE).data["state"] == "complete"
        found = left(disk, tmp_path / "second").request("er-2")
        assert found is not None
        assert found.state is RequestState.COMPLETE
        disk.power_cut()
    assert home.json("status", "er-2").data["state"] == "complete"
    assert home.json("verify").data["exact"]


def test_the_disk_is_observed_while_a_copy_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may create a file while the double of the disk writes down what a power cut would leave."""
    root = tmp_path / "disk"
    root.mkdir()
    restore = forgetful_disk._restore

    def beside_another_thread(*given: Any) -> None:
        os.close(os.open(root / "partial", os.O_WRONLY | os.O_CREAT))
        restore(*given)

    monkeypatch.setattr(forgetful_disk, "_restore", beside_another_thread)
    with ForgetfulDisk(root).mounted() as disk:
        disk.left(tmp_path / "left")
        os.rename(root / "partial", root / "whole")  # noqa: PTH104  the call that the double intercepts
        assert disk.unsynced() == [""]
    assert (root / "whole").exists()
