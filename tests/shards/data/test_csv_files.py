"""CSV files in practice: other delimiters, encodings, decimals and line ends, and files that are not CSV."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shards.data.csv_text
import shards.data.remote_files
from shards.csv_form import USUAL_CSV, CsvForm
from shards.data.columns import choose_columns, read_labels
from shards.data.inventory import inventory
from shards.data.prediction_files import feature_batches
from shards.data.readers import Wanted
from shards.data.sources import Source, in_csv_form, open_source, seen_csv_form
from storage.errors import Invalid
from tests.doubles.stores.data_bucket import DataBucket
from tests.shards.people import people, settings, write

WANTED = Wanted(texts=("id", "person", "label"), numbers=("x0",))
TEXTS = Wanted(texts=("a", "b", "c"), numbers=())
HEADER = "id,person,label,x0\n"


@contextmanager
def _small_blocks() -> Iterator[None]:
    """Read files in blocks of a few bytes, so that lines end at all positions of a block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards.data.csv_text, "BLOCK_BYTES", 7)
        yield


def _written(rows: Sequence[Sequence[str]], *, delimiter: str = ",", ends: str = "\r\n", quoting: int = 0) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=ends, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def _read(
    payload: bytes, wanted: Wanted = WANTED, ending: str = ".csv", form: CsvForm = USUAL_CSV
) -> list[list[object]]:
    """Return the rows of a file with these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"a{ending}").write_bytes(payload)
        return _rows(open_source(f"a{ending}", Path(folder), csv=form), wanted)


def _rows(source: Source, wanted: Wanted = WANTED) -> list[list[object]]:
    return [list(row.values()) for batch in source.batches(wanted, 5) for row in batch.columns.to_pylist()]


CELLS = st.text(alphabet="ab\"'\r\n,;|\t é\ufeff0", min_size=1, max_size=9)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=12)


@given(
    rows=ROWS,
    delimiter=st.sampled_from(",;|\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"]),
    ends=st.sampled_from(["\r\n", "\n", "\r"]),
    sparing=st.booleans(),
    ending=st.sampled_from([".csv", ".csv.gz"]),
)
def test_what_pythons_writer_writes_is_read_byte_for_byte(
    rows: list[tuple[str, str, str]], delimiter: str, encoding: str, ends: str, ending: str, *, sparing: bool
) -> None:
    """No character is lost or added, with any text in the cells and any ends of blocks."""
    # Python's writer does not quote line ends of the kind that it does not write itself.
    quoting = csv.QUOTE_MINIMAL if sparing and ends == "\r\n" else csv.QUOTE_ALL
    payload = _written([("a", "b", "c"), *rows], delimiter=delimiter, ends=ends, quoting=quoting).encode(encoding)
    packed = gzip.compress(payload) if ending.endswith("gz") else payload
    with _small_blocks():
        found = _read(packed, TEXTS, ending, CsvForm(delimiter=delimiter, encoding=encoding))
    assert found == [list(row) for row in rows]


@given(st.text(alphabet='a"\r\n,,"b\n', max_size=60))
def test_any_text_is_refused_or_read_as_python_reads_it(text: str) -> None:
    """Any text, even with misplaced quotes, is refused or gives the cells that Python's own reader finds."""
    expected = [row for row in csv.reader(io.StringIO("a,b,c\n" + text, newline="")) if row][1:]
    try:
        with _small_blocks():
            found = _read(("a,b,c\n" + text).encode(), TEXTS)
    except Invalid:
        return
    # An empty cell has no value, a cell of two quotes is an empty text; Python's reader does not distinguish them.
    assert [[cell or "" for cell in row] for row in found] == expected


