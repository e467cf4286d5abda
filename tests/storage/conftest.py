"""The stores that the register's tests run on."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.local import LocalStore
from storage.memory import MemoryStore
from storage.objects import ObjectStore


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store."""
    if request.param == "local":
        yield LocalStore(str(tmp_path / "store"))
        return
    memory = MemoryStore(secrets.token_hex(8))
    yield memory
    memory.forget()
