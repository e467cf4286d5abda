"""Data points of several people: the first person's name decides the slice, and each person erases them."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shards.data.fragments import divide
from shards.data.sources import open_source
from shards.points import PointBlock
from shards.routing import NOBODY, Naming, SliceId, point_digest, subject_digest
from shards.slices.files import (
    count_erased,
    decode_part,
    encode_part,
    identities,
    load_shard,
    record_slice,
    rewrite_slice,
    write_part,
)
from shards.slices.ingest import IngestResult
from shards.specification import ShardId, SliceIndex
from shards.subjects import SubjectForm
from shards.tombstones import DigestSet
from storage.errors import Invalid
from storage.objects import ObjectStore
from tests.doubles.workers.fake_task_pool import FakeTaskPool
from tests.shards.data.pieces import piecewise
from tests.shards.people import (
    KEY,
    PARTITION,
    block,
    fresh_names,
    fresh_store,
    ingest_file,
    messages,
    people,
    points,
    replaced,
    settings,
    subjects,
    write,
)
from tests.shards.slices.test_parallel_ingest import gathered
from tests.volume import examples

PLACE = SliceId(ShardId(1), SliceIndex(2))
BOTH = settings(subject=("person", "recipient"))


def contents(ingested: IngestResult) -> dict[SliceId, tuple[int, str, str, int]]:
    """Return the contents of the slices, independent of their parts."""
    return {
        at: (record.points, record.points_digest, record.content_digest, record.similar)
        for at, record in ingested.slices.items()
    }


def stored(store: ObjectStore, ingested: IngestResult) -> list[PointBlock]:
    """Return all parts of the slices."""
    parts = (part for record in ingested.slices.values() for part in record.parts)
    return [decode_part(store.get(part.key).payload) for part in parts]


def survivors(table: pa.Table, gone: set[str], single: set[str]) -> pa.Table:
    """Return the data points that have no subject in ``gone`` and whose id is not in ``single``."""
    return table.filter(
        pa.array(
            row["id"] not in single and gone.isdisjoint((row["person"], row["recipient"])) for row in table.to_pylist()
        )
    )


@given(st.lists(st.integers(0, 60), unique=True, max_size=25), st.integers(0, 3))
def test_a_part_reads_back_with_its_further_subjects(chosen: list[int], further: int) -> None:
    """Digests of further subjects are read back column by column; without them, the format is that of 0.1."""
    expected = block(chosen, further=further)
    payload = encode_part(expected)
    got = decode_part(payload)
    assert got.further_NK.shape == (len(chosen), further)
    assert got.further_NK.tobytes() == expected.further_NK.tobytes()
    assert [people_N.tobytes() for people_N in got.people] == [people_N.tobytes() for people_N in expected.people]
    written = pq.read_schema(pa.BufferReader(payload))
    assert written.metadata[b"format"] == (b"sisa/part/2" if further else b"sisa/part/1")
    assert written.names == ["point", "subject", "label", "features", *(["further"] if further else [])]


def test_a_block_has_no_further_subjects_by_default() -> None:
    """Blocks without further subjects have K = 0, and so do blocks taken from them."""
    ordinary = block(range(5))
    bare = PointBlock(
        points_N=ordinary.points_N,
        subjects_N=ordinary.subjects_N,
        labels_N=ordinary.labels_N,
        features_NF=ordinary.features_NF,
    )
    assert bare.further_NK.shape == (5, 0)
    assert bare.take(np.array([True, False, True, False, False])).further_NK.shape == (2, 0)
    assert block(range(8), further=2).take(np.array([1, 3])).further_NK.tolist()[1] == [NOBODY, NOBODY]


def test_the_content_digest_covers_further_subjects() -> None:
    """It equals an independent computation, in which a missing subject is zeros."""
    made, store = block([3, 1], further=2), fresh_store()
    record = record_slice(store, [write_part(store, made, PLACE, fresh_names())])
    digests = sorted(
        hashlib.blake2b(
            made.points_N[at].tobytes()
            + made.subjects_N[at].tobytes()
            + made.labels_N[at].astype("<i4").tobytes()
            + made.further_NK[at].tobytes()
            + made.features_NF[at].astype("<f4").tobytes(),
            digest_size=16,
        ).digest()
        for at in range(2)
    )
    assert hashlib.sha256(b"".join(digests)).hexdigest() == record.content_digest


@given(st.sets(st.integers(0, 40), max_size=8), st.sets(st.integers(0, 16), max_size=4), st.integers(0, 3))
def test_membership_is_by_any_subject(chosen: set[int], persons: set[int], further: int) -> None:
    """A point is in a set if its id or any of its subjects is; ``NOBODY`` is in no set."""
    numbers = range(41)
    made, erased = block(numbers, further=further), points(*chosen).union(subjects(*persons))
    owners = [{number // 3, *(number // 3 + 1 + k for k in range(further) if number % 4 != 3)} for number in numbers]
    named = [bool(own & persons) for own in owners]
    assert named == erased.contains_subjects(made).tolist()
    expected = [each or number in chosen for each, number in zip(named, numbers, strict=True)]
    assert expected == erased.contains(made).tolist()
    everybody = {person for own in owners for person in own}
    assert DigestSet.subjects_of(made) == subjects(*everybody)
    assert erased.among(made) == points(*chosen).union(subjects(*(persons & everybody)))


@given(st.sets(st.integers(0, 60), max_size=30), st.sets(st.integers(0, 20), max_size=4), st.integers(1, 4))
def test_a_rewrite_removes_points_of_any_erased_subject(chosen: set[int], persons: set[int], parts: int) -> None:
    """Rewriting equals writing the remaining points, for any erased subject, and reports who had points here."""
    store, names = fresh_store(), fresh_names()
    divided = [part for at in range(parts) if (part := sorted(chosen)[at::parts])]
    record = record_slice(store, [write_part(store, block(part, further=1), PLACE, names) for part in divided])
    owners = {number: {number // 3} | ({number // 3 + 1} if number % 4 != 3 else set()) for number in chosen}
    left = [number for number, own in owners.items() if not own & persons]
    erased = subjects(*persons)
    assert count_erased(store, record, erased) == len(chosen) - len(left)
    rewrite = rewrite_slice(store, record, erased, PLACE, names)
    assert rewrite.names == subjects(*(persons & {person for own in owners.values() for person in own}))
    other = fresh_store()
    fresh = record_slice(other, [write_part(other, block(left, further=1), PLACE, names)] if left else [])
    assert (rewrite.record.points_digest, rewrite.record.content_digest) == (fresh.points_digest, fresh.content_digest)


def test_no_digest_of_an_erased_recipient_is_left() -> None:
    """After a rewrite the recipient's digest is in no part."""
    store, names = fresh_store(), fresh_names()
    record = record_slice(store, [write_part(store, block(range(12), further=1), PLACE, names)])
    rewrite = rewrite_slice(store, record, subjects(2), PLACE, names)
    for key in rewrite.superseded:
        store.delete(key)
    secret = bytes(subject_digest(KEY, "person-2"))
    assert rewrite.removed > 3
    assert all(
        secret not in people_N.tobytes() for kept in identities(store, rewrite.record) for people_N in kept.people
    )


