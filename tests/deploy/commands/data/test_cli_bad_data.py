"""Bad data on ``sisa train``: the error names file, column and row, with a remedy, and nothing is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

import cluster.doctor
from tests.doubles.user_folder import Columns, UserFolder, small_points

Spoil = Callable[[UserFolder, Columns], None]


def _cell(column: str, row: int, value: object) -> Spoil:
    """Put ``value`` into a cell (rows from 1)."""

    def spoil(home: UserFolder, columns: Columns) -> None:
        columns[column][row - 1] = value
        home.write("train.parquet", columns)

    return spoil


def _texts(home: UserFolder, columns: Columns) -> None:
    columns["x03"] = [str(value) for value in columns["x03"]]
    home.write("train.parquet", columns)


def _duplicate(home: UserFolder, columns: Columns) -> None:
    columns["id"][40] = columns["id"][2]
    columns["user_id"][40] = columns["user_id"][2]
    home.write("train.parquet", columns)


def _duplicate_of_another_subject(home: UserFolder, columns: Columns) -> None:
    columns["id"][40] = columns["id"][3]
    home.write("train.parquet", columns)


def _truncated(home: UserFolder, columns: Columns) -> None:
    path = home.write("train.parquet", columns)
    path.write_bytes(path.read_bytes()[:-100])


def _truncated_in_the_middle(home: UserFolder, columns: Columns) -> None:
    path = home.write("train.parquet", columns)
    whole = path.read_bytes()
    path.write_bytes(whole[:300] + whole[400:])


def _no_points(home: UserFolder, columns: Columns) -> None:
    home.write("train.parquet", {name: values[:0] for name, values in columns.items()})


def _not_parquet(home: UserFolder, columns: Columns) -> None:
    (home.folder / "train.parquet").write_text("id,label\n", encoding="utf-8")


def _without_label(home: UserFolder, columns: Columns) -> None:
    del columns["label"]
    home.write("train.parquet", columns)


def _misspelt_subject(home: UserFolder, columns: Columns) -> None:
    columns["userid"] = columns.pop("user_id")
    home.write("train.parquet", columns)


def _without_features(home: UserFolder, columns: Columns) -> None:
    home.write("train.parquet", {name: columns[name] for name in ("id", "user_id", "label")})


def _folder_of_two(home: UserFolder, columns: Columns) -> None:
    """A folder whose second file has another type of feature."""
    (home.folder / "train.parquet").unlink()
    home.write("train.parquet/a.parquet", columns)
    columns["id"] = [f"other-{name}" for name in columns["id"]]
    columns["x03"] = [float(value) for value in columns["x03"]]
    home.write("train.parquet/b.parquet", columns)


SPOILT: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "no label column": (
        _without_label,
        ("there is no column 'label'", "train.parquet", "Choose one of its columns: 'id'"),
    ),
    "misspelt subject": (_misspelt_subject, ("there is no column 'user_id'", "Did you mean 'userid'?")),
    "no features": (_without_features, ("no column matches 'x*'", "train.parquet")),
    "duplicate id": (_duplicate, ("two data points have the same id", "column=id", "row=3", "other_row=41", "unique")),
    "duplicate id of another subject": (
        _duplicate_of_another_subject,
        ("two data points have the same id", "row=4", "other_row=41"),
    ),
    "null id": (_cell("id", 9, None), ("no value (null)", "column=id", "row=9")),
    "empty id": (_cell("id", 9, ""), ("an empty string", "column=id", "row=9")),
    "null subject": (_cell("user_id", 10, None), ("no value (null)", "column=user_id", "row=10")),
    "null label": (_cell("label", 11, None), ("no label (null)", "column=label", "row=11")),
    "unknown label": (
        _cell("label", 12, "d"),
        ("the label 'd' is not in [data] classes", "row=12", "Add to [data] classes: 'd'"),
    ),
    "NaN": (_cell("x05", 13, math.nan), ("NaN or infinite", "column=x05", "row=13", "leave the data point out")),
    "infinite": (_cell("x05", 14, math.inf), ("NaN or infinite", "column=x05", "row=14")),
    "null feature": (_cell("x05", 15, None), ("no value (null)", "column=x05", "row=15")),
    "text for numbers": (_texts, ("must hold numbers to be a feature", "column=x03", "Convert the column")),
    "cut off": (_truncated, ("file=train.parquet", "Write the file again")),
    "cut out": (_truncated_in_the_middle, ("file=train.parquet", "Write the file again")),
    "not Parquet": (_not_parquet, ("not what its ending says", "file=train.parquet")),
    "no data points": (_no_points, ("the data set has no data points", "train.parquet")),
    "two types": (_folder_of_two, ("different types in two files", "column=x03", "b.parquet")),
}


@pytest.mark.parametrize("case", SPOILT)
def test_bad_data_is_refused_before_anything_is_trained(case: str, home: UserFolder) -> None:
    """A fresh federation says where the data are bad, and holds nothing."""
    spoil, texts = SPOILT[case]
    spoil(home, small_points())
    said = home.refused("train")
    _names(said.error["message"] + " " + said.error["remedy"], texts)
    assert said.error["kind"] == "invalid"
    assert not list((home.store / "shards").rglob("*.parquet"))


@pytest.mark.parametrize("case", SPOILT)
def test_bad_data_do_not_hurt_what_was_trained(case: str, trained: UserFolder) -> None:
    """A trained federation refuses the new source and continues with its data; once corrected, the data are taken."""
    spoil, texts = SPOILT[case]
    whole = (trained.folder / "train.parquet").read_bytes()
    before = trained.json("status")
    spoil(trained, small_points())
    said = trained.refused("train")
    _names(said.error["message"] + " " + said.error["remedy"], texts)
    assert trained.json("verify").code == 0
    if (path := trained.folder / "train.parquet").is_file():
        path.write_bytes(whole)
        assert trained.json("train").digests == before.digests


CSV_SPOILT: dict[str, tuple[Callable[[list[str]], None], tuple[str, ...]]] = {
    "broken line": (lambda lines: lines.__setitem__(6, "1,2,3"), ("another number of fields", "row=6")),
    "text for a number": (
        lambda lines: lines.__setitem__(7, lines[7].rpartition(",")[0] + ",many"),
        ("not a number", "column=x15", "row=7"),
    ),
    "empty cell": (
        lambda lines: lines.__setitem__(8, lines[8].rpartition(",")[0] + ","),
        ("no value (null)", "column=x15", "row=8"),
    ),
    "header alone": (lambda lines: lines.__delitem__(slice(1, None)), ("no data points",)),
}


@pytest.mark.parametrize("case", CSV_SPOILT)
def test_bad_csv_is_reported_by_its_row(case: str, home: UserFolder) -> None:
    """A bad line of a CSV file is named by its number, without its content."""
    spoil, texts = CSV_SPOILT[case]
    path = home.write("train.csv", small_points())
    lines = path.read_text(encoding="utf-8").splitlines()
    spoil(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    home.specify(data__train="train.csv")
    said = home.refused("train")
    _names(said.error["message"] + " " + said.error["remedy"], ("train.csv", *texts))
    assert "many" not in said.out


@pytest.mark.parametrize(
    ("train", "texts"),
    [
        ("nothing.parquet", ("there is no such file or folder: nothing.parquet",)),
        ("nothing-*.parquet", ("no file matches: nothing-*.parquet",)),
        ("empty", ("the folder holds no data file: empty",)),
        ("zero.parquet", ("the file is empty (0 bytes)", "zero.parquet")),
        ("sisa.toml", ("the file's ending is not a known format", "sisa.toml", ".parquet")),
        ("gs://bucket/train.parquet", ("gs:// is not supported for data", "local folder")),
    ],
)
def test_a_source_that_is_not_there_is_named(train: str, texts: tuple[str, ...], home: UserFolder) -> None:
    """A missing or empty file, an empty folder, a pattern without match, an unknown ending: the error says which."""
    (home.folder / "empty").mkdir()
    (home.folder / "zero.parquet").touch()
    home.specify(data__train=train)
    said = home.refused("train")
    _names(said.error["message"] + " " + said.error["remedy"], texts)


@pytest.mark.parametrize("train", [".", "**/*.parquet", "*/*.parquet"])
def test_the_federations_own_store_is_no_data(train: str, home: UserFolder) -> None:
    """A folder or glob that reaches store and keys takes none of their files: a second training finds nothing new."""
    (home.folder / "train.parquet").unlink()
    home.write("points/train.parquet", small_points())
    home.specify(data__train=train, keys="./keys")
    first = home.json("train")
    assert first.code == 0
    assert list(home.store.rglob("*.parquet"))
    again = home.json("train")
    assert (again.code, again.digests, again.data["generation"]) == (0, first.digests, first.data["generation"])
    assert home.json("plan").code == 0


def test_a_file_of_the_store_cannot_be_the_source(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training refuses a source inside the store, and the doctor reports it."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    home.write("federation/mine.parquet", small_points())
    home.specify(data__train="federation/mine.parquet")
    assert "a store's own files are not data: federation/mine.parquet" in home.refused("train").error["message"]
    checks = {each["check"]: each for each in home.json("doctor").data["checks"]}
    assert "a store's own files are not data" in checks["data"]["message"]


def test_no_error_text_holds_a_name_or_a_value(home: UserFolder) -> None:
    """No error about a data point contains its id or its subject."""
    for spoil, _ in SPOILT.values():
        path = home.folder / "train.parquet"
        if path.is_dir():
            continue
        spoil(home, small_points())
        said = home.run("train")
        assert said.code == 2
        assert "secret-" not in said.out + said.err


def _names(text: str, expected: tuple[str, ...]) -> None:
    for part in expected:
        assert part in text


def test_paths_are_relative_to_the_specification(home: UserFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    """``[data] train`` is looked for next to the specification, wherever the command is started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(tmp_path_factory.mktemp("elsewhere")))
        assert home.json("train").code == 0


def test_what_a_folder_passes_over_is_reported(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command that reads a folder says which of its files it does not read; so does the draft."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    home.write("data/a.parquet", small_points())
    (home.folder / "data" / "more.xlsx").write_bytes(b"-")
    home.specify(data__train="data")
    said = home.json("train")
    assert said.code == 0
    assert "not read in data: 'more.xlsx'" in said.err
    for words in (("evaluate", "data"), ("predict", "data", "--out", "out.csv")):
        assert "not read in data: 'more.xlsx'" in home.json(*words).err
    (data,) = (each for each in home.json("doctor").data["checks"] if each["check"] == "data")
    assert "not read in data: 'more.xlsx'" in data["message"]
    assert home.json("init", "data", "--force").code == 0
    assert "not read in data: 'more.xlsx'" in home.config.read_text()
