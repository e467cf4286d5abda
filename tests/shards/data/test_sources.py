"""Finding and streaming users' files."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.data.inventory import inventory
from shards.data.readers import Wanted
from shards.data.sources import Batch, Source, open_source, table_source
from storage.errors import Invalid
from tests.shards.people import people, write

WANTED = Wanted(texts=("id", "person", "label"), numbers=("x0", "x1", "x2", "x3"))
ENDINGS = (".parquet", ".pq", ".feather", ".arrow", ".ipc", ".csv", ".csv.gz")


def _ids(source: Source, points: int = 5) -> list[str]:
    return [text for batch in source.batches(WANTED, points) for text in batch.column("id").to_pylist()]


def _names(source: Source) -> list[str]:
    return [file.name for file in source.files]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_streams_the_same_points(tmp_path: Path, ending: str) -> None:
    """All formats give all points in the file's order, in batches no larger than requested, with row numbers."""
    table = people(40)
    source = open_source(f"people{ending}", write(table, tmp_path / f"people{ending}").parent)
    batches = list(source.batches(WANTED, 6))
    assert table["id"].to_pylist() == [text for batch in batches for text in batch.column("id").to_pylist()]
    assert table["x3"].to_pylist() == [int(value) for batch in batches for value in batch.column("x3").to_pylist()]
    assert max(batch.columns.num_rows for batch in batches) <= 6
    assert [batch.first for batch in batches] == _first_rows(batches)
    assert {batch.file for batch in batches} == {f"people{ending}"}


def _first_rows(batches: list[Batch]) -> list[int]:
    return [1 + sum(batch.columns.num_rows for batch in batches[:position]) for position in range(len(batches))]


@given(st.integers(1, 50), st.integers(0, 30))
def test_a_table_is_cut_whatever_the_sizes(points: int, total: int) -> None:
    """Batches of any size put together give the table again."""
    table = people(total)
    assert table["id"].to_pylist() == _ids(table_source(table), points)


def test_a_table_in_memory_is_known_by_its_content() -> None:
    """Equal for equal tables, however they are chunked and regardless of pandas' notes in them; different otherwise."""
    table = people(5)
    entries = inventory(table_source(table))
    chunked = pa.concat_tables([table.slice(0, 2), table.slice(2)]).replace_schema_metadata({"pandas": "{}"})
    assert inventory(table_source(chunked)) == entries
    for other in (
        people(4),
        table.rename_columns([name.upper() for name in table.column_names]),
        table.take(list(range(5))[::-1]),
    ):
        assert inventory(table_source(other)) != entries


def test_a_folder_is_read_recursively_and_sorted(tmp_path: Path) -> None:
    """All known files in and below the folder are read, sorted; hidden, side and other files are not."""
    for name in ("b.parquet", "a/z.parquet", "a/y.csv", ".hidden.parquet", "_metadata.parquet", ".tmp/c.parquet"):
        write(people(3), tmp_path / "data" / name)
    (tmp_path / "data" / "notes.txt").write_text("nothing")
    source = open_source("data", tmp_path)
    assert _names(source) == ["data/a/y.csv", "data/a/z.parquet", "data/b.parquet"]


def test_a_glob_is_read_sorted(tmp_path: Path) -> None:
    """A glob stands for its matches, at any depth with two stars, relative or absolute."""
    for name in ("2/part.parquet", "1/part.parquet", "1/other.csv"):
        write(people(3), tmp_path / name)
    assert _names(open_source("*/*.parquet", tmp_path)) == ["1/part.parquet", "2/part.parquet"]
    assert _names(open_source("**/*.csv", tmp_path)) == ["1/other.csv"]
    assert _names(open_source(str(tmp_path / "1" / "*"), tmp_path)) == ["1/other.csv", "1/part.parquet"]


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?"])
def test_the_base_may_have_any_name(tmp_path: Path, name: str) -> None:
    """A glob starts from a folder whose own name looks like one."""
    for folder in (name, "a1"):
        write(people(3), tmp_path / folder / "part.parquet")
    assert _names(open_source("*.parquet", tmp_path / name)) == ["part.parquet"]


