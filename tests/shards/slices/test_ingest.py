"""Ingest: the same slices from any file of the same points, nothing left after a failure, no plain id stored."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shards.routing import SliceId, point_digest, slice_of, subject_digest
from shards.slices.files import decode_part, load_shard, rewrite_slice
from shards.slices.ingest import IngestResult, check_scale
from shards.specification import PartitionSettings, ShardId
from shards.tombstones import DigestSet
from storage.errors import Invalid, OutcomeUnknown, StoreFull
from tests.doubles.stores.faulty_store import Fault, FaultyStore
from tests.shards.people import (
    KEY,
    PARTITION,
    fresh_names,
    fresh_store,
    ingest_file,
    people,
    points,
    replaced,
    settings,
    subjects,
    write,
)
from tests.volume import examples


def _digests(ingested: IngestResult) -> dict[SliceId, tuple[int, str, str]]:
    return {at: (record.points, record.points_digest, record.content_digest) for at, record in ingested.slices.items()}


@pytest.mark.volume
@hypothesis_settings(max_examples=examples(40, few=15))
@given(st.integers(1, 60), st.data())
def test_slices_depend_only_on_the_points(total: int, data: st.DataObject) -> None:
    """The order of points, format, division into files and memory limit change no digest of any slice."""
    table = people(total)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        reference = ingest_file(write(table, base / "all.parquet"))
        shuffled = table.take(data.draw(st.permutations(range(total))))
        cut = data.draw(st.integers(0, total))
        ending = data.draw(st.sampled_from([".parquet", ".feather", ".arrow", ".ipc", ".csv", ".csv.gz"]))
        for name, part in (("one", shuffled[:cut]), ("two", shuffled[cut:])):
            write(part, base / "parts" / f"{name}{ending}")
        other = ingest_file(base / "parts", buffer_bytes=data.draw(st.sampled_from([40, 300, 4096, 1 << 20])))
    assert _digests(reference) == _digests(other)
    assert reference.points == other.points == total


def test_every_point_is_in_the_place_of_its_subject(tmp_path: Path) -> None:
    """Each point is stored once, in the slice that its subject's digest determines (E1)."""
    store = fresh_store()
    ingested = ingest_file(write(people(60), tmp_path / "a.parquet"), store=store, buffer_bytes=500)
    found = []
    for at, record in ingested.slices.items():
        for part in record.parts:
            block = decode_part(store.get(part.key).payload)
            found += [point.tobytes() for point in block.points_N]
            expected = {slice_of(subject.tobytes(), PARTITION.shards, PARTITION.slices) for subject in block.subjects_N}
            assert expected == {at}
            assert part.key.startswith(f"shards/{at.shard:04d}/slices/{at.slice:04d}/")
    assert sorted(found) == sorted(point_digest(KEY, f"point-{number}") for number in range(60))


def test_loaded_points_are_those_of_the_file(tmp_path: Path) -> None:
    """Labels and scaled features in training equal those of the file, point by point."""
    table, store = people(30), fresh_store()
    ingested = ingest_file(write(table, tmp_path / "a.parquet"), settings(scale=255.0), store=store, buffer_bytes=300)
    rows = {int.from_bytes(point_digest(KEY, row["id"])[:8], "big"): row for row in table.to_pylist()}
    seen = 0
    for shard in range(PARTITION.shards):
        loaded = load_shard(store, ingested.shard(ShardId(shard), PARTITION.slices), width=4, scale=255.0)
        for key, label, features in zip(loaded.keys_N, loaded.labels_N, loaded.features_NF, strict=True):
            row = rows[int(key)]
            assert label == ("no", "yes").index(row["label"])
            assert features.tolist() == [np.float32(row[f"x{at}"]) / np.float32(255) for at in range(4)]
            seen += 1
    assert seen == 30


def test_integer_and_text_ids_are_equal(tmp_path: Path) -> None:
    """An integer id and its decimal text give the same digests."""
    numbers = replaced(people(12), "id", list(range(12)), pa.int32())
    texts = replaced(people(12), "id", [str(number) for number in range(12)])
    one = ingest_file(write(numbers, tmp_path / "a.parquet"))
    other = ingest_file(write(texts, tmp_path / "b.parquet"))
    assert _digests(one) == _digests(other)


def test_the_id_is_the_subject_unless_another_is_named(tmp_path: Path) -> None:
    """Without a subject column each point is routed by its own id."""
    ingested = ingest_file(write(people(20), tmp_path / "a.parquet"), settings(subject=None))
    expected = {slice_of(subject_digest(KEY, f"point-{number}"), 3, 2) for number in range(20)}
    assert set(ingested.slices) == expected


