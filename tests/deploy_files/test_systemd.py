"""The systemd units for machines of one's own; ``tests/multinode/test_head.py`` runs what they start."""

from __future__ import annotations

import shutil
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.deploy_files.units import FOLDER, read_unit

UNITS = ("sisa-head", "sisa-node")


def test_there_are_no_others() -> None:
    """Each unit shipped is one of these."""
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(UNITS)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_it(name: str, tmp_path: Path) -> None:
    """Systemd finds no fault in it, but for programs and users of this machine."""
    text = read_unit(name).text.replace("/opt/sisa/bin/ray", "/bin/true").replace("=sisa\n", "=root\n")
    unit = tmp_path / f"{name}.service"
    unit.write_text(text, encoding="utf-8")
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_ray_knows_every_option(name: str) -> None:
    """Each option after ``ray start`` is one of this version's."""
    known = {option for parameter in import_module("ray.scripts.scripts").start.params for option in parameter.opts}
    program, start, *options = read_unit(name).command
    assert (program, start) == ("/opt/sisa/bin/ray", "start")
    assert {option.partition("=")[0] for option in options} <= known


@pytest.mark.parametrize("name", UNITS)
def test_it_is_started_again_whatever_ends_it(name: str) -> None:
    """It lasts as long as all of Ray's processes do, and comes back each time, however often that is."""
    assert "--block" in read_unit(name).command
    assert (read_unit(name).setting("Restart"), read_unit(name).setting("StartLimitIntervalSec")) == ("always", "0")


@pytest.mark.parametrize("name", UNITS)
def test_nothing_of_it_is_for_others(name: str) -> None:
    """Ray asks for a token, no crash writes a core, and what is spilled stays in memory, for this user alone."""
    unit = read_unit(name)
    assert unit.environment.items() >= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/etc/sisa/auth_token"}.items()
    assert [unit.setting(each) for each in ("User", "LimitCORE", "UMask")] == ["sisa", "0", "0077"]
    assert f"--object-spilling-directory=/run/{unit.setting('RuntimeDirectory')}" in unit.command
    assert unit.setting("RuntimeDirectoryMode") == "0700"


def test_the_head_may_be_lost() -> None:
    """The metadata is in the unit's own folder on the disk, no worker runs beside it, and nodes wait a day for it."""
    head = read_unit("sisa-head")
    assert head.environment["RAY_gcs_storage"] == "rocksdb"
    assert head.environment["RAY_gcs_storage_path"] == f"/var/lib/{head.setting('StateDirectory')}"
    assert {"--head", "--num-cpus=0"} <= set(head.command)
    waits = "RAY_gcs_rpc_server_reconnect_timeout_s"
    assert read_unit("sisa-node").environment[waits] == "86400"
    package = find_spec("ray")
    assert package is not None
    raylet = Path(str(package.origin)).parent / "core" / "src" / "ray" / "raylet" / "raylet"
    assert waits.encode() in raylet.read_bytes()  # Ray passes over a name that it does not know
