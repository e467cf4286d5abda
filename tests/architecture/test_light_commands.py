"""Commands that only read or record load no heavy library; a missing specification is said before all else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cluster.training.workers
from tests.doubles.user_folder import MARKED, UserFolder
from tests.doubles.workers.local_workers import LocalWorkers

HEAVY = ("ray", "torch", "sklearn")
PROBE = """
import atexit, json, sys
atexit.register(lambda: sys.stderr.write("\\nLOADED " + json.dumps(sorted(sys.modules))))
from deploy.commands.cli import main
main()
"""


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserFolder]:
    """A federation that has erased somebody, and holds a request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        home = UserFolder(tmp_path_factory.mktemp("light")).fill()
        patch.chdir(home.folder)
        assert home.json("train").code == 0
        assert home.json("erase", "--subject", MARKED, "--request-id", "er-1").code == 0
        waiting = home.json("erase", "--subject", "secret-person-001", "--request-id", "er-2", "--hold", "legal")
        assert waiting.code == 0
        (home.folder / "receipt.json").write_text(home.run("receipt", "er-1").out, encoding="utf-8")
        assert home.json("keys", "--export", str(home.folder / "operator.keys")).code == 0
        yield home


def loaded(folder: Path, *words: str, code: int = 0) -> set[str]:
    """Run the command in a process of its own; return the names of all modules that it had loaded in the end."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return set(json.loads(done.stderr.rpartition("LOADED ")[2]))


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("status", "er-1"),
        ("status", "--json"),
        ("request", "show", "er-2"),
        ("request", "extend", "er-2", "--days", "3", "--reason", "many requests"),
        ("request", "cancel", "er-2", "--reason", "withdrawn"),
        ("receipt", "er-1"),
        ("receipt", "--check", "receipt.json", "--key", "operator.keys"),
        ("report", "er-1", "--out", "letter.html"),
        ("trace", "--subject", MARKED),
        ("log", "--check"),
        ("keys",),
        ("token", "list"),
        ("erase", "--subject", "secret-person-002", "--dry-run"),
    ],
)
def test_reading_and_recording_is_light(reported: UserFolder, words: tuple[str, ...]) -> None:
    """What needs no model and no cluster loads none of the heavy libraries."""
    assert loaded(reported.folder, *words).isdisjoint(HEAVY)


@pytest.mark.parametrize("command", [("status",), ("train",), ("launch",), ("serve",), ("request", "show", "er-1")])
def test_a_missing_specification_is_said_at_once(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Before anything slow is loaded: no Arrow, no Ray."""
    slow = {*HEAVY, "pyarrow", "numpy", "boto3", "cryptography", "cluster.config.toml"}
    assert loaded(tmp_path, *command, code=2).isdisjoint(slow)