@pytest.mark.volume
@hypothesis_settings(max_examples=examples(100, few=30))
@given(st.sets(st.integers(0, 29), max_size=6), st.sets(st.integers(0, 9), max_size=3))
def test_tombstoned_points_stay_out(gone: set[int], persons: set[int]) -> None:
    """Ingest with tombstones equals ingest of only the remaining points, and equals erasing later (E2, E9)."""
    table, erased = people(30), points(*gone).union(subjects(*persons))
    survivors = [number for number in range(30) if number not in gone and number // 3 not in persons]
    with tempfile.TemporaryDirectory() as folder:
        path = write(table, Path(folder) / "a.parquet")
        refused = ingest_file(path, tombstones=erased)
        store = fresh_store()
        whole = ingest_file(path, store=store)
        fresh = ingest_file(write(table.take(survivors), Path(folder) / "b.parquet"))
    rewritten = {
        at: rewrite_slice(store, record, erased, at, fresh_names()).record for at, record in whole.slices.items()
    }
    after = {
        at: (kept.points, kept.points_digest, kept.content_digest) for at, kept in rewritten.items() if kept.points
    }
    assert _digests(refused) == _digests(fresh) == after
    assert (refused.points, refused.left_out.refused) == (len(survivors), 30 - len(survivors))


def test_a_source_may_have_only_tombstoned_points(tmp_path: Path) -> None:
    """If all points are refused, there is no slice and no object."""
    store = fresh_store()
    ingested = ingest_file(write(people(3), tmp_path / "a.parquet"), store=store, tombstones=subjects(0))
    assert (ingested.points, ingested.left_out.refused, dict(ingested.slices)) == (0, 3, {})
    assert list(store.list("")) == []


def test_layout_inventory_and_progress(tmp_path: Path) -> None:
    """The result describes what was read, and progress ends at the number of points."""
    ingested = ingest_file(write(people(20), tmp_path / "a.parquet"))
    assert (ingested.layout.width, ingested.layout.dtype) == (4, "uint8")
    assert [file.name for file in ingested.inventory] == ["a.parquet"]
    listed = replaced(people(20), "x0", [[number, 1, 2] for number in range(20)], pa.list_(pa.float64(), 3))
    ingested = ingest_file(write(listed, tmp_path / "b.parquet"), settings(features=("x0",)))
    assert (ingested.layout.width, ingested.layout.dtype) == (3, "float32")


def test_no_plain_id_is_stored(tmp_path: Path) -> None:
    """Neither an id nor a subject occurs in any stored byte or name, compressed or not."""
    store = fresh_store()
    ingest_file(write(people(60), tmp_path / "a.parquet"), store=store, buffer_bytes=600)
    stored = b""
    for info in store.list(""):
        payload = store.get(info.key).payload
        block = decode_part(payload)
        columns = (block.points_N, block.subjects_N, block.labels_N, block.features_NF)
        stored += info.key.encode() + payload + b"".join(column.tobytes() for column in columns)
    assert bytes(point_digest(KEY, "point-7")) in stored
    assert b"point-" not in stored
    assert b"person-" not in stored


@pytest.mark.parametrize("buffer_bytes", [60, 1 << 20])
def test_duplicate_ids_are_located(tmp_path: Path, buffer_bytes: int) -> None:
    """The error for an id that occurs in two files, under two subjects, names both places and not the id."""
    first, second = people(20), people(30).slice(20)
    ids = second["id"].to_pylist()
    ids[4] = "point-13"
    write(first, tmp_path / "data" / "a.parquet")
    write(replaced(second, "id", ids), tmp_path / "data" / "b.parquet")
    store = fresh_store()
    place = r"\[column=id file=data/a\.parquet row=14 other_file=data/b\.parquet other_row=5\]"
    expected = rf"same id {place}\. Leave one of them out, .*: ids must be unique"
    with pytest.raises(Invalid, match=expected) as raised:
        ingest_file(tmp_path / "data", store=store, buffer_bytes=buffer_bytes)
    assert "point-13" not in str(raised.value)
    assert list(store.list("")) == []


def test_duplicates_among_tombstoned_points_do_not_matter(tmp_path: Path) -> None:
    """Tombstoned points may have equal ids."""
    table = pa.concat_tables([people(9), people(9).slice(3, 1)])
    assert ingest_file(write(table, tmp_path / "a.parquet"), tombstones=points(3)).left_out.refused == 2


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("label", ["no"] * 39 + [None], r"has no label \(null\).*file=a\.parquet column=label row=40"),
        ("label", ["no"] * 39 + ["maybe"], r"'maybe' is not in \[data\] classes.*row=40"),
        ("id", [f"p{number}" for number in range(39)] + [None], r"null.*column=id row=40"),
        ("person", ["a"] * 39 + [""], r"empty string.*column=person row=40"),
        ("x1", [1.0] * 39 + [float("nan")], r"NaN.*column=x1 row=40"),
        ("x1", ["a"] * 40, r"must hold numbers.*column=x1"),
    ],
)
def test_bad_points_leave_nothing_behind(tmp_path: Path, column: str, values: list[object], expected: str) -> None:
    """An error in the last point is located, and the parts already written are deleted."""
    store = fresh_store()
    with pytest.raises(Invalid, match=expected):
        ingest_file(write(replaced(people(40), column, values), tmp_path / "a.parquet"), store=store, buffer_bytes=200)
    assert list(store.list("")) == []


