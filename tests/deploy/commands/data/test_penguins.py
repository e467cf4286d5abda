"""A file of real measurements with texts and gaps, from its first look to a verified erasure, without preparation."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pytest

import cluster.training.workers
import sisa
from storage.errors import Invalid
from tests.doubles.user_folder import run
from tests.doubles.workers.local_workers import LocalWorkers


@pytest.fixture
def penguins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The measurements of 344 penguins (Gorman, Williams and Fraser 2014), each with a name; two have no size."""
    package = importlib.util.find_spec("palmerpenguins")  # not imported: only its file is needed
    if package is None or package.origin is None:
        pytest.skip("palmerpenguins is not installed")
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    monkeypatch.chdir(tmp_path)
    with (Path(package.origin).parent / "data" / "penguins.csv").open(newline="", encoding="utf-8") as source:
        header, *rows = csv.reader(source)
    with Path("penguins.csv").open("w", newline="", encoding="utf-8") as target:
        csv.writer(target).writerows([["penguin_id", *header], *([f"N{n:03d}", *row] for n, row in enumerate(rows))])
    return tmp_path


def test_from_a_file_to_a_verified_erasure(penguins: Path) -> None:
    """The draft trains as it is, tells species apart, erases one penguin exactly, and refuses what is not declared."""
    draft = run("init", "penguins.csv", "--label", "species", "--json").data
    assert draft["encode"]["body_mass_g"] == {
        "missing": 0.0,
        "shift": 4200.0,
        "scale": 800.0,
        "flag_missing": True,
        "null": ["NA", ""],
    }
    assert draft["encode"]["sex"]["categories"] == ["female", "male"]
    assert draft["left_out"] == {}
    assert run("train", "--json").code == 0
    evaluated = run("evaluate", "penguins.csv", "--json").data
    assert evaluated["points"] == 344
    assert evaluated["accuracy"] > 0.98
    assert run("erase", "--id", "N003", "--wait", "--json").data["state"] == "complete"
    verified = run("verify", "--json").data
    assert verified["exact"]
    assert verified["residue"]["found"] == []
    text = Path("penguins.csv").read_text(encoding="utf-8")
    Path("new.csv").write_text(text.replace("Torgersen", "Atlantis", 1), encoding="utf-8")
    assert run("predict", "new.csv", "--out", "answers.csv", "--json").code == 0
    answers = pacsv.read_csv("answers.csv")
    assert answers.num_rows == 344
    assert answers.column("prediction")[0].as_py() == "Adelie"
    Path("new.csv").write_text(text.replace("39.1", "about 39", 1), encoding="utf-8")
    refused = run("predict", "new.csv", "--out", "answers.csv", "--json")
    assert refused.code == 2
    assert "not a number [file=new.csv column=bill_length_mm row=1]" in refused.error["message"]


def test_an_estimator_encodes_frames(penguins: Path) -> None:
    """Classifier takes ``encode`` as the table does: a frame with texts and gaps is fitted, asked and asked again."""
    table = pacsv.read_csv("penguins.csv", convert_options=pacsv.ConvertOptions(strings_can_be_null=True))
    columns = ["island", "bill_length_mm", "bill_depth_mm", "sex"]
    encode = {
        "island": {"categories": ["Biscoe", "Dream"], "other": True},
        "bill_*": {"missing": 0.0, "shift": 30.0, "scale": 10.0, "flag_missing": True},
        "sex": {"true": ["male"], "false": ["female"], "missing": 0.5},
    }
    with sisa.Classifier(shards=1, slices=1, epochs=20, store=penguins / "store", encode=encode) as model:
        model.fit(table.select(columns), table.column("species"), ids=table.column("penguin_id"))
        assert model.score(table.select(columns), table.column("species")) > 0.95
        expected = model.predict_proba(table.select(columns))
        with pytest.raises(Invalid, match=r"declared neither true nor false.*column=sex row=1"):
            model.predict(pa.table({**{name: table.column(name)[:1] for name in columns[:3]}, "sex": ["unknown"]}))
    with sisa.Classifier(store=penguins / "store") as again:
        assert again.predict_proba(table.select(columns)).tolist() == expected.tolist()
