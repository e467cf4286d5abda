"""``sisa predict`` and ``sisa evaluate``: what is taken, what is refused, what is written."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from tests.doubles.user_folder import MARKED, Columns, UserFolder, run, small_points


def _predicted(home: UserFolder, data: str, out: str = "out.parquet") -> pa.Table:
    said = home.json("predict", data, "--out", out)
    assert said.code == 0, said.error
    path = home.folder / out
    if path.suffix == ".csv":
        return pacsv.read_csv(path)
    if path.suffix == ".arrow":
        return pyarrow.ipc.open_file(path).read_all()
    return pq.read_table(path)


def test_answers_have_ids_classes_and_probabilities(trained: UserFolder) -> None:
    """Each data point gets its id, a declared class, and probabilities that add up to one; in the file's order."""
    table = _predicted(trained, "train.parquet")
    names = ["id", "prediction", "probability_a", "probability_b", "probability_c"]
    assert table.column_names == names
    assert table.column("id").to_pylist() == small_points()["id"]
    assert set(table.column("prediction").to_pylist()) <= {"a", "b", "c"}
    for row in table.select(names[2:]).to_pylist():
        assert math.isclose(sum(row.values()), 1.0, abs_tol=1e-5)


@pytest.mark.parametrize("data", ["train.csv", "train.arrow", "data/*.parquet", "data"])
def test_the_format_changes_no_answer(data: str, trained: UserFolder) -> None:
    """CSV, Arrow, a glob and a folder of the same data points give the same answers."""
    expected = _predicted(trained, "train.parquet")
    name = data if data.startswith("train") else "data/part.parquet"
    trained.write(name, small_points())
    assert _predicted(trained, data, "again.parquet").equals(expected)


@pytest.mark.parametrize("out", ["out.csv", "out.arrow", "out.parquet"])
def test_every_format_of_answers(out: str, trained: UserFolder) -> None:
    """The ending chooses the format."""
    assert _predicted(trained, "train.parquet", out).num_rows == 120


def _turned(columns: Columns) -> Columns:
    return dict(reversed(list(columns.items())))


def _with_more(columns: Columns) -> Columns:
    more: Columns = {"x99": [7] * 120, "note": ["n"] * 120}
    return more | columns


def _as_floats(columns: Columns) -> Columns:
    return {name: [float(value) for value in values] if name[0] == "x" else values for name, values in columns.items()}


def _without_names(columns: Columns) -> Columns:
    return {name: values for name, values in columns.items() if name not in ("user_id", "label")}


@pytest.mark.parametrize("change", [_turned, _with_more, _as_floats, _without_names])
def test_columns_are_taken_by_name(change: object, trained: UserFolder) -> None:
    """Columns in another order, more of them, other number types, none that is not needed: the same answers."""
    assert callable(change)
    expected = _predicted(trained, "train.parquet")
    trained.write("other.parquet", change(small_points()))
    assert _predicted(trained, "other.parquet", "again.parquet").equals(expected)


def test_without_an_id_column_there_are_no_ids(trained: UserFolder) -> None:
    """Data points need no names to be predicted."""
    columns = small_points()
    del columns["id"], columns["user_id"]
    trained.write("other.parquet", columns)
    assert "id" not in _predicted(trained, "other.parquet").column_names


def _lacking(columns: Columns) -> None:
    del columns["x07"]


def _not_a_number(columns: Columns) -> None:
    columns["x07"][4] = math.nan


def _nothing_there(columns: Columns) -> None:
    columns["x07"][4] = None


def _text(columns: Columns) -> None:
    columns["x07"] = ["seven"] * 120


@pytest.mark.parametrize(
    ("spoil", "texts"),
    [
        (_lacking, ("x07", "other.parquet")),
        (_not_a_number, ("NaN", "column=x07", "row=5")),
        (_nothing_there, ("no value (null)", "column=x07", "row=5")),
        (_text, ("must hold numbers", "column=x07")),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_bad_data_points_are_refused(command: str, spoil: object, texts: tuple[str, ...], trained: UserFolder) -> None:
    """A missing feature column, a NaN, a null, a text: the error names it, and an older output file stays unchanged."""
    assert callable(spoil)
    columns = small_points()
    spoil(columns)
    trained.write("other.parquet", columns)
    (trained.folder / "out.csv").write_text("older", encoding="utf-8")
    out = ("--out", "out.csv") if command == "predict" else ()
    said = trained.refused(command, "other.parquet", *out)
    for text in texts:
        assert text in said.error["message"] + said.error["remedy"]
    assert (trained.folder / "out.csv").read_text(encoding="utf-8") == "older"


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (("predict", "train.parquet", "--out", "out.txt"), ("the ending is unknown", ".parquet")),
        (("predict", "train.parquet", "--out", "out"), ("the ending is unknown",)),
        (("predict", "train.parquet", "--out", "nowhere/out.csv"), ("the folder does not exist", "folder=nowhere")),
        (("predict", "nothing.csv", "--out", "out.csv"), ("there is no such file or folder: nothing.csv",)),
        (("evaluate", "nothing.csv"), ("there is no such file or folder: nothing.csv",)),
        (("evaluate", "unlabelled.parquet"), ("there is no column 'label'", "unlabelled.parquet")),
        (("evaluate", "strange.parquet"), ("the label 'z' is not in [data] classes", "row=3")),
        (("evaluate", "none.parquet"), ("no data point to evaluate on",)),
    ],
)
def test_what_cannot_be_done_is_reported(words: tuple[str, ...], texts: tuple[str, ...], trained: UserFolder) -> None:
    """An unknown ending, a folder or file that is not there, data without labels: wrong input, and nothing written."""
    columns = small_points()
    trained.write("none.parquet", {name: values[:0] for name, values in columns.items()})
    columns["label"][2] = "z"
    trained.write("strange.parquet", columns)
    del columns["label"]
    trained.write("unlabelled.parquet", columns)
    said = trained.refused(*words)
    for text in texts:
        assert text in said.error["message"] + said.error["remedy"]


