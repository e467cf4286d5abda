"""What objects show to someone who looks into them: the data points of slices, and those that models have seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from coordinator.state import FederationState
from shards.slices.files import PartRecord, decode_part, point_keys
from storage.digests import sha256
from storage.objects import ObjectKey, ObjectStore
from tests.doubles.workers.fake_learner import decode_state

Identities = dict[int, tuple[bytes, bytes]]
"""Keyed digests of data point and subject, by the point's key (``ShardPoints.keys_N``)."""


@lru_cache(10_000)
def _identities(payload: bytes) -> Identities:
    block = decode_part(payload)
    named = zip(block.points_N, block.subjects_N, strict=True)
    pairs = ((point.tobytes(), subject.tobytes()) for point, subject in named)
    return dict(zip(point_keys(block.points_N).tolist(), pairs, strict=True))


@lru_cache(10_000)
def _seen(payload: bytes) -> frozenset[int]:
    return decode_state(payload).seen


@dataclass(slots=True)
class Sight:
    """Remembers what it saw: objects do not change."""

    people: Identities = field(default_factory=dict)
    """Every data point that was ever in a slice."""
    _parts: dict[ObjectKey, frozenset[int]] = field(default_factory=dict)
    _seen: dict[ObjectKey, frozenset[int]] = field(default_factory=dict)

    def part(self, store: ObjectStore, record: PartRecord) -> frozenset[int]:
        """Return the keys of the part's data points; its bytes have to be those recorded."""
        if record.key not in self._parts:
            payload = store.get(record.key).payload
            assert sha256(payload) == record.sha256, f"{record.key} is not what it should be"
            found = _identities(payload)
            self.people.update(found)
            self._parts[record.key] = frozenset(found)
        return self._parts[record.key]

    def checkpoint(self, store: ObjectStore, key: ObjectKey) -> frozenset[int]:
        """Return the keys of the data points that the checkpoint has seen."""
        if key not in self._seen:
            self._seen[key] = _seen(store.get(key).payload)
        return self._seen[key]

    def anything(self, store: ObjectStore, key: ObjectKey) -> frozenset[int]:
        """Return the keys of the data points in a part or checkpoint, whatever it is."""
        return frozenset(_identities(store.get(key).payload)) if "/slices/" in key else self.checkpoint(store, key)

    def copy(self) -> Sight:
        """Return another one that has seen the same."""
        return Sight(people=dict(self.people), _parts=dict(self._parts), _seen=dict(self._seen))

    def points(self, store: ObjectStore, state: FederationState) -> frozenset[int]:
        """Return the keys of all data points in the slices."""
        parts = (part for shard in state.shards for record in shard.slices for part in record.parts)
        return frozenset().union(*(self.part(store, part) for part in parts))

    def named(self, names: Iterable[bytes]) -> frozenset[int]:
        """Return the keys of all data points known that one of the digests names."""
        wanted = frozenset(names)
        return frozenset(key for key, own in self.people.items() if not wanted.isdisjoint(own))
