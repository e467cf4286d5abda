"""Folders of table formats are refused on every path to their files; files that a folder skips are named."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

import shards.data.remote_files
from shards.data.sources import Source, open_source, passed_over_text
from storage.errors import Invalid, Unavailable
from storage.s3.requests import Failure
from storage.s3.responses import S3Answer
from tests.doubles.stores.data_bucket import DataBucket
from tests.shards.people import people, write

LOGS = {
    "Delta": "tables/t/_delta_log/00000000000000000000.json",
    "Iceberg": "tables/t/metadata/00000-4a.metadata.json",
    "Hudi": "tables/t/.hoodie/hoodie.properties",
}
FILE = "tables/t/day=1/part-0.parquet"
WAYS = ("tables", "tables/t", "tables/t/day=1", FILE, "tables/t/*/*.parquet", "tables/**/*.parquet", "tables/t/day=1/*")

Opens = Callable[[str], Source]


@pytest.fixture(params=["disk", "bucket"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Callable[[str, bytes], object], Opens]:
    """Returns a function that writes a file, and one that opens a source."""
    bucket = DataBucket()
    monkeypatch.setattr(shards.data.remote_files, "bucket_files", bucket.opens())

    def on_disk(name: str, payload: bytes) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(payload)

    if request.param == "disk":
        return on_disk, lambda location: open_source(location, tmp_path)
    return bucket.contents.__setitem__, lambda location: open_source(f"s3://bucket/{location}", tmp_path)


@pytest.fixture
def parquet(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A data file."""
    return write(people(3), tmp_path_factory.mktemp("file") / "a.parquet").read_bytes()


@pytest.mark.parametrize(
    ("format_name", "way"), [each for each in product(LOGS, WAYS) if each != ("Delta", "tables/t")]
)
def test_a_table_is_refused_by_its_format(
    place: tuple[Callable[[str, bytes], object], Opens], parquet: bytes, format_name: str, way: str
) -> None:
    """Files of a table are refused, because they may contain rows that the table has deleted."""
    put, opens = place
    put(FILE, parquet)
    put("tables/other/a.parquet", parquet)
    assert opens(way).files
    put(LOGS[format_name], b"{}")
    with pytest.raises(Invalid, match=rf"belong to an? {format_name} table.*table=\S*tables/t\]\. Export the table's"):
        opens(way)
    assert opens("tables/other").files


def test_a_delta_table_without_a_log_to_read_is_refused(tmp_path: Path, parquet: bytes) -> None:
    """The root alone names a table on disk that may be read (``test_delta``), by its log."""
    pytest.importorskip("deltalake")
    for name, payload in ((FILE, parquet), (LOGS["Delta"], b"{}")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(payload)
    with pytest.raises(Invalid, match=r"the current version of the Delta table cannot be read .*table=\S*tables/t\]"):
        open_source("tables/t", tmp_path)


def test_a_delta_table_in_a_bucket_is_refused(monkeypatch: pytest.MonkeyPatch, parquet: bytes) -> None:
    """It has to be exported first."""
    bucket = DataBucket()
    monkeypatch.setattr(shards.data.remote_files, "bucket_files", bucket.opens())
    bucket.contents.update({FILE: parquet, LOGS["Delta"]: b"{}"})
    with pytest.raises(Invalid, match=r"belong to a Delta table.*table=\S*tables/t\]\. Export the table's"):
        open_source("s3://bucket/tables/t", Path())
    with pytest.raises(Invalid, match=r"\[data\] version is that of a Delta table, .* on this machine .*Leave it out"):
        open_source("s3://bucket/tables/t", Path(), version=0)


def test_other_folders_called_metadata_are_not_tables(
    place: tuple[Callable[[str, bytes], object], Opens], parquet: bytes
) -> None:
    """A folder called metadata belongs to a table only if it contains a table's log."""
    put, opens = place
    put("data/a.parquet", parquet)
    put("data/metadata/columns.json", b"{}")
    put("metadata/notes.txt", b"-")
    assert [Path(file.name).name for file in opens("data").files] == ["a.parquet"]


def test_a_link_into_a_table_is_refused(tmp_path: Path, parquet: bytes) -> None:
    """A symbolic link to a table's files does not hide the table."""
    for name, payload in ((FILE, parquet), (LOGS["Delta"], b"{}")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(payload)
    (tmp_path / "link.parquet").symlink_to(tmp_path / FILE)
    with pytest.raises(Invalid, match="belong to a Delta table"):
        open_source("link.parquet", tmp_path)


def test_an_account_that_may_list_only_the_data_can_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parquet: bytes
) -> None:
    """An account that may not list the folders above can still read its data."""

    class Narrow(DataBucket):
        def ask(self, operation: str, *, once: bool = False, **wanted: str) -> S3Answer | Failure:
            if operation == "list_objects_v2" and not wanted["Prefix"].startswith("data/mine/"):
                return Failure(error=Unavailable("not yours"), outcome=None, code="AccessDenied", status=403)
            return super().ask(operation, once=once, **wanted)

    bucket = Narrow(contents={"data/mine/a.parquet": parquet})
    monkeypatch.setattr(shards.data.remote_files, "bucket_files", bucket.opens())
    for location in ("s3://bucket/data/mine/", "s3://bucket/data/mine/a.parquet", "s3://bucket/data/mine/*.parquet"):
        assert len(open_source(location, tmp_path).files) == 1


def test_files_that_a_folder_skips_are_named(
    place: tuple[Callable[[str, bytes], object], Opens], parquet: bytes
) -> None:
    """Other formats and hidden data files are named, but not the files that systems and programs leave behind."""
    put, opens = place
    for name in ("a.parquet", "1/b.xlsx", "_c.parquet", ".d.csv", "notes.txt", "e.csv.zip"):
        put(f"data/{name}", parquet)
    for name in ("_SUCCESS", ".DS_Store", ".part-0.crc", "1/._b.xlsx"):
        put(f"data/{name}", b"-")
    source = opens("data")
    assert source.passed_over == (".d.csv", "1/b.xlsx", "_c.parquet", "e.csv.zip", "notes.txt")
    text = passed_over_text(source)
    assert "not read in" in text
    assert "'1/b.xlsx'" in text
    assert opens("data/a.parquet").passed_over == ()
    assert passed_over_text(opens("data/*.parquet")) == ""


def test_many_files_that_are_passed_over_are_counted(tmp_path: Path, parquet: bytes) -> None:
    """Ten are named and the rest is counted, without the store's own files."""
    (tmp_path / "a.parquet").write_bytes(parquet)
    (tmp_path / "store").mkdir()
    for number in range(25):
        (tmp_path / f"{number:02d}.json").write_text("{}")
        (tmp_path / "store" / f"{number:02d}.json").write_text("{}")
    source = open_source(".", tmp_path, leave_out=(tmp_path / "store",))
    assert len(source.passed_over) == 25
    assert "'09.json' and 15 more" in passed_over_text(source)
