"""Data points to predict, and the file of predictions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from shards.data.prediction_files import PredictionBatch, check_ending, feature_batches, write_predictions
from shards.data.sources import open_source, table_source
from shards.targets import Class
from storage.errors import Invalid
from tests.shards.people import people, replaced, settings, write

CLASSES = ("no", "yes")


def _answers(*sizes: int, ids: bool = True) -> Iterator[PredictionBatch]:
    for size in sizes:
        yield PredictionBatch(
            ids=pa.array([f"point-{number}" for number in range(size)]) if ids else None,
            scores_NS=np.tile([0.25, 0.75], (size, 1)),
        )


@pytest.mark.parametrize("ending", [".parquet", ".feather", ".csv"])
def test_features_are_those_of_training(tmp_path: Path, ending: str) -> None:
    """Features are returned scaled in float32, ids unchanged, and labels if requested."""
    table = people(30)
    source = open_source(f"a{ending}", write(table, tmp_path / f"a{ending}").parent)
    batches = list(feature_batches(source, settings(scale=255.0), 4, labelled=True))
    features = np.concatenate([batch.features_NF for batch in batches])
    expected = np.stack([np.array(table[f"x{at}"].to_pylist(), dtype=np.float32) for at in range(4)], axis=1)
    assert (expected / np.float32(255)).tobytes() == features.tobytes()
    assert [text for batch in batches if batch.ids for text in batch.ids.to_pylist()] == table["id"].to_pylist()
    labels = [CLASSES[label] for batch in batches if batch.labels_N is not None for label in batch.labels_N]
    assert labels == table["label"].to_pylist()


def test_label_subject_and_id_may_be_absent() -> None:
    """A table with only features can be predicted."""
    (batch,) = feature_batches(table_source(people(5).select(["x0", "x1", "x2", "x3"])), settings(), 4)
    assert batch.ids is None
    assert batch.labels_N is None
    assert batch.features_NF.shape == (5, 4)


def test_ids_of_predictions_may_be_null_or_of_any_type() -> None:
    """A prediction passes ids on and does not use them."""
    (batch,) = feature_batches(table_source(replaced(people(2), "id", [1.5, None])), settings(), 4)
    assert batch.ids is not None
    assert batch.ids.to_pylist() == [1.5, None]


def test_another_width_or_bad_features_are_refused() -> None:
    """What training would refuse, prediction refuses."""
    with pytest.raises(Invalid, match=r"expected 5, got 4 \[file=table row=1\]"):
        next(feature_batches(table_source(people(2)), settings(), 5))
    with pytest.raises(Invalid, match=r"column=x1 row=2"):
        next(feature_batches(table_source(replaced(people(2), "x1", [1.0, float("nan")])), settings(), 4))
    with pytest.raises(Invalid, match=r"there is no column 'label'"):
        next(feature_batches(table_source(people(2).drop_columns(["label"])), settings(), 4, labelled=True))


@pytest.mark.parametrize("ending", [".parquet", ".pq", ".arrow", ".feather", ".ipc", ".csv"])
@pytest.mark.parametrize("ids", [True, False])
def test_answers_are_written_in_every_format(tmp_path: Path, ending: str, ids: bool) -> None:
    """Id, prediction and one probability per class are in the file, over all batches."""
    path = tmp_path / f"out{ending}"
    assert write_predictions(path, _answers(3, 0, 2, ids=ids), Class(CLASSES), "id") == 5
    if ending == ".csv":
        table = pacsv.read_csv(path)
    else:
        table = pq.read_table(path) if ending in {".parquet", ".pq"} else feather.read_table(path)
    assert table.column_names == [*(["id"] if ids else []), "prediction", "probability_no", "probability_yes"]
    assert table["prediction"].to_pylist() == ["yes"] * 5
    assert table["probability_no"].to_pylist() == [0.25] * 5
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_no_answers_are_a_file_without_points(tmp_path: Path) -> None:
    """Predictions for no data points are written as an empty table."""
    path = tmp_path / "out.parquet"
    assert write_predictions(path, iter(()), Class(CLASSES), "id") == 0
    assert pq.read_table(path).num_rows == 0


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    """When prediction fails half-way, an older file is unchanged and nothing else is left."""

    def failing() -> Iterator[PredictionBatch]:
        yield from _answers(3)
        raise Invalid("half-way")

    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(Invalid, match="half-way"):
        write_predictions(path, failing(), Class(CLASSES), "id")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.csv"]


def test_bad_targets_are_refused_beforehand(tmp_path: Path) -> None:
    """An unknown ending, a missing folder and a clash of column names are refused."""
    with pytest.raises(Invalid, match=r"the ending is unknown\. Use \.parquet, \.arrow or \.csv"):
        check_ending(tmp_path / "out.xlsx")
    with pytest.raises(Invalid, match=r"the folder does not exist \[folder=.*none\]\. Create it"):
        check_ending(tmp_path / "none" / "out.csv")
    with pytest.raises(Invalid, match=r"same name as a column of predictions \[column=prediction\]\. Rename"):
        write_predictions(tmp_path / "out.csv", _answers(1), Class(CLASSES), "prediction")
    check_ending(tmp_path / "out.csv")
