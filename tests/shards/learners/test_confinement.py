"""The thread that builds and trains a model reads only code, installed packages and declared files."""

from __future__ import annotations

import ctypes
import linecache
import os
import socket
import sqlite3
import sysconfig
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from shards.learners.torch.confinement import Confinement, unconfined
from storage.errors import Invalid


@pytest.fixture
def confinement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Confinement:
    """Returns a confinement with ``base.pt`` declared and staged; the specification's folder has more files."""
    folder, staged = tmp_path / "folder", tmp_path / "staged"
    folder.mkdir()
    staged.mkdir()
    for place in (folder, staged):
        torch.save(torch.zeros(2), place / "base.pt")
    for name in ("more.pt", "more.npy", "more.db", "lib.so"):
        (folder / name).write_bytes(b"x")
    (tmp_path / "elsewhere.txt").write_text("x", encoding="utf-8")
    monkeypatch.chdir(staged)
    return Confinement("odd_net:build", folder, staged, lambda file: file.is_relative_to(staged))


READS: dict[str, Callable[[Path], object]] = {
    "open": lambda folder: (folder / "more.pt").open("rb"),
    "a descriptor": lambda folder: os.open(folder / "more.pt", os.O_RDONLY),
    "to read and write": lambda folder: os.open(folder / "more.pt", os.O_RDWR | os.O_CREAT),
    "to add": lambda folder: (folder / "more.pt").open("a+"),
    "torch": lambda folder: torch.load(folder / "more.pt"),
    "torch, mapped": lambda folder: torch.load(folder / "more.pt", mmap=True),
    "numpy": lambda folder: np.load(folder / "more.npy"),
    "numpy, mapped": lambda folder: np.memmap(folder / "more.npy", mode="r"),
    "native code": lambda folder: ctypes.CDLL(str(folder / "lib.so")),
    "a database": lambda folder: sqlite3.connect(folder / "more.db"),
    "a link": lambda folder: _linked(folder).read_bytes(),
    "bytes as a name": lambda folder: open(os.fsencode(folder / "more.pt"), "rb"),  # noqa: SIM115, PTH123
    "elsewhere": lambda folder: (folder.parent / "elsewhere.txt").read_text(encoding="utf-8"),
    "by way of": lambda folder: (folder / ".." / "elsewhere.txt").read_text(encoding="utf-8"),
    "what the system knows": lambda _: Path("/etc/passwd").read_text(encoding="utf-8"),
    "entropy": lambda _: Path("/proc/sys/kernel/random/uuid").read_text(encoding="utf-8"),
}


def _linked(folder: Path) -> Path:
    link = folder / "link.pt"
    link.symlink_to(folder / "more.pt")
    return link


@pytest.mark.parametrize("how", READS)
def test_what_is_not_declared_is_not_read(confinement: Confinement, tmp_path: Path, how: str) -> None:
    """No way of opening a file circumvents the confinement."""
    with pytest.raises(Invalid, match=r"which is not declared\. Name it|not declared\. Put it"), confinement.active():
        READS[how](tmp_path / "folder")


@pytest.mark.parametrize("how", READS)
def test_catching_the_error_is_of_no_use(confinement: Confinement, tmp_path: Path, how: str) -> None:
    """A model that catches the error and continues is still refused, once."""
    with pytest.raises(Invalid, match="which is not declared"), confinement.active(), suppress(Exception):
        READS[how](tmp_path / "folder")
    with confinement.active():
        pass


def test_the_remedy_names_the_file_as_it_is_to_be_declared(confinement: Confinement, tmp_path: Path) -> None:
    """A file next to the specification is named as it should be declared; another file must first be put there."""
    with pytest.raises(Invalid, match="reads .*/folder/more.pt, which is not declared") as caught, confinement.active():
        Path("more.pt").read_bytes()  # as if the model ran in the specification's folder
    assert caught.value.remedy == 'Name it in [model] files = ["more.pt"].'
    with pytest.raises(Invalid, match="reads .*elsewhere.txt, which is not") as caught, confinement.active():
        (tmp_path / "elsewhere.txt").read_bytes()
    assert caught.value.remedy.startswith(f"Put it, or a link to it, into the folder {tmp_path / 'folder'}, and name")