def test_objects_of_others_are_left_alone(tmp_path: Path) -> None:
    """A failing ingest deletes what it wrote and nothing else."""
    store = fresh_store()
    good = ingest_file(write(people(9), tmp_path / "a.parquet"), store=store)
    with pytest.raises(Invalid, match="maybe"):
        ingest_file(write(replaced(people(9), "label", ["maybe"] * 9), tmp_path / "b.parquet"), store=store)
    kept = {part.key for record in good.slices.values() for part in record.parts}
    assert {info.key for info in store.list("")} == kept


@pytest.mark.parametrize("nth", [1, 4])
def test_a_full_store_is_left_as_it_was(tmp_path: Path, nth: int) -> None:
    """When a part cannot be written, the earlier ones are deleted and the error is raised."""
    inner = fresh_store()
    store = FaultyStore(inner, (Fault(when="before", operation="put_if_absent", nth=nth, error=StoreFull),))
    with pytest.raises(StoreFull, match="planned fault"):
        ingest_file(write(people(40), tmp_path / "a.parquet"), store=store, buffer_bytes=200)
    assert list(inner.list("")) == []


def test_a_write_of_unknown_outcome_that_landed_counts(tmp_path: Path) -> None:
    """A write that timed out after taking effect is recognised: the part is written once and belongs to its slice."""
    path, inner = write(people(40), tmp_path / "a.parquet"), fresh_store()
    store = FaultyStore(inner, (Fault(when="after", operation="put_if_absent", nth=2),))
    ingested = ingest_file(path, store=store, buffer_bytes=200)
    assert _digests(ingested) == _digests(ingest_file(path))
    recorded = {part.key for record in ingested.slices.values() for part in record.parts}
    assert {info.key for info in inner.list("")} == recorded


def test_a_lost_write_is_an_error(tmp_path: Path) -> None:
    """A part whose write was lost does not count as written."""
    inner = fresh_store()
    store = FaultyStore(inner, (Fault(when="before", operation="put_if_absent", nth=2),))
    with pytest.raises(OutcomeUnknown, match="planned fault"):
        ingest_file(write(people(40), tmp_path / "a.parquet"), store=store, buffer_bytes=200)
    assert list(inner.list("")) == []


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_source_without_points_is_refused(tmp_path: Path, ending: str) -> None:
    """A source without data points is refused by name."""
    with pytest.raises(Invalid, match=r"the data set has no data points \[source=.*\]\. Set \[data\] train"):
        ingest_file(write(people(0), tmp_path / f"a{ending}"))


def test_scale_must_fit_the_features(tmp_path: Path) -> None:
    """A list of constants whose length is not the number of features is refused before anything is written."""
    store = fresh_store()
    with pytest.raises(Invalid, match=r"scale has 2 constants for 4 features\. Give one for all"):
        ingest_file(write(people(9), tmp_path / "a.parquet"), settings(scale=(1.0, 2.0)), store=store)
    assert list(store.list("")) == []
    check_scale((1.0,) * 4, 4)
    check_scale(2.0, 4)


def test_lists_of_changing_length_are_refused_across_batches(tmp_path: Path) -> None:
    """All batches and files must have the same number of features."""
    values = [[1.0, 2.0]] * 20 + [[1.0]] * 20
    table = replaced(people(40), "x0", values, pa.list_(pa.float64()))
    with pytest.raises(Invalid, match=r"number of features.*file=a\.parquet"):
        ingest_file(write(table, tmp_path / "a.parquet"), settings(features=("x0",)), buffer_bytes=100)


def test_one_slice_of_one_shard(tmp_path: Path) -> None:
    """With S=1 and R=1 all points are in one slice."""
    ingested = ingest_file(
        write(people(10), tmp_path / "a.parquet"), partition=PartitionSettings(shards=1, slices=1), buffer_bytes=100
    )
    assert [record.points for record in ingested.slices.values()] == [10]


def test_unknown_tombstones_change_nothing(tmp_path: Path) -> None:
    """Tombstones of ids that are not in the source have no effect."""
    path = write(people(10), tmp_path / "a.parquet")
    unknown = DigestSet.of(points=[point_digest(KEY, "someone else")])
    assert _digests(ingest_file(path, tombstones=unknown)) == _digests(ingest_file(path))
