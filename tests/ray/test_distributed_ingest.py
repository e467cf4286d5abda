"""Ingest by tasks on a real Ray gives the slices of a plain ingest, in spite of dying tasks and bad data."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import ray

import cluster
from cluster.config.specification import FederationSpecification, read_specification
from cluster.runtime import task_pool as crew
from cluster.training import ingest as ingesting
from cluster.training.ingest import ingestion_of
from cluster.training.workers import Workers
from cluster.writer.stores import open_objects
from coordinator.engine.lookup import load_digests
from coordinator.requests import InlineDigests
from shards.data.sources import Source, open_source
from shards.routing import PartitionKey, SliceId, subject_digest
from shards.slices.ingest import IngestResult, IngestTask, ingest
from shards.tombstones import DigestSet
from storage.encryption.store import SealedStore
from storage.errors import Invalid, Unavailable
from storage.objects import ObjectKey, ObjectStore, VersionTag, new_name
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore
from tests.doubles.user_folder import MARKED, Columns, UserFolder, small_points
from tests.doubles.workers.local_workers import without_ray

pytestmark = pytest.mark.ray

KEY = PartitionKey(bytes(range(16)))
ERASED = DigestSet.of(subjects=[subject_digest(KEY, MARKED)])
FILES = 4


@dataclass(frozen=True, slots=True)
class DyingStore(LocalStore):
    """A store whose writer dies right after it has written a part, as a file beside it says: ``once`` or ``always``."""

    plan: str = ""

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object, and perhaps die."""
        tag = LocalStore.put_if_absent(self, key, payload)
        if key.endswith(".parquet"):
            with suppress(FileNotFoundError):
                if Path(self.plan).read_text(encoding="utf-8") == "once":
                    Path(self.plan).unlink()  # of two at the same time one does not find it any more
                os.kill(os.getpid(), signal.SIGKILL)
        return tag


@pytest.fixture
def spread(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A home with data in several files, each of which is a fragment."""
    monkeypatch.setattr(ingesting, "LEAST_FRAGMENT_BYTES", 1)
    _write(home, small_points())
    home.specify(data__train="parts", cluster__ingest_workers=2)
    return home


def _write(home: UserFolder, columns: Columns) -> None:
    for number in range(FILES):
        home.write(f"parts/{number}.parquet", {name: values[number::FILES] for name, values in columns.items()})


def _sources(home: UserFolder) -> tuple[FederationSpecification, Source]:
    return read_specification(home.config), open_source("parts", home.folder)


def _ingested(
    home: UserFolder, store: ObjectStore, *, remark: Callable[[str], None] = print, heard: list[int] | None = None
) -> IngestResult:
    """Ingest by tasks."""
    specification, source = _sources(home)
    task = IngestTask(
        source=source,
        data=specification.data,
        partition=specification.partition,
        key=KEY,
        store=store,
        tombstones=partial(load_digests, store, InlineDigests.of(ERASED)),
        new_name=new_name,
        progress=(heard if heard is not None else []).append,
    )
    return ingestion_of(task, specification.cluster, Workers(specification, store, remark), remark)(task)


def _plain(home: UserFolder) -> IngestResult:
    specification, source = _sources(home)
    task = IngestTask(
        source=source,
        data=specification.data,
        partition=specification.partition,
        key=KEY,
        store=MemoryStore(f"plain-{new_name()}"),
        tombstones=lambda: ERASED,
        new_name=new_name,
    )
    return ingest(task)


def _contents(ingested: IngestResult) -> tuple[object, ...]:
    slices: dict[SliceId, tuple[int, str, str]] = {
        at: (each.points, each.points_digest, each.content_digest) for at, each in ingested.slices.items()
    }
    return slices, ingested.layout, ingested.inventory, ingested.points, ingested.left_out.refused


def _parts(store: ObjectStore) -> set[str]:
    return {info.key for info in store.list("shards/")}


def test_tasks_give_the_slices_of_a_plain_ingest(spread: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks over four files: slices, layout, inventory and counts of a plain ingest, erased people left out, and
    nothing else in the store. Nothing is put into Ray's object store by hand.
    """
    monkeypatch.setattr(ray, "put", None)
    store, heard = open_objects(read_specification(spread.config)), list[int]()
    ingested = _ingested(spread, store, heard=heard)
    assert _contents(ingested) == _contents(_plain(spread))
    assert (ingested.points, ingested.left_out.refused, heard[-1], len(heard)) == (116, 4, 120, FILES)
    assert _parts(store) == {part.key for record in ingested.slices.values() for part in record.parts}


def test_a_task_that_is_killed_is_repeated(spread: UserFolder) -> None:
    """A process killed after it wrote a part: the same slices, none of them with what the dead one wrote."""
    plan = spread.folder / "plan"
    plan.write_text("once", encoding="utf-8")
    store, remarks = SealedStore(DyingStore(str(spread.store), str(plan))), list[str]()
    ingested = _ingested(spread, store, remark=remarks.append)
    assert not plan.exists()
    assert [text for text in remarks if "another one does its work from the start" in text]
    assert _contents(ingested) == _contents(_plain(spread))
    recorded = {part.key for record in ingested.slices.values() for part in record.parts}
    left = _parts(store) - recorded
    assert len({key.rpartition("/")[2].partition("-")[0] for key in left}) == 1


def test_tasks_that_die_again_and_again(spread: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many deaths the ingest is given up, and what the dead have written is taken back."""
    monkeypatch.setattr(crew, "MOST_DEATHS", 2)
    plan = spread.folder / "plan"
    plan.write_text("always", encoding="utf-8")
    store = SealedStore(DyingStore(str(spread.store), str(plan)))
    with pytest.raises(Unavailable, match="tasks that read data died 2 times in a row"):
        _ingested(spread, store)
    assert _parts(store) == set()


def test_errors_are_those_of_a_plain_ingest(spread: UserFolder) -> None:
    """The error is that of the first file, regardless of which task finds one first; a repeated id is named with its
    two places. The store stays empty.
    """
    store, columns = open_objects(read_specification(spread.config)), small_points()
    columns["label"][2] = columns["label"][9] = columns["label"][3] = "strange"
    _write(spread, columns)
    with pytest.raises(Invalid, match=r"'strange' is not in .*file=parts/1\.parquet column=label row=3") as found:
        _ingested(spread, store)
    with pytest.raises(Invalid, match="strange") as expected:
        _plain(spread)
    assert str(found.value) == str(expected.value)
    columns = small_points()
    columns["id"][7] = columns["id"][0]
    _write(spread, columns)
    with pytest.raises(Invalid, match=r"same id .*file=parts/0\.parquet row=1 other_file=parts/3\.parquet other_row=2"):
        _ingested(spread, store)
    assert _parts(store) == set()


def test_a_federation_whose_data_are_read_by_tasks(spread: UserFolder) -> None:
    """Constituents trained on what two tasks read have the bytes of those trained on what one process read."""
    digests = []
    for tasks, ray_or_not in ((2, nullcontext()), (1, without_ray())):
        spread.specify(data__train="parts", cluster__ingest_workers=tasks, cluster__workers=1, store=f"./by-{tasks}")
        with ray_or_not, cluster.connect(spread.config) as federation:
            digests.append([each.digest for each in federation.train().constituents])
    assert digests[0] == digests[1]
