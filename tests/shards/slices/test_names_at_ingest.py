"""Names at ingest: spellings, numbers stored as floats, files that disagree, missing names (E15)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shards.data.sources import open_source
from shards.routing import Naming, SliceId, SubjectDigest, point_digest, slice_of, subject_digest
from shards.slices.files import read_part, rewrite_slice
from shards.slices.ingest import IngestResult, IngestTask, LeftOut, ingest
from shards.slices.parallel_ingest import ParallelIngest
from shards.tombstones import NOTHING, DigestSet
from storage.errors import Invalid
from storage.objects import ObjectStore
from tests.doubles.workers.fake_task_pool import FakeTaskPool
from tests.shards.people import (
    KEY,
    PARTITION,
    FixedTombstones,
    fresh_names,
    fresh_store,
    people,
    replaced,
    settings,
    write,
)

EMAIL = Naming(form="email", by_skeleton=True)
TRIMMED = Naming(form="trimmed", by_skeleton=True)
WAYS = ["one process", "several processes"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Returns how the source is read: by this process, or in fragments by several."""
    way: str = request.param
    return way


def ingested(
    way: str,
    path: Path,
    naming: Naming = TRIMMED,
    tombstones: DigestSet = NOTHING,
    store: ObjectStore | None = None,
    **changes: object,
) -> IngestResult:
    """Ingest a file or folder."""
    task = IngestTask(
        source=open_source(str(path), path.parent),
        data=settings(**changes),
        partition=PARTITION,
        key=KEY,
        naming=naming,
        store=store or fresh_store(),
        tombstones=FixedTombstones(tombstones),
        new_name=fresh_names(),
    )
    return ingest(task) if way == "one process" else ParallelIngest(pool=FakeTaskPool(), fragment_bytes=1)(task)


def named(*names: str) -> pa.Table:
    """Return a table with one data point for each of these subjects."""
    return replaced(people(len(names)), "person", list(names), pa.string())


def test_a_persons_spellings_are_one_subject(way: str, tmp_path: Path) -> None:
    """Spellings with the same form have one digest and share one slice, in all files."""
    store = fresh_store()
    spellings = ["mia@example.com", " Mia@Example.com", "MIA@EXAMPLE.COM\u200b", "noah"]
    path = write(named(*spellings), tmp_path / "a.parquet")
    found = ingested(way, path, EMAIL, store=store)
    mia = subject_digest(KEY, "mia@example.com", EMAIL)
    where = slice_of(mia, PARTITION.shards, PARTITION.slices, EMAIL)
    people_there = [
        digest.tobytes() for part in found.slices[where].parts for digest in read_part(store, part).subjects_N
    ]
    assert people_there.count(mia) == 3
    assert sum(record.similar for record in found.slices.values()) == 0


def test_similar_names_are_counted_and_share_a_slice(way: str, tmp_path: Path) -> None:
    """Names with different forms but the same skeleton are counted and share a slice."""
    path = write(named("Mia", "mia", "m-i-a", "noah", "17", "17.0"), tmp_path / "a.parquet")
    found = ingested(way, path)
    assert sum(record.similar for record in found.slices.values()) == 5
    assert len([record for record in found.slices.values() if record.similar]) <= 2


def test_similar_names_are_recounted_after_an_erasure(tmp_path: Path) -> None:
    """When one of two similar names is erased, the count of similar names is zero."""
    store = fresh_store()
    found = ingested("one process", write(named("Mia", "mia", "noah"), tmp_path / "a.parquet"), store=store)
    where: SliceId = slice_of(subject_digest(KEY, "mia", TRIMMED), PARTITION.shards, PARTITION.slices, TRIMMED)
    assert found.slices[where].similar == 2
    gone = DigestSet.of(subjects=[subject_digest(KEY, "Mia", TRIMMED)])
    assert rewrite_slice(store, found.slices[where], gone, where, fresh_names()).record.similar == 0


def test_without_skeletons_nothing_is_alike(way: str, tmp_path: Path) -> None:
    """A store of release 0.1 keeps names as given and has no skeletons, so nothing is counted."""
    found = ingested(way, write(named("Mia", "mia", "Mia "), tmp_path / "a.parquet"), Naming())
    assert sum(record.similar for record in found.slices.values()) == 0


def test_effects_of_tombstones_are_counted_separately(way: str, tmp_path: Path) -> None:
    """The counts are: refused, refused only by id, and taken in although spelt like an erased subject."""
    path = write(named("mia", "mia", "Mia", "somebody", "noah"), tmp_path / "a.parquet")
    tombstones = DigestSet.of(
        subjects=[SubjectDigest(subject_digest(KEY, "mia", TRIMMED))],
        points=[point_digest(KEY, f"point-{number}") for number in (0, 3)],
    )
    found = ingested(way, path, tombstones=tombstones)
    assert found.left_out == LeftOut(refused=3, by_id=1, respelt=1)
    assert found.points == 2


