"""``sisa doctor`` and ``sisa plan``: everything that training would refuse, and rows of people who were erased."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import cluster.doctor
from tests.doubles.user_folder import MARKED, Columns, UserFolder, small_points


@pytest.fixture(autouse=True)
def _any_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here asks Ray for room."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)


def spoilt() -> Columns:
    """Return points with five different faults."""
    columns = small_points()
    columns["x03"][6] = None
    columns["x03"][9] = None
    columns["x05"][11] = math.nan
    columns["label"][2] = "d"
    columns["user_id"][4] = None
    columns["id"][20] = columns["id"][19]
    return columns


FAULTS = {
    ("x03", 7, 2),
    ("x05", 12, 1),
    ("label", 3, 1),
    ("user_id", 5, 1),
    ("id", 21, 1),
}


def found(faults: list[Mapping[str, Any]]) -> set[tuple[str, int, int]]:
    """Return column, row and count of each."""
    return {(each["column"], each["row"], each["points"]) for each in faults}


def check(home: UserFolder, name: str, *words: str) -> Mapping[str, Any]:
    """Return one of the doctor's findings."""
    return next(each for each in home.json("doctor", *words).data["checks"] if each["check"] == name)


def test_doctor_and_plan_find_all_that_train_would_refuse(home: UserFolder) -> None:
    """One look finds every fault, before anything is trained; training itself stops at the first."""
    home.write("train.parquet", spoilt())
    reported = check(home, "data")
    assert found(reported["faults"]) == FAULTS
    planned = home.json("plan")
    assert (planned.code, planned.error["kind"]) == (2, "invalid")
    assert planned.error["message"] == "training would refuse the data for 5 reasons"
    assert found(planned.data["faults"]) == FAULTS
    text = home.run("plan").out
    assert "train.parquet, column 'x03', row 7: a data point has no value (null) (2 data points)" in text
    assert "train.parquet, column 'id', row 21: " in home.run("doctor").out
    assert home.run("train").code == 2


def test_good_data_are_planned_and_trained_on_data_not_read_again(
    home: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good data give a forecast; once trained on, unchanged data are not checked again."""
    assert home.json("plan").code == 0
    assert home.json("train").code == 0
    monkeypatch.setattr("cluster.sources.find_faults", None)
    assert home.json("plan").code == 0
    assert check(home, "data")["message"] == "1 files, 16 features"


def test_faults_of_changed_data_are_found_after_training(home: UserFolder) -> None:
    """A source that has changed since it was read is looked at; one that is gone is not missed."""
    assert home.json("train").code == 0
    home.write("train.parquet", spoilt())
    assert found(home.json("plan").data["faults"]) == FAULTS
    (home.folder / "train.parquet").unlink()
    assert home.json("plan").code == 0


def test_rows_and_copies_of_the_erased(home: UserFolder) -> None:
    """The doctor lists which rows still hold erased people, and writes a copy without them that is well."""
    columns = small_points()
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", MARKED).code == 0
    assert home.json("erase", "--id", columns["id"][0]).code == 0
    gone = {row for row, who in enumerate(columns["user_id"], start=1) if who == MARKED}
    reported = check(home, "erased in sources", "--rows", "rows.csv", "--clean", "clean")
    assert not reported["ok"]
    assert "rows.csv" in reported["remedy"]
    assert "clean/train.parquet" in reported["remedy"]
    with (home.folder / "rows.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["file", "row", "why"]
    assert {int(row) for file, row, why in rows[1:] if (file, why) == ("train.parquet", "subject")} == gone
    assert [row for _, row, why in rows[1:] if why == "id"] == ["1"]
    assert "secret-" not in (home.folder / "rows.csv").read_text()
    before = home.json("status").digests
    Path("clean/train.parquet").replace("train.parquet")
    assert check(home, "erased in sources") == {
        "check": "erased in sources",
        "ok": True,
        "message": "no source file holds an erased data point",
        "remedy": "",
        "faults": [],
    }
    assert home.json("train").digests == before


def test_nothing_is_written_over(home: UserFolder) -> None:
    """A file of rows that is there already stays, and the check says so."""
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", MARKED).code == 0
    (home.folder / "rows.csv").write_text("mine")
    assert "exists already" in check(home, "erased in sources", "--rows", "rows.csv")["message"]
    assert (home.folder / "rows.csv").read_text() == "mine"
    assert "--rows FILE" in check(home, "erased in sources")["remedy"]


def test_erased_data_points_do_not_count_as_repeated_ids(home: UserFolder) -> None:
    """Training leaves them out before it compares ids, and the doctor does so as well."""
    columns = small_points()
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", MARKED).code == 0
    row = columns["user_id"].index(MARKED)
    columns["id"][row] = columns["id"][0]
    home.write("train.parquet", columns)
    assert check(home, "data")["ok"]
    assert home.json("train").code == 0
