"""The demo's data: what is written, and what happens when it cannot be had."""

from __future__ import annotations

import gzip
from pathlib import Path
from urllib.error import URLError

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cluster.experiments.datasets import FASHION_MNIST, content_of
from deploy.demo_data import fetched, write_digits, write_fashion_mnist, write_without
from deploy.initialise import draft_specification
from storage.errors import Corrupt, Invalid, Unavailable

NAME = "t10k-labels-idx1-ubyte"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")


def no_network(address: str) -> bytes:
    """Fail as a machine without network does."""
    raise URLError(f"no network for {address}")


def test_digits(tmp_path: Path) -> None:
    """The digits are 1,797 data points of 64 pixels; every fifth is held out, and no person is on both sides."""
    made = write_digits(tmp_path)
    train, test = pq.read_table(made.train), pq.read_table(made.test)
    assert (made.train_points, made.test_points) == (train.num_rows, test.num_rows) == (1438, 359)
    assert train.column_names == ["id", "user_id", "label", *(f"x{number:03d}" for number in range(64))]
    assert train.schema == test.schema
    assert pc.count_distinct(train["id"]).as_py() == 1438
    assert not set(train["user_id"].to_pylist()) & set(test["user_id"].to_pylist())
    assert made.classes == tuple("0123456789")
    assert max(pc.max(train[f"x{number:03d}"]).as_py() for number in range(64)) == made.scale == 16


def test_every_person_has_several_points(tmp_path: Path) -> None:
    """Each invented person has seven to nine data points, person-0017 among them."""
    people = pq.read_table(write_digits(tmp_path).train)["user_id"]
    counts = {entry["values"]: entry["counts"] for entry in people.value_counts().to_pylist()}
    assert "person-0017" in counts
    assert {8, 9} >= set(counts.values()) >= {8}


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """The files are the same each time, and nothing unfinished stays behind."""
    made = write_digits(tmp_path)
    before = made.train.read_bytes()
    write_digits(tmp_path)
    assert made.train.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.parquet", "train.parquet"]


def test_digits_can_be_drafted(tmp_path: Path) -> None:
    """``sisa init`` understands the demo's data without a hint."""
    write_digits(tmp_path)
    text = draft_specification("train.parquet", tmp_path).text
    assert 'features = ["x*"]' in text
    assert 'subject  = "user_id"' in text
    assert "scale    = 16.0" in text


def test_a_folder_without_the_files_is_reported(tmp_path: Path) -> None:
    """A given folder must hold all four files; nothing is downloaded behind the user's back."""
    with pytest.raises(
        Invalid, match=r"the data set fashion-mnist is not on this machine: .* is missing.*--data-folder"
    ):
        write_fashion_mnist(tmp_path / "out", tmp_path)


def test_no_network_is_reported(tmp_path: Path) -> None:
    """Where nothing is installed and there is no network, package and option are named."""
    with pytest.raises(Unavailable, match=r"cannot be downloaded .*apt install dataset-fashion-mnist.*--data-folder"):
        content_of(FASHION_MNIST, NAME, [tmp_path], lambda file: fetched(file, no_network))


def test_another_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    """A file whose content is not the published one is refused by its digest."""
    (tmp_path / f"{NAME}.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(
        Corrupt,
        match=r"not the published one: expected sha256:0402a96d.*, got sha256:.*apt install dataset-fashion-mnist",
    ):
        content_of(FASHION_MNIST, NAME, [tmp_path], lambda file: fetched(file, no_network))


@pytest.mark.parametrize("payload", [b"", b"<html>", gzip.compress(b"labels" * 99, mtime=0)[:30]])
def test_a_broken_download_is_refused(tmp_path: Path, payload: bytes) -> None:
    """What is not a complete gzip file is refused as such, or by its digest when it is empty."""
    with pytest.raises(Corrupt, match=r"not a complete gzip file|not the published one"):
        content_of(FASHION_MNIST, NAME, [tmp_path], lambda _: payload)


@pytest.mark.fashion
@pytest.mark.skipif(not INSTALLED.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist(tmp_path: Path) -> None:
    """The real files give 60,000 and 10,000 pictures of 784 pixels, 6,000 of each class."""
    made = write_fashion_mnist(tmp_path)
    train = pq.read_table(made.train)
    assert (made.train_points, made.test_points, train.num_columns) == (60_000, 10_000, 787)
    assert {entry["counts"] for entry in train["label"].value_counts().to_pylist()} == {6000}
    assert made.scale == pc.max(train["x400"]).as_py() == 255
    assert made.people == 7500


def test_a_person_can_be_left_out(tmp_path: Path) -> None:
    """The data without one person hold everyone else's points, in the same order."""
    made = write_digits(tmp_path)
    left = pq.read_table(write_without(made.train, tmp_path / "left.parquet", "person-0017"))
    everyone = pq.read_table(made.train)
    assert left.equals(everyone.filter(pc.not_equal(everyone["user_id"], "person-0017")))
    assert left.num_rows == everyone.num_rows - 8
