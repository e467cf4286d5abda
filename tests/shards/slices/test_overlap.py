"""Data points that are evaluated are compared with those that were trained on, by keyed digests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shards.data.prediction_files import feature_batches
from shards.data.sources import Source, open_source, table_source
from shards.routing import point_digest
from shards.slices.files import rewrite_slice
from shards.slices.overlap import Evaluated, TrainedOn
from shards.tombstones import DigestSet
from storage.stores.memory import MemoryStore
from tests.shards.people import KEY, fresh_names, fresh_store, ingest_file, people, replaced, settings, write

DATA = settings(scale=255.0)


def overlap(tmp_path: Path, asked: pa.Table, most_bytes: int = 1 << 20, ending: str = ".parquet") -> TrainedOn | None:
    """Return what is found of ``asked`` in a federation of ``people``, without point-3, which was erased."""
    store = fresh_store()
    found = ingest_file(write(people(), tmp_path / "train.parquet"), DATA, store=store)
    erased = DigestSet.joined(points=point_digest(KEY, "point-3"))
    slices = [rewrite_slice(store, each, erased, place, fresh_names()).record for place, each in found.slices.items()]
    evaluated = Evaluated(KEY)
    write(asked, tmp_path / f"asked{ending}")
    for batch in feature_batches(open_source(f"asked{ending}", tmp_path), DATA, 4, labelled=True):
        evaluated.add(batch)
    return evaluated.trained_on(store, slices, DATA.scale, most_bytes)


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_the_training_file_is_recognised(tmp_path: Path, ending: str) -> None:
    """In another order, form and type as well; all but the erased data point are counted."""
    asked = people(dtype="float32").take(list(range(39, -1, -1)))
    assert overlap(tmp_path, asked, ending=ending) == TrainedOn(points=39, searched=1.0)


def test_an_erased_data_point_counts_as_one_that_was_never_there(tmp_path: Path) -> None:
    """The answer for its row is the answer for a row with an unknown id."""
    erased = people().slice(3, 1)
    unknown = replaced(erased, "id", ["point-99"])
    assert overlap(tmp_path, erased) == overlap(tmp_path, unknown) == TrainedOn(points=0, searched=1.0)


@pytest.mark.parametrize("column", ["label", "x2"])
def test_an_id_alone_says_nothing(tmp_path: Path, column: str) -> None:
    """Many files number their rows: another label or another feature is another data point."""
    table = people().slice(5, 10)
    values = {"label": ["no", "yes"] * 5, "x2": [1] * 10}[column]
    kind = table.schema.field(column).type
    assert (np.array(values) != np.array(table.column(column).to_pylist())).all()
    assert overlap(tmp_path, replaced(table, column, values, kind)) == TrainedOn(points=0, searched=1.0)


def test_without_ids_nothing_is_compared(tmp_path: Path) -> None:
    """The same holds for ids of a type that cannot name a data point; rows without an id are never found."""
    assert overlap(tmp_path, people().drop_columns(["id"])) is None
    assert overlap(tmp_path, replaced(people(), "id", [0.5 * n for n in range(40)])) is None
    none = replaced(people(), "id", [None] * 40, pa.string())
    assert overlap(tmp_path, none) == TrainedOn(points=0, searched=1.0)


def test_of_a_large_federation_some_slices_are_compared(tmp_path: Path) -> None:
    """The share of the data that were compared stands beside the number, which counts those found in them."""
    found = overlap(tmp_path, people(), most_bytes=1)
    assert found is not None
    assert found.points == round(found.searched * 39)
    assert 0 < found.searched < 1


def test_a_federation_without_data_points_has_none_in_common() -> None:
    """After everybody was erased there is nothing to compare."""
    evaluated = Evaluated(KEY)
    (batch,) = feature_batches(_source(), DATA, 4, labelled=True)
    evaluated.add(batch)
    assert evaluated.trained_on(MemoryStore("nothing"), [], 1.0) == TrainedOn(points=0, searched=1.0)


def _source() -> Source:
    return table_source(people())
