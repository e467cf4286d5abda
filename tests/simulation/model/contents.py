"""The contents of objects: the data points in slices, and those that models were trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from coordinator.state import FederationState
from shards.slices.files import PartRecord, SliceRecord, decode_part, point_keys
from storage.digests import sha256
from storage.encryption.store import KeyDestroyed
from storage.objects import ObjectKey, ObjectStore
from tests.doubles.workers.fake_learner import decode_state

Identity = tuple[bytes, bytes]
"""Keyed digests of a data point and of its subject."""


@lru_cache(10_000)
def _identities(payload: bytes) -> dict[Identity, int]:
    """Return the data points of a part, each with its key (``ShardPoints.keys_N``)."""
    block = decode_part(payload)
    named = zip(block.points_N, block.subjects_N, strict=True)
    pairs = ((point.tobytes(), subject.tobytes()) for point, subject in named)
    return dict(zip(pairs, point_keys(block.points_N).tolist(), strict=True))


@lru_cache(10_000)
def _seen(payload: bytes) -> frozenset[int]:
    return decode_state(payload).seen


@dataclass(slots=True)
class ContentIndex:
    """Caches the contents of objects, which do not change."""

    keys: dict[bytes, int] = field(default_factory=dict)
    """The key of every data point that was ever in a slice, by its keyed digest."""
    _parts: dict[ObjectKey, frozenset[Identity]] = field(default_factory=dict)
    _seen: dict[ObjectKey, frozenset[int]] = field(default_factory=dict)

    def part(self, store: ObjectStore, record: PartRecord) -> frozenset[Identity]:
        """Return the part's data points, after checking its bytes against the record."""
        if record.key not in self._parts:
            payload = store.get(record.key).payload
            assert sha256(payload) == record.sha256, f"{record.key} differs from its record"
            found = _identities(payload)
            self.keys.update({point: key for (point, _), key in found.items()})
            self._parts[record.key] = frozenset(found)
        return self._parts[record.key]

    def checkpoint(self, store: ObjectStore, key: ObjectKey) -> frozenset[int]:
        """Return the keys of the data points that the checkpoint was trained on."""
        if key not in self._seen:
            self._seen[key] = _seen(store.get(key).payload)
        return self._seen[key]

    def shows(self, store: ObjectStore, key: ObjectKey, digests: frozenset[bytes]) -> bool:
        """Return whether a part or checkpoint contains anything of these data points and subjects.

        An object that cannot be read because its key was destroyed contains nothing.
        """
        try:
            if "/slices/" in key:
                return any(not digests.isdisjoint(each) for each in _identities(store.get(key).payload))
            return not self.named(digests).isdisjoint(self.checkpoint(store, key))
        except KeyDestroyed:
            return False

    def copy(self) -> ContentIndex:
        """Return an independent copy."""
        return ContentIndex(keys=dict(self.keys), _parts=dict(self._parts), _seen=dict(self._seen))

    def points(self, store: ObjectStore, state: FederationState) -> frozenset[Identity]:
        """Return all data points in the slices."""
        return self._in(store, (record for _, record in state.slices()))

    def held_out(self, store: ObjectStore, state: FederationState) -> frozenset[int]:
        """Return the keys of all hold-out points."""
        return self.named(point for point, _ in self._in(store, state.holdout))

    def _in(self, store: ObjectStore, slices: Iterable[SliceRecord]) -> frozenset[Identity]:
        parts = (part for record in slices for part in record.parts)
        return frozenset().union(*(self.part(store, part) for part in parts))

    def named(self, digests: Iterable[bytes]) -> frozenset[int]:
        """Return the keys of those known data points whose digests are given."""
        return frozenset(self.keys[each] for each in digests if each in self.keys)
