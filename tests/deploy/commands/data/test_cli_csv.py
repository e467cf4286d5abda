"""CSV files in other forms, through the commands: the same settings hold wherever a file of the user's is read."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

import cluster.doctor
from tests.doubles.user_folder import MARKED, Columns, UserFolder, small_points

FORM: dict[str, Any] = {
    "data__train": "train.csv",
    "data__delimiter": ";",
    "data__decimal": ",",
    "data__encoding": "utf-16",
}


def _write(home: UserFolder, columns: Columns, name: str = "train.csv") -> None:
    """Write the columns as a spreadsheet does where numbers have a comma."""
    text = io.StringIO(newline="")
    rows = zip(*columns.values(), strict=True)
    numbers = [[f"{cell},0" if type(cell) is int else cell for cell in row] for row in rows]
    csv.writer(text, delimiter=";").writerows([list(columns), *numbers])
    (home.folder / name).write_bytes(text.getvalue().encode("utf-16"))


@pytest.fixture
def in_form(home: UserFolder) -> UserFolder:
    """A folder with a CSV file in another form, and nothing trained."""
    _write(home, small_points())
    home.specify(**FORM)
    return home


def test_every_command_reads_csv_in_the_declared_form(in_form: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, predictions, evaluation, plan, doctor and erasure are those of the same data in Parquet."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    assert in_form.json("plan").data["points"] == 120
    trained = in_form.json("train")
    evaluated = in_form.json("evaluate", "train.csv")
    assert in_form.json("predict", "train.csv", "--out", "a.csv").code == 0
    (data,) = (each for each in in_form.json("doctor").data["checks"] if each["check"] == "data")
    assert (data["ok"], "16 features" in data["message"]) == (True, True)
    assert in_form.json("erase", "--subject", MARKED).data["points"] == 4
    (held,) = (each for each in in_form.json("doctor").data["checks"] if each["check"] == "erased in sources")
    assert "train.csv" in held["message"]

    plain = UserFolder(in_form.folder / "plain")
    plain.folder.mkdir()
    columns = small_points()
    plain.fill({name: _floats(values) for name, values in columns.items()})
    assert plain.json("train").digests == trained.digests
    assert plain.json("evaluate", str(plain.folder / "train.parquet")).data == evaluated.data


def _floats(values: list[Any]) -> list[Any]:
    return [float(value) if type(value) is int else value for value in values]


def test_another_form_is_read_anew_and_is_no_other_federation(in_form: UserFolder) -> None:
    """A source that is written again in the usual form needs no other federation, and erasing waits for no training."""
    before = in_form.json("train")
    in_form.write("train.csv", small_points())
    in_form.specify(data__train="train.csv")
    assert in_form.json("erase", "--subject", MARKED).code == 0
    after = in_form.json("train")
    assert (after.code, after.data["points"]) == (0, before.data["points"] - 4)


def test_a_form_that_was_wrong_is_corrected_by_training(home: UserFolder) -> None:
    """Names that were read in a wrong encoding are read again as soon as the right one is set, the file unchanged."""
    columns = small_points()
    columns["user_id"] = ["Zoë" if name == MARKED else name for name in columns["user_id"]]
    home.write("train.csv", columns)
    home.specify(data__train="train.csv", data__encoding="cp1252")
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", "Zoë", "--dry-run").data["points"] == 0
    home.specify(data__train="train.csv")
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", "Zoë", "--dry-run").data["points"] == 4


def test_init_drafts_the_form_that_it_sees(in_form: UserFolder) -> None:
    """Delimiter, decimal and encoding stand in the draft, and training takes them."""
    assert in_form.json("init", "train.csv", "--force").code == 0
    text = in_form.config.read_text()
    assert all(line in text for line in ('delimiter = ";"', 'decimal = ","', 'encoding = "utf-16"'))
    assert in_form.json("plan").data["points"] == 120


def test_init_takes_an_encoding(home: UserFolder) -> None:
    """A file that is not UTF-8 is refused with what to do, and drafted once its encoding is named."""
    text = "id,label,größe\n" + "".join(f"{number},{number % 2},{number}.5\n" for number in range(60))
    (home.folder / "a.csv").write_bytes(text.encode("cp1252"))
    said = home.json("init", "a.csv", "--force")
    assert (said.code, said.error["kind"]) == (2, "invalid")
    assert "the header is not UTF-8 text [file=a.csv]" in said.error["message"]
    assert "--encoding" in said.error["remedy"]
    assert home.json("init", "a.csv", "--force", "--encoding", "cp1252").code == 0
    assert 'encoding = "cp1252"' in home.config.read_text(encoding="utf-8")
    assert home.json("init", "a.csv", "--force", "--encoding", "nonsense").code == 2
