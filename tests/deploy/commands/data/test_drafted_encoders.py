"""Encoders that ``sisa init`` drafts: what it saw and why stands beside each, and the draft trains as it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from cluster.config.specification import FederationSpecification, read_specification
from deploy.initialise import draft_fields, draft_specification, draft_text
from shards.data.prediction_files import feature_batches
from shards.data.profile import describe_source
from shards.data.sources import open_source, table_source
from shards.slices.ingest import feature_width
from tests.doubles.user_folder import run

COUNT = 200


def customers(**changes: Any) -> pa.Table:
    """Return a table with a typical column for most encoders."""
    numbers = range(COUNT)
    columns: dict[str, Any] = {
        "customer_no": pa.array([f"C{number:04d}" for number in numbers]),
        "email": pa.array([f"person{number // 2}@example.org" for number in numbers]),
        "label": pa.array(["churned" if number % 3 else "stayed" for number in numbers]),
        "age": pa.array([None if number % 8 == 0 else 18.0 + number % 60 for number in numbers]),
        "income": pa.array([20_000 + 137 * number % 50_000 for number in numbers], pa.int64()),
        "visits": pa.array([number % 7 for number in numbers], pa.int64()),
        "plan": pa.array([("free", "pro", "team")[number % 3] for number in numbers]),
        "city": pa.array([f"city {number % 40}" for number in numbers]),
        "signed_up": pa.array([f"2023-{1 + number % 12:02d}-01" for number in numbers]),
        "active": pa.array([None if number % 50 == 0 else ("Yes", "No")[number % 2] for number in numbers]),
        "note": pa.array([f"called about order {number} and left again" for number in numbers]),
        "phone_code": pa.array([f"x{number}" for number in numbers]),
    }
    return pa.table(columns | changes)


def drafted(folder: Path, name: str = "customers.csv", **changes: Any) -> FederationSpecification:
    """Write the table and its draft; return what the draft says, checked to fit every row."""
    table = customers(**changes)
    if name.endswith(".csv"):
        pacsv.write_csv(table, folder / name)
    else:
        pq.write_table(table, folder / name)
    (folder / "sisa.toml").write_text(draft_specification(name, folder).text, encoding="utf-8")
    specification = read_specification(folder / "sisa.toml")
    source = open_source(name, folder)
    width = feature_width(source, specification.data)
    features = np.concatenate([each.features_NF for each in feature_batches(source, specification.data, width)])
    assert features.shape == (COUNT, width)
    assert np.abs(features).max() < 20
    return specification


@pytest.mark.parametrize("name", ["customers.csv", "customers.parquet"])
def test_a_draft_encodes_what_it_saw(tmp_path: Path, name: str) -> None:
    """Columns with gaps, texts and dates become features of a draft that reads every row, with round constants."""
    data = drafted(tmp_path, name).data
    assert data.features == (*("age", "income", "visits", "plan", "city", "signed_up", "active", "note"),)
    assert data.encode == {
        "age": {"missing": 0.0, "shift": 46.0, "scale": 18.0, "flag_missing": True},
        "plan": {"categories": ["free", "pro", "team"], "other": True},
        "city": {"hash": 64},
        "signed_up": {"date": "days", "since": "2020-01-01", "scale": 1000.0},
        "active": {"true": ["Yes"], "false": ["No"], "missing": 0.5, "flag_missing": True},
        "note": {"words": 1024},
        "income": {"shift": 34000.0, "scale": 7900.0},
    }


def test_reasons_stand_beside_each(tmp_path: Path) -> None:
    """The draft says how many values are missing, what it saw, and that constants are a person's choices."""
    pacsv.write_csv(customers(), tmp_path / "customers.csv")
    draft = draft_specification("customers.csv", tmp_path)
    assert "From here on they are published choices of a\n# person: they are not learned" in draft.text
    assert (
        "flag_missing = true }  # numbers: mean and spread, rounded to two digits, 12.5 % without a value" in draft.text
    )
    assert "other = true }  # the 3 texts seen; remove what would name a person: it is published" in draft.text
    assert "# 40 different texts" in draft.text
    assert "encoded: 'note' (texts of several words)" in draft_text(draft)
    assert draft_fields(draft)["encode"]["city"] == {"hash": 64}
    assert "scale    =" not in draft.text
    assert draft_fields(draft)["left_out"] == {"phone_code": "text"}


