"""Encoders at ingest, in surveys and in predictions: the same features everywhere, the same refusals."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shards.data.columns import choose_columns
from shards.data.prediction_files import feature_batches
from shards.data.sources import open_source, table_source
from shards.routing import Naming, point_digest
from shards.slices.files import load_shard
from shards.slices.ingest import IngestResult
from shards.slices.survey import find_faults
from shards.specification import DataSettings, ShardId
from shards.tombstones import DigestSet
from storage.errors import Invalid
from storage.objects import ObjectStore
from tests.shards.data.encoding.columns import DECLARED, rows
from tests.shards.people import KEY, PARTITION, fresh_store, ingest_file, people, points, replaced, settings, write

TRIMMED = Naming(form="trimmed", by_skeleton=True)
WIDTH = 4 + sum((2, 4, 1, 17, 1, 5, 2, 32, 4))


def encoded_settings(**changes: object) -> DataSettings:
    """Return settings for ``customers``: four plain numbers, and a column for every kind of encoder."""
    return settings(**{"features": ("x*", *DECLARED), "encode": DECLARED, **changes})


def customers(points_: int = 30) -> pa.Table:
    """Return people with a cell for every encoder, some without a value."""
    cells = [
        {
            "age": None if number % 7 == 0 else 20.0 + number,
            "plan": ("free", "pro", "team", "gold", None)[number % 5],
            "level": (1, 2, 3, None)[number % 4],
            "city": ("Lyon", "Oslo", None)[number % 3],
            "street": f"street {number}",
            "since": dt.datetime(2020, 1, 1) + dt.timedelta(hours=31 * number),  # noqa: DTZ001
            "active": ("Yes", "No", None)[number % 3],
            "note": f"word{number} again and again",
            "title": None if number % 6 == 0 else f"a title of {number}",
        }
        for number in range(points_)
    ]
    table, more = people(points_), rows(cells)
    for name in more.column_names:
        table = table.append_column(name, more.column(name))
    return table


def slice_digests(ingested: IngestResult) -> dict[Any, tuple[int, str, str]]:
    """Return the digests of all slices."""
    return {at: (each.points, each.points_digest, each.content_digest) for at, each in ingested.slices.items()}


def stored(store: ObjectStore, ingested: IngestResult) -> dict[int, bytes]:
    """Return the features of every data point in the store, by key."""
    found: dict[int, bytes] = {}
    for shard in range(PARTITION.shards):
        loaded = load_shard(store, ingested.shard(ShardId(shard), PARTITION.slices), ingested.layout.width, 1.0)
        found |= {int(key): row.tobytes() for key, row in zip(loaded.keys_N, loaded.features_NF, strict=True)}
    return found


def test_slices_hold_what_predictions_read(tmp_path: Path) -> None:
    """A data point has the same features in a slice and when it is predicted, from any format; layouts name columns."""
    store, data = fresh_store(), encoded_settings()
    ingested = ingest_file(write(customers(), tmp_path / "a.parquet"), data, store=store)
    assert ingested.layout.width == WIDTH
    assert ingested.layout.features == ("x0", "x1", "x2", "x3", *DECLARED)
    kept = stored(store, ingested)
    for name in ("a.parquet", "b.csv"):
        source = open_source(write(customers(), tmp_path / name).name, tmp_path)
        for batch in feature_batches(source, data, WIDTH):
            assert batch.ids is not None
            keys = [int.from_bytes(point_digest(KEY, id_)[:8], "big") for id_ in batch.ids.to_pylist()]
            assert [kept[key] for key in keys] == [row.tobytes() for row in batch.features_NF]


def test_formats_and_erasures_leave_the_same_slices(tmp_path: Path) -> None:
    """The format changes no digest, and people who are kept out leave no trace in the encoding of others (E6)."""
    data = encoded_settings()
    reference = ingest_file(write(customers(), tmp_path / "a.parquet"), data)
    for name in ("a.csv", "a.feather"):
        assert slice_digests(
            ingest_file(write(customers(), tmp_path / name), data, buffer_bytes=2000)
        ) == slice_digests(reference)
    gone = DigestSet.of().union(points(*range(0, 30, 2)))
    left = customers().take(list(range(1, 30, 2)))
    without = ingest_file(tmp_path / "a.parquet", data, tombstones=gone)
    assert slice_digests(without) == slice_digests(ingest_file(write(left, tmp_path / "b.parquet"), data))


def test_what_is_declared_otherwise_is_another_content(tmp_path: Path) -> None:
    """Another constant gives other content digests; a pattern means what the names mean."""
    path = write(people(20), tmp_path / "a.parquet")
    plain = ingest_file(path, settings())
    one = ingest_file(path, settings(encode={"x*": {"scale": 2.0}}))
    other = ingest_file(path, settings(encode={f"x{at}": {"scale": 2.0} for at in range(4)}))
    assert slice_digests(one) == slice_digests(other)
    assert not {each[2] for each in slice_digests(one).values()} & {each[2] for each in slice_digests(plain).values()}


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_a_survey_finds_every_cell_that_does_not_fit(tmp_path: Path, name: str) -> None:
    """Good data have no faults; cells that encoders refuse are all found in one run, by row and column."""
    data, table = encoded_settings(), customers()
    assert find_faults(open_source(write(table, tmp_path / name).name, tmp_path), data, TRIMMED) == ()
    strict = {name: {**options} for name, options in DECLARED.items()}
    del strict["age"]["missing"], strict["age"]["flag_missing"], strict["plan"]["other"]
    active = table.column("active").to_pylist()
    active[4] = active[10] = "Perhaps"
    bad = write(replaced(table, "active", active), tmp_path / f"bad-{name}")
    found = find_faults(open_source(bad.name, tmp_path), encoded_settings(encode=strict), TRIMMED)
    assert {(each.column, each.row, each.points) for each in found} == {
        ("age", 1, 5),  # of no value: rows 1, 8, 15, 22, 29
        ("plan", 4, 6),  # gold
        ("plan", 5, 6),  # of no value
        ("active", 5, 2),
    }


def test_encoders_of_what_is_no_feature_are_refused() -> None:
    """An encoder must concern a feature column, one column one encoder, and no column of lists."""
    source = table_source(people(3))
    with pytest.raises(Invalid, match=r"\[data\.encode\] names 'age', which is not a feature column.*Name it in"):
        choose_columns(source, settings(encode={"age": {"missing": 0.0}}))
    with pytest.raises(Invalid, match=r"two patterns .* 'x\*' and 'x\[0-1\]'.*column=x0"):
        choose_columns(source, settings(encode={"x*": {"shift": 1.0}, "x[0-1]": {"shift": 2.0}}))
    lists = people(3).append_column("emb", pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2)))
    with pytest.raises(Invalid, match=r"\[data\.encode\] names a column of lists.*column=emb"):
        choose_columns(table_source(lists), settings(features=("emb",), encode={"emb": {"missing": 0.0}}))


def test_plain_columns_beside_encoded_ones_stay_strict() -> None:
    """A column without an encoder takes finite numbers only, and the error names it among the encoded ones."""
    table = replaced(customers(5), "x2", [1.0, 2.0, None, 4.0, 5.0], pa.float32())
    with pytest.raises(Invalid, match=r"has no value \(null\).*column=x2 row=3"):
        list(feature_batches(table_source(table), encoded_settings(), WIDTH))
    table = replaced(customers(5), "x2", [1.0, 2.0, float("nan"), 4.0, 5.0], pa.float32())
    features = (*DECLARED, "x*")
    with pytest.raises(Invalid, match=r"NaN or infinite.*column=x2 row=3"):
        list(feature_batches(table_source(table), encoded_settings(features=features), WIDTH))


def test_labels_and_features_come_together(tmp_path: Path) -> None:
    """An evaluation reads labels beside encoded features."""
    source = open_source(write(customers(12), tmp_path / "a.csv").name, tmp_path)
    (batch,) = feature_batches(source, encoded_settings(), WIDTH, labelled=True)
    assert batch.labels_N is not None
    assert batch.labels_N.tolist() == [number % 2 for number in range(12)]
    assert batch.features_NF.shape == (12, WIDTH)
    assert np.isfinite(batch.features_NF).all()
