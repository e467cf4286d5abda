"""A process whose working folder was deleted: it can still load torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

_PROGRAM = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
os.rmdir(os.getcwd())
import cluster.training.worker
print(os.getcwd())
"""


def test_a_worker_starts_though_its_folder_was_deleted(tmp_path: Path) -> None:
    """Ray's workers are in the folder in which Ray was started. If it is gone, MKL ends a process that loads torch."""
    (tmp_path / "gone").mkdir()
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, cwd=tmp_path / "gone", capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "/"), done.stderr
