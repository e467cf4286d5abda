"""Every constituent gets the user's modules afresh, and always those that this process read first."""

from __future__ import annotations

import importlib
import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.learners.torch.model_code import _installed_places
from shards.learners.torch.user_modules import UserModules

FACTORY = "odd_net:build"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserModules]:
    """Returns the user's modules of this process, which lie in ``tmp_path``."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield UserModules()
    for name in [name for name in sys.modules if name.startswith("odd_")]:
        del sys.modules[name]


def test_nothing_is_left_of_an_earlier_constituent(tmp_path: Path, modules: UserModules) -> None:
    """What a module and its helpers in packages remember is forgotten; what others have imported is not."""
    (tmp_path / "odd_pack").mkdir()
    (tmp_path / "odd_pack" / "state.py").write_text("STEPS = []\n", encoding="utf-8")
    (tmp_path / "odd_net.py").write_text("import json\nfrom odd_pack import state\n", encoding="utf-8")
    first, json = importlib.import_module("odd_net"), sys.modules["json"]
    first.state.STEPS.append(1)
    modules.forget(FACTORY)
    second = importlib.import_module("odd_net")
    assert second.state.STEPS == []
    assert second.state is not first.state
    assert sys.modules["json"] is json


def test_an_edited_file_runs_as_it_was_read(tmp_path: Path, modules: UserModules) -> None:
    """A file that changes while a worker is at work changes nothing there: the digest speaks of what was read."""
    file = tmp_path / "odd_net.py"
    file.write_text("WIDTH = 3\n", encoding="utf-8")
    assert importlib.import_module("odd_net").WIDTH == 3
    file.write_text("WIDTH = 4\n", encoding="utf-8")
    modules.forget(FACTORY)
    assert importlib.import_module("odd_net").WIDTH == 3


def test_an_installed_package_that_holds_the_factory_runs_as_it_was_read(
    tmp_path: Path, modules: UserModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade while a worker is at work changes nothing there: the digest speaks of what was read."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.syspath_prepend(packages)
    _installed_places.cache_clear()  # it has looked where packages lie before this one was there
    file = packages / "odd_net.py"
    file.write_text("WIDTH = 3\n", encoding="utf-8")
    modules.forget(FACTORY)
    assert importlib.import_module("odd_net").WIDTH == 3
    file.write_text("WIDTH = 40\n", encoding="utf-8")
    modules.forget(FACTORY)
    assert importlib.import_module("odd_net").WIDTH == 3
    _installed_places.cache_clear()


@pytest.mark.usefixtures("modules")
def test_bytecode_never_stands_in_for_a_newer_source(tmp_path: Path) -> None:
    """A source edited within the same second, to the same length, runs as it is."""
    file = tmp_path / "odd_net.py"
    file.write_text("WIDTH = 3\n", encoding="utf-8")
    py_compile.compile(str(file))
    before = file.stat()
    file.write_text("WIDTH = 4\n", encoding="utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert importlib.import_module("odd_net").WIDTH == 4
