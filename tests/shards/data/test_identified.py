"""Copies with ids: a line has the same id in every copy, and nothing else of it changes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from shards.csv_form import CsvForm
from shards.data.identified import copy_with_ids
from shards.data.sources import in_csv_form, open_source
from storage.errors import Conflict, Invalid

LINES = ["name;town", "Ann;Oslo", 'Bo;"a;\nb"', "Ann;Oslo", "Caña;Rome"]


def copied(
    folder: Path, lines: list[str], *, header: tuple[str, ...] = (), name: str = "a.csv", encoding: str = "utf-8"
) -> list[str]:
    """Write the lines, copy them with ids, and return the copy's records."""
    payload = "\n".join(lines).encode(encoding)
    (folder / name).write_bytes(gzip.compress(payload) if name.endswith(".gz") else payload)
    source = in_csv_form(open_source(name, folder), CsvForm(delimiter=";", encoding=encoding))
    target = folder / "copy.csv"
    target.unlink(missing_ok=True)
    points = copy_with_ids(source.files[0], target, header)
    text = target.read_bytes().decode(encoding)
    assert text.startswith("point_id;")
    records = text.replace("a;\nb", "a;|b").splitlines()
    assert len(records) == points + 1
    return records


@pytest.mark.parametrize(("name", "encoding"), [("a.csv", "utf-8"), ("a.csv.gz", "utf-8"), ("a.csv", "cp1252")])
def test_ids_are_those_of_the_lines(tmp_path: Path, name: str, encoding: str) -> None:
    """In any order, with other lines, and compressed or not: a line has one id, and equal lines are counted."""
    first = copied(tmp_path, LINES, name=name, encoding=encoding)
    again = copied(tmp_path, [LINES[0], LINES[4], LINES[1], "", LINES[3], "Dee;Lyon"], name=name, encoding=encoding)
    assert [line.split(";", 1)[1] for line in first] == [line.replace("\n", "|") for line in LINES]
    assert set(again[1:4]) == {first[1], first[3], first[4]}
    ids = [line.split(";")[0] for line in first[1:]]
    assert len(set(ids)) == 4
    assert all(id_.startswith("p") for id_ in ids)  # or some would look like numbers that a spreadsheet has rounded
    assert ids[2] == f"{ids[0]}-2"


def test_a_file_without_a_header_line_gets_one(tmp_path: Path) -> None:
    """Given names become the header, quoted where necessary, and the first line is a data point with the same id."""
    with_header = copied(tmp_path, LINES)
    without = copied(tmp_path, LINES[1:], header=("name", "a;town"))
    assert without == ['point_id;name;"a;town"', *with_header[1:]]


@pytest.mark.parametrize(
    ("lines", "header", "text"),
    [
        (["a;a", "1;2"], (), r"two columns have the same name .*name its columns with --header"),
        (["a;b", "1;2"], ("a", "a"), r"two columns have the same name .*Name each column once"),
        (["1;2"], ("a", "b", "c"), r"--header has 3 names, and the first line has 2 cells"),
        (["point_id;b", "1;2"], (), r"has a column point_id already .*Leave --add-ids out"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, lines: list[str], header: tuple[str, ...], text: str) -> None:
    """Names that do not fit are refused with the remedy, and no copy is left."""
    with pytest.raises(Invalid, match=text):
        copied(tmp_path, lines, header=header)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_files_that_are_not_text_or_stand_in_the_way(tmp_path: Path) -> None:
    """Another encoding, another format and an existing copy are refused; the existing copy stays."""
    (tmp_path / "a.csv").write_bytes("näme\nAnn\n".encode("cp1252"))
    file = open_source("a.csv", tmp_path).files[0]
    with pytest.raises(Invalid, match="not text in the encoding utf-8.*--encoding"):
        copy_with_ids(file, tmp_path / "copy.csv")
    with pytest.raises(Invalid, match=r"a name that ends in \.csv"):
        copy_with_ids(file, tmp_path / "copy.parquet")
    (tmp_path / "copy.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(Conflict, match="exists already"):
        copy_with_ids(file, tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_text(encoding="utf-8") == "mine"
    assert not list(tmp_path.glob(".copy*"))
