"""Arrow streams: complete, cut off, and concatenated, on a disk and in a bucket."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import shards.data.remote_files
from shards.data.readers import Wanted
from shards.data.sources import Source, open_source
from storage.errors import Invalid
from tests.doubles.stores.data_bucket import DataBucket
from tests.shards.people import people

WANTED = Wanted(texts=("id",), numbers=("x0",))
TABLE = people(40)

Opens = Callable[[bytes], Source]


@pytest.fixture(params=["disk", "bucket"])
def opens(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opens:
    """Returns a function that makes a source from a file's bytes."""
    bucket = DataBucket()
    monkeypatch.setattr(shards.data.remote_files, "bucket_files", bucket.opens())

    def on_disk(payload: bytes) -> Source:
        (tmp_path / "a.arrow").write_bytes(payload)
        return open_source("a.arrow", tmp_path)

    def in_bucket(payload: bytes) -> Source:
        bucket.contents["a.arrow"] = payload
        return open_source("s3://bucket/a.arrow", tmp_path)

    return on_disk if request.param == "disk" else in_bucket


def _ids(source: Source) -> list[str]:
    return [text for batch in source.batches(WANTED, 6) for text in batch.column("id").to_pylist()]


def _stream(table: pa.Table, *, earlier: bool = False) -> tuple[bytes, list[int]]:
    """Return a stream of record batches of ten points, and the positions where the schema and each batch end."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(use_legacy_format=earlier)) as writer:
        ends = [sink.tell()]
        for batch in table.to_batches(10):
            writer.write_batch(batch)
            ends.append(sink.tell())
    return sink.getvalue(), ends


@pytest.mark.parametrize("earlier", [False, True])
def test_a_whole_stream_is_read(opens: Opens, *, earlier: bool) -> None:
    """A stream with its end mark gives every point, in the current and the earlier format."""
    assert _ids(opens(_stream(TABLE, earlier=earlier)[0])) == TABLE["id"].to_pylist()


def test_a_stream_of_dictionaries_is_read(opens: Opens) -> None:
    """Dictionaries precede the first batch and do not confuse the check for the end mark."""
    table = TABLE.set_column(0, "id", TABLE["id"].cast(pa.string()).dictionary_encode())
    assert _ids(opens(_stream(table)[0])) == TABLE["id"].to_pylist()
    assert _ids(opens(_stream(table.slice(0, 0))[0])) == []


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("batches", [1, 2, 3, 4])
def test_a_stream_that_stops_between_two_batches_is_refused(opens: Opens, batches: int, *, earlier: bool) -> None:
    """The result of an interrupted copy is never accepted as complete, even if only the end mark is missing."""
    payload, ends = _stream(TABLE, earlier=earlier)
    for part in (payload[: ends[batches]], payload[: ends[batches] + 2]):
        with pytest.raises(Invalid, match=r"(has no end mark|cut off).*file=\S*a\.arrow"):
            _ids(opens(part))


def test_a_stream_on_a_disk_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Reading only the schema, as the doctor does, already reports it."""
    payload, ends = _stream(TABLE)
    (tmp_path / "a.arrow").write_bytes(payload[: ends[2]])
    with pytest.raises(Invalid, match=r"has no end mark"):
        open_source("a.arrow", tmp_path).files[0].schema()


def test_a_stream_behind_a_stream_is_refused(opens: Opens) -> None:
    """Two streams in one file are refused, because readers would see only the first one."""
    payload, _ = _stream(TABLE)
    with pytest.raises(Invalid, match=r"more data after the end of the Arrow stream \[file=\S*a\.arrow\]\. Write each"):
        _ids(opens(payload + payload))
