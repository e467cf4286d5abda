"""Commands that only read or record load no heavy library; a missing specification is said before all else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import cluster.training.workers
from tests.doubles.user_folder import MARKED, UserFolder
from tests.doubles.workers.local_workers import LocalWorkers

HEAVY = ("ray", "torch", "sklearn")
PROBE = """
import json, sys
from deploy.commands.cli import main
for words in json.loads(sys.argv[1]):
    before, end = set(sys.modules), None
    try:
        main(words)
    except SystemExit as ended:
        end = ended.code
    sys.stderr.write("\\nLOADED " + json.dumps([end, sorted(set(sys.modules) - (before if words else set()))]) + "\\n")
"""
"""One process for all commands: to start it takes longer than they do. Each is charged with what it loads first; what
they all need was loaded with ``main``, which runs first without a command.
"""

READING = (
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
)
ELSEWHERE = (("status",), ("train",), ("launch",), ("serve",), ("request", "show", "er-1"))
Loaded = Mapping[tuple[str, ...], tuple[int, set[str]]]


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


def loaded(folder: Path, commands: Sequence[tuple[str, ...]]) -> Loaded:
    """Run the commands in a process of their own; return the exit code of each, and the modules it was first to load.

    Those that are loaded before any command are under ``()``.
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([(), *commands])],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line.removeprefix("LOADED ")) for line in done.stderr.splitlines() if line.startswith("LOADED ")]
    return {words: (end, set(modules)) for words, (end, modules) in zip([(), *commands], said, strict=True)}


@pytest.fixture(scope="module")
def reading(reported: UserFolder) -> Loaded:
    """What each command loads that only reads or records."""
    return loaded(reported.folder, READING)


@pytest.mark.parametrize("words", READING)
def test_reading_and_recording_is_light(reading: Loaded, words: tuple[str, ...]) -> None:
    """What needs no model and no cluster loads none of the heavy libraries."""
    end, modules = reading[words]
    assert end == 0
    assert (modules | reading[()][1]).isdisjoint(HEAVY)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """What commands load in an empty folder."""
    return loaded(tmp_path_factory.mktemp("empty"), ELSEWHERE)


@pytest.mark.parametrize("command", ELSEWHERE)
def test_a_missing_specification_is_said_at_once(elsewhere: Loaded, command: tuple[str, ...]) -> None:
    """The error is reported before anything slow is loaded, such as Arrow or Ray."""
    slow = {*HEAVY, "pyarrow", "numpy", "boto3", "cryptography", "cluster.config.toml"}
    end, modules = elsewhere[command]
    assert end == 2
    assert (modules | elsewhere[()][1]).isdisjoint(slow)
