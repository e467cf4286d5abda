"""The common prefix of two chains of lineages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shards.lineage import Lineage, shared_prefix
from tests.doubles.lineages import lineage_of


def chain_of(slices: list[bytes]) -> tuple[Lineage, ...]:
    """Return the lineages of a shard with these slice contents."""
    chain: list[Lineage] = []
    for number, seen in enumerate(slices, start=1):
        chain.append(lineage_of(number, chain[-1].digest() if chain else None, seen))
    return tuple(chain)


@given(st.lists(st.binary(max_size=1), max_size=6), st.lists(st.binary(max_size=1), max_size=6))
def test_up_to_the_first_slice_that_differs(one: list[bytes], other: list[bytes]) -> None:
    """Equal slices after a differing one are not shared, because their checkpoints build on a different one."""
    expected = next(
        (at for at, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs),
        min(len(one), len(other)),
    )
    assert shared_prefix(chain_of(one), chain_of(other)) == expected
