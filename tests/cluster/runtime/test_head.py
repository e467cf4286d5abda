"""Starting a Ray head on this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.runtime import head
from storage.errors import Unavailable


class _Started:
    """A process that runs."""

    pid = 1

    def poll(self) -> None:
        """Return None: it has not ended."""


def test_heads_start_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one starts, another would take the same port, and would be taken for the first once that listens there."""
    ports: list[int] = []
    refused: list[str] = []

    def free_port() -> int:
        ports.append(6380 + len(ports))
        return ports[-1]

    def is_reachable(_: str) -> bool:
        if not refused:
            with pytest.raises(Unavailable, match="another Ray head is being started") as caught:
                head.start_head({})
            refused.append(caught.value.remedy)
        return True

    def popen(*_: Any, **__: Any) -> _Started:
        return _Started()

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(head, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(head, "_free_port", free_port)
    monkeypatch.setattr(head, "is_reachable", is_reachable)
    monkeypatch.setattr(subprocess, "Popen", popen)
    assert head.start_head({}).address == "127.0.0.1:6380"
    assert head.start_head({}).address == "127.0.0.1:6381"
    assert (ports, refused) == ([6380, 6381], ["Try again in a minute."])


def test_a_lock_file_of_somebody_else_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name that another user made first would keep the head from starting."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"sisa-head-{os.getuid()}.lock").mkdir()
    with pytest.raises(Unavailable, match="the lock file .* cannot be used") as caught:
        head.start_head({})
    assert "TMPDIR" in caught.value.remedy
