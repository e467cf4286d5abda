"""Routing (E1): a keyed hash of the subject's name alone decides shard and slice.

Digests are BLAKE2b values of 16 bytes under the federation's secret partition key (RFC 7693, keyed mode, with
personalisation for domain separation). They stand for names everywhere in the store: the names themselves never enter
it. In stores of release 0.1 a subject's digest is the digest of its name as given. In later stores its first half is
the digest of the name's skeleton, which decides the slice, and its second half that of the name's form: all spellings
of a name share one slice and can be recognised by their equal first halves (E15).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any, Final, NewType, cast

import numpy as np
import numpy.typing as npt

from shards.specification import ShardId, SliceIndex
from shards.subjects import SubjectForm, forms_and_skeletons

PartitionKey = NewType("PartitionKey", bytes)
"""16 to 64 secret bytes."""

PointDigest = NewType("PointDigest", bytes)
"""Keyed digest of a data point's id, 16 bytes."""

SubjectDigest = NewType("SubjectDigest", bytes)
"""Keyed digest of a subject's id, 16 bytes."""

DIGEST_BYTES = 16
SKELETON_BYTES = 8
"""The first half of a subject's digest, in federations that route by skeleton."""


_POINT: Final = b"sisa/point"
_BETWEEN: Final = "\0"
"""Separates ids while they are encoded together."""
_ENTRY_BYTES: Final = 224
"""Memory of an ASCII name and its digest in a dictionary, beyond its characters."""

NOBODY: Final = SubjectDigest(bytes(DIGEST_BYTES))
"""The digest stored for a data point without a further subject."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How a federation compares the names of its subjects; fixed when it is created."""

    form: SubjectForm = "exact"
    """Names that are equal in this form are one subject."""
    by_skeleton: bool = False
    """Whether the skeleton decides the slice, so that different spellings of one name share it."""


AS_GIVEN: Final = Naming()
"""The rule of release 0.1."""


@dataclass(frozen=True, slots=True, order=True)
class SliceId:
    """The one slice of the one shard that holds all data points of a subject."""

    shard: ShardId
    slice: SliceIndex


def point_digest(key: PartitionKey, point_id: str) -> PointDigest:
    """Return the keyed digest of a data point's id."""
    return PointDigest(_digest(key, point_id.encode("utf-8", "surrogatepass"), _POINT))


def point_digests(key: PartitionKey, ids: Sequence[str]) -> npt.NDArray[np.void]:
    """Return ``point_digest`` of many ids, shape (N,)."""
    return np.frombuffer(b"".join(_hashed(_hasher(key, DIGEST_BYTES, _POINT), _in_utf8(ids))), dtype=f"V{DIGEST_BYTES}")


def subject_digest(key: PartitionKey, subject: str, naming: Naming = AS_GIVEN) -> SubjectDigest:
    """Return the keyed digest of a subject's name. Raises ``Invalid`` when the name does not have the declared form."""
    return subject_digests(key, (subject,), naming)[0]


def subject_digests(key: PartitionKey, subjects: Sequence[str], naming: Naming = AS_GIVEN) -> list[SubjectDigest]:
    """Return the keyed digest of each name. Raises ``Invalid`` as ``subject_digest`` does."""
    names, bare = forms_and_skeletons(subjects, naming.form)
    if not naming.by_skeleton:
        return cast("list[SubjectDigest]", _hashed(_hasher(key, DIGEST_BYTES, b"sisa/subject"), names))
    by_skeleton = _hashed(_hasher(key, SKELETON_BYTES, b"sisa/skeleton"), bare)
    by_name = _hashed(_hasher(key, DIGEST_BYTES - SKELETON_BYTES, b"sisa/name"), names)
    return cast("list[SubjectDigest]", list(map(add, by_skeleton, by_name)))


def digests_of_all(key: PartitionKey, subjects: Sequence[str], naming: Naming = AS_GIVEN) -> list[SubjectDigest]:
    """Return the keyed digest of each name, and ``NOBODY`` for an empty name; names may repeat.

    Raises ``Invalid`` as ``subject_digest`` does.
    """
    names = set(subjects)
    names.discard("")
    distinct = list(names)
    known = dict(zip(distinct, subject_digests(key, distinct, naming), strict=True))
    known[""] = NOBODY
    return [known[name] for name in subjects]


@dataclass(slots=True, kw_only=True)
class KnownSubjects:
    """Digests of subjects, each computed once as long as it is remembered, within a fixed amount of memory."""

    key: PartitionKey = field(repr=False)
    naming: Naming
    most_bytes: int
    """Memory limit for names and digests; above it, all of them are dropped."""
    _digests: dict[str, SubjectDigest] = field(default_factory=dict, repr=False)
    held_bytes: int = field(default=0, init=False)
    """Memory that names and digests take now, in bytes."""

    def digests(self, distinct: Sequence[str]) -> npt.NDArray[np.void]:
        """Return the digest of each name, and ``NOBODY`` for an empty one. Raises ``Invalid`` as ``subject_digest``."""
        found = list(map(self._digests.get, distinct))
        new = [name for name, digest in zip(distinct, found, strict=True) if digest is None and name]
        fresh = dict(zip(new, subject_digests(self.key, new, self.naming), strict=True))
        self._remember(fresh)
        fresh[""] = NOBODY
        known = [fresh[name] if digest is None else digest for name, digest in zip(distinct, found, strict=True)]
        return np.frombuffer(b"".join(known), dtype=f"V{DIGEST_BYTES}")

    def _remember(self, fresh: dict[str, SubjectDigest]) -> None:
        added = sum(map(len, fresh)) + len(fresh) * _ENTRY_BYTES
        if self.held_bytes + added > self.most_bytes:
            self._digests.clear()
            self.held_bytes = 0
        if added <= self.most_bytes:
            self._digests |= fresh
            self.held_bytes += added


