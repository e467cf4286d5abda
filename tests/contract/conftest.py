"""The stores that keep the contract."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.encryption.keyring_location import KEYRINGS
from storage.encryption.store import SealedStore
from storage.objects import ObjectInfo, ObjectStore
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore
from tests.doubles.stores.faulty_store import FaultyStore
from tests.volume import examples

KINDS = (
    "local",
    "memory",
    "faulty-local",
    "faulty-memory",
    "sealed-local",
    "sealed-memory",
    "sealed-faulty",
    "sealed-apart",
    pytest.param("seaweedfs", marks=pytest.mark.s3),
    pytest.param("seaweedfs-versioned", marks=pytest.mark.s3),
    pytest.param("moto", marks=pytest.mark.s3),
    pytest.param("sealed-seaweedfs", marks=pytest.mark.s3),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """In what the stores may differ."""

    rounds: int = examples(20, few=8)
    """How often a race is run."""
    deletions: int = examples(40, few=16)
    """How often a deletion meets a replacement."""
    steps: int = 5
    """How often each writer of a contended object succeeds."""
    has_folders: bool = True
    """Whether a folder of keys can never be a key."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of store that a test runs on."""
    name: str = request.param
    return name


@pytest.fixture
def traits(kind: str) -> Traits:
    """Return what to expect of that kind. SeaweedFS takes 1 to 3 seconds to refuse losers of a race of 8 writers."""
    if "seaweedfs" in kind:
        return Traits(rounds=1, deletions=4, steps=1, has_folders=False)
    if kind == "moto":
        return Traits(
            rounds=examples(8, few=4), deletions=examples(16, few=8), steps=examples(5, few=2), has_folders=False
        )
    return Traits()


@pytest.fixture
def store(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store of each kind."""
    server, _, variant = kind.removeprefix("sealed-").partition("-")
    if server in {"seaweedfs", "moto"}:
        bucket = _bucket(request.getfixturevalue(f"{server}_endpoint"), variant)
        yield EncryptedStore(bucket) if kind.startswith("sealed-") else bucket
        return
    if kind.startswith("sealed-"):
        yield from _sealed(server, tmp_path)
        return
    wrapper, _, kind = kind.rpartition("-")
    wrap: Callable[[ObjectStore], ObjectStore] = FaultyStore if wrapper else lambda inner: inner
    if kind == "local":
        yield wrap(LocalStore(str(tmp_path / "store")))
    else:
        memory = MemoryStore(secrets.token_hex(8))
        yield wrap(memory)
        memory.forget()


@dataclass(frozen=True, slots=True)
class EncryptedStore(SealedStore):
    """A sealed store that encrypts every object, with its keyrings out of the suite's sight."""

    prefix: str = ""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what the suite has put."""
        return (info for info in SealedStore.list(self, prefix) if not info.key.startswith(f"{KEYRINGS}/"))


def _sealed(variant: str, folder: Path) -> Iterator[ObjectStore]:
    if variant == "local":
        yield EncryptedStore(LocalStore(str(folder / "store")))
        return
    memory, keys = MemoryStore(secrets.token_hex(8)), MemoryStore(secrets.token_hex(8))
    inner: ObjectStore = FaultyStore(memory) if variant == "faulty" else memory
    yield EncryptedStore(inner, keys if variant == "apart" else None)
    memory.forget()
    keys.forget()


def _bucket(endpoint: str, variant: str) -> ObjectStore:
    from storage.s3.client import S3Store

    return S3Store(
        bucket="versioned" if variant == "versioned" else "plain",
        prefix=f"contract/{secrets.token_hex(8)}",
        endpoint=endpoint,
    )
