"""Routing (E1)."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shards.routing import (
    Naming,
    PartitionKey,
    SliceId,
    SubjectDigest,
    point_digest,
    slice_numbers,
    slice_of,
    slices_of,
    subject_digest,
)
from shards.specification import ShardId, SliceIndex
from tests.shards.people import KEY


@given(st.binary(min_size=16, max_size=16), st.integers(1, 4096), st.integers(1, 4096))
def test_every_subject_has_one_place_within_range(digest: bytes, shards: int, slices: int) -> None:
    """The place is in 0..S-1 and 1..R and depends only on the digest."""
    slice_id = slice_of(SubjectDigest(digest), shards, slices)
    assert 0 <= slice_id.shard < shards
    assert 1 <= slice_id.slice <= slices
    assert slice_id == slice_of(SubjectDigest(bytes(bytearray(digest))), shards, slices)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20), st.integers(1, 4096), st.integers(1, 4096))
def test_the_places_of_many_are_the_places_of_each(digests: list[bytes], shards: int, slices: int) -> None:
    """Placing many subjects in one call gives the same places as one call per subject."""
    expected = {slice_of(SubjectDigest(digest), shards, slices) for digest in digests}
    assert slices_of(b"".join(digests), shards, slices) == expected


_NAMINGS = st.sampled_from([Naming(), Naming(by_skeleton=True)])
_SHARES = st.floats(0.001, 0.999)


@given(
    st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=20),
    st.integers(1, 64),
    st.integers(1, 64),
    _NAMINGS,
    _SHARES,
    _SHARES,
)
def test_who_is_held_out_depends_on_nobody_else(
    digests: list[bytes], shards: int, slices: int, naming: Naming, share: float, other: float
) -> None:
    """Erased or appended subjects move nobody; a larger share holds out the same subjects and more; all others are
    where they are without hold-out points, and those held out keep the number of their slice.
    """

    def places(share: float, wanted: list[bytes] = digests) -> list[int]:
        joined = np.frombuffer(b"".join(wanted), dtype="V16")
        return list(map(int, slice_numbers(joined, shards, slices, naming, share)))

    plain, drawn = places(0.0), places(share)
    assert drawn == [places(share, [each])[0] for each in digests]
    assert {number % slices == was % slices for number, was in zip(drawn, plain, strict=True)} == {True}
    held = [number >= shards * slices for number in drawn]
    assert [number for number, out in zip(drawn, held, strict=True) if not out] == [
        was for was, out in zip(plain, held, strict=True) if not out
    ]
    more = [number >= shards * slices for number in places(max(share, other))]
    assert all(now for now, was in zip(more, held, strict=True) if was)
    assert all(number >= shards * slices for number in places(1.0))


def test_the_share_is_held_out_of_every_slice() -> None:
    """A tenth of 20,000 subjects, and a tenth of each slice's, within five standard deviations."""
    digests = b"".join(subject_digest(KEY, f"person-{number}") for number in range(20_000))
    subjects_N = np.frombuffer(digests, dtype="V16")
    for naming in (Naming(), Naming(by_skeleton=True)):
        plain = slice_numbers(subjects_N, 5, 4, naming)
        held = slice_numbers(subjects_N, 5, 4, naming, 0.1) >= 20
        assert abs(int(held.sum()) - 2000) < 5 * 43
        assert all(abs(int(held[plain == number].sum()) - 100) < 5 * 10 for number in range(20))


@given(st.text(min_size=1))
def test_digests_depend_on_key_and_role(text: str) -> None:
    """With another key, or as a subject instead of a point, an id has another digest; no digest contains the id."""
    other = PartitionKey(b"another key, also of 32 bytes!!!")
    found = {point_digest(KEY, text), point_digest(other, text), subject_digest(KEY, text), subject_digest(other, text)}
    assert len(found) == 4
    assert {len(digest) for digest in found} == {16}


def test_golden_digest() -> None:
    """Digests never change between releases, because every stored slice depends on them."""
    assert point_digest(KEY, "point-1").hex() == "90300cd7085422b148218b89c38195a7"
    assert subject_digest(KEY, "person-1").hex() == "e7f9eea04a0dc2427145184c49a1aeed"
    assert slice_of(subject_digest(KEY, "person-1"), 5, 5) == SliceId(ShardId(0), SliceIndex(3))


def test_places_are_uniform() -> None:
    """Each of 20 slices gets its share of 20,000 subjects, within five standard deviations."""
    counts = Counter(slice_of(subject_digest(KEY, f"person-{number}"), 5, 4) for number in range(20_000))
    assert len(counts) == 20
    assert all(abs(count - 1000) < 5 * 31 for count in counts.values())


def test_ids_that_are_not_valid_unicode_are_digested() -> None:
    """A lone surrogate, which some files contain, has a digest and raises no encoding error."""
    assert point_digest(KEY, "\ud800") != point_digest(KEY, "\ud801")


def test_places_sort_by_shard_then_slice() -> None:
    """Placements sort by shard, then by slice."""
    assert SliceId(ShardId(0), SliceIndex(2)) < SliceId(ShardId(1), SliceIndex(1))