def test_the_first_column_routes(tmp_path: Path) -> None:
    """A message is in its sender's slice for any recipient, and training gets the same features."""
    path, store, plain = write(messages(), tmp_path / "a.parquet"), fresh_store(), fresh_store()
    ingested = ingest_file(path, BOTH, store=store, buffer_bytes=300)
    ordinary = ingest_file(write(people(), tmp_path / "b.parquet"), store=plain)
    assert {at: found[:2] for at, found in contents(ingested).items()} == {
        at: found[:2] for at, found in contents(ordinary).items()
    }
    for shard in range(PARTITION.shards):
        held = [
            load_shard(each, made.shard(ShardId(shard), PARTITION.slices), width=4, scale=1.0)
            for each, made in ((store, ingested), (plain, ordinary))
        ]
        assert held[0].features_NF.tobytes() == held[1].features_NF.tobytes()
        assert held[0].keys_N.tolist() == held[1].keys_N.tolist()


def test_missing_further_subjects_are_nobody(tmp_path: Path) -> None:
    """A null, an empty text and a column without type all mean that there is no further subject."""
    empty = replaced(messages(8), "recipient", [None, "", "a", None, "", "a", None, ""], pa.string())
    nothing = replaced(messages(8), "recipient", [None] * 8, pa.null())
    for number, (table, expected) in enumerate(((empty, {NOBODY, subject_digest(KEY, "a")}), (nothing, {NOBODY}))):
        store = fresh_store()
        ingested = ingest_file(write(table, tmp_path / f"{number}.parquet"), BOTH, store=store)
        found = {bytes(each) for part in stored(store, ingested) for each in part.further_NK[:, 0].tolist()}
        assert found == expected


