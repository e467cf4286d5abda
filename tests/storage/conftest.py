"""The stores that the register's tests run on."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.objects import ObjectStore
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store."""
    if request.param == "local":
        yield LocalStore(str(tmp_path / "store"))
        return
    memory = MemoryStore(secrets.token_hex(8))
    yield memory
    memory.forget()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries of the S3 store and of boto3 follow at once."""
    import botocore.retries.standard

    import storage.s3.requests
    import storage.s3.store

    monkeypatch.setattr(storage.s3.store, "pause", lambda _: None)
    monkeypatch.setattr(storage.s3.requests, "pause", lambda _: None)
    monkeypatch.setattr(botocore.retries.standard.ExponentialBackoff, "delay_amount", lambda *_: 0.0)