def slice_of(subject: SubjectDigest, shards: int, slices: int, naming: Naming = AS_GIVEN) -> SliceId:
    r"""Return where the subject's data points belong: uniformly distributed, independent of all other subjects.

    >>> slice_of(SubjectDigest(bytes(7) + b"\x07" + bytes(7) + b"\x09"), shards=5, slices=4)
    SliceId(shard=2, slice=2)
    >>> slice_of(SubjectDigest(bytes(7) + b"\x07" + b"the name"), 5, 4, Naming(by_skeleton=True))
    SliceId(shard=1, slice=4)
    """
    if naming.by_skeleton:
        shard, slice_ = divmod(int.from_bytes(subject[:SKELETON_BYTES], "big") % (shards * slices), slices)
        return SliceId(ShardId(shard), SliceIndex(slice_ + 1))
    return SliceId(
        ShardId(int.from_bytes(subject[:8], "big") % shards),
        SliceIndex(int.from_bytes(subject[8:], "big") % slices + 1),
    )


def slices_of(subjects: bytes, shards: int, slices: int, naming: Naming = AS_GIVEN) -> frozenset[SliceId]:
    r"""Return ``slice_of`` of many subjects in one call; ``subjects`` holds their digests, joined.

    >>> slices_of(bytes(7) + b"\x07" + bytes(7) + b"\x09", shards=5, slices=4)
    frozenset({SliceId(shard=2, slice=2)})
    """
    numbers_N = slice_numbers(np.frombuffer(subjects, dtype=f"V{DIGEST_BYTES}"), shards, slices, naming)
    return frozenset(
        SliceId(ShardId(int(number) // slices), SliceIndex(int(number) % slices + 1)) for number in np.unique(numbers_N)
    )


def slice_numbers(
    subjects_N: npt.NDArray[np.void], shards: int, slices: int, naming: Naming = AS_GIVEN, held_out: float = 0.0
) -> npt.NDArray[np.int64]:
    """Return where each subject's data points belong, as shard * ``slices`` + slice - 1, shape (N,).

    ``held_out`` is the share of subjects whose data points are held out: they belong to the shard after the last, and
    there to the slice that they would have anyway. The subject's own digest alone decides.
    """
    halves_N2 = np.ascontiguousarray(subjects_N).view(">u8").reshape(-1, 2)
    if naming.by_skeleton:
        numbers_N = (halves_N2[:, 0] % np.uint64(shards * slices)).astype(np.int64)
    else:
        shards_N, slices_N = halves_N2[:, 0] % np.uint64(shards), halves_N2[:, 1] % np.uint64(slices)
        numbers_N = (shards_N * np.uint64(slices) + slices_N).astype(np.int64)
    if not held_out:
        return numbers_N
    return np.where(_are_held_out(halves_N2[:, 0], held_out), shards * slices + numbers_N % slices, numbers_N)


def _are_held_out(leading_N: npt.NDArray[Any], share: float) -> npt.NDArray[np.bool_]:
    """Return whether the subjects with these first halves of digests are held out, shape (N,).

    These are the lowest ``share`` of all values, while shard and slice follow from their remainders: neither says
    anything about the other, and a larger share holds out the same subjects and more.
    """
    if share >= 1.0:
        return np.ones(len(leading_N), dtype=np.bool_)
    lowest: npt.NDArray[np.bool_] = leading_N < np.uint64(int(share * 2.0**64))
    return lowest


def _hasher(key: PartitionKey, size: int, domain: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=size, key=key, person=domain)


def _hashed(hasher: hashlib.blake2b, payloads: Iterable[bytes]) -> list[bytes]:
    """Return the digest of each payload. Copying a hasher that has its key is faster than making one."""
    copy, found = hasher.copy, []
    for payload in payloads:
        own = copy()
        own.update(payload)
        found.append(own.digest())
    return found


def _in_utf8(texts: Sequence[str]) -> list[bytes]:
    """Return each text in UTF-8: together, unless one of them has a NUL."""
    split = _BETWEEN.join(texts).encode("utf-8", "surrogatepass").split(_BETWEEN.encode())
    return split if len(split) == len(texts) else [text.encode("utf-8", "surrogatepass") for text in texts]


def _digest(key: PartitionKey, name: bytes, domain: bytes) -> bytes:
    return hashlib.blake2b(name, digest_size=DIGEST_BYTES, key=key, person=domain).digest()