def test_a_list_of_one_is_that_column(tmp_path: Path) -> None:
    """[data] subject = ["person"] is subject = "person", byte for byte."""
    assert settings(subject=("person",)) == settings()
    path, stores = write(people(), tmp_path / "a.parquet"), (fresh_store(), fresh_store())
    for data, store in zip((settings(), settings(subject=("person",))), stores, strict=True):
        ingest_file(path, data, store=store, names=iter(map(str, range(99))).__next__)
    objects = [{info.key: store.get(info.key).payload for info in store.list("")} for store in stores]
    assert objects[0] == objects[1]


@pytest.mark.volume
@hypothesis_settings(max_examples=examples(25, few=10))
@given(
    st.sets(st.integers(0, 29), max_size=4),
    st.sets(st.integers(0, 16), max_size=3),
    st.sampled_from([".parquet", ".csv", ".feather"]),
    st.data(),
)
def test_tombstones_keep_out_by_any_subject(
    gone: set[int], persons: set[int], ending: str, data: st.DataObject
) -> None:
    """Plain or parallel ingest with tombstones equals ingest of the remaining points, and erasing later (E2, E9)."""
    table, erased = messages(30), points(*gone).union(subjects(*persons))
    left = survivors(table, {f"person-{number}" for number in persons}, {f"point-{number}" for number in gone})
    pool = FakeTaskPool(
        order=lambda count: data.draw(st.permutations(range(count))), deaths=lambda _: data.draw(st.booleans())
    )
    with tempfile.TemporaryDirectory() as folder:
        cut = data.draw(st.integers(0, 30))
        for name, part in (("a", table[:cut]), ("b", table[cut:])):
            write(part, Path(folder) / "all" / f"{name}{ending}")
        refused = ingest_file(Path(folder) / "all", BOTH, tombstones=erased, buffer_bytes=200)
        store = fresh_store()
        whole = ingest_file(Path(folder) / "all", BOTH, store=store)
        fresh = ingest_file(write(left, Path(folder) / f"left{ending}"), BOTH) if len(left) else None
        source = piecewise(open_source(str(Path(folder) / "all"), Path(folder)))
        many = gathered(
            source, pool, tombstones=erased, fragment_bytes=3000, buffer_bytes=500, subject=("person", "recipient")
        )
    rewritten = {
        at: rewrite_slice(store, record, erased, at, fresh_names()).record for at, record in whole.slices.items()
    }
    after = {
        at: (kept.points, kept.points_digest, kept.content_digest, kept.similar)
        for at, kept in rewritten.items()
        if kept.points
    }
    assert contents(refused) == (contents(fresh) if fresh else {}) == after == contents(many)
    assert refused.left_out == many.left_out
    assert (refused.points, refused.left_out.refused) == (len(left), 30 - len(left))


def test_further_subjects_are_not_features(tmp_path: Path) -> None:
    """A glob skips their columns, and naming one is refused."""
    table = people(9).append_column("xr", pa.array(range(9), pa.int64()))
    data = settings(subject=("person", "xr"))
    assert ingest_file(write(table, tmp_path / "a.parquet"), data).layout.features == ("x0", "x1", "x2", "x3")
    named = settings(subject=("person", "xr"), features=("x0", "xr"))
    with pytest.raises(Invalid, match=r"features names 'xr', which is the id, subject or label column"):
        ingest_file(tmp_path / "a.parquet", named)


@pytest.mark.parametrize(
    ("values", "kind", "form", "expected"),
    [
        ([1.0] * 11 + [None], pa.float64(), "trimmed", r"must hold strings or integers.*column=recipient row=1\b"),
        (["a"] * 11 + ["9007199254740993.0"], pa.string(), "trimmed", r"stored as a float.*column=recipient row=12"),
        (["17"] * 10 + [None, "a"], pa.string(), "integer", r"not a whole number.*column=recipient row=12"),
    ],
)
def test_further_names_are_checked_like_the_first(
    tmp_path: Path, values: list[object], kind: pa.DataType, form: SubjectForm, expected: str
) -> None:
    """Invalid and rounded names are refused with file, column and row, and no object is left."""
    table = replaced(replaced(messages(12), "person", list(range(12)), pa.int32()), "recipient", values, kind)
    path, store = write(table, tmp_path / "a.parquet"), fresh_store()
    with pytest.raises(Invalid, match=expected):
        ingest_file(path, BOTH, store=store, naming=Naming(form=form, by_skeleton=True))
    assert list(store.list("")) == []


