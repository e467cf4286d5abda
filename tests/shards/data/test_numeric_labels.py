"""Labels that are numbers: read from files, stored in slices, and answered in files and messages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from shards.data.columns import read_numeric_labels
from shards.data.messages import scores_of_table
from shards.data.prediction_files import PredictionBatch, feature_batches, predictions_table, write_predictions
from shards.data.sources import Batch, open_source, table_source
from shards.routing import Naming
from shards.slices.files import load_shard, record_slice
from shards.slices.survey import find_faults
from shards.specification import ShardId
from shards.targets import MultiLabel, Number
from storage.errors import Corrupt, Invalid
from tests.shards.people import PARTITION, fresh_store, ingest_file, people, settings, write

NUMBERS = pa.array([0.25 * number - 3 for number in range(40)], pa.float64())
FLAGS = pa.array([number % 3 == 0 for number in range(40)])


def _table() -> pa.Table:
    table = people(40).drop_columns(["label"])
    return table.append_column("price", NUMBERS).append_column("sold", FLAGS)


def _batch(values: object, kind: pa.DataType | None = None) -> Batch:
    columns = pa.RecordBatch.from_arrays([pa.array(values, kind)], names=["c"])
    return Batch(file="a.parquet", first=7, columns=columns)


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_labels_are_read_from_every_format(tmp_path: Path, ending: str) -> None:
    """Numbers and booleans of several columns are labels in float32, in the order declared."""
    write(_table(), tmp_path / f"a{ending}")
    source = open_source(f"a{ending}", tmp_path)
    data = settings(target="number", label=("sold", "price"), classes=(), features=("x*",))
    batches = list(feature_batches(source, data, 4, labelled=True))
    labels = np.concatenate([batch.labels_N for batch in batches if batch.labels_N is not None])
    assert labels.dtype == np.float32
    assert labels[:, 0].tolist() == [float(value) for value in FLAGS.to_pylist()]
    assert labels[:, 1].tolist() == NUMBERS.to_pylist()


@pytest.mark.parametrize(
    ("values", "kind", "flags", "text"),
    [
        ([1.0, None], pa.float64(), False, r"has no label \(null\).*column=c row=8"),
        ([1.0, float("nan")], pa.float64(), False, "label that is NaN or infinite.*row=8"),
        ([1.0, 1e39], pa.float64(), False, "label that is NaN or infinite.*row=8"),
        (["a", "b"], pa.string(), False, r"label, its type is string.* another one in \[data\] label\."),
        ([1.0, 0.5], pa.float64(), True, "neither 0 nor 1, false nor true.*row=8"),
    ],
)
def test_bad_labels_are_refused(values: list[object], kind: pa.DataType, flags: bool, text: str) -> None:
    """The error names file, column and row, and no value."""
    with pytest.raises(Invalid, match=text):
        read_numeric_labels(_batch(values, kind), ("c",), flags=flags)


def test_all_bad_labels_are_found_at_once(tmp_path: Path) -> None:
    """The survey reports the rows of bad labels before training, also of a text in a CSV file."""
    text = "id,person,x0,price\na,a,1,1.5\nb,b,1,cheap\nc,c,1,\n"
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    data = settings(target="number", label="price", classes=(), features=("x0",), train="a.csv")
    found = find_faults(open_source("a.csv", tmp_path), data, Naming(form="trimmed", by_skeleton=True))
    assert sorted((fault.column, fault.row or 0) for fault in found) == [("price", 2), ("price", 3)]


@pytest.mark.parametrize("target", ["number", "multi_label"])
def test_the_remedy_for_a_label_that_is_a_text_is_about_labels(tmp_path: Path, target: str) -> None:
    """It names [data] label, in training, evaluation and the survey; a label can have no encoder."""
    (tmp_path / "a.csv").write_text("id,person,x0,price\na,a,1,1\nb,b,1,cheap\n", encoding="utf-8")
    data = settings(target=target, label="price", classes=(), features=("x0",), train="a.csv")
    source = open_source("a.csv", tmp_path)
    remedy = "Correct it, leave the data point out, or name another column in [data] label."
    with pytest.raises(Invalid, match="the cell is not a number") as refused:
        ingest_file(tmp_path / "a.csv", data)
    assert refused.value.remedy == remedy
    with pytest.raises(Invalid, match="the cell is not a number") as refused:
        list(feature_batches(source, data, 1, labelled=True))
    assert refused.value.remedy == remedy
    (fault,) = find_faults(source, data, Naming(form="trimmed", by_skeleton=True))
    assert fault.remedy == remedy


def test_a_slice_keeps_numbers(tmp_path: Path) -> None:
    """Labels come back from slices in float32, each with its data point, in canonical order."""
    store = fresh_store()
    data = settings(target="number", label=("price", "sold"), classes=())
    result = ingest_file(write(_table(), tmp_path / "a.parquet"), data, store=store)
    labels = []
    for number in range(PARTITION.shards):
        slices = result.shard(ShardId(number), PARTITION.slices)
        points = load_shard(store, slices, 4, 1.0)
        assert points.labels_N.dtype == np.float32
        labels += [tuple(row) for row in points.labels_N.tolist()]
        assert all(record_slice(store, record.parts) == record for record in slices if record.points)
    expected = zip(NUMBERS.to_pylist(), map(float, FLAGS.to_pylist()), strict=True)
    assert sorted(labels) == sorted(expected)


def test_another_number_is_another_content(tmp_path: Path) -> None:
    """The content digest covers the labels."""
    data = settings(target="number", label="price", classes=())
    other = _table().set_column(_table().column_names.index("price"), "price", pa.array([1.0] * 40))
    files = [write(table, tmp_path / f"{number}.parquet") for number, table in enumerate((_table(), other))]
    found = [ingest_file(file, data).slices for file in files]
    one, two = ([each[place] for place in sorted(each)] for each in found)
    assert [each.points_digest for each in one] == [each.points_digest for each in two]
    assert not {each.content_digest for each in one} & {each.content_digest for each in two}


def test_answers_of_numbers_and_labels_are_written(tmp_path: Path) -> None:
    """Numbers have a spread; labels are a list, which a CSV file joins."""
    number = [PredictionBatch(ids=None, scores_NS=np.array([[1.5, 0.25]]))]
    assert write_predictions(tmp_path / "a.parquet", number, Number(("price",))) == 1
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [{"prediction": 1.5, "spread": 0.25}]
    labels = [PredictionBatch(ids=pa.array(["p"]), scores_NS=np.array([[0.5, 0.75]]))]
    target = MultiLabel(("red", "round"))
    line = {"id": "p", "labels": ["red", "round"], "probability_red": 0.5, "probability_round": 0.75}
    assert predictions_table(labels, target, "id").to_pylist() == [line]
    write_predictions(tmp_path / "a.csv", labels, target, "id")
    assert pacsv.read_csv(tmp_path / "a.csv").to_pylist() == [line | {"labels": "red|round"}]


def test_scores_travel_in_a_message() -> None:
    """A site's answer of numbers is read back; one with an impossible spread, or of another target, is not used."""
    target, scores = Number(("price",)), np.array([[1.5, 0.25], [-2.0, 0.0]])
    table = predictions_table([PredictionBatch(ids=None, scores_NS=scores)], target)
    assert scores_of_table(table, target, 2).tolist() == scores.tolist()
    bad = predictions_table([PredictionBatch(ids=None, scores_NS=-scores)], target)
    with pytest.raises(Corrupt, match="a spread below 0"):
        scores_of_table(bad, target, 2)
    with pytest.raises(Corrupt, match="it has other columns"):
        scores_of_table(table, MultiLabel(("price",)), 2)


def test_a_label_is_no_feature() -> None:
    """Every label column is kept out of the features, and must not be named among them."""
    data = settings(target="number", label=("x1", "price"), classes=())
    (batch,) = feature_batches(table_source(_table()), data, 3, labelled=True)
    assert batch.features_NF.shape == (40, 3)
    named = replace(data, label="x1", features=("x1",))
    with pytest.raises(Invalid, match="which is the id, subject or label column"):
        list(feature_batches(table_source(_table()), named, 1))