def test_accuracy_is_the_share_of_right_answers(trained: UserFolder) -> None:
    """``evaluate`` counts what ``predict`` answers."""
    predictions = _predicted(trained, "train.parquet").column("prediction").to_pylist()
    labels = small_points()["label"]
    right = [prediction == label for prediction, label in zip(predictions, labels, strict=True)]
    found = trained.json("evaluate", "train.parquet").data
    assert found["accuracy"] == sum(right) / 120
    of_a = [hit for hit, label in zip(right, labels, strict=True) if label == "a"]
    assert found["per_class"]["a"] == sum(of_a) / len(of_a)
    assert (found["points"], found["constituents"], found["shards"]) == (120, 3, 3)


def test_an_evaluation_says_how_many_data_points_were_trained_on(trained: UserFolder) -> None:
    """The training file has a warning; an erased person is answered for like one who was never there."""
    assert trained.json("evaluate", "train.parquet").data["trained_on"] == {"points": 120, "searched": 1.0}
    said = trained.run("evaluate", "train.parquet")
    assert "warning: the model was trained on 120 of these 120 data points" in said.out + said.err
    columns = small_points()
    place = columns["user_id"].index(MARKED)
    one = {name: values[place : place + 1] for name, values in columns.items()}
    trained.write("erased.parquet", one)
    trained.write("unknown.parquet", one | {"id": ["never-there"]})
    assert trained.json("evaluate", "erased.parquet").data["trained_on"]["points"] == 1
    assert trained.json("erase", "--subject", MARKED).code == 0
    erased, unknown = (trained.json("evaluate", f"{name}.parquet").data for name in ("erased", "unknown"))
    assert erased == unknown
    assert erased["trained_on"] == {"points": 0, "searched": 1.0}
    texts = [trained.run("evaluate", f"{name}.parquet") for name in ("erased", "unknown")]
    assert (texts[0].out, texts[0].err) == (texts[1].out, texts[1].err)
    assert "trained on" not in texts[0].out + texts[0].err


def test_an_evaluation_does_without_slices(trained: UserFolder) -> None:
    """Answers come from checkpoints: where a slice is damaged, what was trained on is not known, and this is said."""
    slices = list(trained.store.glob("shards/*/slices/*/*.parquet"))
    assert slices
    for path in slices:
        path.write_bytes(b"damaged")
    said = trained.json("evaluate", "train.parquet")
    assert (said.code, said.data["points"]) == (0, 120)
    assert "trained_on" not in said.data
    assert "how many of the data points were trained on is not known: " in said.err


def test_majority_vote_is_another_rule(trained: UserFolder) -> None:
    """Aggregation may change without training: probabilities become shares of votes."""
    trained.specify(aggregation__rule="majority_vote")
    shares = _predicted(trained, "train.parquet").column("probability_a").to_pylist()
    assert all(math.isclose(3 * share, round(3 * share), abs_tol=1e-5) for share in shares)


def test_answers_name_the_generation(trained: UserFolder) -> None:
    """An erasure makes a new generation, and answers say which one they come from."""
    assert trained.json("predict", "train.parquet", "--out", "out.csv").data["generation"] == 1
    trained.json("erase", "--subject", MARKED)
    status = trained.json("status").data
    said = trained.json("predict", "train.parquet", "--out", "out.csv").data
    assert said["generation"] == status["generation"] > status["floor"] >= 2


@pytest.mark.parametrize("data", [".", "**/*.parquet", "*"])
def test_a_store_s_own_files_are_never_data(data: str, trained: UserFolder) -> None:
    """A folder or glob that reaches the store gives answers for the data beside it alone."""
    (trained.folder / "sisa.toml").rename(trained.folder / ".sisa.toml")
    command = ("--config", ".sisa.toml", "--json")
    assert list(trained.store.rglob("*.parquet"))
    assert run("predict", data, "--out", "out.csv", *command).data["points"] == 120
    (trained.folder / "out.csv").unlink()
    assert run("evaluate", data, *command).data["points"] == 120
    said = run("evaluate", "federation", *command)
    assert (said.code, said.error["message"]) == (2, "a store's own files are not data: federation")


def test_paths_of_data_are_the_shell_s(trained: UserFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Data to predict are looked for where the command is started, not next to the specification."""
    folder: Path = tmp_path_factory.mktemp("elsewhere")
    UserFolder(folder).write("here.parquet", small_points())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert trained.json("predict", "here.parquet", "--out", "out.csv").code == 0
    assert (folder / "out.csv").exists()
