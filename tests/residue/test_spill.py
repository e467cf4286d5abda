"""The folder to which Ray spills: this user's alone, gone with the cluster, and with the next one after a kill."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from cluster.runtime.session import leave_ray
from shards.learners.torch import staging
from storage.private_folder import PrivateFolder, remove_left_over

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 600

_CHILD = """
import sys
from storage.private_folder import PrivateFolder

folder = PrivateFolder("spill")
(folder.path / "object").write_bytes(b"spilled")
print(folder.path, flush=True)
sys.stdin.read(1)
"""

_SPILLING = """
import functools, os, sys
import ray
from cluster.runtime import session
from cluster.config.specification import ClusterSettings

text = sys.argv[1].encode()
ray.init = functools.partial(ray.init, object_store_memory=80 << 20, num_cpus=1)
session.join_ray(ClusterSettings())
kept = [ray.put(text + os.urandom(30 << 20)) for _ in range(5)]
print(session._SPILL[0].path, flush=True)
sys.stdin.readline()
del kept
session.leave_ray()
print("left", flush=True)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that no other test uses."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def child(script: str, *words: str) -> subprocess.Popen[str]:
    """Start a script in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line that the process says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_it_is_for_its_owner_alone(temporary: Path) -> None:
    """The folder lies among temporary files, nobody else can look in, and it goes with all that is in it."""
    folder = PrivateFolder("spill")
    assert folder.path.parent == temporary
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    (folder.path / "inner").mkdir()
    (folder.path / "inner" / "object").write_bytes(b"spilled")
    folder.remove()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_removed(temporary: Path) -> None:
    """The folder of a living process stays; once it is killed, the next folder that anybody makes takes its place."""
    with child(_CHILD) as process:
        path = Path(line_of(process))
        first = PrivateFolder("spill")
        assert (path / "object").read_bytes() == b"spilled"
        process.kill()
        process.wait(TIMEOUT_SECONDS)
    assert (path / "object").exists()
    second = PrivateFolder("spill")
    assert set(temporary.iterdir()) == {first.path, second.path}
    first.remove()
    second.remove()


def test_whoever_leaves_ray_removes_what_killed_workers_left(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are killed when Ray ends, so none of them removes its copy of the user's code and declared files."""
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with child(_CHILD.replace('"spill"', '"model"')) as process:
        path = Path(line_of(process))
        assert path.name.startswith(f"sisa-{staging.PURPOSE}-")
        leave_ray()
        assert path.exists()
        process.kill()
        process.wait(TIMEOUT_SECONDS)
    leave_ray()
    assert list(temporary.iterdir()) == []


def test_nothing_else_is_touched(temporary: Path) -> None:
    """Files, links and folders that only look alike are left as they are, and so is what a link leads to."""
    own = PrivateFolder("spill")
    start = own.path.name.rpartition("-")[0]
    own.remove()
    target = temporary / "of-the-user"
    target.mkdir()
    (target / "data").write_bytes(b"x")
    (temporary / f"{start}-link").symlink_to(target)
    (temporary / f"{start}-file").write_bytes(b"x")
    (temporary / "sisa-spill-999999-other").mkdir()
    before = sorted(temporary.rglob("*"))
    remove_left_over("spill")
    assert sorted(temporary.rglob("*")) == before


@pytest.mark.ray
@pytest.mark.slow
def test_ray_spills_there() -> None:
    """Objects beyond Ray's memory are written to that folder, unencrypted; both are removed when Ray is left."""
    text = "spilled-by-a-careless-worker"
    with child(_SPILLING, text) as process:
        folder = Path(line_of(process))
        spilled = [path for path in folder.rglob("*") if path.is_file()]
        assert any(text.encode() in path.read_bytes() for path in spilled)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert line_of(process) == "left"
        assert process.wait(TIMEOUT_SECONDS) == 0
    assert not folder.exists()
