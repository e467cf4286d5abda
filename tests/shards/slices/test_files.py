"""Slice files: round trip, digests, loading, rewriting, and no residue of erased points."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.points import PointBlock
from shards.routing import SliceId, point_digest
from shards.slices.files import (
    EMPTY_SLICE,
    SliceRecord,
    count_erased,
    decode_part,
    encode_part,
    load_shard,
    point_keys,
    read_part,
    record_slice,
    repeated_point,
    rewrite_slice,
    write_part,
)
from shards.specification import ShardId, SliceIndex
from shards.tombstones import NOTHING
from storage.errors import Corrupt, InvariantBroken
from storage.objects import ObjectStore
from tests.shards.people import KEY, block, fresh_names, fresh_store, points, subjects

PLACE = SliceId(ShardId(1), SliceIndex(2))
numbers = st.lists(st.integers(0, 60), unique=True, max_size=25)


def _store_slice(store: ObjectStore, *parts: list[int], dtype: str = "uint8") -> SliceRecord:
    names = fresh_names()
    records = [write_part(store, block(part, dtype=dtype), PLACE, names) for part in parts]
    return record_slice(store, records)


def _numbers(store: ObjectStore, record: SliceRecord) -> set[int]:
    known = {point_digest(KEY, f"point-{number}"): number for number in range(100)}
    blocks = [read_part(store, part) for part in record.parts]
    return {known[point.tobytes()] for stored in blocks for point in stored.points_N}


@given(numbers, st.sampled_from(["uint8", "float32"]), st.integers(1, 5))
def test_a_part_reads_back_as_it_was(chosen: list[int], dtype: str, width: int) -> None:
    """Decoding what was encoded gives the same arrays, types and order."""
    expected = block(chosen, features=width, dtype=dtype)
    got = decode_part(encode_part(expected))
    assert expected.points_N.tobytes() == got.points_N.tobytes()
    assert expected.subjects_N.tobytes() == got.subjects_N.tobytes()
    assert expected.labels_N.tolist() == got.labels_N.tolist()
    assert got.features_NF.dtype == dtype
    assert (len(chosen), width) == got.features_NF.shape
    assert expected.features_NF.tobytes() == got.features_NF.tobytes()


def test_a_part_has_its_points_and_nothing_more() -> None:
    """A view of a larger block is written without the rest of it."""
    whole = block(range(60))
    view = PointBlock(
        points_N=whole.points_N[:2],
        subjects_N=whole.subjects_N[:2],
        labels_N=whole.labels_N[:2],
        features_NF=whole.features_NF[:2],
    )
    assert encode_part(view) == encode_part(block(range(2)))


def test_features_of_another_type_are_a_bug() -> None:
    """A part never silently converts features."""
    with pytest.raises(InvariantBroken, match="not float64"):
        encode_part(block([1], dtype="float64"))


@given(st.binary(max_size=200))
def test_garbage_is_corrupt(payload: bytes) -> None:
    """Bytes that are not a part raise ``Corrupt``."""
    with pytest.raises(Corrupt, match="not one of this format"):
        decode_part(payload)


@given(numbers, st.data())
def test_digests_ignore_order_and_parts(chosen: list[int], data: st.DataObject) -> None:
    """A slice's digests depend on its points, not on their order, the parts, or the type of stored features."""
    store = fresh_store()
    shuffled = data.draw(st.permutations(chosen))
    cut = data.draw(st.integers(0, len(chosen)))
    names = fresh_names()
    one = record_slice(store, [write_part(store, block(chosen), PLACE, names)])
    halves = [half for half in (shuffled[:cut], shuffled[cut:]) if half]
    other = record_slice(store, [write_part(store, block(half, dtype="float32"), PLACE, names) for half in halves])
    assert one.points == other.points == len(chosen)
    assert one.points_digest == other.points_digest
    assert one.content_digest == other.content_digest


def test_digests_equal_an_independent_computation() -> None:
    """Both digests are computed as documented."""
    stored = block([3, 1, 2])
    store = fresh_store()
    record = record_slice(store, [write_part(store, stored, PLACE, fresh_names())])
    ids = sorted(point.tobytes() for point in stored.points_N)
    contents = sorted(
        hashlib.blake2b(
            stored.points_N[at].tobytes()
            + stored.subjects_N[at].tobytes()
            + stored.labels_N[at].astype("<i4").tobytes()
            + stored.features_NF[at].astype("<f4").tobytes(),
            digest_size=16,
        ).digest()
        for at in range(3)
    )
    assert hashlib.sha256(b"".join(ids)).hexdigest() == record.points_digest
    assert hashlib.sha256(b"".join(contents)).hexdigest() == record.content_digest


