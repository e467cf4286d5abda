"""Digests of data points' contents, from which the record of a slice follows.

Digests are BLAKE2b values of 16 bytes, one for each data point. Shape legend: N points, F features, K further subjects.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from shards.points import PointBlock
from shards.routing import DIGEST_BYTES
from shards.targets import LabelArray
from shards.tombstones import DigestSet, sortable

NUMBER: Final = np.dtype("<f4")
"""The type of a numeric label, and of a feature, in the digest of a content."""
_BYTES_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class PartDigests:
    """The digests of some data points of one slice, for the slice's record."""

    points_N: npt.NDArray[np.bytes_]
    contents_N: npt.NDArray[np.bytes_]
    subjects: bytes
    """Digests of the subjects that decide the slice, each once, joined."""

    @classmethod
    def of(cls, block: PointBlock) -> Self:
        """Return the digests of a part's data points."""
        subjects = DigestSet.joined(subjects=block.subjects_N.tobytes()).subjects
        return cls(sortable(block.points_N), content_digests(block), subjects)

    @classmethod
    def joined(cls, each: Sequence[PartDigests]) -> Self:
        """Return the digests of several parts as one."""
        return cls(
            np.concatenate([one.points_N for one in each]),
            np.concatenate([one.contents_N for one in each]),
            DigestSet.joined(subjects=b"".join(one.subjects for one in each)).subjects,
        )

    @classmethod
    def from_bytes(cls, payload: bytes, points: int) -> Self:
        """Return the digests that ``to_bytes`` wrote for this many data points."""
        middle, end = points * DIGEST_BYTES, 2 * points * DIGEST_BYTES
        digests_N = np.frombuffer(payload[:end], dtype=f"S{DIGEST_BYTES}")
        return cls(digests_N[:points], digests_N[points:], payload[2 * middle :])

    def to_bytes(self) -> bytes:
        """Return the digests, joined."""
        return b"".join((self.points_N.tobytes(), self.contents_N.tobytes(), self.subjects))

    @property
    def held_bytes(self) -> int:
        """The memory that they take."""
        return self.points_N.nbytes + self.contents_N.nbytes + len(self.subjects)


def content_digests(block: PointBlock) -> npt.NDArray[np.bytes_]:
    """Return a digest of each point's content, the same for features stored as uint8 and as float32."""
    columns = (block.points_N, block.subjects_N, plain_labels(block.labels_N), *block.further_NK.T)
    heads = [_as_bytes(column) for column in columns]
    step = max(1, _BYTES_AT_ONCE // (4 * block.features_NF.shape[1] + 1))
    blake2b = hashlib.blake2b
    joined = bytearray()
    for start in range(0, len(block), step):
        # Joined first, because a second call for each row would cost more.
        place = slice(start, start + step)
        features = _as_bytes(block.features_NF[place].astype(NUMBER, copy=False))
        rows = np.concatenate([*(head[place] for head in heads), features], axis=1)
        joined += b"".join([blake2b(row, digest_size=DIGEST_BYTES).digest() for row in rows])
    return np.frombuffer(bytes(joined), dtype=f"S{DIGEST_BYTES}")


def plain_labels(labels_N: LabelArray) -> npt.NDArray[Any]:
    """Return the labels as they are stored, one element for each data point: an integer, or the bytes of numbers."""
    if labels_N.ndim == 1:
        return labels_N.astype("<i4")
    numbers = np.ascontiguousarray(labels_N, dtype=NUMBER)
    return numbers.view(f"V{numbers.shape[1] * NUMBER.itemsize}").reshape(len(numbers))


def _as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return the bytes of each element of the first axis."""
    width = array.dtype.itemsize * math.prod(array.shape[1:])
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), width)
