"""Real data for the demo: scikit-learn's handwritten digits, and Fashion-MNIST.

Both are written as Parquet: an id, a person who owns several data points, a label, and a column for each pixel. The
pictures are public, and the persons are invented.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import Corrupt, Invalid, Unavailable

_POINTS_PER_PERSON = 8
_DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_TIMEOUT_SECONDS = 60

# Of the files' content: the compressed files of Debian and of the publisher differ in gzip's header.
_FASHION_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_IDX_IMAGES_HEADER_BYTES = 16
_IDX_LABELS_HEADER_BYTES = 8

Download = Callable[[str], bytes]
Pixels = npt.NDArray[np.uint8]
ClassNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoData:
    """A data set as written, with what its specification has to state."""

    name: str
    train: Path
    """Parquet file with the columns id, user_id, label, x000 ..."""
    test: Path
    """The same columns; other persons."""
    train_points: int
    test_points: int
    people: int
    """Persons in ``train``: ``person-0000`` and so on."""
    classes: tuple[str, ...]
    scale: float
    """What the pixels are to be divided by."""


def write_digits(folder: Path) -> DemoData:
    """Write scikit-learn's 1,797 digits (8 × 8 pixels, 0 .. 16) below ``folder``; every fifth is for tests."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = digits.data.astype(np.uint8)
    labels = digits.target.astype(np.int64)
    held_out = np.arange(len(labels)) % 5 == 4
    return _write(folder, "digits", 16.0, (pixels[~held_out], labels[~held_out]), (pixels[held_out], labels[held_out]))


def write_fashion_mnist(folder: Path, source: Path | None = None) -> DemoData:
    """Write Fashion-MNIST (60,000 and 10,000 pictures of 28 × 28 pixels) below ``folder``.

    The four ``.gz`` files come from ``source``, else from Debian's package, else from the publisher's address.
    Raises ``Invalid`` when ``source`` lacks one, ``Corrupt`` when a file is not the published one, ``Unavailable``
    when there is no network.
    """
    contents = {name: _fashion_file(name, source, _DEBIAN_FOLDER, download) for name in _FASHION_SHA256}
    train, test = (_pictures(contents, part) for part in ("train", "t10k"))
    return _write(folder, "fashion-mnist", 255.0, train, test)


def download(address: str) -> bytes:
    """Return the content at ``address``. Raises ``OSError`` when it cannot be downloaded."""
    with urlopen(address, timeout=_TIMEOUT_SECONDS) as reply:  # noqa: S310  the address is a constant
        payload: bytes = reply.read()
    return payload


def _fashion_file(name: str, source: Path | None, installed: Path, fetch: Download) -> bytes:
    """Return the checked content of one of the four files."""
    file = f"{name}.gz"
    if source is not None and not (source / file).is_file():
        raise Invalid(
            "the folder lacks a file of Fashion-MNIST", "Name a folder with all four.", file=str(source / file)
        )
    here = source or installed
    packed = (here / file).read_bytes() if (here / file).is_file() else _fetched(file, fetch)
    try:
        content = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise Corrupt("a file of Fashion-MNIST is not a complete gzip file", _REMEDY, file=file) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != _FASHION_SHA256[name]:
        expected = _FASHION_SHA256[name]
        fact = f"a file of Fashion-MNIST is not the published one: expected sha256:{expected}, got sha256:{digest}"
        raise Corrupt(fact, _REMEDY, file=file)
    return content


_REMEDY = "Install it again with 'apt install dataset-fashion-mnist', or name another folder with --data-folder."


def _fetched(file: str, fetch: Download) -> bytes:
    try:
        return fetch(_ADDRESS + file)
    except (URLError, OSError) as error:
        remedy = "Run 'apt install dataset-fashion-mnist', or name a folder with the four files with --data-folder."
        raise Unavailable("Fashion-MNIST is not on this machine and cannot be downloaded", remedy, file=file) from error


def _pictures(contents: dict[str, bytes], part: str) -> tuple[Pixels, ClassNumbers]:
    """Return pixels (N, 784) and labels (N,) of the IDX files; their digests vouch for the format."""
    labels = np.frombuffer(contents[f"{part}-labels-idx1-ubyte"], dtype=np.uint8, offset=_IDX_LABELS_HEADER_BYTES)
    pixels = np.frombuffer(contents[f"{part}-images-idx3-ubyte"], dtype=np.uint8, offset=_IDX_IMAGES_HEADER_BYTES)
    return pixels.reshape(len(labels), -1), labels.astype(np.int64)


def _write(
    folder: Path, name: str, scale: float, train: tuple[Pixels, ClassNumbers], test: tuple[Pixels, ClassNumbers]
) -> DemoData:
    folder.mkdir(parents=True, exist_ok=True)
    people = max(1, len(train[1]) // _POINTS_PER_PERSON)
    _write_points(folder / "train.parquet", "train", "person", people, train)
    _write_points(folder / "test.parquet", "test", "visitor", max(1, len(test[1]) // _POINTS_PER_PERSON), test)
    return DemoData(
        name=name,
        train=folder / "train.parquet",
        test=folder / "test.parquet",
        train_points=len(train[1]),
        test_points=len(test[1]),
        people=people,
        classes=tuple(str(label) for label in np.unique(train[1])),
        scale=scale,
    )


def _write_points(path: Path, prefix: str, person: str, people: int, points: tuple[Pixels, ClassNumbers]) -> None:
    pixels, labels = points
    columns: dict[str, pa.Array] = {
        "id": pa.array([f"{prefix}-{number:05d}" for number in range(len(labels))]),
        "user_id": pa.array([f"{person}-{number % people:04d}" for number in range(len(labels))]),
        "label": pa.array(labels),
    }
    columns |= {f"x{position:03d}": pa.array(values) for position, values in enumerate(np.ascontiguousarray(pixels.T))}
    unfinished = path.with_name(f"{path.name}.partial")
    pq.write_table(pa.table(columns), unfinished, row_group_size=10_000, compression="zstd")
    unfinished.replace(path)


def write_without(train: Path, to: Path, person: str) -> Path:
    """Write the demo's training data without one person's data points; return where."""
    table = pq.read_table(train)
    keep = [user != person for user in table.column("user_id").to_pylist()]
    pq.write_table(table.filter(pa.array(keep)), to, compression="zstd")
    return to
