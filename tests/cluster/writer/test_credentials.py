"""The profile that a federation names is that of all of its buckets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.writer import training_data
from cluster.writer.stores import open_objects, open_witness
from cluster.writer.training_data import open_train
from coordinator.settings import ReceiptSettings
from shards.data.sources import Source, table_source
from storage.encryption.store import SealedStore
from storage.s3.client import S3Store
from storage.stores.local import LocalStore
from tests.doubles.federation import specification_of


def test_store_keys_and_witness(tmp_path: Path) -> None:
    """Store, keys and witness in a bucket are used with the federation's credentials, those in a folder with none."""
    plain = replace(specification_of(shards=1, slices=1), folder=tmp_path, credentials="north")
    bucket = replace(plain, store="s3://bucket/prefix", keys="s3://keys")
    keys = S3Store("keys", profile="north")
    assert open_objects(bucket) == SealedStore(S3Store("bucket", "prefix", profile="north"), keys)
    beside = replace(plain, store="./federation", keys="s3://keys")
    assert open_objects(beside) == SealedStore(LocalStore(str(tmp_path / "federation")), keys)
    witness = open_witness(replace(bucket, receipts=ReceiptSettings(witness="s3://witness", endpoint="http://there")))
    assert witness is not None
    assert witness.store == S3Store("witness", "", "http://there", profile="north")


@pytest.mark.parametrize(("own", "expected"), [(None, "north"), ("reader", "reader")])
def test_data(own: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data are read with the credentials that [data] names, else with the federation's."""
    asked: dict[str, Any] = {}
    nothing = table_source(pa.table({"id": pa.array([], pa.string())}))

    def opened(*_: Any, **given: Any) -> Source:
        asked.update(given)
        return nothing

    monkeypatch.setattr(training_data, "open_source", opened)
    plain = specification_of(shards=1, slices=1)
    data = replace(plain.data, credentials=own, endpoint="http://data")
    open_train(replace(plain, credentials="north", data=data))
    assert (asked["profile"], asked["endpoint"]) == (expected, "http://data")
