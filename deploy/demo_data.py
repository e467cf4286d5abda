"""Real data for the demo: scikit-learn's handwritten digits, and Fashion-MNIST.

Both are written as Parquet: an id, a person who owns several data points, a label, and a column for each pixel. The
pictures are public, and the persons are invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.experiments.datasets import (
    FASHION_MNIST,
    INSTALLED,
    REMEDY,
    ClassNumbers,
    Fetch,
    Pictures,
    Pixels,
    digits,
    pictures,
)
from storage.errors import Unavailable

_POINTS_PER_PERSON = 8
_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_TIMEOUT_SECONDS = 60


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
    return _write(folder, digits())


def write_fashion_mnist(folder: Path, source: Path | None = None) -> DemoData:
    """Write Fashion-MNIST (60,000 and 10,000 pictures of 28 × 28 pixels) below ``folder``.

    The four ``.gz`` files come from ``source``, else from Debian's package, else from the publisher's address.
    Raises ``Invalid`` when ``source`` lacks one, ``Corrupt`` when a file is not the published one, ``Unavailable``
    when there is no network.
    """
    if source is not None:
        return _write(folder, pictures(FASHION_MNIST, [source]))
    return _write(folder, pictures(FASHION_MNIST, [INSTALLED[FASHION_MNIST]], fetched))


def download(address: str) -> bytes:
    """Return the content at ``address``. Raises ``OSError`` when it cannot be downloaded."""
    with urlopen(address, timeout=_TIMEOUT_SECONDS) as reply:  # noqa: S310  the address is a constant
        payload: bytes = reply.read()
    return payload


def fetched(file: str, download: Fetch = download) -> bytes:
    """Return a file of Fashion-MNIST from its publisher. Raises ``Unavailable`` when it cannot be downloaded."""
    try:
        return download(_ADDRESS + file)
    except (URLError, OSError) as error:
        raise Unavailable(
            "Fashion-MNIST is not on this machine and cannot be downloaded", REMEDY[FASHION_MNIST], file=file
        ) from error


def _write(folder: Path, found: Pictures) -> DemoData:
    folder.mkdir(parents=True, exist_ok=True)
    train, test = found.train, found.test
    people = max(1, len(train[1]) // _POINTS_PER_PERSON)
    _write_points(folder / "train.parquet", "train", "person", people, train)
    _write_points(folder / "test.parquet", "test", "visitor", max(1, len(test[1]) // _POINTS_PER_PERSON), test)
    return DemoData(
        name=found.name,
        train=folder / "train.parquet",
        test=folder / "test.parquet",
        train_points=len(train[1]),
        test_points=len(test[1]),
        people=people,
        classes=found.classes,
        scale=found.scale,
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
