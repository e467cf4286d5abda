"""Every constituent imports the user's modules again, always in the version that this process read first."""

from __future__ import annotations

import importlib
import os
import py_compile
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shards.learners.torch.confinement import Confinement
from shards.learners.torch.model_code import _installed_places
from shards.learners.torch.staging import StagedFolder
from shards.learners.torch.user_modules import UserModules
from storage.digests import sha256
from storage.errors import Invalid

FACTORY = "odd_net:build"


def test_nothing_is_left_of_an_earlier_constituent(tmp_path: Path, modules: UserModules) -> None:
    """The state of a module and of its helpers in packages is reset; modules that others imported are kept."""
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
    """A file that changes while a worker runs has no effect there: the digest covers what was read."""
    file = tmp_path / "odd_net.py"
    file.write_text("WIDTH = 3\n", encoding="utf-8")
    assert importlib.import_module("odd_net").WIDTH == 3
    file.write_text("WIDTH = 4\n", encoding="utf-8")
    modules.forget(FACTORY)
    assert importlib.import_module("odd_net").WIDTH == 3


def test_an_installed_package_that_holds_the_factory_runs_as_it_was_read(
    tmp_path: Path, modules: UserModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade while a worker runs has no effect there: the digest covers what was read."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.syspath_prepend(packages)
    _installed_places.cache_clear()  # filled before this package existed
    file = packages / "odd_net.py"
    file.write_text("WIDTH = 3\n", encoding="utf-8")
    modules.forget(FACTORY)
    assert importlib.import_module("odd_net").WIDTH == 3
    file.write_text("WIDTH = 40\n", encoding="utf-8")
    modules.forget(FACTORY)
    assert importlib.import_module("odd_net").WIDTH == 3
    _installed_places.cache_clear()


@pytest.mark.usefixtures("modules")
def test_bytecode_never_replaces_a_newer_source(tmp_path: Path) -> None:
    """A source edited within the same second, to the same length, runs in its new version."""
    file = tmp_path / "odd_net.py"
    file.write_text("WIDTH = 3\n", encoding="utf-8")
    py_compile.compile(str(file))
    before = file.stat()
    file.write_text("WIDTH = 4\n", encoding="utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert importlib.import_module("odd_net").WIDTH == 4


def test_code_runs_in_the_staged_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules and packages next to the specification find declared files next to themselves, and no others."""
    folder = tmp_path / "folder"
    (folder / "odd_pack").mkdir(parents=True)
    read = "from pathlib import Path\nimport pkgutil\nFOUND = (Path(__file__).parent / 'base.txt').read_text()\n"
    (folder / "odd_pack" / "__init__.py").write_text("from odd_pack import inner\n", encoding="utf-8")
    (folder / "odd_pack" / "inner.py").write_text(
        f"{read}DATA = pkgutil.get_data('odd_pack', 'base.txt')\n", encoding="utf-8"
    )
    (folder / "odd_pack" / "base.txt").write_text("as it is now", encoding="utf-8")
    (folder / "odd_alone.py").write_text(read, encoding="utf-8")
    (folder / "base.txt").write_text("not declared", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    stage = StagedFolder(folder, {"odd_pack/base.txt": b"as it was declared"})
    modules = UserModules(stage)
    found = importlib.import_module("odd_pack").inner
    assert (found.FOUND, found.DATA) == ("as it was declared", b"as it was declared")
    with pytest.raises(FileNotFoundError, match="base.txt"):
        importlib.import_module("odd_alone")
    assert set(modules.loaded) == {"odd_pack", "odd_pack.inner", "odd_alone"}
    assert modules.may_read(Path(found.__file__))
    assert not modules.may_read(folder / "odd_pack" / "inner.py")
    stage.remove()
    for name in [name for name in sys.modules if name.startswith("odd_")]:
        del sys.modules[name]


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserModules]:
    """Returns modules with a staged folder as working folder; a link leads to the folder for temporary files."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "elsewhere.txt").write_text("x", encoding="utf-8")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "link"))
    monkeypatch.chdir(tmp_path)
    stage = StagedFolder(tmp_path / "folder", {"pack/base.txt": b"declared"})
    stage.enter()
    yield UserModules(stage)
    stage.remove()


def _confined(modules: UserModules, tmp_path: Path) -> Confinement:
    assert modules.stage is not None
    return Confinement(FACTORY, tmp_path / "folder", modules.stage.path, modules.may_read)


def test_a_declared_file_is_read_by_either_name(staged: UserModules, tmp_path: Path) -> None:
    """A name relative to the working folder and one next to the code both work, even if a link leads to the folder."""
    assert staged.stage is not None
    with _confined(staged, tmp_path).active():
        for place in (
            Path("pack/base.txt"),
            Path("pack", "..", "pack", "base.txt"),
            staged.stage.path / "pack/base.txt",
        ):
            assert place.read_text(encoding="utf-8") == "declared"


MAKES: dict[str, Callable[[Path, Path], object]] = {
    "a file": lambda made, _: made.write_text("seen 1", encoding="utf-8"),
    "a link": lambda made, elsewhere: made.symlink_to(elsewhere),
    "a second name": lambda made, elsewhere: made.hardlink_to(elsewhere),
}


@pytest.mark.parametrize("how", MAKES)
def test_what_a_model_makes_in_its_folder_is_not_read_back(staged: UserModules, tmp_path: Path, how: str) -> None:
    """Otherwise the next constituent on this worker could read it, and a link could lead anywhere."""
    made, confined = Path("made.txt"), _confined(staged, tmp_path)
    with confined.active():
        MAKES[how](made, tmp_path / "elsewhere.txt")
    with pytest.raises(Invalid, match=r"the model reads .*made\.txt, which is not declared"), confined.active():
        made.read_text(encoding="utf-8")


def test_only_what_was_rehearsed_is_imported(tmp_path: Path, modules: UserModules) -> None:
    """A module that was not rehearsed, or has changed since, is refused, even if the model catches the error."""
    (tmp_path / "odd_net.py").write_text("import odd_helper\n", encoding="utf-8")
    (tmp_path / "odd_helper.py").write_text("", encoding="utf-8")
    (tmp_path / "odd_late.py").write_text("", encoding="utf-8")
    importlib.import_module("odd_net")
    rehearsed = dict(modules.loaded)
    confinement = Confinement(FACTORY, tmp_path, tmp_path, modules.may_read)
    modules.allow_only(rehearsed)
    modules.forget(FACTORY)
    with confinement.active():
        importlib.import_module("odd_net")
    with (
        pytest.raises(
            Invalid, match=r"imports the module 'odd_late', which was not needed when it was rehearsed\. Import"
        ),
        confinement.active(),
        suppress(Exception),
    ):
        importlib.import_module("odd_late")
    modules.allow_only(None)
    modules.forget(FACTORY)
    with pytest.raises(Invalid, match="imports the module 'odd_helper', which has changed since it was rehearsed"):
        modules.allow_only({**modules.loaded, "odd_helper": rehearsed["odd_net"]})


def test_modules_in_an_archive_are_named_by_their_sources(tmp_path: Path, modules: UserModules) -> None:
    """A module may come from an archive on the path."""
    archive = tmp_path / "odd.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("odd_packed.py", "WIDTH = 3\n")
    sys.path.insert(0, str(archive))
    try:
        assert importlib.import_module("odd_packed").WIDTH == 3
        assert modules.loaded["odd_packed"] == sha256(b"WIDTH = 3\n")
    finally:
        sys.path.remove(str(archive))


def test_a_copy_from_an_archive_is_read_as_a_source(
    staged: UserModules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds every time, because bytecode that Python would write next to it is not a declared file."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    archive = tmp_path / "folder" / "odd.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("odd_packed.py", "WIDTH = 3\n")
    sys.path.insert(0, str(archive))
    try:
        for _ in range(2):
            staged.forget(FACTORY)
            with _confined(staged, tmp_path).active():
                assert importlib.import_module("odd_packed").WIDTH == 3
        assert staged.loaded["odd_packed"] == sha256(b"WIDTH = 3\n")
    finally:
        sys.path.remove(str(archive))
        sys.modules.pop("odd_packed", None)
