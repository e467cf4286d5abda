"""The staged folder: a private copy of code and declared files, in which a model is built and trained (E14).

Declared files (``[model] files``) are copied at the start, and code when it is imported. The folder has no other files
of the specification's folder, so that native code does not find them either.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from storage.digests import Sha256, sha256
from storage.errors import Invalid
from storage.private_folder import PrivateFolder

PURPOSE = "model"
"""Purpose of the private folder."""


class StagedFolder:
    """A copy of what a model may read in ``folder``: code as it was first read, and declared files.

    ``contents`` maps the name of each declared file, relative to ``folder``, to its bytes.
    """

    def __init__(self, folder: Path, contents: Mapping[str, bytes | memoryview]) -> None:
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100  as modules name it, without following links
        self._private = PrivateFolder(PURPOSE)
        self.path = self._private.path.resolve()  # as a process names its working folder, with links followed
        self._placed: set[Path] = set()
        self.files: dict[str, Sha256] = {}
        """Digests of the declared files, by name."""
        for name, content in contents.items():
            self._write(self.path / name, content)
            self.files[name] = sha256(content)

    def enter(self) -> None:
        """Make this the process's working folder, so that relative names work as in the specification's folder."""
        os.chdir(self.path)

    def place_of(self, file: Path, source: bytes) -> Path:
        """Return the path of the staged copy of a code file; a file outside the specification's folder stays."""
        if not file.is_relative_to(self.folder):
            return file
        place = self.path / file.relative_to(self.folder)
        if not place.exists():
            self._write(place, source)
        return place

    def holds(self, file: Path) -> bool:
        """Return whether the file is a copy of code or of a declared file, not one that the model created here."""
        return file in self._placed

    def remove(self) -> None:
        """Remove the folder."""
        self._private.remove()

    def _write(self, place: Path, content: bytes | memoryview) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            file.write(content)
        self._placed.add(place)
        place.chmod(0o400)  # a model that changed its own files would differ between constituents


def declared_files(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the files that ``[model] files`` names, by name relative to ``folder``; a folder stands for all its files.

    Raises ``Invalid`` when a name matches no file.
    """
    found: dict[str, Path] = {}
    for name in names:
        place = folder / name
        files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
        if not files or not files[0].is_file():
            raise Invalid(
                f"[model] files: there is no file {name!r} next to the specification",
                "Put the file, or a link to it, into the folder of sisa.toml: names are relative to it.",
                folder=str(folder),
            )
        found |= {PurePosixPath(file.relative_to(folder)).as_posix(): file for file in files}
    return found


def file_digest(file: Path) -> Sha256:
    """Return the digest of a file's content; the file is read again when it has changed."""
    status = file.stat()
    return _file_digest(file, status.st_mtime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=4096)
def _file_digest(file: Path, *_: int) -> Sha256:
    return sha256(file.read_bytes())
