"""An experiment on real Ray: a task that dies is repeated, and Ctrl-C keeps what is done and leaves no process."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from cluster.experiments.runner import run_experiment
from tests.cluster.experiments.crew import NearCrew
from tests.cluster.experiments.toy import COMPUTED, TOY, settings
from tests.doubles.time_and_names import VirtualClock
from tests.multinode.patience import until
from tests.ray.commands import PLAIN, ROOT, command
from tests.volume import SISA_VOLUME

pytestmark = pytest.mark.ray

_COMMAND = """
from cluster.experiments.catalog import EXPERIMENTS
from deploy.commands.cli import main
from tests.cluster.experiments.toy import TOY

EXPERIMENTS[TOY.name] = TOY
main()
"""

_SMALL = """
from dataclasses import replace

from cluster.experiments.catalog import EXPERIMENTS
from deploy.commands.cli import main
from tests.cluster.experiments.test_section_vi import small

EXPERIMENTS["section-vi"] = replace(EXPERIMENTS["section-vi"], settings=lambda quick: small())
main()
"""


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    """The terminal sends it to all processes at once, while the last cells wait; the same command computes these."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "size-4").write_text("die once", encoding="utf-8")
    waiting = [data / "size-2", data / "size-1"]
    for path in waiting:
        os.mkfifo(path)
    mark = secrets.token_hex(16)
    with subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "experiment", "toy", "--out", str(out), "--data-folder", str(data)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SISA_TEST_MARK": mark},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr
        reported = []
        for line in process.stderr:
            reported.append(line)
            if sum(": done; " in each for each in reported) == 2:
                break
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait() == 1, rest
    assert any("another one does its work from the start" in each for each in reported)
    assert f"interrupted; finished cells are kept [folder={out}]" in rest
    assert "Run the same command again" in rest
    until(lambda: not _processes_with(mark), "every process has ended")
    for path in waiting:
        path.unlink()
    COMPUTED.clear()
    found = run_experiment(TOY, settings(False), out, clock=VirtualClock(), crew=lambda *_: NearCrew())
    assert COMPUTED == ["size-2", "size-1"]
    assert [row["size"] for row in found.rows] == [1, 2, 3, 4]


@pytest.mark.volume
def test_the_survey_s_experiment_needs_no_mnist(tmp_path: Path, joined_ray: None) -> None:
    """``section-vi`` has rows of every method, draws its figures, and no figure differs.

    A soak runs ``--quick`` as it is, otherwise it has fewer steps and ratios.
    """
    words = ("experiment", "section-vi", "--quick", "--address", ray.get_runtime_context().gcs_address, "--json")
    said = command(*words, folder=tmp_path, script=PLAIN if SISA_VOLUME == "all" else _SMALL)
    assert said.returncode == 0, said.stderr
    data = json.loads(said.stdout)["data"]
    assert {row["method"] for row in data["rows"]} == {"trained", "full-retrain", "deltagrad", "sisa", "forest"}
    assert {row["dataset"] for row in data["rows"]} == {"digits"}
    assert not [check for check in data["checks"] if check["holds"] is False]
    assert {figure["name"] for figure in data["figures"]} == {"accuracy", "classes", "time", "distance"}
    assert all((tmp_path / figure[kind]).stat().st_size for figure in data["figures"] for kind in ("png", "svg"))


def _processes_with(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append(folder.name)
    return found