@pytest.mark.parametrize("location", [".", "../here", "**/*.parquet", "*/*.parquet", "linked"])
def test_folders_to_be_left_out_are_skipped(tmp_path: Path, location: str) -> None:
    """Folders and globs skip the folders to be left out, however the path is written."""
    here = tmp_path / "here"
    for name in ("data/a.parquet", "store/shards/b.parquet", "keys/c.parquet"):
        write(people(3), here / name)
    (here / "linked").mkdir()
    (here / "linked" / "b.parquet").symlink_to(here / "store" / "shards" / "b.parquet")
    write(people(3), here / "linked" / "d.parquet")
    left_out = (here / "data" / ".." / "store", here / "keys")
    found = {path.name for file in open_source(location, here, leave_out=left_out).files if (path := file.path)}
    assert found == ({"d.parquet"} if location == "linked" else {"a.parquet", "d.parquet"})


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("store/b.parquet", r"a store's own files are not data: store/b\.parquet\. Name data outside"),
        ("data/../store", r"a store's own files are not data"),
        ("link.parquet", r"a store's own files are not data"),
        ("store/*.parquet", r"no file matches: store/\*\.parquet"),
    ],
)
def test_what_is_left_out_cannot_be_named(tmp_path: Path, location: str, expected: str) -> None:
    """A file or folder that is left out is refused when it is named."""
    write(people(3), tmp_path / "store" / "b.parquet")
    (tmp_path / "data").mkdir()
    (tmp_path / "link.parquet").symlink_to(tmp_path / "store" / "b.parquet")
    with pytest.raises(Invalid, match=expected):
        open_source(location, tmp_path, leave_out=(tmp_path / "store",))


def test_a_file_outside_the_base_is_named_by_its_path(tmp_path: Path) -> None:
    """A file outside the base keeps its absolute name."""
    path = write(people(3), tmp_path / "elsewhere" / "a.parquet")
    assert _names(open_source(str(path), tmp_path / "base")) == [path.as_posix()]


def test_csv_cells_are_taken_literally(tmp_path: Path) -> None:
    """Ids keep leading zeros, words such as NA and null are names, quoted cells may span lines."""
    path = tmp_path / "a.csv"
    path.write_text('id,person,label,x0,x1,x2,x3\n007,NA,null,1,2,3,4\n1e5,"two\nlines",true,1,2,3,4.5\n')
    (batch,) = open_source("a.csv", path.parent).batches(WANTED, 9)
    assert batch.column("id").to_pylist() == ["007", "1e5"]
    assert batch.column("person").to_pylist() == ["NA", "two\nlines"]
    assert batch.column("label").to_pylist() == ["null", "true"]
    assert batch.column("x3").to_pylist() == [4.0, 4.5]


def test_truth_values_in_csv_are_numbers(tmp_path: Path) -> None:
    """A feature column of True and False, in any spelling, gives the same values as a bool column."""
    path = tmp_path / "a.csv"
    path.write_text("id,person,label,x0,x1,x2,x3\n1,a,b,True,false,TRUE,0\n2,a,b,False,1,FALSE,1\n")
    (batch,) = open_source("a.csv", path.parent).batches(WANTED, 9)
    assert [batch.column(name).to_pylist() for name in WANTED.numbers] == [
        [True, False],
        [False, True],
        [True, False],
        [0.0, 1.0],
    ]


def test_wide_csv_lines_fit(tmp_path: Path) -> None:
    """A line longer than a block is read."""
    names = [f"x{position}" for position in range(10_000)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([",".join(["id", *names]), ",".join(["1", *["0." + "1" * 120] * len(names)])]) + "\n")
    (batch,) = open_source("a.csv", tmp_path).batches(Wanted(texts=("id",), numbers=tuple(names)), 9)
    assert batch.columns.num_columns == 10_001


