"""Large Parquet files: their row groups are read independently, on a disk and in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

import shards.data.remote_files
from shards.data.fragments import Divisible, divide
from shards.data.readers import Wanted
from shards.data.sources import Source, open_source
from tests.doubles.stores.data_bucket import DataBucket
from tests.shards.people import people, write

WANTED = Wanted(texts=("id", "label"), numbers=("x3",))


@pytest.fixture(params=["disk", "bucket"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Returns a file of 60 data points in row groups of 16."""
    path = write(people(60), tmp_path / "a.parquet")
    if request.param == "disk":
        return open_source("a.parquet", tmp_path)
    bucket = DataBucket()
    bucket.contents["a.parquet"] = path.read_bytes()
    monkeypatch.setattr(shards.data.remote_files, "bucket_files", bucket.opens())
    return open_source("s3://bucket/a.parquet", tmp_path)


def _ids(source: Source, points: int) -> list[str]:
    return [text for batch in source.batches(WANTED, points) for text in batch.column("id").to_pylist()]


@pytest.mark.parametrize("points", [5, 40])
def test_row_groups_are_read_by_themselves(source: Source, points: int) -> None:
    """Each fragment gives its own data points and their first row; together they are the whole file."""
    fragments = divide(source, 1)
    assert [fragment.skipped for fragment in fragments] == [0, 16, 32, 48]
    found = [_ids(fragment.source, points) for fragment in fragments]
    assert found == [people(60)["id"].to_pylist()[start : start + 16] for start in (0, 16, 32, 48)]
    firsts = [next(fragment.numbered(fragment.source.batches(WANTED, points))).first for fragment in fragments]
    assert firsts == [1, 17, 33, 49]


def test_pieces_say_how_large_they_are(source: Source) -> None:
    """The pieces add up to the file without its footer; a file that is small enough is not divided."""
    reader = source.files[0].reader
    assert isinstance(reader, Divisible)
    assert [points for points, _ in reader.pieces()] == [16, 16, 16, 12]
    whole = divide(source, 1 << 30)
    assert [fragment.is_whole for fragment in whole] == [True]
    assert 0 < sum(payload for _, payload in reader.pieces()) < whole[0].payload_bytes
    assert reader.between(1, 3).schema() == reader.schema()
