"""How far two chains of checkpoints have seen the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shards.lineage import Lineage, shared_prefix
from tests.doubles.lineages import lineage_of


def chain_of(slices: list[bytes]) -> tuple[Lineage, ...]:
    """Return the lineages of a shard whose slices hold these."""
    chain: list[Lineage] = []
    for number, seen in enumerate(slices, start=1):
        chain.append(lineage_of(number, chain[-1].digest() if chain else None, seen))
    return tuple(chain)


@given(st.lists(st.binary(max_size=1), max_size=6), st.lists(st.binary(max_size=1), max_size=6))
def test_up_to_the_first_slice_that_differs(one: list[bytes], other: list[bytes]) -> None:
    """Equal slices behind one that differs are not shared: they were learned on top of something else."""
    expected = next(
        (at for at, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs),
        min(len(one), len(other)),
    )
    assert shared_prefix(chain_of(one), chain_of(other)) == expected