@pytest.mark.parametrize("column", ["id", "person"])
def test_numbers_in_one_csv_file_and_text_in_another_are_refused(way: str, tmp_path: Path, column: str) -> None:
    """A column with two kinds of names is refused; in CSV files this shows only once they are read."""
    numbers = replaced(people(5), column, [str(number) for number in range(5)], pa.string())
    write(numbers, tmp_path / "parts" / "a.csv")
    other = people(5).set_column(0, "id", pa.array([f"other-{n}" for n in range(5)], pa.string()))
    write(other, tmp_path / "parts" / "b.csv")
    store = fresh_store()
    with pytest.raises(Invalid, match="only numbers in one file and text in another") as error:
        ingested(way, tmp_path / "parts", store=store)
    context = error.value.context
    assert (context["column"], context["numbers"], context["text"]) == (column, "parts/a.csv", "parts/b.csv")
    assert list(store.list("")) == []


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()], ids=str)
@pytest.mark.parametrize("is_csv", ["numbers", "text"])
def test_a_csv_file_and_a_typed_one_are_compared_as_well(
    way: str, tmp_path: Path, kind: pa.DataType, is_csv: str
) -> None:
    """Names that are numbers in one file and text in the other are refused, whichever file has no types."""
    endings = {"numbers": "parquet", "text": "parquet"} | {is_csv: "csv"}
    numbers = replaced(people(5), "person", list(range(5)), pa.int64()).column("person").cast(kind)
    write(replaced(people(5), "person", numbers.combine_chunks()), tmp_path / "parts" / f"a.{endings['numbers']}")
    other = people(5).set_column(0, "id", pa.array([f"other-{n}" for n in range(5)], pa.string()))
    write(other, tmp_path / "parts" / f"b.{endings['text']}")
    with pytest.raises(Invalid, match=r"only numbers in one file and text in another \[column=person"):
        ingested(way, tmp_path / "parts")


def test_a_csv_file_and_a_typed_one_may_agree(way: str, tmp_path: Path) -> None:
    """Numbers in a CSV file equal whole numbers in Parquet."""
    write(replaced(people(5), "person", list(range(5)), pa.int64()), tmp_path / "parts" / "a.parquet")
    other = people(5).set_column(0, "id", pa.array([f"other-{n}" for n in range(5)], pa.string()))
    write(replaced(other, "person", [str(n) for n in range(5)], pa.string()), tmp_path / "parts" / "b.csv")
    assert ingested(way, tmp_path / "parts").points == 10


def test_names_of_one_file_may_mix_numbers_and_text(way: str, tmp_path: Path) -> None:
    """Within one file, and in files of the same kind, any names are accepted."""
    write(named("17", "x", "17.0"), tmp_path / "parts" / "a.csv")
    other = named("18", "y", "z").set_column(0, "id", pa.array(["q0", "q1", "q2"], pa.string()))
    write(other, tmp_path / "parts" / "b.csv")
    assert ingested(way, tmp_path / "parts").points == 6


@pytest.mark.parametrize("name", ["9007199254740993.0", "1.2345678901234567e+17", "9007199254740992.0"])
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_name_that_a_float_may_have_rounded_is_refused(way: str, tmp_path: Path, name: str, ending: str) -> None:
    """From 2**53 on a float cannot hold every number, so the name is refused with file, column and row."""
    path = write(named("a", "b", name), tmp_path / f"a{ending}")
    with pytest.raises(Invalid, match=r"stored as a float, from 2\*\*53 on") as error:
        ingested(way, path)
    assert (error.value.context["column"], error.value.context["row"]) == ("person", 3)
    assert name not in str(error.value)


def test_whole_numbers_of_any_size_are_names(way: str, tmp_path: Path) -> None:
    """Numbers that were never floats may have any size."""
    path = write(named("9007199254740993", "123456789012345678901234567890", "17.0"), tmp_path / "a.csv")
    assert ingested(way, path).points == 3


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
@pytest.mark.parametrize("column", ["id", "person"])
def test_missing_names_are_counted(way: str, tmp_path: Path, ending: str, column: str) -> None:
    """The error for a missing name has column, row, and the number of missing names in all files."""
    values: list[str | None] = [f"name-{number}" for number in range(12)]
    values[4] = values[7] = values[9] = None
    path = write(replaced(people(12), column, values, pa.string()), tmp_path / f"a{ending}")
    with pytest.raises(Invalid, match=r"3 data points here have no name") as error:
        ingested(way, path)
    assert (error.value.context["column"], error.value.context["row"]) == (column, 5)


def test_one_missing_name_is_the_only_one(way: str, tmp_path: Path) -> None:
    """The count does not say "1 data points"."""
    path = write(named("a", "b").set_column(1, "person", pa.array(["a", None], pa.string())), tmp_path / "a.parquet")
    with pytest.raises(Invalid, match="it is the only one"):
        ingested(way, path)


@pytest.mark.parametrize(
    ("form", "names", "fact"),
    [
        ("phone", ["0301", "none"], "no digit"),
        ("integer", ["1", "x"], "not a whole number"),
        ("trimmed", ["a", " "], "no"),
    ],
)
def test_a_name_without_the_declared_form_is_refused(
    way: str, tmp_path: Path, form: Any, names: list[str], fact: str
) -> None:
    """The error has file, column and row, but not the name."""
    path = write(named(*names), tmp_path / "a.parquet")
    with pytest.raises(Invalid, match=fact) as error:
        ingested(way, path, Naming(form=form, by_skeleton=True))
    context = error.value.context
    assert (context["file"], context["column"], context["row"]) == ("a.parquet", "person", 2)
