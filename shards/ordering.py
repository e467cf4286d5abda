"""Order and randomness (E3): random streams depend on identity, never on position.

A stream is a 64-bit number derived from (seed, shard, slice, epoch, purpose). Points are ordered by mixing their own
key with the stream, so that removing a point does not change the relative order of the others.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from shards.specification import ShardId, SliceIndex

INITIAL_WEIGHTS: Final = b"initial"
SHUFFLE: Final = b"shuffle"
NOISE: Final = b"noise"
"""Stream of dropout, and of anything else that a model draws at random while it learns."""
AUGMENT: Final = b"augment"
STEP: Final = b"step"
"""For the generators that the user's own ``augment`` and ``step`` get."""


def stream(seed: int, shard: ShardId, slice_: SliceIndex, epoch: int, purpose: bytes) -> int:
    """Return the stream's number, 0 .. 2**64 - 1."""
    material = b"".join(value.to_bytes(8, "big") for value in (seed, shard, slice_, epoch))
    digest = hashlib.blake2b(material, digest_size=8, person=b"sisa/" + purpose)
    return int.from_bytes(digest.digest(), "big")


def epoch_order(keys_N: npt.NDArray[np.uint64], number: int) -> npt.NDArray[np.int64]:
    """Return the permutation of ``keys_N`` for the stream ``number``; equal keys keep their canonical order."""
    return np.argsort(mixed(keys_N, number), kind="stable").astype(np.int64, copy=False)


def mixed(keys_N: npt.NDArray[np.uint64], number: int | npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return a draw for each key from the stream ``number``: MurmurHash3's 64-bit finaliser, a bijection.

    An array has the stream of each key.
    """
    draws = keys_N ^ (np.uint64(number) if isinstance(number, int) else number)
    draws ^= draws >> np.uint64(33)
    draws *= np.uint64(0xFF51AFD7ED558CCD)
    draws ^= draws >> np.uint64(33)
    draws *= np.uint64(0xC4CEB9FE1A85EC53)
    draws ^= draws >> np.uint64(33)
    return draws
