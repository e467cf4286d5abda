"""Commands and coordinators leave torch, which takes seconds to load, to the workers of networks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.training import workers
from tests.doubles.user_folder import MARKED, UserFolder
from tests.doubles.workers.local_workers import LocalWorkers

ROOT = Path(__file__).resolve().parents[3]

STARTING = "import cluster.training.workers, cluster.coordinator_actor.actor"
ERASING = f"""
import contextlib
from deploy.commands.cli import main
with contextlib.suppress(SystemExit):
    main(["erase", "--subject", "{MARKED}", "--request-id", "er-1"])
"""


def _loaded(code: str, folder: Path) -> tuple[set[str], str]:
    """Run the code in a process of its own; return the modules that it has loaded, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('LOADED', *sys.modules)"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said, _, loaded = done.stdout.rpartition("LOADED")
    return set(loaded.split()), said


def test_starting_workers_loads_no_torch(tmp_path: Path) -> None:
    """Commands that train and coordinators hand the work to workers, which load it."""
    loaded, _ = _loaded(STARTING, tmp_path)
    assert "cluster.training.pool" in loaded
    assert "torch" not in loaded


def test_taking_points_out_directly_loads_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learner of counts erases a person in the command's own process."""
    monkeypatch.setattr(workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(workers, "join_ray", lambda _: False)
    monkeypatch.chdir(tmp_path)
    of_networks = (
        "training__epochs",
        "training__batch_size",
        "training__learning_rate",
        "model__factory",
        "model__arguments",
    )
    home = UserFolder(tmp_path).fill(model__learner="naive_bayes", **dict.fromkeys(of_networks))
    assert home.json("train").code == 0
    loaded, said = _loaded(ERASING, tmp_path)
    assert "complete" in said
    assert "shards.learners.registry" in loaded
    assert "torch" not in loaded
