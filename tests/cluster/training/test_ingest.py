"""The choice of this process or the cluster for reading the data, without Ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.config.specification import ClusterSettings
from cluster.training import ingest as ingesting
from cluster.training.ingest import ingestion_of
from coordinator.ports import Ingestion
from shards.data.sources import Source, open_source, table_source
from shards.slices.ingest import IngestTask, ingest
from shards.slices.parallel_ingest import ParallelIngest
from shards.tombstones import DigestSet
from storage.errors import Invalid
from storage.stores.memory import MemoryStore
from tests.shards.people import KEY, PARTITION, people, settings, write


@dataclass(slots=True)
class Helpers:
    """Stands for ``cluster.training.workers.Workers``: remembers what is asked of it."""

    calls: list[str] = field(default_factory=list)

    def join(self) -> None:
        """Join Ray."""
        self.calls.append("join")

    def release(self) -> None:
        """Let idle workers go."""
        self.calls.append("release")


@dataclass(slots=True)
class Place:
    """A cluster of so many processors, whose nodes see the files or do not."""

    monkeypatch: pytest.MonkeyPatch
    helpers: Helpers = field(default_factory=Helpers)
    remarks: list[str] = field(default_factory=list)

    def set_up(self, *, processors: int = 8, seen: bool = True, large_bytes: int = 2 << 30) -> None:
        """Make it so."""

        def check(*_: object) -> None:
            if not seen:
                raise Invalid("a node sees nothing", "Share the folder.")

        self.monkeypatch.setattr(ingesting, "processors", lambda: processors)
        self.monkeypatch.setattr(ingesting, "check_nodes", check)
        self.monkeypatch.setattr(ingesting, "LARGE_BYTES", large_bytes)

    def chosen(self, source: Source, ingest_workers: int | None) -> Ingestion:
        """Return who ingests."""
        helpers: Any = self.helpers
        task = IngestTask(
            source=source,
            data=settings(),
            partition=PARTITION,
            key=KEY,
            store=MemoryStore("nobody"),
            tombstones=DigestSet,
            new_name=lambda: "name",
        )
        return ingestion_of(task, ClusterSettings(ingest_workers=ingest_workers), helpers, self.remarks.append)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    """A cluster that sees everything, and thinks little of small data."""
    place = Place(monkeypatch)
    place.set_up()
    return place


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A small file."""
    write(people(9), tmp_path / "a.parquet")
    return open_source("a.parquet", tmp_path)


def test_small_data_are_read_here(place: Place, source: Source) -> None:
    """Below the limit, or where it is set so, nobody asks Ray; a table in memory is never sent anywhere."""
    assert place.chosen(source, None) is ingest
    assert place.chosen(source, 1) is ingest
    assert place.chosen(table_source(pa.table({"id": [1]})), 5) is ingest
    assert place.helpers.calls == []


def test_large_data_are_read_by_the_cluster(place: Place, source: Source) -> None:
    """Data above the limit are read by as many tasks as there are processors; idle workers first release theirs."""
    place.set_up(large_bytes=1)
    chosen = place.chosen(source, None)
    assert isinstance(chosen, ParallelIngest)
    assert getattr(chosen.pool, "_tasks", None) == 8
    assert place.helpers.calls == ["join", "release"]
    place.set_up(processors=1, large_bytes=1)
    assert place.chosen(source, None) is ingest


def test_it_may_be_set_how_many_read(place: Place, source: Source) -> None:
    """The setting holds regardless of the data's size; fragments and buffers stay within their bounds."""
    chosen = place.chosen(source, 3)
    assert isinstance(chosen, ParallelIngest)
    assert getattr(chosen.pool, "_tasks", None) == 3
    assert chosen.fragment_bytes == ingesting.LEAST_FRAGMENT_BYTES
    assert chosen.buffer_bytes == (512 - 70 - 150) // 8 << 20


def test_where_a_node_does_not_see_the_files(place: Place, source: Source) -> None:
    """What is set and cannot be done is refused; what is not set is done by one process, and said."""
    place.set_up(seen=False, large_bytes=1)
    assert place.chosen(source, None) is ingest
    assert place.remarks == ["a node sees nothing, so this one reads them all. Share the folder."]
    with pytest.raises(Invalid, match=r"a node sees nothing\. Share the folder\."):
        place.chosen(source, 2)
    assert "release" not in place.helpers.calls
