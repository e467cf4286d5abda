"""The demo's last words: commands that the reader's shell finds. What it shows is held by ``tests/ray``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.demo import command_from


def test_the_command_to_go_on_with_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an activated environment it is ``sisa``; without, its path from the demo's folder."""
    tools = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(tools))
    assert command_from(tmp_path) == "sisa"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (tmp_path / command_from(tmp_path)).samefile(tools / "sisa")
