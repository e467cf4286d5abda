"""Folders as ``datasets.Dataset.save_to_disk`` writes them, made with pyarrow."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from shards.data.sources import open_source, passed_over_text
from storage.errors import Invalid
from tests.shards.people import people


def save(folder: Path, *tables: pa.Table) -> Path:
    """Write the tables as a dataset of so many files, as ``save_to_disk`` does."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{len(tables):05d}.arrow" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "4330399c06891816", "_split": None}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "dataset_info.json").write_text('{"features": {}}', encoding="utf-8")
    return folder


def test_a_saved_dataset_is_the_files_of_its_list(tmp_path: Path) -> None:
    """What ``datasets`` has computed from it and left there is not read, and reported."""
    table = people(9)
    folder = save(tmp_path / "saved", table.slice(4), table.slice(0, 4))
    save(tmp_path / "other", people(30))
    (tmp_path / "other" / "data-00000-of-00001.arrow").rename(folder / "cache-a605988a0558cec8.arrow")
    source = open_source("saved", tmp_path)
    assert [file.name for file in source.files] == [f"saved/data-0000{number}-of-00002.arrow" for number in (0, 1)]
    assert passed_over_text(source).startswith("not read in saved: 'cache-a605988a0558cec8.arrow' (read are")
    assert [len(file.reader.schema()) for file in source.files] == [len(table.schema)] * 2


def test_a_dictionary_of_datasets_is_refused(tmp_path: Path) -> None:
    """One of them can be named."""
    save(tmp_path / "saved" / "test", people(3))
    save(tmp_path / "saved" / "train", people(4))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}', encoding="utf-8")
    with pytest.raises(Invalid, match=r"the folder holds a dictionary of datasets .*Name one of them, .*saved/train\."):
        open_source("saved", tmp_path)
    assert len(open_source("saved/train", tmp_path).files) == 1


@pytest.mark.parametrize(
    ("state", "fact"),
    [
        ("{", "has a damaged state.json"),
        ("[]", "has a damaged state.json"),
        ('{"_data_files": []}', "has a damaged state.json"),
        ('{"_data_files": [{"filename": "../other.arrow"}]}', "has a damaged state.json"),
        ('{"_data_files": [{"filename": "data-00007-of-00008.arrow"}]}', "lacks data-00007-of-00008.arrow"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path: Path, state: str, fact: str) -> None:
    """Rather than to guess which files are the dataset."""
    (save(tmp_path / "saved", people(3)) / "state.json").write_text(state, encoding="utf-8")
    with pytest.raises(Invalid, match=rf"the folder of a saved dataset {fact} .*Save the dataset again"):
        open_source("saved", tmp_path)


def test_other_folders_with_such_names_are_read_whole(tmp_path: Path) -> None:
    """A file ``state.json`` alone makes no saved dataset."""
    folder = save(tmp_path / "saved", people(3))
    (folder / "dataset_info.json").unlink()
    (folder / "data-00000-of-00001.arrow").rename(folder / "people.arrow")
    assert [file.name for file in open_source("saved", tmp_path).files] == ["saved/people.arrow"]
