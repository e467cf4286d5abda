"""Rehearsals of models, each carried out once: two processes that load torch are most of what many a test would take.

Not for tests of the rehearsal itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from shards.learners.torch import rehearsal
from shards.learners.torch.rehearsal_process import RehearsalRequest
from storage.digests import Sha256, sha256

_rehearse = rehearsal.rehearse
_Found = tuple[dict[str, Sha256], list[str]]
_FOUND: Final[dict[object, _Found]] = {}


def rehearse(request: RehearsalRequest) -> _Found:
    """Return what ``shards.learners.torch.rehearsal.rehearse`` returns; a refusal is not remembered.

    It is carried out again where anything differs that the two processes are given: the settings, the modules in the
    specification's folder, the declared files, or where modules are found.
    """
    asked = replace(request, folder="", staged="")
    path = tuple("" if place == request.folder else place for place in sys.path)
    declared = tuple(sha256(Path(request.staged, name).read_bytes()) for name in request.files)
    key = (asked.to_json(), path, tuple(_modules(request.folder)), declared)
    if key not in _FOUND:
        _FOUND[key] = _rehearse(request)
    modules, packages = _FOUND[key]
    return dict(modules), list(packages)


def _modules(folder: str) -> Iterator[tuple[str, Sha256]]:
    for path in sorted(Path(folder).rglob("*.py")) if folder else ():
        yield os.path.relpath(path, folder), sha256(path.read_bytes())


def remember_rehearsals(patch: pytest.MonkeyPatch) -> None:
    """Let workers of this process rehearse each model once."""
    patch.setattr(rehearsal, "rehearse", rehearse)
