"""A Ray that a command starts by itself, on this machine: with a token, and only until it is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.coordinator_actor.record import read_record
from cluster.runtime.head import _is_head, is_reachable
from tests.doubles.user_folder import UserFolder
from tests.ray.commands import command

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_launch_starts_a_ray_and_stop_ends_it(tmp_path: Path) -> None:
    """With address = "local" the head asks for a token, has no dashboard, and is gone after 'sisa stop'."""
    home = UserFolder(tmp_path).fill()
    launched = command("launch", folder=tmp_path)
    assert launched.returncode == 0, launched.stderr
    record = read_record(home.objects)
    assert record is not None
    try:
        assert is_reachable(record.address)
        assert record.head is not None
        process = Path("/proc") / str(record.head)
        assert b"RAY_AUTH_MODE=token" in (process / "environ").read_bytes().split(b"\0")
        assert b"--include-dashboard=false" in (process / "cmdline").read_bytes().split(b"\0")
    finally:
        stopped = command("stop", folder=tmp_path)
    assert stopped.returncode == 0, stopped.stderr
    assert not is_reachable(record.address)
    assert not _is_head(record.head)  # its number may stay for a moment, until init has seen its end