CONNECTIONS: dict[str, Callable[[], object]] = {
    "a connection": lambda: socket.create_connection(("127.0.0.1", 9)),
    "a name": lambda: socket.getaddrinfo("localhost", 80),
    "a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
    "a socket in a folder": lambda: socket.socket(socket.AF_UNIX).connect("/nowhere/socket"),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", CONNECTIONS)
def test_nothing_is_fetched(confinement: Confinement, how: str) -> None:
    """A model must not depend on the network, whose content may change."""
    with (
        pytest.raises(Invalid, match=r"the model opens a network connection\. Put the data that it fetches"),
        confinement.active(),
    ):
        CONNECTIONS[how]()


ALLOWED: dict[str, Callable[[Path], object]] = {
    "declared": lambda _: torch.load("base.pt"),
    "declared, mapped": lambda _: torch.load("base.pt", mmap=True),
    "an installed package": lambda _: next(Path(np.__file__).parent.glob("*.py")).read_bytes(),
    "Python itself": lambda _: (Path(sysconfig.get_path("stdlib")) / "this.py").read_bytes(),
    "our own code": lambda _: Path(unconfined.__code__.co_filename).read_bytes(),
    "a file that is not there": lambda folder: suppressed(FileNotFoundError, (folder / "none").read_bytes),
    "to write": lambda folder: (folder / "log.txt").write_text("x", encoding="utf-8"),
    "a temporary file": lambda _: tempfile.TemporaryFile().close(),
    "a library of the system": lambda _: ctypes.CDLL(None),
    "a database in memory": lambda _: sqlite3.connect(":memory:"),
    "the processor": lambda _: suppressed(FileNotFoundError, Path("/proc/cpuinfo").read_bytes),
}


def suppressed(kind: type[Exception], act: Callable[[], object]) -> None:
    """Call ``act``, which may raise ``kind``."""
    with suppress(kind):
        act()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("what", ALLOWED)
def test_what_a_model_may_read(confinement: Confinement, tmp_path: Path, what: str) -> None:
    """Declared files, code and packages may be read, and new files may be written."""
    refused: list[Invalid] = []
    try:
        with confinement.active():
            ALLOWED[what](tmp_path / "folder")
    except Invalid as error:
        refused.append(error)
    assert refused == []


def test_only_the_model_is_confined(confinement: Confinement, tmp_path: Path) -> None:
    """Other threads, this thread before and after, and our own code in between are not confined."""
    file = tmp_path / "elsewhere.txt"
    read: list[str] = []
    with confinement.active():
        thread = threading.Thread(target=lambda: read.append(file.read_text(encoding="utf-8")))
        thread.start()
        thread.join()
        with unconfined():
            read.append(file.read_text(encoding="utf-8"))
    read.append(file.read_text(encoding="utf-8"))
    assert read == ["x", "x", "x"]


def test_what_native_code_opens_is_not_seen(confinement: Confinement, tmp_path: Path) -> None:
    """Native code may open any file by absolute path, as documented; by relative name only declared files."""
    with confinement.active():
        assert pa.OSFile(str(tmp_path / "folder" / "more.pt")).read() == b"x"
        assert pa.OSFile("base.pt").size() > 0
        with pytest.raises(FileNotFoundError, match="more.pt"):
            pa.OSFile("more.pt")


def test_a_model_s_own_error_is_shown_with_a_stack_of_its_callers(confinement: Confinement) -> None:
    """A model that formats its stack, as torch does to say where a graph was made, reads no source of its callers."""
    linecache.clearcache()  # else what pytest has read would be shown
    with pytest.raises(ValueError, match="its own error") as caught, confinement.active():
        raise ValueError("its own error" + "".join(traceback.format_stack()))
    assert Path(__file__).name in str(caught.value)
    assert "raise ValueError" not in str(caught.value).partition("its own error")[2]


def test_source_code_is_no_way_to_read_a_file(confinement: Confinement, tmp_path: Path) -> None:
    """It reveals nothing about the file either."""
    with confinement.active():
        assert linecache.getlines(str(tmp_path / "elsewhere.txt")) == []
