"""The erasure job: it submits, and nothing depends on it afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cluster.training.workers
from cluster.config.specification import read_specification
from cluster.coordinator_actor.resident import Resident
from cluster.writer.writer import writer_setup
from coordinator.engine.ledger import read_state
from coordinator.requests import RequestState
from deploy.jobs import erase_job
from deploy.jobs.erase_job import submitted
from storage.errors import Conflict, Invalid, Unavailable
from tests.deploy_files.manifests import ROOT
from tests.doubles.user_folder import MARKED, UserFolder
from tests.doubles.workers.local_workers import LocalWorkers

PATIENCE_SECONDS = 60.0
"""How long a failing test waits; one that passes does not."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A folder whose federation trains in this process."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    return UserFolder(tmp_path).fill(erasure__batch_window_seconds=0.0)


@pytest.fixture
def resident(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resident]:
    """The coordinator that the job finds, as it is in the process of its actor."""
    specification = read_specification(home.config)
    made = Resident(lambda listener: writer_setup(specification, listener=listener))
    made.train()
    monkeypatch.setattr(erase_job, "find_coordinator", lambda *_: made)
    yield made
    made.stop()


def test_the_job_submits_and_the_coordinator_does_the_rest(home: UserFolder, resident: Resident) -> None:
    """The job ends with an accepted request; it is complete later, though nobody of the job is left."""
    accepted = submitted(read_specification(home.config), [MARKED], [], "ticket-4711")
    assert accepted.request_id == "ticket-4711"
    assert accepted.state.is_open
    heard = resident.hear(0, 0.0)
    while not heard.idle:
        heard = resident.hear(heard.upto, PATIENCE_SECONDS)
    assert resident.request("ticket-4711").state is RequestState.COMPLETE


def test_a_job_that_is_run_again_submits_nothing_new(home: UserFolder, resident: Resident) -> None:
    """The same id with the same names is the same request, with other names a conflict (D4)."""
    specification = read_specification(home.config)
    for _ in range(2):
        submitted(specification, [MARKED], [], "ticket-4711")
    with pytest.raises(Conflict, match="used before"):
        submitted(specification, ["secret-person-001"], [], "ticket-4711")
    assert [request.request_id for request in resident.state().requests] == ["ticket-4711"]


def test_a_job_never_does_the_work_itself(home: UserFolder) -> None:
    """Without a coordinator nothing is accepted: an erasure would last no longer than its job."""
    assert home.run("train").code == 0
    specification = read_specification(home.config)
    with pytest.raises(Unavailable, match="no coordinator is at work"):
        submitted(specification, [MARKED], [], "ticket-4711")
    state = read_state(writer_setup(specification, listener=lambda _: None).store)
    assert state is not None
    assert state.requests == ()


@pytest.mark.usefixtures("resident")
def test_an_id_that_cannot_be_shown_is_refused(home: UserFolder) -> None:
    """Texts that stay in receipts forever are checked before anything is submitted."""
    with pytest.raises(Invalid, match="request id"):
        submitted(read_specification(home.config), [MARKED], [], "\x1b[2J")


@pytest.mark.usefixtures("resident")
def test_the_job_tells_no_name(
    home: UserFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job prints is kept by Ray: one JSON object with the request, and no line of the file of names."""
    names = home.folder / "names.txt"
    names.write_text(f"{MARKED}\n", encoding="utf-8")
    words = ["erase_job", "--file", str(names), "--request-id", "er-1", "--config", str(home.config)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit, match="0"):
        erase_job.main()
    reported = capsys.readouterr()
    assert json.loads(reported.out)["data"]["request_id"] == "er-1"
    assert MARKED not in reported.out + reported.err


def test_a_job_without_a_coordinator_says_what_to_do(
    home: UserFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is that of "try again", and the remedy names the command."""
    assert home.run("train").code == 0
    names = home.folder / "names.txt"
    names.write_text(f"{MARKED}\n", encoding="utf-8")
    words = ["erase_job", "--file", str(names), "--request-id", "er-1", "--config", str(home.config)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit, match="5"):
        erase_job.main()
    reported = json.loads(capsys.readouterr().out)
    assert reported["error"]["kind"] == "unavailable"
    assert "sisa launch" in reported["error"]["remedy"]


def test_a_package_of_the_users_hides_nothing(home: UserFolder) -> None:
    """In a folder with packages named as ours, first on the path as a job's working folder is, the command runs."""
    folder = home.folder / "working"
    for room in ("deploy", "cluster"):
        (folder / room).mkdir(parents=True)
        (folder / room / "__init__.py").touch()
    (folder / "names.txt").write_text(f"{MARKED}\n", encoding="utf-8")
    module, _, function = _scripts()["sisa-erase-job"].partition(":")
    words = ["--file", "names.txt", "--request-id", "er-1", "--config", str(home.config)]
    ended = subprocess.run(
        [sys.executable, "-c", f"from {module} import {function}; {function}()", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no coordinator is at work" in json.loads(ended.stdout)["error"]["message"], ended.stderr
    assert ended.returncode == 5


def _scripts() -> dict[str, str]:
    """Return the commands that the distribution installs."""
    found: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return found
