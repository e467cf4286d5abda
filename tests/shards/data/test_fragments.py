"""Fragments: the whole source, in its order, in pieces that can be read independently."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from shards.data.fragments import divide, payload_bytes
from shards.data.readers import reader_of
from shards.data.remote_files import RemoteFile
from shards.data.sources import DataFile, Source, open_source, table_source
from storage.errors import Invalid, InvariantBroken
from storage.s3.files import BucketFile, bucket_files
from tests.shards.data.pieces import piecewise
from tests.shards.people import people, write


def test_fragments_are_the_source_in_its_order(tmp_path: Path) -> None:
    """Small files share a fragment, large ones are divided if possible; nothing is omitted or repeated."""
    base = tmp_path / "parts"
    for number, size in enumerate((10, 10, 60, 10, 10)):
        write(people(size), base / f"{number}.parquet")
    write(people(60), base / "9.csv")
    source = piecewise(open_source("parts", tmp_path))
    fragments = divide(source, 2 * (base / "0.parquet").stat().st_size)
    names = [[Path(file.name).stem for file in fragment.files] for fragment in fragments]
    assert [*names[:1], *names[-2:]] == [["0", "1"], ["3", "4"], ["9"]]
    pieces = [fragment for fragment in fragments if not fragment.is_whole]
    assert {name for group in names[1:-2] for name in group} == {"2"}
    assert [fragment.skipped for fragment in pieces] == sorted({fragment.skipped for fragment in pieces})
    assert len(divide(source, 1 << 30)) == 1
    assert payload_bytes(source) == sum(path.stat().st_size for path in base.iterdir())


def test_a_piece_is_never_empty(tmp_path: Path) -> None:
    """For any limit, each fragment has at least one piece; a file with one piece is not divided."""
    write(people(60), tmp_path / "a.parquet")
    write(people(10), tmp_path / "b.parquet")
    source = piecewise(open_source("*.parquet", tmp_path))
    assert [fragment.skipped for fragment in divide(source, 1)] == [0, 16, 32, 48, 0]
    assert [fragment.is_whole for fragment in divide(source, 1)] == [False, False, False, False, True]


def test_tables_and_missing_files_are_refused(tmp_path: Path) -> None:
    """A table in memory cannot be divided into fragments; a file that has disappeared is named."""
    with pytest.raises(InvariantBroken, match="a table in memory"):
        divide(table_source(people(3)), 1)
    path = write(people(3), tmp_path / "a.parquet")
    source = open_source("a.parquet", tmp_path)
    path.unlink()
    with pytest.raises(Invalid, match=r"cannot be read \(No such file or directory\) \[file=a\.parquet\]"):
        payload_bytes(source)


def test_fragments_cross_to_other_processes(tmp_path: Path) -> None:
    """A fragment of files on a disk or in a bucket survives pickling, without opening a connection."""
    write(people(60), tmp_path / "a.parquet")
    write(people(60), tmp_path / "b.csv")
    near = piecewise(open_source(".", tmp_path))
    held = BucketFile(name="far/c.parquet", payload_bytes=900, tag="tag")
    remote = RemoteFile(files=bucket_files("bucket", "http://127.0.0.1:9"), file=held)
    file = DataFile(name=remote.address, path=None, reader=reader_of(".parquet", remote), remote=remote)
    fragments = (*divide(near, 1), *divide(Source(location="s3://bucket/far", files=(file,)), 1000))
    assert [fragment.files[0].name for fragment in fragments] == [
        *["a.parquet"] * 4,
        "b.csv",
        "s3://bucket/far/c.parquet",
    ]
    assert pickle.loads(pickle.dumps(fragments)) == fragments
