"""Merkle trees of RFC 9162: hashes, inclusion proofs, consistency proofs, and their verification. Pure.

Leaves enter as leaf hashes; a tree keeps the hash of every complete subtree, so that a root or a proof at any earlier
size costs about log2(size) hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (RFC 9162 section 2.1.1)."""


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf (RFC 9162 section 2.1.1)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over its two subtrees (RFC 9162 section 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """A tree that grows; adding a leaf costs two hashes on average."""

    def __init__(self, leaf_hashes: Iterable[bytes] = (), *, start: int = 0, subtrees: Sequence[bytes] = ()) -> None:
        """Make a tree of these leaves, after ``start`` others of which nothing but ``subtrees`` is known.

        ``subtrees`` are what ``subtrees(start)`` of a whole tree returned. Such a tree answers for sizes from ``start``
        on and for leaves from ``start`` on.
        """
        _check(len(subtrees) == start.bit_count())
        self._start = start
        self._levels: list[list[bytes]] = []  # [k][i - first]: hash over leaves i * 2**k .. (i + 1) * 2**k - 1
        known = iter(reversed(subtrees))  # the smallest first
        for level in range(max(start.bit_length(), 1)):
            self._levels.append([next(known)] if start >> level & 1 else [])
        for each in leaf_hashes:
            self.append(each)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._first(0) + len(self._levels[0])

    @property
    def start(self) -> int:
        """Number of the first leaf that the tree answers for."""
        return self._start

    def leaf_hashes(self, low: int, high: int) -> Sequence[bytes]:
        """Return the hashes of leaves low..high-1."""
        _check(self._start <= low <= high <= self.size)
        first = self._first(0)
        return self._levels[0][low - first : high - first]

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        node, level = leaf, 0
        self._levels[0].append(node)
        while (self._first(level) + len(self._levels[level])) % 2 == 0:
            node = node_hash(self._levels[level][-2], node)
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node)

    def subtrees(self, size: int) -> tuple[bytes, ...]:
        """Return the hashes of the complete subtrees that the first ``size`` leaves consist of, the largest first.

        They are all that a tree of more leaves needs of these: see ``__init__``.
        """
        _check(self._start <= size <= self.size)
        levels = (level for level in reversed(range(size.bit_length())) if size >> level & 1)
        return tuple(self._node(level, (size >> level) - 1) for level in levels)

    def root(self, size: int) -> bytes:
        """Return the root over the first ``size`` leaves, MTH in RFC 9162."""
        _check(self._start <= size <= self.size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """Return PATH(index, D[size]) (RFC 9162 section 2.1.3.1): about log2(size) hashes, lowest first."""
        _check(self._start <= index < size <= self.size)
        low, high, proof = 0, size, []
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                proof.append(self._range(middle, high))
                high = middle
            else:
                proof.append(self._range(low, middle))
                low = middle
        return tuple(reversed(proof))

    def consistency_proof(self, old: int, size: int) -> tuple[bytes, ...]:
        """Return PROOF(old, D[size]) (RFC 9162 section 2.1.4.1); empty when ``old`` is ``size`` or 0."""
        _check(0 <= old <= size <= self.size)
        if old in (0, size):
            return ()
        _check(self._start <= old)
        low, high, proof = 0, size, []
        while high != old:
            middle = low + _split(high - low)
            if old <= middle:
                proof.append(self._range(middle, high))
                high = middle
            else:
                proof.append(self._range(low, middle))
                low = middle
        if low:  # the old tree is not a subtree of its own: its last complete part opens the proof
            proof.append(self._range(low, high))
        return tuple(reversed(proof))

    def _range(self, low: int, high: int) -> bytes:
        """Return MTH over leaves low..high-1, where ``low`` is a multiple of the width's split."""
        width = high - low
        if width & (width - 1) == 0:
            return self._node(width.bit_length() - 1, low // width)
        middle = low + _split(width)
        return node_hash(self._range(low, middle), self._range(middle, high))

    def _node(self, level: int, number: int) -> bytes:
        place = number - self._first(level)
        _check(place >= 0)
        return self._levels[level][place]

    def _first(self, level: int) -> int:
        """Return the number of the first node of a level that is known: it may be the one before ``start``."""
        return (self._start >> level) - (self._start >> level & 1)


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Return whether ``proof`` shows the leaf hash at ``index`` under ``root`` (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size or any(len(each) != HASH_BYTES for each in proof):
        return False
    node, position, last = leaf, index, size - 1
    for sibling in proof:
        if last == 0:
            return False
        if position % 2 or position == last:
            node = node_hash(sibling, node)
            while position % 2 == 0 and position:
                position, last = position // 2, last // 2
        else:
            node = node_hash(node, sibling)
        position, last = position // 2, last // 2
    return last == 0 and node == root


def verify_consistency(*, old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether ``proof`` shows that the old tree is a start of the new one (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old_size <= size or any(len(each) != HASH_BYTES for each in proof):
        return False
    if old_size == size:
        return not proof and old_root == root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        return False
    position, last = old_size - 1, size - 1
    while position % 2:
        position, last = position // 2, last // 2
    old, new = path[0], path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position % 2 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while position % 2 == 0 and position:
                position, last = position // 2, last // 2
        else:
            new = node_hash(new, sibling)
        position, last = position // 2, last // 2
    return last == 0 and old == old_root and new == root


def _split(width: int) -> int:
    """Return the largest power of two below ``width``, which is at least 2."""
    return 1 << ((width - 1).bit_length() - 1)


def _check(holds: bool) -> None:  # noqa: FBT001  an assertion with a name
    assert holds, "a Merkle tree was asked about leaves that it does not have"
