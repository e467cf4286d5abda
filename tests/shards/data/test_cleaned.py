"""Copies without some rows: in every format, the other rows are unchanged and nothing is left of the dropped ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.csv_form import CsvForm
from shards.data.cleaned import copy_without
from shards.data.readers import Wanted
from shards.data.sources import DataFile, in_csv_form, open_source
from storage.errors import Conflict, Invalid
from tests.shards.people import people, write

GONE = [3, 4, 17]


def opened(path: Path) -> DataFile:
    """Return the file as a ``DataFile``."""
    return open_source(path.name, path.parent).files[0]


def rows(path: Path) -> list[dict[str, object]]:
    """Return all rows of a file."""
    reader, names = opened(path).reader, tuple(opened(path).schema().names)
    return [row for batch in reader.batches(Wanted(texts=names, numbers=()), 7) for row in batch.to_pylist()]


@pytest.mark.parametrize("ending", ["parquet", "pq", "arrow", "ipc", "feather", "csv", "csv.gz"])
def test_the_other_rows_stay_in_every_format(tmp_path: Path, ending: str) -> None:
    """A copy has the file's format, columns and types, and all rows except the dropped ones."""
    table = people(40).append_column("city", pa.array(["a", "b", None, "c"] * 10).dictionary_encode())
    path, target = write(table, tmp_path / f"people.{ending}"), tmp_path / "clean" / f"people.{ending}"
    target.parent.mkdir()
    copy_without(opened(path), GONE, target, "id")
    assert rows(target) == [row for number, row in enumerate(rows(path), start=1) if number not in GONE]
    assert opened(target).schema().equals(opened(path).schema())
    assert [each.name for each in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("ending", ["parquet", "arrow", "ipc"])
def test_a_dictionary_keeps_no_dropped_value(tmp_path: Path, ending: str) -> None:
    """In a column with a dictionary, no value of a dropped row is left in the file."""
    names = pa.array([f"person-{number}-is-here" for number in range(30)]).dictionary_encode()
    table = pa.table({"id": list(range(30)), "person": names})
    path, target = write(table, tmp_path / f"d.{ending}"), tmp_path / f"c.{ending}"
    copy_without(opened(path), [8], target, "id")
    assert "person-7-is-here" in dictionary(path)
    assert dictionary(target) == dictionary(path) - {"person-7-is-here"}
    assert b"person-7-is-here" not in target.read_bytes()


def dictionary(path: Path) -> set[str]:
    """Return the values in the dictionary of the file's person column, including those no row uses."""
    batches = opened(path).reader.batches(Wanted(texts=("person",), numbers=()), 1000)
    return {name for batch in batches for name in batch.column(0).dictionary.to_pylist()}


def test_lines_of_a_csv_file_are_copied_byte_for_byte(tmp_path: Path) -> None:
    """Quotes, both kinds of line ends, blank lines and multi-line values are unchanged."""
    lines = [
        b"\xef\xbb\xbfid,note\r\n",
        b"1,plain\r\n",
        b'2,"a ""quoted"" word, and\nanother line"\r\n',
        b"\n",
        b'3,5" pipe\n',
        b'4,"gone,\r\nwith it"\n',
        b'"5","last"',
    ]
    path, target = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_bytes(b"".join(lines))
    copy_without(opened(path), [4], target, "id")
    assert target.read_bytes() == b"".join([*lines[:5], lines[6]])


cell = st.text(st.sampled_from('ab",;\n'), max_size=6)


@settings(deadline=None)
@given(st.lists(cell, min_size=1, max_size=12), st.data())
def test_any_quoted_text_is_cut_at_its_records(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str], data: st.DataObject
) -> None:
    """With any text in quotes, the remaining records are exactly those of the other rows."""
    folder = tmp_path_factory.mktemp("cut")
    records = [f'{number},"{text.replace(chr(34), chr(34) * 2)}"\n' for number, text in enumerate(cells, start=1)]
    gone = data.draw(st.sets(st.integers(1, len(cells))))
    (folder / "a.csv").write_text("".join(["id,text\n", *records]), encoding="utf-8")
    copy_without(opened(folder / "a.csv"), sorted(gone), folder / "b.csv", "id")
    kept = [record for number, record in enumerate(records, start=1) if number not in gone]
    assert (folder / "b.csv").read_text(encoding="utf-8") == "".join(["id,text\n", *kept])


@pytest.mark.parametrize(
    "form",
    [
        CsvForm(delimiter=";", decimal=","),
        CsvForm(delimiter="\t", encoding="cp1252"),
        CsvForm(encoding="utf-16"),
        CsvForm(delimiter=";", encoding="utf-16-be"),
    ],
)
def test_lines_in_any_form_are_copied(tmp_path: Path, form: CsvForm) -> None:
    """Delimiter, encoding and line ends are the file's, and quotes are recognised after its delimiter."""
    rows = [["id", "note"], ["1", "Zo\u00eb"], ["2", '"a;\r\nb"'], ["3", '"gone\nwith"'], ["4", 'x,"y']]
    lines = [f"{form.delimiter.join(row)}{end}" for row, end in zip(rows, ("\r\n", "\r", "\n", "\n", ""), strict=True)]
    if form.delimiter == ",":
        lines[-1] = "4,y"
    (tmp_path / "a.csv").write_bytes("".join(lines).encode(form.encoding))
    source = in_csv_form(open_source("a.csv", tmp_path), form)
    copy_without(source.files[0], [3], tmp_path / "b.csv", "id")
    assert (tmp_path / "b.csv").read_bytes() == "".join([*lines[:3], lines[4]]).encode(form.encoding)


def test_a_file_that_cannot_be_cut_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that lacks some of the other rows is not left, and the error says what to do instead."""
    write(people(5), tmp_path / "a.csv")
    monkeypatch.setattr("shards.data.cleaned.records", lambda lines, _: iter(list(lines)[:-1]))
    with pytest.raises(Invalid, match=r"the copy does not have exactly the other rows .*--rows FILE"):
        copy_without(opened(tmp_path / "a.csv"), [2], tmp_path / "b.csv", "id")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_nested_dictionary_is_refused(tmp_path: Path) -> None:
    """The dictionary would keep values of deleted rows."""
    nested = pa.array([["a"], ["b"]], pa.list_(pa.dictionary(pa.int32(), pa.string())))
    table = pa.table({"id": [1, 2], "words": nested})
    with pa.ipc.new_stream(tmp_path / "n.arrow", table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(Invalid, match="a nested column is encoded with a dictionary"):
        copy_without(opened(tmp_path / "n.arrow"), [2], tmp_path / "m.arrow", "id")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """An existing file with the copy's name is kept."""
    path = write(people(5), tmp_path / "a.parquet")
    with pytest.raises(Conflict, match="exists already"):
        copy_without(opened(path), [1], path, "id")


def test_metadata_stays(tmp_path: Path) -> None:
    """The schema's metadata, such as that of pandas, is copied."""
    table = people(9).replace_schema_metadata({"pandas": json.dumps({"index_columns": []})})
    path = write(table, tmp_path / "a.parquet")
    copy_without(opened(path), [1], tmp_path / "b.parquet", "id")
    assert opened(tmp_path / "b.parquet").schema().metadata[b"pandas"] == b'{"index_columns": []}'


def test_a_compressed_copy_names_no_file(tmp_path: Path) -> None:
    """The copy of a gzipped file is gzipped."""
    path = write(people(9), tmp_path / "a.csv.gz")
    copy_without(opened(path), [1], tmp_path / "b.csv.gz", "id")
    assert b"point-0" not in gzip.decompress((tmp_path / "b.csv.gz").read_bytes())
