"""Digests of whole blocks equal the plain definition, data point by data point, for any table and any division."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import shards.slices.kept_digests
from shards.data.columns import read_distinct, read_texts
from shards.data.sources import Batch, open_source
from shards.points import PointBlocks
from shards.routing import (
    NOBODY,
    KnownSubjects,
    Naming,
    SliceId,
    SubjectDigest,
    point_digest,
    point_digests,
    slice_of,
    subject_digest,
)
from shards.slices.ingest import IngestResult, IngestTask, ingest
from shards.slices.kept_digests import DigestsObject
from shards.slices.parallel_ingest import ParallelIngest
from shards.subjects import forms_and_skeletons, in_form, skeleton
from shards.tombstones import NOTHING, sorted_digests
from storage.errors import Corrupt, Invalid
from storage.objects import ObjectStore
from tests.doubles.workers.fake_task_pool import FakeTaskPool
from tests.shards.people import (
    KEY,
    PARTITION,
    FixedTombstones,
    block,
    fresh_names,
    fresh_store,
    people,
    settings,
    write,
)

SPELLINGS = (
    "Mia",
    "mia",
    "MIA ",
    "Zoe\u0301",
    "Zo\u00e9",
    "zo\u00eb",
    "\u1e9e",
    "17",
    "017",
    "17.0",
    "a\0b",
    "-",
    "\u200bx",
)
NAMES = st.one_of(
    st.sampled_from(SPELLINGS), st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf"]), min_size=1)
)
NAMINGS = [Naming(), Naming(form="trimmed", by_skeleton=True), Naming(form="casefold", by_skeleton=True)]


@dataclass(frozen=True, slots=True)
class Row:
    """A data point as its row has it."""

    id: str | int
    person: str | int
    further: str | None
    label: int
    features: tuple[float, ...]


def plain_subject(name: str, naming: Naming) -> bytes:
    """Return the digest of a subject by its definition."""
    formed = in_form(name, naming.form)

    def keyed(text: str, size: int, domain: bytes) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=size, key=KEY, person=domain).digest()

    if not naming.by_skeleton:
        return keyed(formed, 16, b"sisa/subject")
    return keyed(skeleton(formed), 8, b"sisa/skeleton") + keyed(formed, 8, b"sisa/name")


def plain_records(rows: list[Row], naming: Naming) -> dict[SliceId, tuple[int, str, str, int]]:
    """Return points, both digests and the count of similar names of each slice, by their definitions, row by row."""
    found: dict[SliceId, list[tuple[bytes, bytes, bytes]]] = {}
    for row in rows:
        point = hashlib.blake2b(str(row.id).encode(), digest_size=16, key=KEY, person=b"sisa/point").digest()
        subject = plain_subject(str(row.person), naming)
        further = plain_subject(row.further, naming) if row.further else bytes(16)
        label = np.array([row.label], dtype="<i4").tobytes()
        features = np.array(row.features, dtype="<f4").tobytes()
        content = hashlib.blake2b(point + subject + label + further + features, digest_size=16).digest()
        place = slice_of(SubjectDigest(subject), PARTITION.shards, PARTITION.slices, naming)
        found.setdefault(place, []).append((point, content, subject))
    records = {}
    for place, own in found.items():
        points, contents = (b"".join(sorted(each)) for each in list(zip(*own, strict=True))[:2])
        halves = Counter(subject[:8] for subject in {subject for _, _, subject in own})
        similar = sum(many for many in halves.values() if many > 1)
        records[place] = (len(own), hashlib.sha256(points).hexdigest(), hashlib.sha256(contents).hexdigest(), similar)
    return records


def shown(found: IngestResult) -> dict[SliceId, tuple[int, str, str, int]]:
    """Return the same of what an ingest has recorded."""
    return {
        at: (record.points, record.points_digest, record.content_digest, record.similar)
        for at, record in found.slices.items()
    }


@st.composite
def tables(draw: st.DrawFn, naming: Naming) -> list[Row]:
    """Return rows whose ids differ, and whose ids and persons are each all numbers or all texts."""

    def fits(name: str) -> bool:
        try:
            return bool(in_form(name, naming.form))
        except Invalid:
            return False

    whole = st.integers(-(2**63), 2**63 - 1)
    names = NAMES.filter(fits)
    ids: Any = draw(st.sampled_from([whole, st.text(st.characters(codec="utf-8"), min_size=1)]))
    persons: Any = draw(st.sampled_from([st.integers(-9, 9), names]))
    found = draw(st.lists(ids, min_size=1, max_size=40, unique=True))
    numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
    return [
        Row(
            each,
            draw(persons),
            draw(st.one_of(st.none(), st.just(""), names)),
            draw(st.integers(0, 1)),
            (draw(numbers), draw(numbers)),
        )
        for each in found
    ]


def table_of(rows: list[Row]) -> pa.Table:
    """Return the rows as a table."""
    columns = {
        "id": pa.array([row.id for row in rows]),
        "person": pa.array([row.person for row in rows]),
        "further": pa.array([row.further for row in rows], pa.string()),
        "label": pa.array([("no", "yes")[row.label] for row in rows]),
    }
    columns |= {f"x{n}": pa.array([row.features[n] for row in rows], pa.float32()) for n in range(2)}
    return pa.table(columns)


def ingested(path: Path, naming: Naming, buffer_bytes: int, *, parallel: bool, store: ObjectStore) -> IngestResult:
    """Ingest the file by one process, or fragment by fragment."""
    task = IngestTask(
        source=open_source(str(path), path.parent),
        data=settings(subject=("person", "further")),
        partition=PARTITION,
        key=KEY,
        naming=naming,
        store=store,
        tombstones=FixedTombstones(NOTHING),
        new_name=fresh_names(),
    )
    if parallel:
        return ParallelIngest(pool=FakeTaskPool(), fragment_bytes=1, buffer_bytes=buffer_bytes)(task)
    return ingest(task, buffer_bytes)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMINGS), st.booleans(), st.data())
def test_slices_are_recorded_as_defined_row_by_row(naming: Naming, parallel: bool, data: st.DataObject) -> None:
    """However rows are divided, records are those of the plain definition; one with a NUL or another spelling too."""
    rows = data.draw(tables(naming))
    buffer_bytes = data.draw(st.sampled_from([100, 700, 3000, 1 << 20]))
    least = data.draw(st.sampled_from([1, 100, 1 << 16]))
    store = fresh_store()
    with tempfile.TemporaryDirectory() as folder, patch.object(shards.slices.kept_digests, "_LEAST_BYTES", least):
        path = Path(folder) / "people.parquet"
        pq.write_table(table_of(rows), path, row_group_size=data.draw(st.integers(1, 50)))
        found = ingested(path, naming, buffer_bytes, parallel=parallel, store=store)
    assert plain_records(rows, naming) == shown(found)
    parts = {part.key for record in found.slices.values() for part in record.parts}
    assert parts == {info.key for info in store.list("")}  # no digests are left


@given(st.lists(st.text(st.characters(codec=None)), max_size=20))
def test_ids_are_hashed_together_as_one_by_one(ids: list[str]) -> None:
    """NUL, lone surrogates and empty texts included."""
    assert [point_digest(KEY, each) for each in ids] == [found.tobytes() for found in point_digests(KEY, ids)]


@given(st.sampled_from(NAMINGS), st.lists(st.lists(NAMES | st.just(""), max_size=12, unique=True), max_size=6))
def test_remembered_subjects_have_the_digests_of_their_names(naming: Naming, batches: list[list[str]]) -> None:
    """Regardless of what has been forgotten."""
    known = KnownSubjects(key=KEY, naming=naming, most_bytes=1500)
    for names in batches:
        good = [name for name in names if not name or _has_form(name, naming)]
        expected = [subject_digest(KEY, name, naming) if name else NOBODY for name in good]
        assert expected == [found.tobytes() for found in known.digests(good)]
        assert known.held_bytes <= 1500


def _has_form(name: str, naming: Naming) -> bool:
    try:
        return bool(in_form(name, naming.form))
    except Invalid:
        return False


@given(st.lists(NAMES, max_size=12))
def test_names_beside_others_have_their_own_forms(names: list[str]) -> None:
    """A name that is not ASCII changes nothing about those beside it."""
    good = [name for name in names if _has_form(name, Naming(form="trimmed"))]
    expected = [(in_form(name, "trimmed").encode(), skeleton(in_form(name, "trimmed")).encode()) for name in good]
    assert expected == list(zip(*forms_and_skeletons(good, "trimmed"), strict=True))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_digests_are_sorted_as_bytes(halves: list[tuple[int, int]]) -> None:
    """They are sorted correctly even if the first halves of different digests are equal."""
    digests = [first.to_bytes(8, "big") + second.to_bytes(8, "big") for first, second in halves]
    found = sorted_digests(np.frombuffer(b"".join(digests), dtype="V16"))
    assert b"".join(sorted(digests)) == found.tobytes()


@given(
    st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.int16()]),
    st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=1, max_size=12),
    st.booleans(),
    st.booleans(),
)
def test_distinct_texts_are_those_of_the_rows(
    kind: pa.DataType, values: list[Any], optional: bool, empty: bool
) -> None:
    """Nulls and empty texts included: with the same texts, or the same error."""
    texts = [
        None if each is None else each if pa.types.is_integer(kind) else "x" * (each + 1 - empty) for each in values
    ]
    column = pa.array(texts, pa.string()).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(texts, kind)
    batch = Batch(file="f", first=1, columns=pa.RecordBatch.from_arrays([column], names=["name"]))

    def outcome(read: Any) -> Any:
        try:
            return read()
        except Invalid as error:
            return str(error)

    def from_distinct() -> list[str]:
        distinct, codes_N = read_distinct(batch, "name", optional=optional)
        return [distinct[code] for code in codes_N.tolist()]

    assert outcome(lambda: read_texts(batch, "name", optional=optional)) == outcome(from_distinct)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.data())
def test_points_in_several_blocks_are_taken_as_from_one(sizes: list[int], data: st.DataObject) -> None:
    """Blocks may be empty; every column is taken."""
    total = sum(sizes)
    one = block(range(total), further=2)
    ends = np.cumsum(sizes).tolist()
    blocks = PointBlocks.of([one.between(end - size, end) for size, end in zip(sizes, ends, strict=True)])
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=1))) if total else [], dtype=np.intp)
    expected, found = one.take(chosen), blocks.take(chosen)
    for name in ("points_N", "subjects_N", "labels_N", "features_NF", "further_NK"):
        assert getattr(expected, name).tobytes() == getattr(found, name).tobytes()


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("is_gone", [False, True])
def test_damaged_digests_are_not_used_for_a_record(tmp_path: Path, parallel: bool, is_gone: bool) -> None:
    """Digests that are missing or other bytes than were written end the ingest, and no object is left."""
    path = write(people(60).append_column("further", pa.nulls(60, pa.string())), tmp_path / "people.parquet")
    store = fresh_store()
    read = DigestsObject.read

    def damaged(made: DigestsObject, used: ObjectStore) -> object:
        tag = store.get(made.key).tag
        if is_gone:
            store.delete(made.key)
        else:
            store.put_if_match(made.key, b"x", tag)
        return read(made, used)

    with (
        patch.object(shards.slices.kept_digests, "_LEAST_BYTES", 1),
        patch.object(DigestsObject, "read", damaged),
        pytest.raises(Corrupt, match="an object of an ingest in progress is"),
    ):
        ingested(path, NAMINGS[0], 200, parallel=parallel, store=store)
    assert list(store.list("")) == []


@pytest.mark.parametrize("parallel", [False, True])
def test_no_part_is_read_again(tmp_path: Path, parallel: bool) -> None:
    """Digests are kept when a part is written, so an ingest reads none."""
    path = write(people(60).append_column("further", pa.nulls(60, pa.string())), tmp_path / "people.parquet")
    with (
        patch.object(shards.slices.kept_digests, "_LEAST_BYTES", 1),
        patch.object(shards.slices.kept_digests, "read_part", side_effect=AssertionError("a part was read")),
    ):
        found = ingested(path, NAMINGS[0], 4096, parallel=parallel, store=fresh_store())
    assert found.points == 60
