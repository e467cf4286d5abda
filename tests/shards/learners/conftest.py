"""What several tests of learners start from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.learners.torch.user_modules import UserModules


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserModules]:
    """Returns the user's modules of this process, which lie in ``tmp_path``."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield UserModules()
    for name in [name for name in sys.modules if name.startswith("odd_")]:
        del sys.modules[name]