@pytest.mark.parametrize("change", ["points_N", "subjects_N", "labels_N", "features_NF"])
def test_any_change_of_a_point_changes_the_content_digest(change: str) -> None:
    """The content digest covers id, subject, label and features."""
    store, names = fresh_store(), fresh_names()
    original, other = block([1, 2]), block([8, 2])
    fields = {name: getattr(original, name) for name in ("points_N", "subjects_N", "labels_N", "features_NF")}
    changed = fields[change].copy()
    changed[0] = 1 - changed[0] if change == "labels_N" else getattr(other, change)[0]
    records = [
        record_slice(store, [write_part(store, kept, PLACE, names)])
        for kept in (original, PointBlock(**(fields | {change: changed})))
    ]
    assert records[0].content_digest != records[1].content_digest


def test_keys_contain_only_place_and_name() -> None:
    """A part's key consists of shard, slice and the given name."""
    store = fresh_store()
    record = write_part(store, block([1]), PLACE, lambda: "token")
    assert record.key == "shards/0001/slices/0002/token.parquet"
    assert record.payload_bytes == len(store.get(record.key).payload)


@given(st.lists(numbers, min_size=1, max_size=3), st.sampled_from(["uint8", "float32"]))
def test_a_shard_loads_in_canonical_order(slices: list[list[int]], dtype: str) -> None:
    """Slices are in order, points within a slice sorted by digest, and features divided in float32."""
    store = fresh_store()
    records = [_store_slice(store, chosen[::2], chosen[1::2], dtype=dtype) for chosen in slices]
    shard = load_shard(store, records, width=4, scale=3.0)
    order = [sorted(chosen, key=lambda number: point_digest(KEY, f"point-{number}")) for chosen in slices]
    expected = block([number for chosen in order for number in chosen], dtype="float32")
    assert shard.features_NF.tobytes() == (expected.features_NF / np.float32(3)).tobytes()
    assert shard.labels_N.tolist() == expected.labels_N.tolist()
    assert shard.keys_N.tolist() == [int.from_bytes(point.tobytes()[:8], "big") for point in expected.points_N]
    assert shard.ends == tuple(int(end) for end in np.cumsum([len(chosen) for chosen in slices]))
    assert shard.features_NF.flags.c_contiguous


def test_loading_the_empty_shard() -> None:
    """A shard without points loads as empty arrays, with an end for each slice."""
    shard = load_shard(fresh_store(), [EMPTY_SLICE, EMPTY_SLICE], width=4, scale=1.0)
    assert shard.features_NF.shape == (0, 4)
    assert shard.ends == (0, 0)


def test_one_constant_per_feature() -> None:
    """A list of constants divides each feature by its own constant."""
    store = fresh_store()
    shard = load_shard(store, [_store_slice(store, [5])], width=4, scale=(1.0, 2.0, 3.0, 4.0))
    expected = block([5], dtype="float32").features_NF / np.array([1, 2, 3, 4], dtype=np.float32)
    assert expected.tolist() == shard.features_NF.tolist()


