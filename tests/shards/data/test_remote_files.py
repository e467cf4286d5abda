"""Data files in a bucket: found and read like files on a disk."""

from __future__ import annotations

import io
from glob import glob
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shards.data.remote_files
from shards.data.inventory import inventory
from shards.data.readers import ENDINGS, Wanted
from shards.data.remote_files import RemoteBytes, find_remote
from shards.data.sources import Batch, Source, open_source
from storage.errors import Conflict, Invalid, Unavailable
from tests.doubles.stores.data_bucket import DataBucket
from tests.shards.people import people, write

WANTED = Wanted(texts=("id", "person", "label"), numbers=("x0", "x1", "x2", "x3"))
SMALL = {"HELD_BYTES": 64, "AHEAD_BYTES": 50}
"""So little is held in memory that every file is read in pieces."""
NAMES = ("a.csv", "data/a.csv", "data/b.parquet", "data/.c.csv", "data/1/d.csv", "data/1/2/e.csv", "data-more/f.csv")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> DataBucket:
    """Returns the bucket behind ``s3://bucket/…``."""
    bucket = DataBucket()
    monkeypatch.setattr(shards.data.remote_files, "bucket_files", bucket.opens())
    return bucket


@pytest.fixture(params=["whole", "in pieces"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether files are held whole or read in pieces."""
    if request.param == "in pieces":
        for name, value in SMALL.items():
            monkeypatch.setattr(shards.data.remote_files, name, value)
    return str(request.param)


def _read(source: Source, points: int = 6) -> list[Batch]:
    return list(source.batches(WANTED, points))


def _columns(batches: list[Batch]) -> dict[str, list[object]]:
    return {name: [value for batch in batches for value in batch.column(name).to_pylist()] for name in WANTED.names}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_reads_as_from_a_disk(ending: str, sizes: str, bucket: DataBucket, tmp_path: Path) -> None:
    """A file in a bucket gives the same columns as on a disk, in batches no larger than requested."""
    name = f"people{ending}"
    bucket.contents[f"far/{name}"] = write(people(40), tmp_path / name).read_bytes()
    far, near = open_source(f"s3://bucket/far/{name}", tmp_path), open_source(name, tmp_path)
    found = _read(far)
    assert _columns(_read(near)) == _columns(found)
    assert max(batch.columns.num_rows for batch in found) <= 6
    assert [batch.first for batch in found] == [
        1 + sum(b.columns.num_rows for b in found[:i]) for i in range(len(found))
    ]
    assert {batch.file for batch in found} == {f"s3://bucket/far/{name}"}
    assert near.files[0].schema() == far.files[0].schema()


def test_lists_and_few_of_many_columns_are_read(sizes: str, bucket: DataBucket, tmp_path: Path) -> None:
    """Only the wanted columns of a Parquet file with many columns are read, including a list column."""
    lists = pa.array([[n, n + 1, n + 2] for n in range(40)], pa.list_(pa.int32(), 3))
    table = people(40).append_column("emb", lists).append_column("embers", lists)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=16)
    bucket.contents["a.parquet"] = (tmp_path / "a.parquet").read_bytes()
    wanted = Wanted(texts=("id",), numbers=("emb",))
    batches = open_source("s3://bucket/a.parquet", tmp_path).batches(wanted, 9)
    assert [value for batch in batches for value in batch.column("emb").to_pylist()] == lists.to_pylist()


def test_a_small_file_is_fetched_once(bucket: DataBucket, tmp_path: Path) -> None:
    """A file that fits into memory is fetched in one request, so that the server's checksum covers it."""
    payload = write(people(400), tmp_path / "a.parquet").read_bytes()
    bucket.contents["a.parquet"] = payload
    source = open_source("s3://bucket/a.parquet", tmp_path)
    bucket.asked.clear()
    _read(source)
    assert bucket.asked == [("get_object", len(payload))]


def test_a_row_group_is_fetched_at_once(bucket: DataBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file too large to hold, a row group's chunks are fetched in one request, and only for wanted columns."""
    pq.write_table(people(4000), tmp_path / "a.parquet", row_group_size=1000, compression="none")
    payload = (tmp_path / "a.parquet").read_bytes()
    monkeypatch.setattr(shards.data.remote_files, "HELD_BYTES", len(payload) // 2)
    bucket.contents["a.parquet"] = payload
    source = open_source("s3://bucket/a.parquet", tmp_path)
    bucket.asked.clear()
    assert sum(batch.columns.num_rows for batch in source.batches(Wanted(texts=("id",), numbers=()), 300)) == 4000
    sizes = [size for _, size in bucket.asked]
    assert len(sizes) <= 7  # the end of the file, and four row groups
    assert sum(sizes[-4:]) < len(payload) // 2


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.csv", "*/*.csv", "data/*", "data/**", "**/*.csv", "data/**/*.csv", "data/?.csv", "data/[ab].*", "data/.*"],
)
def test_globs_match_as_on_a_disk(pattern: str, bucket: DataBucket, tmp_path: Path) -> None:
    """A glob matches the same names in a bucket as on a disk."""
    for name in NAMES:
        bucket.contents[name] = b"x"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = map(Path, glob(f"{tmp_path}/{pattern}", recursive=True))  # noqa: PTH207  Path.glob finds hidden names
    near = sorted(path.relative_to(tmp_path).as_posix() for path in found if path.is_file())
    far = find_remote(f"s3://bucket/{pattern}", None, _anything)
    assert near == [each.file.name for each in (far.files if far else ())]


def _anything(path: PurePosixPath) -> bool:
    return True


@pytest.mark.parametrize("location", ["data", "data/", ""])
def test_a_folder_stands_for_the_data_below_it(location: str, bucket: DataBucket, tmp_path: Path) -> None:
    """A folder's files with known endings are found, but not hidden ones or a console's folder objects."""
    names = ("data/b.csv", "data/1/a.csv", "data/.hidden/c.csv", "data/_d.csv", "data/notes.txt", "data/", "data/1/")
    bucket.contents |= dict.fromkeys(names, b"id\n1\n")
    found = [file.name for file in open_source(f"s3://bucket/{location}", tmp_path).files]
    assert found == ["s3://bucket/data/1/a.csv", "s3://bucket/data/b.csv"]


def test_a_name_comes_before_a_glob(bucket: DataBucket, tmp_path: Path) -> None:
    """A name that looks like a glob stands for the file with that name, if there is one."""
    bucket.contents |= {"a[1].csv": b"id\n1\n", "a1.csv": b"id\n2\n"}
    assert [file.name for file in open_source("s3://bucket/a[1].csv", tmp_path).files] == ["s3://bucket/a[1].csv"]


def test_the_stores_own_files_are_not_data(bucket: DataBucket, tmp_path: Path) -> None:
    """Folders and globs skip addresses to be left out, compared by whole name segments."""
    bucket.contents |= dict.fromkeys(("mine/a.csv", "mine/store/b.csv", "mine/store-room/c.csv"), b"id\n1\n")
    for location in ("s3://bucket/mine", "s3://bucket/**/*.csv"):
        found = open_source(location, tmp_path, leave_out=["s3://bucket/mine/store", tmp_path])
        assert [file.name for file in found.files] == ["s3://bucket/mine/a.csv", "s3://bucket/mine/store-room/c.csv"]
    for location in ("s3://bucket/mine/store", "s3://bucket/mine/store/b.csv"):
        with pytest.raises(Invalid, match=f"a store's own files are not data: {location}"):
            open_source(location, tmp_path, leave_out=["s3://bucket/mine/store"])


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://bucket/none.parquet", r"there is no such file or folder: s3://bucket/none\.parquet.*Set \[data\] train"),
        ("s3://bucket/data/*.pq", r"no file matches: s3://bucket/data/\*\.pq"),
        ("s3://bucket/notes", r"the folder holds no data file: s3://bucket/notes"),
        ("s3://bucket/notes/a.txt", r"ending is not a known format \[file=s3://bucket/notes/a\.txt\]"),
        ("s3://bucket/data/zero.csv", r"the file is empty \(0 bytes\) \[file=s3://bucket/data/zero\.csv\]"),
        (
            "s3:/bucket/a.csv",
            r"data on S3 are named by bucket and name \[data=s3:/bucket/a\.csv\]\. Write 's3://bucket",
        ),
        ("s3:///a.csv", r"data on S3 are named by bucket and name"),
    ],
)
def test_what_cannot_be_opened_is_named(location: str, expected: str, bucket: DataBucket, tmp_path: Path) -> None:
    """For an address without data, the error says why and what to do."""
    bucket.contents |= {"notes/a.txt": b"nothing", "data/zero.csv": b""}
    with pytest.raises(Invalid, match=expected):
        open_source(location, tmp_path)


def test_a_bucket_has_a_bucket_s_name(tmp_path: Path) -> None:
    """An impossible bucket name is refused before any request."""
    with pytest.raises(Invalid, match=r"a bucket's name has .*\[bucket='My_Bucket'\]"):
        open_source("s3://My_Bucket/a.csv", tmp_path)


def test_the_inventory_changes_with_the_content(bucket: DataBucket, tmp_path: Path) -> None:
    """The inventory changes if and only if the content changes, and no file is read for it."""
    bucket.contents["a.csv"] = b"id\n1\n"
    before = inventory(open_source("s3://bucket/a.csv", tmp_path))
    assert inventory(open_source("s3://bucket/a.csv", tmp_path)) == before
    bucket.contents["a.csv"] = b"id\n2\n"
    assert inventory(open_source("s3://bucket/a.csv", tmp_path)) != before
    assert [(each.name, each.payload_bytes) for each in before] == [("s3://bucket/a.csv", 5)]
    assert {operation for operation, _ in bucket.asked} == {"list_objects_v2"}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    change: str, ending: str, sizes: str, bucket: DataBucket, tmp_path: Path
) -> None:
    """A file that is replaced or deleted while it is read raises an error, so that contents are never mixed."""
    bucket.contents["a" + ending] = write(people(40), tmp_path / f"a{ending}").read_bytes()
    source = open_source(f"s3://bucket/a{ending}", tmp_path)
    del bucket.contents["a" + ending]
    if change == "replaced":
        bucket.contents["a" + ending] = write(people(41), tmp_path / f"b{ending}").read_bytes()
    with pytest.raises(Conflict, match=r"the file was replaced or deleted while it was read.*run the command again"):
        _read(source)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_incomplete_body_is_requested_again(
    ending: str, bucket: DataBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two incomplete answers are retried; if all are incomplete, an error is raised, not an end of file."""
    monkeypatch.setattr("storage.s3.files.pause", lambda _: None)
    bucket.contents["a" + ending] = write(people(40), tmp_path / f"a{ending}").read_bytes()
    source = open_source(f"s3://bucket/a{ending}", tmp_path)
    bucket.broken = 2
    assert len(_columns(_read(source))["id"]) == 40
    bucket.broken = 1_000
    with pytest.raises(Unavailable, match=r"the file's bytes do not arrive whole.*Try again later"):
        _read(source)


@pytest.mark.parametrize("ending", [".parquet", ".feather", ".csv.gz"])
def test_truncated_files_are_named(ending: str, sizes: str, bucket: DataBucket, tmp_path: Path) -> None:
    """A file that is cut off is refused by name, never silently read in part."""
    payload = write(people(4000), tmp_path / f"a{ending}").read_bytes()
    bucket.contents["a" + ending] = payload[: len(payload) // 2]
    with pytest.raises(Invalid, match=rf"(cut off|cannot be parsed).*file=s3://bucket/a\{ending}"):
        _read(open_source(f"s3://bucket/a{ending}", tmp_path))


@given(
    st.binary(min_size=1, max_size=200),
    st.lists(st.tuples(st.integers(0, 220), st.integers(0, 60), st.booleans()), max_size=20),
)
def test_bytes_are_those_of_the_file(payload: bytes, reads: list[tuple[int, int, bool]]) -> None:
    """Each read returns the file's bytes at that position, with any part held in memory and any order of reads."""
    bucket = DataBucket({"a": payload})
    found = bucket.files.find("a")
    assert found is not None
    remote, local = RemoteBytes(bucket.files, found), io.BytesIO(payload)
    for start, length, held in reads:
        if held and start < len(payload):
            assert remote.hold(start, min(start + length + 1, len(payload)))
        assert local.seek(start) == remote.seek(start)
        assert local.read(length) == remote.read(length)
        assert local.tell() == remote.tell()
    assert remote.seek(-1, io.SEEK_END) == len(payload) - 1
    assert remote.read() == payload[-1:]
    assert (remote.readable(), remote.seekable(), remote.writable()) == (True, True, False)