def test_texts_that_stand_for_nothing(tmp_path: Path) -> None:
    """NA in a column of numbers or categories is drafted as no value."""
    age = ["NA" if number % 8 == 0 else str(18 + number % 60) for number in range(COUNT)]
    plan = ["?" if number % 10 == 0 else ("free", "pro")[number % 2] for number in range(COUNT)]
    encode = drafted(tmp_path, age=pa.array(age), plan=pa.array(plan)).data.encode
    assert encode["age"] == {"missing": 0.0, "shift": 46.0, "scale": 18.0, "flag_missing": True, "null": ["NA", ""]}
    assert encode["plan"] == {"categories": ["free", "pro"], "other": True, "missing": True, "null": ["?", ""]}


def test_years_keep_their_differences(tmp_path: Path) -> None:
    """Where two digits of the mean would say nothing of the spread, it is rounded to the place of the spread."""
    years = [2007 + number % 3 for number in range(COUNT)]
    encode = drafted(tmp_path, "a.parquet", visits=pa.array(years, pa.int64())).data.encode
    assert encode["visits"] == {"shift": 2008.0, "scale": 0.82}


def test_plain_numbers_need_no_encoders(tmp_path: Path) -> None:
    """A table of numbers alone gets the draft that it always got."""
    table = customers().select(["customer_no", "label", "income", "visits"])
    pq.write_table(table, tmp_path / "a.parquet")
    text = draft_specification("a.parquet", tmp_path).text
    assert "[data.encode]" not in text
    assert "scale    =" in text


def test_names_of_people_are_no_categories(tmp_path: Path) -> None:
    """Columns that name people, ids and infinite numbers are left out, encoders or not."""
    people = pa.array([f"person {number % 9}" for number in range(COUNT)])
    endless = pa.array([math.inf, *[1.0] * (COUNT - 1)])
    data = drafted(tmp_path, "a.parquet", phone_code=people, doctor_name=people, endless=endless).data
    assert "endless" not in data.features
    assert "phone_code" in data.features


def test_numbers_are_described_in_batches() -> None:
    """Mean and spread are those of all numbers, whichever batch they are in, and of texts that are numbers."""
    values = np.random.default_rng(3).normal(1e6, 3, 10_000)
    (number, text) = describe_source(
        table_source(pa.table({"a": values, "b": [None, "NA", *map(repr, values[2:].tolist())]}))
    ).columns
    assert number.mean is not None
    assert number.deviation is not None
    assert math.isclose(values.mean(), number.mean)
    assert math.isclose(values.std(), number.deviation, rel_tol=1e-9)
    assert text.mean is not None
    assert math.isclose(values[2:].mean(), text.mean)
    assert text.odd_texts == ("NA",)