def test_the_first_column_must_name_somebody(tmp_path: Path) -> None:
    """Only further subjects may be missing."""
    values = ["a"] * 11 + [None]
    table = replaced(messages(12), "person", values, pa.string())
    with pytest.raises(Invalid, match=r"has no value \(null\); it is the only one.*column=person row=12"):
        ingest_file(write(table, tmp_path / "a.parquet"), BOTH)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A further subject's column must be in every file."""
    with pytest.raises(Invalid, match=r"there is no column 'recip' \[file=a\.parquet\]\. Did you mean 'recipient'"):
        ingest_file(write(messages(9), tmp_path / "a.parquet"), settings(subject=("person", "recip")))


def test_files_may_have_no_further_subjects_at_all(tmp_path: Path) -> None:
    """A file without any further subject has no type for the column, which is compatible with every type."""
    table = messages(12)
    for ending in (".parquet", ".csv"):
        folder = tmp_path / ending[1:]
        write(replaced(table[:4], "recipient", [None] * 4, pa.null()), folder / f"a{ending}")
        write(replaced(table[4:], "recipient", ["7", None] * 4, pa.string()), folder / f"b{ending}")
        write(replaced(messages(16)[12:], "recipient", ["", "8", "", None], pa.string()), folder / f"c{ending}")
        assert ingest_file(folder, BOTH).points == 16
        write(replaced(messages(20)[16:], "recipient", ["", "eve", "", None], pa.string()), folder / f"d{ending}")
        if ending == ".csv":
            with pytest.raises(Invalid, match=r"only numbers in one file and text in another \[column=recipient"):
                ingest_file(folder, BOTH)


def test_respelt_further_subjects_are_reported() -> None:
    """A point whose further subject is spelt like an erased one is taken in, and counted."""
    naming = Naming(form="trimmed", by_skeleton=True)
    digest = [subject_digest(KEY, name, naming) for name in ("Mia", "mia", "bob", "eve")]
    made = PointBlock(
        points_N=np.frombuffer(b"".join(point_digest(KEY, str(n)) for n in range(3)), dtype="V16"),
        subjects_N=np.frombuffer(digest[2] * 3, dtype="V16"),
        labels_N=np.zeros(3, dtype=np.int32),
        features_NF=np.zeros((3, 1), dtype=np.uint8),
        further_NK=np.frombuffer(digest[0] + NOBODY + digest[3], dtype="V16").reshape(3, 1),
    )
    erased = DigestSet.of(subjects=[digest[1]])
    assert erased.resembles(made).tolist() == [True, False, False]
    assert erased.alike_in(made) == DigestSet.of(subjects=[digest[0]])
    assert erased.resembled_in(made) == erased


def test_a_buffer_holds_fewer_points_if_they_are_larger(tmp_path: Path) -> None:
    """The memory of further subjects counts."""
    table = messages(40)
    for number in range(8):
        table = table.append_column(f"cc{number}", table["recipient"])
    path = write(table, tmp_path / "a.parquet")
    many = settings(subject=("person", "recipient", *(f"cc{number}" for number in range(8))))
    parts = [
        sum(len(record.parts) for record in ingest_file(path, data, buffer_bytes=1500).slices.values())
        for data in (settings(), many)
    ]
    assert parts[0] < parts[1]
    assert len(divide(open_source(str(path), tmp_path), 1 << 30)) == 1


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ((), "subject is an empty list, or has an empty name in it"),
        (("person", ""), "subject is an empty list, or has an empty name in it"),
        (("person", "recipient", "person"), "subject names 'person' more than once"),
        (("person", "id"), "subject names the id column, 'id', and other columns"),
        (("id", "person"), "subject names the id column, 'id', and other columns"),
    ],
)
def test_senseless_lists_are_refused(subject: tuple[str, ...], expected: str) -> None:
    """These are an empty list, a repeated column, and the id column beside others."""
    with pytest.raises(Invalid, match=expected):
        settings(subject=subject)
