"""Merkle trees against published vectors, against a definition of their own, and under tampering."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.transparency.merkle import EMPTY_ROOT, MerkleTree, leaf_hash, verify_consistency, verify_inclusion

SIZES = 131

# transparency-dev/merkle, testonly/constants.go: leaves, and the root over the first 0, 1, 2 ... of them.
LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
NODES = {
    "1": "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "23": "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "4567": "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    "4": "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "67": "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "45": "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "0123": ROOTS[4],
}
INCLUSION = [(0, 8, ("1", "23", "4567")), (5, 8, ("4", "67", "0123"))]
CONSISTENCY = [(2, 8, ("23", "4567")), (6, 8, ("45", "67", "0123")), (2, 5, ("23", "4"))]

PUBLISHED = MerkleTree(leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES)
HASHES = [leaf_hash(b"%d" % number) for number in range(SIZES)]
TREE = MerkleTree(HASHES)


def mth(hashes: Sequence[bytes]) -> bytes:
    """The root, as RFC 9162 section 2.1.1 defines it, and nothing saved."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\x01" + mth(hashes[:split]) + mth(hashes[split:])).digest()


def path(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """The inclusion proof, as RFC 9162 section 2.1.3.1 defines it."""
    if len(hashes) == 1:
        return []
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    if index < split:
        return [*path(index, hashes[:split]), mth(hashes[split:])]
    return [*path(index - split, hashes[split:]), mth(hashes[:split])]


def subproof(old: int, hashes: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """The consistency proof, as RFC 9162 section 2.1.4.1 defines it."""
    if old == len(hashes):
        return [] if whole else [mth(hashes)]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    if old <= split:
        return [*subproof(old, hashes[:split], whole=whole), mth(hashes[split:])]
    return [*subproof(old - split, hashes[split:], whole=False), mth(hashes[:split])]


def altered(proof: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The proof with one bit of each byte flipped, one hash left out, doubled, cut, added, or two swapped."""
    for place, each in enumerate(proof):
        for byte in range(len(each)):
            yield [*proof[:place], each[:byte] + bytes([each[byte] ^ 1]) + each[byte + 1 :], *proof[place + 1 :]]
        yield [*proof[:place], *proof[place + 1 :]]
        yield [*proof[: place + 1], *proof[place:]]
        yield [*proof[:place], each[:-1], *proof[place + 1 :]]
        if place:
            yield [*proof[: place - 1], each, proof[place - 1], *proof[place + 1 :]]
    yield [*proof, bytes(32)]
    yield [bytes(32), *proof]


def test_published_roots() -> None:
    """Roots are those of the transparency-dev vectors, for every size."""
    assert [PUBLISHED.root(size).hex() for size in range(len(LEAVES) + 1)] == list(ROOTS)


@pytest.mark.parametrize(("index", "size", "nodes"), INCLUSION)
def test_published_inclusion_proofs(index: int, size: int, nodes: tuple[str, ...]) -> None:
    """Inclusion proofs are those of the transparency-dev vectors."""
    assert [each.hex() for each in PUBLISHED.inclusion_proof(index, size)] == [NODES[node] for node in nodes]


@pytest.mark.parametrize(("old", "size", "nodes"), CONSISTENCY)
def test_published_consistency_proofs(old: int, size: int, nodes: tuple[str, ...]) -> None:
    """Consistency proofs are those of the transparency-dev vectors."""
    assert [each.hex() for each in PUBLISHED.consistency_proof(old, size)] == [NODES[node] for node in nodes]


def test_roots_are_as_defined() -> None:
    """The root of every size up to 130 is the one that the definition gives."""
    assert mth([]) == EMPTY_ROOT
    for size in range(SIZES):
        assert TREE.root(size) == mth(HASHES[:size])
        assert MerkleTree(HASHES[:size]).root(size) == mth(HASHES[:size])


def test_inclusion_proofs_are_as_defined() -> None:
    """Every leaf of every size up to 130 has the proof of the definition, and it verifies."""
    for size in range(1, SIZES):
        root = TREE.root(size)
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            assert list(proof) == path(index, HASHES[:size])
            assert verify_inclusion(leaf=HASHES[index], index=index, size=size, proof=proof, root=root)


def test_consistency_proofs_are_as_defined() -> None:
    """Every pair of sizes up to 130 has the proof of the definition, and it verifies."""
    for size in range(SIZES):
        for old in range(size + 1):
            proof = TREE.consistency_proof(old, size)
            assert list(proof) == (subproof(old, HASHES[:size], whole=True) if old else [])
            assert verify_consistency(
                old_size=old, old_root=TREE.root(old), size=size, root=TREE.root(size), proof=proof
            )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 9, 16, 21])
def test_altered_inclusion_proofs_are_refused(size: int) -> None:
    """No altered proof, other index, other size with another root, other leaf or other root is accepted."""
    root = TREE.root(size)
    for index in range(size):
        proof, leaf = TREE.inclusion_proof(index, size), HASHES[index]
        for other in altered(proof):
            assert not verify_inclusion(leaf=leaf, index=index, size=size, proof=other, root=root)
        for wrong in (*range(-1, index), *range(index + 1, size + 3)):
            assert not verify_inclusion(leaf=leaf, index=wrong, size=size, proof=proof, root=root)
        assert not verify_inclusion(leaf=HASHES[-1], index=index, size=size, proof=proof, root=root)
        assert not verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=TREE.root(size + 1))
        assert not verify_inclusion(leaf=leaf, index=index, size=0, proof=proof, root=root)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 9, 16, 21])
def test_altered_consistency_proofs_are_refused(size: int) -> None:
    """No altered proof, other size or other root is accepted."""
    root = TREE.root(size)
    for old in range(size + 1):
        proof, old_root = TREE.consistency_proof(old, size), TREE.root(old)
        for other in altered(proof):
            assert not verify_consistency(old_size=old, old_root=old_root, size=size, root=root, proof=other)
        for wrong in range(-1, size + 2):
            if wrong != old:
                assert not verify_consistency(old_size=wrong, old_root=old_root, size=size, root=root, proof=proof), (
                    old,
                    wrong,
                )
        other_root = TREE.root(size + 1)
        assert not verify_consistency(old_size=old, old_root=other_root, size=size, root=root, proof=proof)
        if old:
            assert not verify_consistency(old_size=old, old_root=old_root, size=size, root=other_root, proof=proof)


def test_a_rewritten_history_has_no_consistency_proof() -> None:
    """Two logs that differ in one early leaf cannot be joined by any honest proof of either."""
    other = MerkleTree([leaf_hash(b"another"), *HASHES[1:]])
    for old in range(1, 20):
        for size in range(old, 20):
            for tree in (TREE, other):
                assert not verify_consistency(
                    old_size=old,
                    old_root=TREE.root(old),
                    size=size,
                    root=other.root(size),
                    proof=tree.consistency_proof(old, size),
                )


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=300), st.data())
def test_any_leaves(leaves: list[bytes], data: st.DataObject) -> None:
    """For leaves of any bytes a tree that grew equals one made at once, and proofs between any sizes verify."""
    tree = MerkleTree(map(leaf_hash, leaves))
    size = data.draw(st.integers(1, len(leaves)))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    root = mth([leaf_hash(leaf) for leaf in leaves[:size]])
    assert tree.root(size) == root
    proof = tree.inclusion_proof(index, size)
    assert verify_inclusion(leaf=leaf_hash(leaves[index]), index=index, size=size, proof=proof, root=root)
    between = tree.consistency_proof(old, size)
    assert verify_consistency(old_size=old, old_root=tree.root(old), size=size, root=root, proof=between)


def test_a_tree_goes_on_from_its_subtrees() -> None:
    """After a start of which only the complete subtrees are kept, roots and proofs are those of the whole tree."""
    hashes = [leaf_hash(b"%d" % number) for number in range(35)]
    whole = MerkleTree(hashes)
    for start in range(len(hashes)):
        tree = MerkleTree(hashes[start:], start=start, subtrees=whole.subtrees(start))
        assert (tree.size, tree.start) == (len(hashes), start)
        assert tree.leaf_hashes(start, len(hashes)) == hashes[start:]
        for size in range(start, len(hashes) + 1):
            assert tree.root(size) == whole.root(size)
            assert tree.subtrees(size) == whole.subtrees(size)
            for index in range(start, size):
                assert tree.inclusion_proof(index, size) == whole.inclusion_proof(index, size)
            for old in range(start, size + 1):
                assert tree.consistency_proof(old, size) == whole.consistency_proof(old, size)
