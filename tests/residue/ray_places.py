"""Where a Ray cluster on this machine keeps bytes: its session's folder, its shared memory, its processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import ray

from tests.residue.markers import files_under

_PIECE_BYTES = 1 << 24
_OVERLAP_BYTES = 1 << 12


def session_folder() -> Path:
    """Return the folder of the session that this process is part of."""
    (node,) = ray.nodes()
    return Path(node["ObjectStoreSocketName"]).parents[1]


def shared_memory() -> dict[str, bytes]:
    """Return the parts of the object store's memory that were ever written."""
    return memory_of(raylet())


def memory_of(raylet: int) -> dict[str, bytes]:
    """Return what was ever written to the memory that this raylet's process shares; its file has no name any more."""
    memory: dict[str, bytes] = {}
    for entry in Path(f"/proc/{raylet}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if "/plasma" in str(entry.readlink()):
                with entry.open("rb") as file:
                    memory |= {f"memory at {place}": piece for place, piece in _written(file.fileno())}
    return memory


def raylet() -> int:
    """Return the number of the process that holds the session's shared memory."""
    return raylet_of(session_folder())


def raylet_of(folder: Path) -> int:
    """Return the process id of the raylet whose session folder is ``folder`` or inside it."""
    mark = str(folder).encode()
    (found,) = (pid for pid, words in _processes() if words[0].endswith(b"/raylet") and mark in b" ".join(words))
    return found


def worker_processes() -> list[int]:
    """Return the numbers of the processes of our actors."""
    parent = f"PPid:\t{raylet()}\n"
    found = []
    for pid in (pid for pid, words in _processes() if b"WorkerShell" in words[0]):
        with suppress(OSError):  # it has ended
            if parent in Path(f"/proc/{pid}/status").read_text(encoding="utf-8"):
                found.append(pid)
    return found


def core_limits(pid: int) -> list[str]:
    """Return a process's soft and hard limit for core dumps."""
    lines = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("Max core file size"))
    return line.split()[4:6]


def temporary_names() -> set[Path]:
    """Return the content of the folder for temporary files, which Ray's workers share with other programs."""
    return set(Path(tempfile.gettempdir()).iterdir())


def temporary_files(before: set[Path]) -> dict[str, bytes]:
    """Return the temporary files that were not there ``before``."""
    return _files_at(temporary_names() - before)


def shared_memory_files() -> dict[str, bytes]:
    """Return the files where Ray makes those that processes share; temporary folders of tests may be there as well."""
    memory = Path("/dev/shm")  # noqa: S108
    return _files_at(path for path in memory.iterdir() if not path.name.startswith("pytest-of-"))


def _files_at(paths: Iterable[Path]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in paths:
        found |= files_under(path)
        with suppress(OSError):  # a folder, or gone
            found[str(path)] = path.read_bytes()
    return found


def _processes() -> Iterator[tuple[int, list[bytes]]]:
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended
            if folder.name.isdigit():
                yield int(folder.name), (folder / "cmdline").read_bytes().split(b"\0")


def _written(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """Yield place and content of what a file with holes holds, in pieces that overlap by more than any marker."""
    end, at = os.fstat(descriptor).st_size, 0
    while at < end:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole follows
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        for place in range(start, at, _PIECE_BYTES):
            yield place, os.pread(descriptor, min(_PIECE_BYTES + _OVERLAP_BYTES, end - place), place)
