"""Fixtures for several tests of learners."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.learners.torch.user_modules import UserModules


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserModules]:
    """Returns this process's user modules, which are in ``tmp_path``."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield UserModules()
    for name in [name for name in sys.modules if name.startswith("odd_")]:
        del sys.modules[name]
