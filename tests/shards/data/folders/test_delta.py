"""Delta tables as of a version: rows that a later version has deleted are read from no file."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shards.data.inventory import inventory
from shards.data.readers import Wanted
from shards.data.sources import Source, open_source, passed_over_text
from storage.errors import Invalid
from tests.shards.people import ingest_file, people, settings

deltalake = pytest.importorskip("deltalake")


def write(folder: Path, table: pa.Table, **options: Any) -> None:
    """Write the rows as the next version of a table."""
    deltalake.write_deltalake(str(folder / "people"), table, **options)


def ids(source: Source) -> list[str]:
    """Return the ids of all rows, sorted."""
    batches = source.batches(Wanted(texts=("id",), numbers=()), 5)
    return sorted(text for batch in batches for text in batch.column("id").to_pylist())


def test_a_version_is_the_rows_that_it_had(tmp_path: Path) -> None:
    """Files of other versions are in the folder, and are not read. The inventory says which version was."""
    table = people(9, dtype="float32")
    every = sorted(table["id"].to_pylist())
    write(tmp_path, table.slice(0, 6))
    write(tmp_path, table.slice(6), mode="append")
    deltalake.DeltaTable(str(tmp_path / "people")).delete(f"id = '{every[0]}'")
    present = open_source("people", tmp_path)
    assert ids(present) == every[1:]
    assert present.version == 2
    assert passed_over_text(present) == "people is read as of its version 2"
    assert all(entry.name.startswith("people@2/part-") for entry in inventory(present))
    assert ids(open_source("people", tmp_path, version=1)) == every
    assert ids(open_source("people", tmp_path, version=0)) == sorted(table["id"].to_pylist()[:6])
    assert ingest_file(tmp_path / "people").points == 8


def test_values_of_a_partition_are_columns(tmp_path: Path) -> None:
    """They stand in the log and not in the files; nulls, spaces and numbers are what they were."""
    cities = ["O s", "B/1", None, "ü"]
    table = (
        people(8, dtype="float32")
        .append_column("city", pa.array(cities * 2))
        .append_column("zone", pa.array([1, 2] * 4))
    )
    write(tmp_path, table, partition_by=["city", "zone"])
    source = open_source("people", tmp_path)
    wanted = Wanted(texts=("city", "id"), numbers=("zone", "x0"))
    rows = [row for batch in source.batches(wanted, 3) for row in batch.columns.to_pylist()]
    assert sorted(rows, key=lambda row: row["id"]) == table.select(wanted.names).sort_by("id").to_pylist()
    assert {name for file in source.files for name in file.schema().names} == set(table.column_names)
    only = [each for batch in source.batches(Wanted(texts=("city",), numbers=()), 3) for each in batch.column("city")]
    assert sorted(str(each) for each in only) == sorted(str(each) for each in cities * 2)
    data = settings(features=("x*", "zone"))
    assert ingest_file(tmp_path / "people", data).points == 8


@pytest.mark.parametrize(
    ("version", "fact"),
    [(7, "version 7 of the Delta table cannot be read"), (None, "the current version of the Delta table cannot be")],
)
def test_a_version_that_cannot_be_read_is_refused(tmp_path: Path, version: int | None, fact: str) -> None:
    """One that is not there, and a damaged log."""
    write(tmp_path, people(3, dtype="float32"))
    if version is None:
        (tmp_path / "people/_delta_log/00000000000000000000.json").write_text("{}", encoding="utf-8")
    with pytest.raises(Invalid, match=rf"{fact}.*\[table=.*people\]\. Name a version"):
        open_source("people", tmp_path, version=version)


def test_features_that_change_what_files_hold_are_refused(tmp_path: Path) -> None:
    """Such as deletion vectors: they delete rows without writing files again."""
    write(tmp_path, people(3, dtype="float32"), configuration={"delta.enableDeletionVectors": "true"})
    with pytest.raises(Invalid, match=r"features that change what its files hold: deletionVectors.*Write it again"):
        open_source("people", tmp_path)


def test_a_version_without_rows_is_refused(tmp_path: Path) -> None:
    """There is nothing to train on."""
    write(tmp_path, people(3, dtype="float32"))
    deltalake.DeltaTable(str(tmp_path / "people")).delete()
    with pytest.raises(Invalid, match=r"this version of the Delta table holds no rows: people@1"):
        open_source("people", tmp_path)


def test_only_a_delta_table_has_versions(tmp_path: Path) -> None:
    """A version of other files would be ignored."""
    (tmp_path / "people.csv").write_text("id\na\n", encoding="utf-8")
    with pytest.raises(Invalid, match=r"\[data\] version is that of a Delta table, .*\[data=people\.csv\]"):
        open_source("people.csv", tmp_path, version=0)


def test_deltalake_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error says how to install it."""

    def absent(_: str) -> Any:
        raise ModuleNotFoundError

    write(tmp_path, people(3, dtype="float32"))
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(Invalid, match=r"deltalake is not installed .*pip install 'sisa-ray\[delta\]', or export"):
        open_source("people", tmp_path)