def test_the_command_drafts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sisa init`` lists the encoders on the screen and in JSON."""
    monkeypatch.chdir(tmp_path)
    pacsv.write_csv(customers(), tmp_path / "customers.csv")
    said = run("init", "customers.csv", "--json")
    assert said.code == 0
    assert said.data["encode"]["plan"] == {"categories": ["free", "pro", "team"], "other": True}


def test_gaps_with_spaces_around_them(tmp_path: Path) -> None:
    """Cells such as " ?" are taken for no value, as they are written; beside numbers, too."""
    kinds = [("a", "b", " ?")[number % 3] for number in range(COUNT)]
    sizes = [" ?" if number % 4 == 0 else str(number) for number in range(COUNT)]
    encode = drafted(tmp_path, kind=pa.array(kinds), size=pa.array(sizes)).data.encode
    assert encode["kind"] == {"categories": ["a", "b"], "other": True, "missing": True, "null": [" ?", ""]}
    assert encode["size"]["null"] == [" ?", ""]


def test_texts_that_repeat_are_names_not_sentences(tmp_path: Path) -> None:
    """Texts of several words that occur often are hashed whole: a bag of words would be many features for little."""
    kinds = [f"kind number {number % 9}, and {number % 2} more" for number in range(COUNT)]
    assert drafted(tmp_path, kind=pa.array(kinds)).data.encode["kind"] == {
        "categories": sorted(set(kinds)),
        "other": True,
    }
    branches = [f"a branch of industry {number % 30}" for number in range(COUNT)]
    assert drafted(tmp_path, branch=pa.array(branches)).data.encode["branch"] == {"words": 1024}
    table = pa.table(
        {"branch": pa.array(branches * 4), "y": [0, 1] * 2 * COUNT, "id": list(map(str, range(4 * COUNT)))}
    )
    pq.write_table(table, tmp_path / "many.parquet")
    assert draft_fields(draft_specification("many.parquet", tmp_path, label_column="y"))["encode"] == {
        "branch": {"hash": 64}
    }


def test_years_alone_are_shifted(tmp_path: Path) -> None:
    """Divided by ten thousand, years are all alike; so a table of numbers with a column of years gets encoders."""
    years = [1984 + number % 7 for number in range(COUNT)]
    columns = {
        "id": list(map(str, range(COUNT))),
        "y": [0, 1] * (COUNT // 2),
        "age": [20.0 + n % 60 for n in range(COUNT)],
    }
    pq.write_table(pa.table({**columns, "year": years}), tmp_path / "years.parquet")
    draft = draft_specification("years.parquet", tmp_path, label_column="y")
    assert draft_fields(draft)["encode"] == {
        "age": {"shift": 48.0, "scale": 18.0},
        "year": {"shift": 1987.0, "scale": 2.0},
    }
    assert '"0" are 50.0 % of the data points' in draft.text
    pq.write_table(pa.table(columns), tmp_path / "ages.parquet")
    plain = draft_specification("ages.parquet", tmp_path, label_column="y")
    assert draft_fields(plain)["encode"] == {}
    assert "scale    = 100.0" in plain.text


def test_a_file_without_ids_and_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--add-ids`` writes a copy and drafts for it; where the draft fails, no copy is left."""
    monkeypatch.chdir(tmp_path)
    Path("raw.csv").write_text("".join(f"{n % 5},{n % 7},{'ab'[n % 2]}\n" for n in range(70)), encoding="utf-8")
    refused = run("init", "raw.csv", "--add-ids", "people.csv", "--header", "x,z,kind", "--json")
    assert refused.code == 2
    assert "Columns that could be one: 'x', 'z', 'kind'" in refused.error["remedy"]
    assert not Path("people.csv").exists()
    arguments = ("init", "raw.csv", "--add-ids", "people.csv", "--header", "x,z,kind", "--label", "kind")
    said = run(*arguments)
    assert said.code == 0
    assert "wrote people.csv: the data from now on. Erasures do not reach raw.csv" in said.out
    data = read_specification(tmp_path / "sisa.toml").data
    assert (data.train, data.id, data.features, data.classes) == ("people.csv", "point_id", ("x", "z"), ("a", "b"))
    for more, text in (
        (["--force"], "people.csv exists already"),
        (["--force", "--id", "x"], "--add-ids adds the id column"),
    ):
        assert text in run(*arguments, *more, "--json").error["message"]
    assert "--header has no effect" in run("init", "raw.csv", "--header", "x", "--force", "--json").error["message"]
    assert Path("people.csv").exists()


def test_labels_that_are_numbers_are_shifted_and_scaled(tmp_path: Path) -> None:
    """Rounded constants are drafted for labels far from -1 .. 1, and for those alone."""
    columns = {"id": list(map(str, range(COUNT))), "a": [n % 7 for n in range(COUNT)]}
    prices = {"price": [150.5 + 77 * (n % 5) for n in range(COUNT)], "share": [n / COUNT for n in range(COUNT)]}
    pq.write_table(pa.table({**columns, **prices}), tmp_path / "prices.parquet")
    text = draft_specification("prices.parquet", tmp_path, label_column="price").text
    (tmp_path / "sisa.toml").write_text(text, encoding="utf-8")
    data = read_specification(tmp_path / "sisa.toml").data
    assert (data.label_shift, data.label_scale) == (300.0, 110.0)
    draft = draft_fields(draft_specification("prices.parquet", tmp_path, label_column="share"))
    assert draft["target"] == "number"
    assert draft["label_scale"] == 0.29