def test_a_line_end_within_quotes_is_kept_at_a_blocks_end(tmp_path: Path) -> None:
    """A name of two lines is one person, even if a block ends between its CR and LF."""
    line = 'p,"ann\r\nlee",no,1\r\n'
    text = HEADER + line * ((1 << 20) // len(line) + 2)
    for shift in range(len(line)):
        (tmp_path / "a.csv").write_text("x" * shift + text, newline="")
        batches = open_source("a.csv", tmp_path).batches(Wanted(texts=("person",), numbers=()), 1 << 16)
        assert {name for batch in batches for name in batch.column("person").unique().to_pylist()} == {"ann\r\nlee"}


def test_decimals_with_a_comma(tmp_path: Path) -> None:
    """Features and labels are the same numbers as with a decimal point."""
    (tmp_path / "a.csv").write_text("id;person;label;x0;x1\np1;a;1,0;0,5;-1e-1\np2;b;0;1;2,25\n")
    data = settings(train="a.csv", classes=("0", "1"), delimiter=";", decimal=",")
    source = open_source("a.csv", tmp_path, csv=data.csv)
    (batch,) = feature_batches(source, data, 2, labelled=True)
    assert batch.features_NF.tolist() == [[0.5, np.float32(-0.1)], [1.0, 2.25]]
    assert batch.labels_N is not None
    assert batch.labels_N.tolist() == [1, 0]


def test_decimals_in_quotes_between_commas() -> None:
    """The comma may be delimiter and decimal mark at once, if numbers are quoted."""
    payload = b'id,person,label,x0\n1,a,b,"0,5"\n'
    with pytest.raises(Invalid, match=r'set \[data\] decimal = ","'):
        _read(payload)
    assert _read(payload, form=CsvForm(decimal=",")) == [["1", "a", "b", 0.5]]


def test_a_comma_in_a_label_is_not_a_decimal_mark(tmp_path: Path) -> None:
    """The comma in a text that is not a number is never replaced to find a class."""
    (tmp_path / "a.csv").write_text("id;person;label;x0\np1;a;yes,no;1\n")
    (batch,) = open_source("a.csv", tmp_path, csv=CsvForm(delimiter=";", decimal=",")).batches(WANTED, 9)
    with pytest.raises(Invalid, match=r"the label 'yes,no' is not in"):
        read_labels(batch, "label", ("yes.no", "b"), ",")


@pytest.mark.parametrize(
    ("payload", "form", "expected"),
    [
        (b"id;person;label;x0\n1;a;b;2\n", {}, r'single name .* "," *, and 4 names with ";" .*delimiter = ";"'),
        (b"id;person;label;x0\n1;a;b;0,2\n", {}, r'4 names with ";"'),
        (b"id\tperson\tlabel\tx0\n1\ta\tb\t2\n", {}, r'4 names with "\\t" .*Set \[data\] delimiter = "\\t"'),
        (HEADER.encode() + b"1,a,b,2\n", {"delimiter": ";"}, r'4 names with "," .*Set \[data\] delimiter = ","'),
        (b"id;person;label;x0\n1;a;b;0,2\n", {"delimiter": ";"}, r'not a number .*column=x0 row=1\].*decimal = ","'),
        (b"\xef\xbb\xbfsep=;\r\nid;x\r\n1;2\r\n", {}, r'line for Excel \(sep=\).*Remove the first .* delimiter = ";"'),
        (HEADER.encode() + b"1,a,b\n", {}, r"another number of fields than the header.*row=1"),
        (b"id,person,label,x\xf6\n1,a,b,2\n", {}, r'header is not UTF-8 text.*encoding = "cp1252"'),
        (HEADER.encode() + b"1,\xf6,b,2\n", {}, r'cell is not UTF-8 text .*column=person row=1\].*"cp1252"'),
        (HEADER.encode("utf-16"), {}, r'byte order mark of utf-16, .* is utf-8 .*encoding = "utf-16"'),
        (HEADER.encode("utf-32"), {}, r"byte order mark of utf-32"),
        (HEADER.encode("utf-16-le"), {}, r'header has NUL bytes.*encoding = "utf-16-le"'),
        (HEADER.encode("utf-16-be"), {}, r'encoding = "utf-16-be"'),
        (HEADER.encode(), {"encoding": "utf-16"}, r'no byte order mark, .*"utf-16-le" or "utf-16-be"'),
        (HEADER.encode("utf-8-sig"), {"encoding": "cp1252"}, r"byte order mark of utf-8, and .* is cp1252"),
        (HEADER.encode() + b"\x81,a,b,2\n", {"encoding": "cp1252"}, r"not text in the encoding cp1252"),
        (HEADER.encode("utf-16")[:-1], {"encoding": "utf-16"}, r"not text in the encoding utf-16"),
        (gzip.compress(HEADER.encode(), mtime=0), {}, r"no?t CSV text: it is compressed with gzip .*Name it \.csv\.gz"),
        (b"PK\x03\x04\x14\0", {}, r"an Excel workbook \(\.xlsx\).*Save it as CSV"),
        (b"\xd0\xcf\x11\xe0", {}, r"an Excel workbook \(\.xls\)"),
        (b"\x28\xb5\x2f\xfd\0", {}, r"compressed with zstd"),
        (b"BZh91AY&SY", {}, r"compressed with bzip2"),
        (b"PAR1\x15\x04", {}, r"a Parquet file"),
        (b"ARROW1\0\0", {}, r"an Arrow file"),
        (b"\xff\xff\xff\xff\xc8\0\0\0", {}, r"an Arrow file or stream"),
        (b"%PDF-1.7\n", {}, r"a PDF document"),
        (b"<!DOCTYPE html><html>", {}, r"a web page"),
        (HEADER.encode() + b'1,a,b,2\n2,"ann,b,3\n4,c,b,1\n', {}, r"a quote is opened and never closed"),
        (HEADER.encode() + b'1,a,b,2\n2,b,"ann', {}, r"a quote is opened and never closed"),
    ],
)
def test_other_forms_are_refused_by_name(payload: bytes, form: dict[str, str], expected: str) -> None:
    """The error says what the file is and what to do about it, and does not quote its content."""
    with pytest.raises(Invalid, match=expected) as raised:
        _read(payload, form=CsvForm(**form))
    assert "file=a.csv" in str(raised.value)
    assert "ann" not in str(raised.value)


def test_text_that_is_called_compressed_is_named() -> None:
    """A file without a gzip header is distinguished from one that is cut off."""
    with pytest.raises(Invalid, match=r"not compressed with gzip.*file=a\.csv\.gz\]\. Name it \.csv"):
        _read(HEADER.encode(), ending=".csv.gz")


@pytest.mark.parametrize("header", ["PAR1,PAR2,label,x0", "BZh9,person,label,x0"])
def test_a_header_is_not_taken_for_another_format(header: str) -> None:
    """A first column name that looks like the beginning of another format is still a name."""
    wanted = Wanted(texts=(header.partition(",")[0],), numbers=("x0",))
    assert _read(f"{header}\n1,a,b,2\n".encode(), wanted) == [["1", 2.0]]


def test_a_line_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unclosed quote is refused before it fills the memory."""
    monkeypatch.setattr(shards.data.csv_text, "MOST_LINE_BYTES", 3 << 20)
    with pytest.raises(Invalid, match=r"a line is longer than 3 MiB \[file=a\.csv\]\. Close the quote"):
        _read(HEADER.encode() + b'1,"a,b,2\n' + b"2,a,b,2\n" * (1 << 20))


def test_rows_are_counted_over_blocks(tmp_path: Path) -> None:
    """A bad cell far into the file is named by its row, not counting blank lines and lines within quotes."""
    line = 'p,"two\nlines",no,1\n'
    text = HEADER + line * 70_000 + "\n\np,a,no,secret\n"
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(Invalid, match=r"not a number.*file=a\.csv column=x0 row=70001"):
        _rows(open_source("a.csv", tmp_path))


@pytest.mark.parametrize(
    ("payload", "form"),
    [
        (b"id;x;y\n1;0,5;a\n", CsvForm(delimiter=";", decimal=",")),
        (b"id;x;y\n1;0.5;a\n", CsvForm(delimiter=";")),
        (b"id;x;y\n1;0.5;1,2\n", CsvForm(delimiter=";")),
        (b"id\tx\n1\t2\n", CsvForm(delimiter="\t")),
        (b"id|x\n1|2\n", CsvForm(delimiter="|")),
        (b'id;"a, b";y\n1;"2, 3";4\n', CsvForm(delimiter=";")),
        (b'id,x\n1,"0,5"\n', CsvForm(decimal=",")),
        (b'id,x\n1,"1,234"\n2,"9,5"\n', CsvForm(decimal=",")),
        (b'id,x\n1,"1,234"\n2,7\n', CsvForm()),
        ("id;x\n1;0,5\n".encode("utf-16"), CsvForm(delimiter=";", decimal=",", encoding="utf-16")),
        (b"id\n1\n2\n", CsvForm()),
        (b"\x1f\x8b\0\0", CsvForm()),
        (b"id;x\n" + b"1;2\n" * 40_000, CsvForm(delimiter=";")),
        (b"", CsvForm()),
    ],
)
def test_the_form_that_is_seen(tmp_path: Path, payload: bytes, form: CsvForm) -> None:
    """Delimiter, decimal and a marked encoding are recognised from the first lines, compressed or not."""
    for name, content in (("a.csv", payload), ("b.csv.gz", gzip.compress(payload))):
        (tmp_path / name).write_bytes(content or b"\n")
        assert form == seen_csv_form(open_source(name, tmp_path))


def test_the_form_is_seen_behind_other_files(tmp_path: Path) -> None:
    """The first CSV file of a folder decides the form of all CSV files; other files are unaffected."""
    write(people(3), tmp_path / "data" / "a.parquet")
    (tmp_path / "data" / "b.csv").write_text("id;x\n1;0,5\n")
    source = open_source("data", tmp_path)
    assert seen_csv_form(source) == CsvForm(delimiter=";", decimal=",")
    read = in_csv_form(source, seen_csv_form(source))
    assert read.files[0] == source.files[0]
    assert read.files[1].schema().names == ["id", "x"]


def test_a_bucket_is_read_in_the_same_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings hold for files in a bucket, compressed and in pieces."""
    bucket = DataBucket()
    monkeypatch.setattr(shards.data.remote_files, "bucket_files", bucket.opens())
    for name, value in {"HELD_BYTES": 64, "AHEAD_BYTES": 50}.items():
        monkeypatch.setattr(shards.data.remote_files, name, value)
    payload = 'id;person;label;x0\n1;Zoë;ja;0,5\n2;"a\r\nb";ja;1\n'.encode("utf-16")
    bucket.contents |= {"a.csv": payload, "b.csv.gz": gzip.compress(payload)}
    form = CsvForm(delimiter=";", decimal=",", encoding="utf-16")
    for name in bucket.contents:
        source = open_source(f"s3://bucket/{name}", tmp_path, csv=form)
        assert _rows(source) == [["1", "Zoë", "ja", 0.5], ["2", "a\r\nb", "ja", 1.0]]
        assert seen_csv_form(source) == form


def test_the_form_is_part_of_the_inventory_of_csv_alone(tmp_path: Path) -> None:
    """A file in another form has other data points and is read again; the usual form does not change the digest."""
    write(people(3), tmp_path / "a.parquet")
    write(people(3), tmp_path / "b.csv")
    usual = inventory(open_source("*.*", tmp_path))
    other = inventory(open_source("*.*", tmp_path, csv=CsvForm(encoding="cp1252")))
    assert usual == inventory(open_source("*.*", tmp_path, csv=CsvForm()))
    assert usual[0] == other[0]
    assert usual[1] != other[1]
    assert (usual[1].name, usual[1].payload_bytes) == (other[1].name, other[1].payload_bytes)


def test_columns_are_chosen_in_the_declared_form(tmp_path: Path) -> None:
    """The checks before reading see the same columns."""
    (tmp_path / "a.csv").write_text("id;person;label;x0;x1\np1;a;no;1;2\n")
    data = settings(train="a.csv", delimiter=";")
    assert choose_columns(open_source("a.csv", tmp_path, csv=data.csv), data).features == ("x0", "x1")
