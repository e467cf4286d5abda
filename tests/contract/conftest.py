"""The stores that keep the contract."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.local import LocalStore
from storage.memory import MemoryStore
from storage.objects import ObjectStore
from tests.doubles.faulty_store import FaultyStore


@pytest.fixture(params=["local", "memory", "faulty-local", "faulty-memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store of each kind."""
    wrapper, _, kind = request.param.rpartition("-")
    wrap: Callable[[ObjectStore], ObjectStore] = FaultyStore if wrapper else lambda inner: inner
    if kind == "local":
        yield wrap(LocalStore(str(tmp_path / "store")))
    else:
        memory = MemoryStore(secrets.token_hex(8))
        yield wrap(memory)
        memory.forget()
