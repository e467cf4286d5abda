"""Routing (E1): a keyed hash of the subject alone decides shard and slice.

Digests are 16-byte BLAKE2b values under the federation's secret partition key (RFC 7693, keyed mode, with
personalisation for domain separation). They stand for ids everywhere in the store: the ids themselves never enter it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NewType

import numpy as np

from shards.specification import ShardId, SliceIndex

PartitionKey = NewType("PartitionKey", bytes)
"""16 to 64 secret bytes."""

PointDigest = NewType("PointDigest", bytes)
"""Keyed digest of a data point's id, 16 bytes."""

SubjectDigest = NewType("SubjectDigest", bytes)
"""Keyed digest of a subject's id, 16 bytes."""

DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """The one slice of the one shard that holds all data points of a subject."""

    shard: ShardId
    slice: SliceIndex


def point_digest(key: PartitionKey, point_id: str) -> PointDigest:
    """Return the keyed digest of a data point's id."""
    return PointDigest(_digest(key, point_id, b"sisa/point"))


def subject_digest(key: PartitionKey, subject: str) -> SubjectDigest:
    """Return the keyed digest of a subject's id."""
    return SubjectDigest(_digest(key, subject, b"sisa/subject"))


def place(subject: SubjectDigest, shards: int, slices: int) -> Placement:
    r"""Return where the subject's data points belong: uniform, and blind to every other subject.

    >>> place(SubjectDigest(bytes(7) + b"\x07" + bytes(7) + b"\x09"), shards=5, slices=4)
    Placement(shard=2, slice=2)
    """
    return Placement(
        ShardId(int.from_bytes(subject[:8], "big") % shards),
        SliceIndex(int.from_bytes(subject[8:], "big") % slices + 1),
    )


def places(subjects: bytes, shards: int, slices: int) -> frozenset[Placement]:
    r"""Return where the data points of many subjects belong, whose digests are joined; ``place`` of each, at once.

    >>> places(bytes(7) + b"\x07" + bytes(7) + b"\x09", shards=5, slices=4)
    frozenset({Placement(shard=2, slice=2)})
    """
    halves_N2 = np.frombuffer(subjects, dtype=">u8").reshape(-1, 2)
    numbers_N = halves_N2[:, 0] % shards * slices + halves_N2[:, 1] % slices
    return frozenset(
        Placement(ShardId(int(number) // slices), SliceIndex(int(number) % slices + 1))
        for number in np.unique(numbers_N)
    )


def _digest(key: PartitionKey, text: str, domain: bytes) -> bytes:
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES, key=key, person=domain
    ).digest()
