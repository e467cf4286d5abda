"""Declared files are found, digested and staged; other files are not in the staged folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shards.learners.torch.staging import StagedFolder, declared_files, file_digest
from shards.specification import ModelSettings
from storage.digests import sha256
from storage.errors import Invalid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a specification's folder."""
    made = tmp_path / "folder"
    (made / "bert" / "inner").mkdir(parents=True)
    for name in ("base.pt", "more.pt", "bert/config.json", "bert/inner/weights"):
        (made / name).write_bytes(name.encode())
    (tmp_path / "afar.pt").write_bytes(b"afar")
    (made / "link.pt").symlink_to(tmp_path / "afar.pt")
    return made


def test_files_and_folders_are_found(folder: Path) -> None:
    """A folder stands for all its files, a link for its target."""
    found = declared_files(folder, ["./base.pt", "bert", "link.pt"])
    assert list(found) == ["base.pt", "bert/config.json", "bert/inner/weights", "link.pt"]
    assert file_digest(found["link.pt"]) == sha256(b"afar")


@pytest.mark.parametrize("name", ["none.pt", "empty"])
def test_what_is_not_there_is_named(folder: Path, name: str) -> None:
    """A missing file and a folder without files are refused by name."""
    (folder / "empty").mkdir()
    with pytest.raises(Invalid, match=rf"files: there is no file '{name}' next to the specification"):
        declared_files(folder, ["base.pt", name])


@pytest.mark.parametrize("name", ["", ".", "/etc/passwd", "../afar.pt", "bert/../../afar.pt"])
def test_only_files_in_the_folder_can_be_declared(name: str) -> None:
    """Absolute names and names that leave the folder are refused, because they also name staged files."""
    with pytest.raises(Invalid, match=r"\[model\] files must be names relative to the specification's folder"):
        ModelSettings(files=("base.pt", name))


def test_a_digest_is_that_of_the_present_content(folder: Path) -> None:
    """A file that is replaced by another of the same size and time is read again."""
    before, file = file_digest(folder / "base.pt"), folder / "base.pt"
    status = file.stat()
    (folder / "new").write_bytes(b"BASE.PT")
    os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "new").rename(file)
    assert before == sha256(b"base.pt")
    assert file_digest(file) == sha256(b"BASE.PT")


def test_only_what_is_declared_is_staged(folder: Path, tmp_path: Path) -> None:
    """The copy is readable by its owner only, cannot be written, does not change, and is removed with the folder."""
    stage = StagedFolder(folder, {"base.pt": b"weights", "bert/config.json": memoryview(b"{}")})
    (folder / "base.pt").write_bytes(b"others")
    files = {str(file.relative_to(stage.path)): file for file in stage.path.rglob("*") if file.is_file()}
    assert {name: file.read_bytes() for name, file in files.items()} == {
        "base.pt": b"weights",
        "bert/config.json": b"{}",
    }
    assert stage.files == {"base.pt": sha256(b"weights"), "bert/config.json": sha256(b"{}")}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files.values()} == {0o400}
    assert stat.S_IMODE(stage.path.stat().st_mode) == 0o700
    assert stage.place_of(folder / "pack" / "net.py", b"X = 1\n").read_bytes() == b"X = 1\n"
    assert stage.place_of(tmp_path / "net.py", b"X = 1\n") == tmp_path / "net.py"
    stage.remove()
    assert not stage.path.exists()
