"""Folders with a trained federation for tests that spoil its store, and the ways to spoil it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

import cluster.training.workers
from storage.digests import canonical_json, digest_of
from tests.doubles.user_folder import UserFolder
from tests.doubles.workers.local_workers import LocalWorkers

ERASED: Final = "secret-person-004"
"""The subjects that are already erased."""
REQUEST: Final = "er-1"


@contextmanager
def without_ray() -> Iterator[None]:
    """Let federations train in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        yield


def train_and_erase(home: UserFolder) -> UserFolder:
    """Bring the federation to where it has been trained, and one person has been erased."""
    with without_ray():
        assert home.json("train").code == 0
        assert home.json("erase", "--subject", ERASED, "--request-id", REQUEST).data["state"] == "complete"
    return home


def kept(home: UserFolder) -> dict[str, bytes]:
    """Return everything that a failing command must not change: all but what a writer records at its start."""
    return {name: payload for name, payload in home.kept().items() if "/journal/" not in name}


def first(home: UserFolder, pattern: str) -> Path:
    """Return the first file of the store whose path matches."""
    return min(home.store.glob(pattern))


def missing(path: Path) -> None:
    """Remove the file."""
    path.unlink()


def empty(path: Path) -> None:
    """Leave nothing of its content."""
    path.write_bytes(b"")


def half(path: Path) -> None:
    """Leave the first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    """Put something else in its place."""
    path.write_bytes(b'{"hello":"world"}')


def newer(path: Path) -> None:
    """Let a version write it that does not exist yet."""
    record = json.loads(path.read_bytes())
    del record["sha256"]
    record["format_version"] += 1
    path.write_bytes(canonical_json({**record, "sha256": digest_of(record)}))


Damage = Callable[[Path], None]

ALTERED: Final[tuple[Damage, ...]] = (empty, half, foreign)
LOST: Final[tuple[Damage, ...]] = (missing, *ALTERED)
