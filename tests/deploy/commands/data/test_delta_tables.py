"""A federation that trains on a Delta table: on its current version, or on one that is named."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import sisa
from cluster.sources import find_leftovers
from storage.errors import Invalid
from tests.doubles.user_folder import UserFolder

deltalake = pytest.importorskip("deltalake")


def test_a_delta_table_from_training_to_erasure(home: UserFolder) -> None:
    """The store records the version; an older one brings nobody back who was erased."""
    table = pq.read_table(home.folder / "train.parquet")
    numbers = [
        pc.cast(table[name], pa.float32()) if name.startswith("x") else table[name] for name in table.schema.names
    ]
    table = pa.table(dict(zip(table.schema.names, numbers, strict=True)))
    deltalake.write_deltalake("people", table.slice(8))
    deltalake.write_deltalake("people", table.slice(0, 8), mode="append")
    settings = home.config.read_text(encoding="utf-8")
    home.config.write_text(settings.replace("train.parquet", "people"), encoding="utf-8")
    assert sum(each["points"] for each in home.json("train").data["constituents"]) == len(table)
    person = table["user_id"][20].as_py()
    erased = home.json("erase", "--subject", person).data["points"]
    pinned = settings.replace('"train.parquet"', '"people"\nversion = 0')
    home.config.write_text(pinned, encoding="utf-8")
    kept = home.json("train").data["constituents"]
    held = pc.sum(pc.equal(table["user_id"].slice(8), person)).as_py()
    assert 0 < held <= erased
    assert sum(each["points"] for each in kept) == len(table) - 8 - held
    with sisa.connect("sisa.toml") as federation:
        state = federation.reading.current()
        assert state is not None
        assert state.data is not None
        assert all(entry.name.startswith("people@0/") for entry in state.data.inventory)
        found = find_leftovers(federation.specification, federation.store, state)
        assert found is not None
        assert found.held.total() == held
        with pytest.raises(Invalid, match=r"files of a Delta table are not copied .*Delete the rows from the table"):
            find_leftovers(federation.specification, federation.store, state, copies_in=home.folder / "clean")
        federation.evaluate("people")
