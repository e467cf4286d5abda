"""Tombstones: value, canonical bytes, membership."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.points import PointBlock
from shards.routing import PointDigest, SubjectDigest
from shards.tombstones import NOTHING, DigestSet
from storage.errors import Corrupt, InvariantBroken
from tests.shards.people import block, points, subjects

digests = st.lists(st.binary(min_size=16, max_size=16), max_size=8)
sets = st.builds(
    lambda left, right: DigestSet.of(subjects=map(SubjectDigest, left), points=map(PointDigest, right)),
    digests,
    digests,
)


@given(digests, digests)
def test_value_ignores_order_and_repeats(left: list[bytes], right: list[bytes]) -> None:
    """Two sets of the same digests are equal and have equal hashes and bytes, in any order and with repeats."""
    one = DigestSet.of(subjects=map(SubjectDigest, left), points=map(PointDigest, right))
    other = DigestSet.of(subjects=map(SubjectDigest, left[::-1] * 2), points=map(PointDigest, right[::-1] * 2))
    assert one == other
    assert hash(one) == hash(other)
    assert one.to_bytes() == other.to_bytes()
    assert one.digest() == other.digest()
    assert len(one) == len(set(left)) + len(set(right))
    assert list(one.subject_digests()) == sorted(set(left))
    assert list(one.point_digests()) == sorted(set(right))


@given(sets)
def test_bytes_round_trip(value: DigestSet) -> None:
    """Reading what was written gives the same set."""
    assert DigestSet.from_bytes(value.to_bytes()) == value
    assert pickle.loads(pickle.dumps(value)) == value


@given(sets, sets, sets)
def test_union_is_that_of_sets(one: DigestSet, two: DigestSet, three: DigestSet) -> None:
    """Union is commutative, associative and idempotent, and NOTHING is its neutral element (E9)."""
    assert one.union(two) == two.union(one)
    assert one.union(two).union(three) == one.union(two.union(three))
    assert one.union(one) == one
    assert one.union(NOTHING) == one


@given(st.sets(st.integers(0, 40), max_size=12), st.sets(st.integers(0, 12), max_size=4))
def test_membership_is_by_point_or_by_subject(chosen: set[int], persons: set[int]) -> None:
    """A point is in the set if its own digest or its subject's is."""
    erased = points(*chosen).union(subjects(*persons))
    expected = [number in chosen or number // 3 in persons for number in range(41)]
    assert expected == erased.contains(block(range(41))).tolist()


@given(sets, st.data())
def test_any_damage_is_found(value: DigestSet, data: st.DataObject) -> None:
    """Bytes cut off, added, or out of order are refused, not read as another set."""
    payload = value.to_bytes()
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(Corrupt, match="a set of tombstones cannot be read"):
        DigestSet.from_bytes(payload[:cut])
    with pytest.raises(Corrupt, match="length differs from the counts"):
        DigestSet.from_bytes(payload + b"\0" * 16)


def test_unsorted_and_foreign_bytes_are_refused() -> None:
    """Digests out of order and an unknown format have their own messages."""
    low, high = bytes(16), b"\xff" * 16
    payload = DigestSet.of(points=[PointDigest(low), PointDigest(high)]).to_bytes()
    with pytest.raises(Corrupt, match="digests are not in strictly ascending order"):
        DigestSet.from_bytes(payload[:-32] + high + low)
    with pytest.raises(Corrupt, match="digests are not in strictly ascending order"):
        DigestSet.from_bytes(payload[:-32] + low + low)
    with pytest.raises(Corrupt, match="format is unknown"):
        DigestSet.from_bytes(b"SISATMB2" + payload[8:])
    with pytest.raises(InvariantBroken, match="not sorted, distinct"):
        DigestSet(points=high + low)
    with pytest.raises(InvariantBroken, match="not 16 bytes long"):
        DigestSet.of(points=[PointDigest(b"short")])


def test_digests_that_end_in_zero_bytes_stay_apart() -> None:
    """Trailing zero bytes, which numpy drops when it converts byte strings to Python, merge and lose no digests."""
    family = [b"\1" * length + bytes(16 - length) for length in range(17)]
    erased = DigestSet.of(points=map(PointDigest, family[::2]))
    found = erased.contains(
        PointBlock(
            points_N=np.frombuffer(b"".join(family), dtype="V16"),
            subjects_N=np.frombuffer(b"".join(family), dtype="V16"),
            labels_N=np.zeros(17, dtype=np.int32),
            features_NF=np.zeros((17, 1), dtype=np.uint8),
        )
    )
    assert [position % 2 == 0 for position in range(17)] == found.tolist()


def test_a_million_digests() -> None:
    """A million digests take 16 bytes each and are all found."""
    many = np.random.default_rng(3).bytes(16 * 1_000_000)
    erased = DigestSet.of(points=(PointDigest(many[at : at + 16]) for at in range(0, len(many), 16)))
    probe = np.frombuffer(many, dtype="V16")[::1000]
    found = erased.contains(
        PointBlock(
            points_N=probe,
            subjects_N=probe,
            labels_N=np.zeros(len(probe), dtype=np.int32),
            features_NF=np.zeros((len(probe), 1), dtype=np.uint8),
        )
    )
    assert found.all()
    assert len(erased.points) == 16_000_000
