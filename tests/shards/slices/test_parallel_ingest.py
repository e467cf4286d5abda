"""Parallel ingest: the same slices as with one process, for any fragments, order of work and deaths."""

from __future__ import annotations

import csv
import pickle
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import shards.data.csv_text
from shards.csv_form import CsvForm
from shards.data.fragments import divide
from shards.data.sources import Source, open_source
from shards.routing import SliceId
from shards.slices.duplicate_ids import Ranges
from shards.slices.ingest import IngestResult, IngestTask, ingest
from shards.slices.parallel_ingest import (
    FragmentResult,
    IngestContext,
    ParallelIngest,
    gather_fragment,
    merge,
    repeat_in,
)
from shards.specification import PartitionSettings
from shards.tombstones import NOTHING, DigestSet
from storage.errors import Corrupt, Invalid, StoreFull
from storage.objects import ObjectStore
from tests.doubles.stores.faulty_store import Fault, FaultyStore
from tests.doubles.workers.fake_task_pool import FakeTaskPool
from tests.shards.data.pieces import piecewise
from tests.shards.people import (
    KEY,
    PARTITION,
    FixedTombstones,
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

PARTITION_WITH_KEY = replace(PARTITION, key=KEY.hex())
"""A partition table that includes the key."""


def gathered(
    source: Source,
    pool: FakeTaskPool | None = None,
    *,
    store: ObjectStore | None = None,
    fragment_bytes: int = 1,
    buffer_bytes: int | None = None,
    tombstones: DigestSet = NOTHING,
    progress: Callable[[int], None] = lambda _: None,
    partition: PartitionSettings = PARTITION,
    held_out: float = 0.0,
    **changes: object,
) -> IngestResult:
    """Ingest with a task pool."""
    ingest_all = ParallelIngest(pool=pool or FakeTaskPool(), fragment_bytes=fragment_bytes, buffer_bytes=buffer_bytes)
    task = IngestTask(
        source=source,
        data=settings(**changes),
        partition=partition,
        key=KEY,
        store=store or fresh_store(),
        tombstones=FixedTombstones(tombstones),
        new_name=fresh_names(),
        held_out=held_out,
        progress=progress,
    )
    return ingest_all(task)


def contents(ingested: IngestResult) -> dict[SliceId, tuple[int, str, str]]:
    """Return the contents of the slices, independent of their parts."""
    return {at: (record.points, record.points_digest, record.content_digest) for at, record in ingested.slices.items()}


def spread(table: pa.Table, cuts: Sequence[int], folder: Path, ending: str = ".parquet") -> Path:
    """Write the table as several files, and return their folder."""
    bounds = [0, *sorted(cuts), len(table)]
    for number, (start, end) in enumerate(pairwise(bounds)):
        write(table[start:end], folder / f"{number:02d}{ending}")
    return folder


def names_in(store: ObjectStore) -> set[str]:
    """Return all keys of the store."""
    return {info.key for info in store.list("")}


BUFFERS = st.sampled_from([100, 700, 1 << 20])
FRAGMENTS = st.sampled_from([1, 3000, 8000, 1 << 30])


@pytest.mark.parametrize("held_out", [0.3, 1.0])
def test_fragments_hold_out_what_the_whole_holds_out(held_out: float, tmp_path: Path) -> None:
    """Hold-out points are in the slices after the last shard's, as with one process, and all points are there."""
    source = open_source(str(spread(people(60), [20, 41], tmp_path / "data")), tmp_path)
    together, plain = (contents(gathered(source, held_out=share)) for share in (held_out, 0.0))
    task = IngestTask(
        source=source,
        data=settings(),
        partition=PARTITION,
        key=KEY,
        store=fresh_store(),
        tombstones=FixedTombstones(NOTHING),
        new_name=fresh_names(),
        held_out=held_out,
    )
    assert together == contents(ingest(task))
    apart = [place for place in together if place.shard == PARTITION.shards]
    assert apart
    assert (set(together) == set(apart)) == (held_out == 1.0)
    assert sum(points for points, *_ in together.values()) == sum(points for points, *_ in plain.values()) == 60


@pytest.mark.volume
@hypothesis_settings(max_examples=examples(30, few=12))
@given(total=st.integers(1, 70), data=st.data())
def test_fragments_give_the_slices_of_the_whole(total: int, data: st.DataObject) -> None:
    """For any files, fragments, order, buffers and deaths: slices, layout, inventory and counts are those of a plain
    ingest, and the store has nothing but the parts and the objects of dead attempts.
    """
    table = people(total).take(data.draw(st.permutations(range(total))))
    cuts = data.draw(st.lists(st.integers(0, total), max_size=5))
    ending = data.draw(st.sampled_from([".parquet", ".parquet", ".feather", ".arrow", ".csv", ".csv.gz"]))
    erased = points(*data.draw(st.sets(st.integers(0, total), max_size=4))).union(
        subjects(data.draw(st.integers(0, 9)))
    )
    pool = FakeTaskPool(
        order=lambda count: data.draw(st.permutations(range(count))), deaths=lambda _: data.draw(st.booleans())
    )
    store, heard = fresh_store(), list[int]()
    with tempfile.TemporaryDirectory() as folder:
        base = spread(table, cuts, Path(folder) / "parts", ending)
        whole = ingest_file(base, tombstones=erased)
        ingested = gathered(
            piecewise(open_source(str(base), base.parent)),
            pool,
            store=store,
            fragment_bytes=data.draw(FRAGMENTS),
            buffer_bytes=data.draw(BUFFERS),
            tombstones=erased,
            progress=heard.append,
        )
    assert contents(ingested) == contents(whole)
    assert replace(ingested, slices={}) == replace(whole, slices={})
    assert heard[-1] == total
    left = names_in(store) - {part.key for record in ingested.slices.values() for part in record.parts}
    assert all(any(f"/{name}-" in key for name in pool.dead) for key in left)


@pytest.mark.volume
@hypothesis_settings(max_examples=examples(30, few=12))
@given(
    total=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    names=st.lists(st.text(alphabet='a"\r\n;, é', min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=9),
    form=st.sampled_from(
        [CsvForm(delimiter=";", decimal=",", encoding="cp1252"), CsvForm(encoding="utf-16"), CsvForm()]
    ),
)
def test_csv_in_any_form_gives_the_slices_of_parquet(
    total: int, cuts: list[int], names: list[str], form: CsvForm
) -> None:
    """CSV files in any form, files and blocks give the same data points as a Parquet file, down to every byte of every
    name, in a plain and in a parallel ingest.
    """
    table = people(total, dtype="float32")
    table = replaced(table, "person", [names[number % len(names)] for number in range(total)], pa.string())
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards.data.csv_text, "BLOCK_BYTES", 11)
        bounds = [0, *sorted(min(cut, total) for cut in cuts), total]
        for number, (start, end) in enumerate(pairwise(bounds)):
            write_csv(table[start:end], Path(folder) / f"{number}.csv", form)
        source = open_source(".", Path(folder), csv=form)
        whole = ingest_file(write(table, Path(folder) / "whole.parquet"))
        one = gathered(source, fragment_bytes=1 << 30)
        many = gathered(source, fragment_bytes=1)
    assert contents(one) == contents(many) == contents(whole)


def write_csv(table: pa.Table, path: Path, form: CsvForm) -> None:
    """Write the table in this form, with Python's own writer."""
    rows = ([str(value).replace(".", form.decimal) for value in row.values()] for row in table.to_pylist())
    with path.open("w", newline="", encoding=form.encoding) as stream:
        csv.writer(stream, delimiter=form.delimiter).writerows([table.column_names, *rows])


BAD: dict[str, tuple[object, ...]] = {
    "id": (None, ""),
    "person": (None,),
    "label": (None, "maybe", "perhaps"),
    "x1": (None, float("nan")),
}


@pytest.mark.volume
@hypothesis_settings(max_examples=examples(30, few=12))
@given(total=st.integers(2, 60), data=st.data())
def test_the_first_error_is_that_of_the_whole(total: int, data: st.DataObject) -> None:
    """If several files have errors, the one that a plain ingest reports is raised, with the same text, in any order of
    work, and nothing is left in the store.
    """
    table = people(total, dtype="float64")
    cuts = sorted(data.draw(st.lists(st.integers(1, total - 1), min_size=1, max_size=4, unique=True)))
    for start, end in zip([0, *cuts], [*cuts, total], strict=True):
        column = data.draw(st.sampled_from([*BAD, None, None]))
        if column is not None:
            values = table[column].to_pylist()
            values[data.draw(st.integers(start, end - 1))] = data.draw(st.sampled_from(BAD[column]))
            table = replaced(table, column, values, table[column].type)
    buffer_bytes = data.draw(BUFFERS)
    pool = FakeTaskPool(order=lambda count: data.draw(st.permutations(range(count))))
    store = fresh_store()
    with tempfile.TemporaryDirectory() as folder:
        base = spread(table, cuts, Path(folder) / "parts")
        source = open_source(str(base), base.parent)
        expected = _error_text(lambda: ingest_file(base, buffer_bytes=buffer_bytes))
        found = _error_text(lambda: gathered(source, pool, store=store, buffer_bytes=buffer_bytes))
    assert found == expected
    assert not expected or names_in(store) == set()


@pytest.mark.volume
@hypothesis_settings(max_examples=examples(30, few=12))
@given(total=st.integers(2, 60), data=st.data())
def test_repeated_ids_are_found_across_fragments(total: int, data: st.DataObject) -> None:
    """Ids that occur in two fragments, with any subjects, give the same error as in a plain ingest."""
    ids = [f"point-{number}" for number in range(total)]
    for _ in range(data.draw(st.integers(1, 3))):
        source_at, target = (data.draw(st.integers(0, total - 1)) for _ in range(2))
        ids[target] = ids[source_at]
    table = replaced(people(total), "id", ids)
    cuts = data.draw(st.lists(st.integers(0, total), max_size=4))
    store = fresh_store()
    with tempfile.TemporaryDirectory() as folder:
        base = spread(table, cuts, Path(folder) / "parts")
        source = piecewise(open_source(str(base), base.parent))
        expected = _error_text(lambda: ingest_file(base))
        buffer_bytes, fragment_bytes = data.draw(BUFFERS), data.draw(FRAGMENTS)
        pool = FakeTaskPool(order=lambda count: data.draw(st.permutations(range(count))))
        found = _error_text(
            lambda: gathered(source, pool, store=store, buffer_bytes=buffer_bytes, fragment_bytes=fragment_bytes)
        )
    assert found == expected
    assert ("the same id" in found) == (len(set(ids)) < total)
    assert not found or names_in(store) == set()


def _error_text(act: Callable[[], object]) -> str:
    """Return the text of the ``Invalid`` that ``act`` raises; empty if it raises none."""
    try:
        act()
    except Invalid as error:
        return str(error)
    return ""


def test_rows_in_pieces_of_a_file_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    """A bad data point in the middle of a divided file, and a repeated id, are named by their rows in the file."""
    path = write(replaced(people(60), "label", ["no"] * 44 + ["maybe"] + ["no"] * 15), tmp_path / "a.parquet")
    source = piecewise(open_source("a.parquet", tmp_path))
    assert len(divide(source, 1)) == 4
    with pytest.raises(Invalid, match=r"'maybe' is not in .*\[file=a\.parquet column=label row=45\]"):
        gathered(source)
    ids = [f"point-{number}" for number in range(60)]
    ids[50] = "point-3"
    write(replaced(people(60), "id", ids), path)
    with pytest.raises(Invalid, match=r"row=4 other_file=a\.parquet other_row=51"):
        gathered(source)


def test_dead_attempts_leave_nothing_when_an_ingest_fails(tmp_path: Path) -> None:
    """When an ingest fails, the objects of dead attempts are deleted too; objects of others stay."""
    store = fresh_store()
    ingest_file(write(people(9), tmp_path / "before.parquet"), store=store)
    before = names_in(store)
    base = spread(people(30), [10, 20], tmp_path / "parts")
    write(replaced(people(10), "label", ["maybe"] * 10), base / "03.parquet")
    pool = FakeTaskPool(deaths=lambda index: index < 2)
    with pytest.raises(Invalid, match=r"parts/03\.parquet"):
        gathered(open_source("parts", tmp_path), pool, store=store)
    assert len(pool.dead) == 2
    assert names_in(store) == before


@pytest.mark.parametrize("nth", range(1, 9))
def test_a_full_store_is_left_as_it_was(tmp_path: Path, nth: int) -> None:
    """When a digest or a part of a fragment cannot be written, everything written before is deleted and the error is
    raised.
    """
    base = spread(people(40), [20], tmp_path / "parts")
    pool = FakeTaskPool()
    gathered(open_source("parts", tmp_path), pool, fragment_bytes=1 << 30, buffer_bytes=200)
    (fragment,), (order, key) = pool.calls[0].things, pool.calls[0].shared
    inner = fresh_store()
    faulty = FaultyStore(inner, (Fault(when="before", operation="put_if_absent", nth=nth, error=StoreFull),))
    with pytest.raises(StoreFull, match="planned fault"):
        gather_fragment(fragment, "name", replace(order, store=faulty), key)
    assert names_in(inner) == set()
    assert base.is_dir()


def test_results_contain_nothing_about_a_data_point(tmp_path: Path) -> None:
    """Results are records of what was written: no id, no subject, no digest of either, and larger data points do not
    make them larger. Arguments that may be large do not contain the partition key.
    """
    sizes, pool = [], FakeTaskPool()
    for features in (8, 800):
        table = people(60).drop_columns(["x0", "x1", "x2", "x3"])
        for position in range(features):
            table = table.append_column(f"x{position}", pa.array([position % 251] * 60, pa.uint8()))
        spread(table, [20, 40], tmp_path / str(features))
        pool = FakeTaskPool()
        gathered(open_source(str(features), tmp_path), pool, partition=PARTITION_WITH_KEY)
        sizes.append([size for call in pool.calls for size in call.result_bytes])
        for call in pool.calls:
            back = pickle.dumps(call.results)
            assert not any(text in back for text in (b"point-", b"person-"))
            assert not any(bytes(digest) in back for digest in points(*range(60)).point_digests())
    assert max(sizes[0]) < 2000
    assert all(abs(narrow - wide) < 16 for narrow, wide in zip(*sizes, strict=True))
    ingest_all = pool.calls[0]
    assert ingest_all.act is gather_fragment
    order, key = ingest_all.shared
    assert isinstance(order, IngestContext)
    assert key == KEY
    sent = pickle.dumps((ingest_all.things, order))
    assert bytes(KEY) not in sent
    assert KEY.hex().encode() not in sent
    assert KEY.hex() not in repr(order)


@given(st.integers(0, 4))
def test_merging_is_the_same_in_any_grouping(cut: int) -> None:
    """Merging results in groups equals merging all at once; parts keep the order of the fragments."""
    pool = FakeTaskPool()
    with tempfile.TemporaryDirectory() as folder:
        base = spread(people(40), [10, 20, 30], Path(folder) / "parts")
        gathered(open_source(str(base), base.parent), pool)
    results: list[FragmentResult] = pool.calls[0].results
    assert len(results) == 4
    assert merge([merge(results[:cut]), merge(results[cut:])]) == merge(results)
    whole = merge(results).gathered
    for at, parts in whole.parts.items():
        assert list(parts) == [part for each in results for part in each.gathered.parts.get(at, ())]
    assert whole.points == sum(part.points for parts in whole.parts.values() for part in parts) == 40


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_source_without_points_is_refused(tmp_path: Path, ending: str) -> None:
    """A source without data points is refused by name."""
    write(people(0), tmp_path / f"a{ending}")
    with pytest.raises(Invalid, match="the data set has no data points"):
        gathered(open_source(f"a{ending}", tmp_path))


def test_the_number_of_features_is_that_of_the_first_data_point(tmp_path: Path) -> None:
    """Lists of another length are refused in any fragment."""
    for number, width in enumerate((2, 2, 3)):
        lists = [[1.0] * width] * 10
        table = replaced(people(40)[number * 10 : number * 10 + 10], "x0", lists, pa.list_(pa.float64()))
        write(table, tmp_path / "parts" / f"{number}.parquet")
    source = open_source("parts", tmp_path)
    expected = r"number of features differs: expected 2, got 3 \[file=parts/2\.parquet row=1\]"
    with pytest.raises(Invalid, match=expected):
        gathered(source, features=("x0",))
    with pytest.raises(Invalid, match="scale has 3 constants for 2 features"):
        gathered(source, features=("x0",), scale=(1.0, 2.0, 3.0))


@pytest.mark.parametrize("damage", ["missing", "other"])
def test_damaged_digests_are_not_used(tmp_path: Path, damage: str) -> None:
    """A missing or changed object of digests is an error, because repeated ids could not be excluded."""
    spread(people(30), [], tmp_path / "parts")
    store = fresh_store()

    def harm(act: Callable[..., Any], things: Sequence[Any]) -> None:
        if act is repeat_in:
            run = things[0][0]
            tag = store.get(run.key).tag
            store.put_if_match(run.key, b"x" * run.payload_bytes, tag) if damage == "other" else store.delete(run.key)

    with pytest.raises(Corrupt, match=r"an object of an ingest in progress is .*key=shards/0000/digests/0000/"):
        gathered(open_source("parts", tmp_path), FakeTaskPool(before=harm), store=store)
    assert names_in(store) == set()


def test_ranges_follow_from_points_and_memory() -> None:
    """There are enough ranges for each to fit into memory, at least one and at most 1024."""
    assert Ranges.within(1 << 20, 0).count == 1
    assert Ranges.within(1 << 20, (1 << 20) * 10 // 8).count == 11
    assert Ranges.within(100, 1 << 40).count == 1024
