"""Imports point left, and heavy libraries have one door each."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("storage", "shards", "coordinator", "cluster", "deploy")
HEAVY = ("torch", "ray", "boto3")


def _run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_import_contracts_hold() -> None:
    """Every import contract of pyproject.toml is kept."""
    result = _run("import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_ours(room: str) -> None:
    """Each room is this repository's, and no foreign distribution's package of the same name."""
    origin = importlib.import_module(room).__file__
    assert origin is not None
    assert Path(origin).resolve() == ROOT / room / "__init__.py"


def _modules_of(room: str) -> list[str]:
    files = sorted((ROOT / room).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]


def test_decisions_load_no_heavy_library() -> None:
    """Importing all of storage and coordinator, and the ingest of shards, loads neither torch nor ray nor boto3."""
    names = [*_modules_of("coordinator"), *(name for name in _modules_of("storage") if name != "storage.s3.client")]
    names.append("shards.slices.ingest")
    result = _run(
        f"import importlib, json, sys; [importlib.import_module(name) for name in {names!r}]; "
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []
