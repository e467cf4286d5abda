"""Tombstones: the keyed digests of erased subjects and data points.

With them, erased data points are removed from slices and refused at the next ingest. They are all that remains of an
erased id (E12).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shards.points import PointBlock
from shards.routing import DIGEST_BYTES, NOBODY, PointDigest, SubjectDigest
from storage.digests import Sha256, sha256
from storage.errors import Corrupt, InvariantBroken

_MAGIC = b"SISATMB1"
_HEADER = struct.Struct(">8sQQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestSet:
    """A set of subjects and of data points, by keyed digest; equal and hashable by value.

    Both fields hold 16-byte digests, joined, in strictly ascending order: one million of them take 16 MB.
    """

    subjects: bytes = b""
    """Digests of subjects; each stands for all of the subject's data points."""
    points: bytes = b""
    """Digests of single data points."""

    def __post_init__(self) -> None:
        if not (_is_canonical(self.subjects) and _is_canonical(self.points)):
            raise InvariantBroken("a digest set was built from digests that are not sorted, distinct and 16 bytes long")

    @classmethod
    def of(cls, *, subjects: Iterable[SubjectDigest] = (), points: Iterable[PointDigest] = ()) -> Self:
        """Return the set of these digests, which may come in any order and repeat."""
        return cls.joined(subjects=b"".join(subjects), points=b"".join(points))

    @classmethod
    def joined(cls, *, subjects: bytes = b"", points: bytes = b"") -> Self:
        """Return the set of these joined digests, which may come in any order and repeat."""
        return cls(subjects=_canonical(subjects), points=_canonical(points))

    @classmethod
    def subjects_of(cls, block: PointBlock) -> Self:
        """Return the subjects of all data points of ``block``, including further subjects."""
        return cls(subjects=_canonical(_people(block).tobytes()).removeprefix(NOBODY))

    @classmethod
    def points_of(cls, block: PointBlock) -> Self:
        """Return the data points of ``block`` as a set."""
        return cls(points=_canonical(block.points_N.tobytes()))

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Return the set that ``to_bytes`` wrote. Raises ``Corrupt`` for any other bytes."""
        if len(payload) < _HEADER.size:
            raise _corrupt("header is cut off", payload)
        magic, subjects, points = _HEADER.unpack_from(payload)
        if magic != _MAGIC:
            raise _corrupt("format is unknown", payload)
        if len(payload) != _HEADER.size + DIGEST_BYTES * (subjects + points):
            raise _corrupt("length differs from the counts in the header", payload)
        middle = _HEADER.size + DIGEST_BYTES * subjects
        halves = payload[_HEADER.size : middle], payload[middle:]
        if not all(map(_is_canonical, halves)):
            raise _corrupt("digests are not in strictly ascending order", payload)
        return cls(subjects=halves[0], points=halves[1])

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: magic, two big-endian counts, digests of subjects, digests of points."""
        counts = len(self.subjects) // DIGEST_BYTES, len(self.points) // DIGEST_BYTES
        return _HEADER.pack(_MAGIC, *counts) + self.subjects + self.points

    def digest(self) -> Sha256:
        """Return the SHA-256 of the canonical bytes."""
        return sha256(self.to_bytes())

    def union(self, *others: DigestSet) -> DigestSet:
        """Return the members of this set and of all others."""
        every = (self, *others)
        return DigestSet(
            subjects=_canonical(b"".join(each.subjects for each in every)),
            points=_canonical(b"".join(each.points for each in every)),
        )

    def contains(self, block: PointBlock) -> npt.NDArray[np.bool_]:
        """Return for each data point of ``block`` whether it or one of its subjects is in the set, shape (N,)."""
        return _find(self.points, block.points_N) | self.contains_subjects(block)

    def contains_subjects(self, block: PointBlock) -> npt.NDArray[np.bool_]:
        """Return for each data point of ``block`` whether one of its subjects is in the set, shape (N,)."""
        return _any([_find(self.subjects, people_N) for people_N in block.people])

    def resembles(self, block: PointBlock) -> npt.NDArray[np.bool_]:
        """Return for each data point of ``block`` whether a subject of it shares a skeleton with a member, shape (N,).

        Only for digests whose first half is the skeleton's (``Naming.by_skeleton``). Members resemble themselves.
        """
        members = _skeletons(_view(self.subjects))
        return _any([_find_skeletons(members, people_N) for people_N in block.people])

    def alike_in(self, block: PointBlock) -> DigestSet:
        """Return the subjects in ``block`` that have the skeleton of a member."""
        people = _people(block)
        found = people[_find_skeletons(_skeletons(_view(self.subjects)), people)]
        return DigestSet(subjects=_canonical(found.tobytes()))

    def resembled_in(self, block: PointBlock) -> DigestSet:
        """Return the subjects of the set that have the skeleton of a subject in ``block``."""
        members = _view(self.subjects)
        if not len(members):
            return NOTHING
        found = _find_skeletons(np.sort(_skeletons(_people(block))), members.view(f"V{DIGEST_BYTES}"))
        return DigestSet(subjects=members[found].tobytes())

    def without(self, other: DigestSet) -> DigestSet:
        """Return the members that are not in ``other``."""
        subjects, points = _view(self.subjects), _view(self.points)
        return DigestSet(
            subjects=subjects[~_find(other.subjects, subjects.view(f"V{DIGEST_BYTES}"))].tobytes(),
            points=points[~_find(other.points, points.view(f"V{DIGEST_BYTES}"))].tobytes(),
        )

    def shared(self, other: DigestSet) -> DigestSet:
        """Return the members that are also in ``other``."""
        return self.without(self.without(other))

    def among(self, block: PointBlock) -> DigestSet:
        """Return the members that occur in ``block``."""
        people = _people(block)
        subjects = people[_find(self.subjects, people)]
        points = sortable(block.points_N)[_find(self.points, block.points_N)]
        return DigestSet(subjects=_canonical(subjects.tobytes()), points=_canonical(points.tobytes()))

    def subject_digests(self) -> Iterator[SubjectDigest]:
        """Yield the subjects' digests in ascending order."""
        return (SubjectDigest(digest) for digest in _split(self.subjects))

    def point_digests(self) -> Iterator[PointDigest]:
        """Yield the data points' digests in ascending order."""
        return (PointDigest(digest) for digest in _split(self.points))

    def __len__(self) -> int:
        return (len(self.subjects) + len(self.points)) // DIGEST_BYTES


def count_similar(joined: bytes) -> int:
    """Return how many subjects share the first half of their digest with another subject; repeats count once."""
    halves_N = _skeletons(_view(joined if _is_canonical(joined) else _canonical(joined)))
    is_next = halves_N[1:] == halves_N[:-1]
    return int(np.count_nonzero(np.append(is_next, False) | np.append(False, is_next)))


def sortable(digests_N: npt.NDArray[np.void]) -> npt.NDArray[np.bytes_]:
    """Return a view of the digests in a dtype that numpy sorts and compares fast, as unsigned bytes.

    ``S16`` drops trailing zero bytes only when an element becomes a Python object; order and equality are those of all
    16 bytes.
    """
    return np.ascontiguousarray(digests_N).view(f"S{DIGEST_BYTES}")


def sorted_digests(digests_N: npt.NDArray[Any]) -> npt.NDArray[np.bytes_]:
    """Return the digests, as ``sortable`` shows them, in ascending order, in a new array.

    Sorted by their first halves as numbers, which numpy does several times faster than with 16 bytes. Digests are
    hashes, so equal first halves mostly belong to equal digests; where they do not, all are compared whole.
    """
    halves_N2 = np.ascontiguousarray(digests_N).view(">u8").reshape(-1, 2)
    order_N = np.argsort(halves_N2[:, 0].astype(np.uint64))
    ordered_N, halves_N2 = sortable(digests_N)[order_N], halves_N2[order_N]
    first_N, second_N = halves_N2.T
    if ((first_N[1:] == first_N[:-1]) & (second_N[1:] < second_N[:-1])).any():
        ordered_N.sort()
    return ordered_N


def _view(joined: bytes) -> npt.NDArray[np.bytes_]:
    return np.frombuffer(joined, dtype=f"S{DIGEST_BYTES}")


def _canonical(joined: bytes) -> bytes:
    if len(joined) % DIGEST_BYTES:
        raise InvariantBroken("a digest is not 16 bytes long")
    digests = sorted_digests(_view(joined))
    first = np.ones(len(digests), dtype=np.bool_)
    np.not_equal(digests[1:], digests[:-1], out=first[1:])
    return digests[first].tobytes()


def _is_canonical(joined: bytes) -> bool:
    if len(joined) % DIGEST_BYTES:
        return False
    digests = _view(joined)
    return bool(np.all(digests[:-1] < digests[1:]))


def _people(block: PointBlock) -> npt.NDArray[np.void]:
    return np.concatenate(block.people)


def _any(found: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    """Return for each data point whether any of its subjects was found."""
    either: npt.NDArray[np.bool_] = np.any(found, axis=0)
    return either


def _find(joined: bytes, digests_N: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    members = _view(joined)
    if not len(members):
        return np.zeros(len(digests_N), dtype=np.bool_)
    wanted = sortable(digests_N)
    positions = np.minimum(np.searchsorted(members, wanted), len(members) - 1)
    equal: npt.NDArray[Any] = members[positions] == wanted
    return equal


def _skeletons(digests_N: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Return the first halves of the digests as numbers, whose order is that of the digests."""
    return np.ascontiguousarray(digests_N).view(">u8").reshape(-1, 2)[:, 0].astype(np.uint64)


def _find_skeletons(members: npt.NDArray[np.uint64], digests_N: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Return for each digest whether its skeleton is among ``members``, which are in ascending order."""
    if not len(members):
        return np.zeros(len(digests_N), dtype=np.bool_)
    wanted = _skeletons(digests_N)
    equal: npt.NDArray[np.bool_] = members[np.minimum(np.searchsorted(members, wanted), len(members) - 1)] == wanted
    return equal


def _split(joined: bytes) -> Iterator[bytes]:
    return (joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES))


def _corrupt(what: str, payload: bytes) -> Corrupt:
    return Corrupt(
        f"a set of tombstones cannot be read: its {what}",
        "Keep the object, and restore the store from a copy. The object was not used.",
        payload_bytes=len(payload),
        sha256=sha256(payload),
    )


NOTHING = DigestSet()
"""The set without members."""