@given(numbers, st.sets(st.integers(0, 60)), st.sets(st.integers(0, 20), max_size=4), st.integers(1, 4))
def test_a_rewrite_leaves_exactly_the_survivors(
    chosen: list[int], gone: set[int], persons: set[int], parts: int
) -> None:
    """Rewriting equals writing the remaining points; parts without erased points are kept, others superseded."""
    store, names = fresh_store(), fresh_names()
    divided = [chosen[at::parts] for at in range(parts) if chosen[at::parts]]
    record = record_slice(store, [write_part(store, block(part), PLACE, names) for part in divided])
    erased = points(*gone).union(subjects(*persons))
    survivors = [number for number in chosen if number not in gone and number // 3 not in persons]
    assert count_erased(store, record, erased) == len(chosen) - len(survivors)
    rewrite = rewrite_slice(store, record, erased, PLACE, names)
    assert rewrite.removed == len(chosen) - len(survivors)
    assert _numbers(store, rewrite.record) == set(survivors)
    fresh = _store_slice(fresh_store(), *([survivors] if survivors else []))
    assert rewrite.record.content_digest == fresh.content_digest
    assert rewrite.record.points_digest == fresh.points_digest
    touched = {part.key for part, held in zip(record.parts, divided, strict=True) if set(held) - set(survivors)}
    assert set(rewrite.superseded) == touched
    assert {part.key for part in record.parts} - touched <= {part.key for part in rewrite.record.parts}


def test_nothing_to_remove_writes_nothing() -> None:
    """A rewrite without erased points returns the same record and does not change the store."""
    store = fresh_store()
    record = _store_slice(store, [1, 2], [3])
    before = sorted(info.key for info in store.list(""))
    rewrite = rewrite_slice(store, record, points(9).union(NOTHING), PLACE, lambda: "unused")
    assert rewrite.record is record
    assert (rewrite.removed, rewrite.superseded) == (0, ())
    assert sorted(info.key for info in store.list("")) == before


def test_erasing_all_points_leaves_the_empty_slice() -> None:
    """A slice whose points are all erased has no parts and equals a slice that never had points."""
    store = fresh_store()
    record = _store_slice(store, [1, 2], [3])
    assert rewrite_slice(store, record, points(1, 2, 3), PLACE, lambda: "unused").record == EMPTY_SLICE


def test_residue_is_found_before_a_rewrite_and_not_after() -> None:
    """Features and digests of an erased point are in the old parts and in none of the new ones."""
    marker = np.frombuffer(b"\xde\xad\xbe\xef\xfe\xed\xfa\xce\xca\xfe\xba\xbe", dtype=np.uint8)
    marked = block(range(30), features=12)
    features = marked.features_NF.copy()
    features[11] = marker
    stored = PointBlock(
        points_N=marked.points_N, subjects_N=marked.subjects_N, labels_N=marked.labels_N, features_NF=features
    )
    store, names = fresh_store(), fresh_names()
    record = record_slice(store, [write_part(store, stored, PLACE, names)])
    secrets = [marker.tobytes(), point_digest(KEY, "point-11"), marked.subjects_N[11].tobytes()]
    before = _plain_bytes(store)
    assert all(secret in before for secret in secrets)
    rewrite = rewrite_slice(store, record, subjects(11 // 3), PLACE, names)
    for key in rewrite.superseded:
        store.delete(key)
    after = _plain_bytes(store)
    assert rewrite.removed == 3
    assert not any(secret in after for secret in secrets)
    assert bytes(point_digest(KEY, "point-12")) in after


def _plain_bytes(store: ObjectStore) -> bytes:
    """Return the bytes of all objects, raw and decompressed."""
    payloads = [store.get(info.key).payload for info in store.list("")]
    blocks = [decode_part(payload) for payload in payloads]
    columns = [[part.points_N, part.subjects_N, part.labels_N, part.features_NF] for part in blocks]
    return b"".join(payloads) + b"".join(column.tobytes() for part in columns for column in part)


@given(numbers, st.booleans(), st.integers(1, 30))
def test_a_repeated_point_is_found_in_any_number_of_passes(chosen: list[int], repeat: bool, most: int) -> None:
    """An id that occurs in two slices is found with any memory limit; without repeats, nothing is found."""
    store, names = fresh_store(), fresh_names()
    groups = [chosen[::2], chosen[1::2]]
    if repeat and chosen:
        groups[1] = [*groups[1], chosen[0]]
    slices = [record_slice(store, [write_part(store, block(group), PLACE, names)]) for group in groups if group]
    expected = point_digest(KEY, f"point-{chosen[0]}") if repeat and chosen else None
    assert repeated_point(store, slices, most_points=most) == expected


def test_point_keys_are_the_leading_bytes() -> None:
    """A key is the digest's first eight bytes, most significant first."""
    digest = bytes(range(1, 17))
    assert point_keys(np.frombuffer(digest, dtype="V16")).tolist() == [0x0102030405060708]


def test_a_missing_part_is_corrupt() -> None:
    """The error for a missing part names the expected digest and the remedy."""
    store = fresh_store()
    record = _store_slice(store, [1])
    store.delete(record.parts[0].key)
    with pytest.raises(Corrupt, match=r"missing: expected sha256:[0-9a-f]{64}, got nothing \[key=shards/0001.*restore"):
        read_part(store, record.parts[0])


def test_a_changed_part_is_corrupt() -> None:
    """A part whose bytes have changed is not used, even if it can be decoded."""
    store = fresh_store()
    record = _store_slice(store, [1])
    key = record.parts[0].key
    store.delete(key)
    store.put_if_absent(key, encode_part(block([2])))
    with pytest.raises(Corrupt, match=r"differs from its record: expected sha256:.*, got sha256:.* \[key="):
        count_erased(store, record, points(1))


def test_a_part_of_another_width_is_corrupt() -> None:
    """A shard never loads with a different number of features than the model takes."""
    store = fresh_store()
    record = _store_slice(store, [1])
    with pytest.raises(Corrupt, match="expected 5 features, got 4"):
        load_shard(store, [record], width=5, scale=1.0)