def test_inventory_names_size_and_digest(tmp_path: Path) -> None:
    """The inventory has each file's name, size and SHA-256."""
    path = write(people(3), tmp_path / "a.parquet")
    (entry,) = inventory(open_source("a.parquet", tmp_path))
    payload = path.read_bytes()
    assert ("a.parquet", len(payload)) == (entry.name, entry.payload_bytes)
    assert hashlib.sha256(payload).hexdigest() == entry.sha256


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("none.parquet", r"there is no such file or folder: none\.parquet.*Set \[data\] train"),
        ("*.pq", r"no file matches: \*\.pq"),
        ("empty", r"the folder holds no data file: empty"),
        ("notes.txt", r"ending is not a known format \[file=notes\.txt\]\. Use one of the known formats: \.parquet"),
        ("zero.parquet", r"the file is empty \(0 bytes\) \[file=zero\.parquet\]"),
        ("gs://bucket/key", r"gs:// is not supported for data.*local folder"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path: Path, location: str, expected: str) -> None:
    """For a location without data, the error says why and what to do."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "zero.parquet").touch()
    with pytest.raises(Invalid, match=expected):
        open_source(location, tmp_path)


@pytest.mark.parametrize("ending", [".parquet", ".feather", ".csv.gz"])
def test_truncated_files_are_named(tmp_path: Path, ending: str) -> None:
    """A file that is cut off is refused by name, never silently read in part."""
    path = write(people(4000), tmp_path / f"a{ending}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Invalid, match=rf"(cut off|cannot be parsed).*file=a\{ending}"):
        _ids(open_source(f"a{ending}", tmp_path))


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    """A Parquet file with an intact footer and broken pages is refused by name."""
    path = tmp_path / "a.parquet"
    pq.write_table(people(4000), path, compression="zstd")
    payload = bytearray(path.read_bytes())
    payload[100 : len(payload) // 2] = os.urandom(len(payload) // 2 - 100)
    path.write_bytes(payload)
    with pytest.raises(Invalid, match=r"the file is (damaged|cut off).*file=a\.parquet"):
        _ids(open_source("a.parquet", tmp_path))


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".feather", ".csv.gz"])
def test_a_file_that_is_not_what_its_ending_says(tmp_path: Path, ending: str) -> None:
    """Text under another format's name is refused by name."""
    (tmp_path / f"a{ending}").write_text("id,person\nsecret,cell\n")
    with pytest.raises(Invalid, match=rf"file=a\{ending}") as raised:
        _ids(open_source(f"a{ending}", tmp_path))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("p1,a,no,1,2,3,4\np2,b,no,1,secret,3,4\n", r"not a number.*file=a\.csv column=x1 row=2"),
        ("p1,a,no,1,2,3,4\np2,b,no,1,2,3\n", r"another number of fields.*file=a\.csv row=2"),
        ("p1,a,no,1,2,3,4\n" * 70_000 + "p2,b,no,1,2,3,secret\n", r"file=a\.csv column=x3 row=70001"),
    ],
)
def test_bad_csv_lines_are_located_but_not_quoted(tmp_path: Path, lines: str, expected: str) -> None:
    """A bad cell or line is named by file, column and row; its content is not in the error."""
    (tmp_path / "a.csv").write_text("id,person,label,x0,x1,x2,x3\n" + lines)
    with pytest.raises(Invalid, match=expected) as raised:
        _ids(open_source("a.csv", tmp_path))
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_csv_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    """A cell in another encoding is located."""
    (tmp_path / "a.csv").write_bytes(b"id,person,label,x0,x1,x2,x3\np\xe9,a,no,1,2,3,4\n")
    with pytest.raises(Invalid, match=r"not UTF-8 text.*file=a\.csv column=id row=1"):
        _ids(open_source("a.csv", tmp_path))


@pytest.mark.parametrize("text", ["\n", "id,person,label,x0,x1,x2,x3"])
def test_csv_without_header_line_or_end(tmp_path: Path, text: str) -> None:
    """A CSV file without a single complete line is refused by name."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(Invalid, match=r"cannot be parsed.*file=a\.csv\.gz"):
        _ids(open_source("a.csv.gz", tmp_path))


def test_a_csv_file_with_only_a_header_has_no_points(tmp_path: Path) -> None:
    """A file with only a header has no data points."""
    (tmp_path / "a.csv").write_text("id,person,label,x0,x1,x2,x3\n")
    assert _ids(open_source("a.csv", tmp_path)) == []


def test_dictionaries_and_views_read_as_plain_text(tmp_path: Path) -> None:
    """Dictionary-encoded, large and view strings are returned as plain strings."""
    table = people(6)
    plain = table["id"].to_pylist()
    for kind in (pa.dictionary(pa.int8(), pa.string()), pa.large_string(), pa.string_view()):
        changed = table.set_column(0, "id", table["id"].cast(pa.string()).combine_chunks().cast(kind))
        source = open_source("a.feather", write(changed, tmp_path / "a.feather").parent)
        assert _ids(source) == plain
