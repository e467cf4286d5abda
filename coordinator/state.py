"""What a federation is at one moment: the body of a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.requests import ErasureRequest, ObjectRef
from shards.data.sources import SourceFile
from shards.lineage import CheckpointRecord, Configuration, Lineage, expected_lineages
from shards.routing import Placement
from shards.slices.files import SliceRecord
from shards.slices.ingest import FeatureLayout
from shards.specification import ShardId
from storage.digests import Sha256
from storage.objects import ObjectKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardState:
    """One shard: its slices as they are now, and the checkpoints that have seen nothing else."""

    slices: tuple[SliceRecord, ...]
    """Slices 1..R."""
    chain: tuple[CheckpointRecord, ...] = ()
    """Checkpoints after slices 1..k, k <= R. An erasure shortens the chain, training extends it: nothing else does."""
    serving: int = 0
    """How many slices the served checkpoint has seen; fixed within a generation, 0: the shard abstains."""

    @property
    def points(self) -> int:
        """Data points in the shard."""
        return sum(record.points for record in self.slices)

    @property
    def is_trained(self) -> bool:
        """Whether the constituent has learned its last slice."""
        return len(self.chain) == len(self.slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataState:
    """What was ingested, and from where."""

    layout: FeatureLayout
    inventory: tuple[SourceFile, ...]
    taken: Mapping[str, Any]
    """Label, features and classes that it was read under."""
    refused: int
    """Data points left out at ingest because of a tombstone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationState:
    """Everything that is current. All of it is derived from committed manifests; nothing lives elsewhere (D2)."""

    name: str
    settings: Mapping[str, Any]
    """The settings it was last trained with, for comparison."""
    key_digest: Sha256
    """Names the partition key without giving it away."""
    shards: tuple[ShardState, ...]
    data: DataState | None = None
    configuration: Configuration | None = None
    generation: int = 0
    """Number of the ensemble that is served; 0: none yet."""
    floor: int = 0
    """Erasure floor: no older generation may be served, ever (E10)."""
    published: bool = False
    """Whether the served ensemble consists of fully trained constituents."""
    at_once: bool = False
    """Whether training was asked for, or something trained was given up, for another reason than an erasure: it does
    not wait for more requests then. False again once all is trained."""
    tombstones: ObjectRef | None = None
    """Keyed digests of everything erased; None: nothing yet."""
    requests: tuple[ErasureRequest, ...] = ()
    condemned: tuple[ObjectKey, ...] = ()
    """Purge list: objects that nothing refers to any more, not yet deleted."""

    @property
    def is_begun(self) -> bool:
        """Whether it holds anything that another specification must not touch."""
        return self.data is not None or bool(self.requests)

    def request(self, request_id: str) -> ErasureRequest | None:
        """Return the request of this id, if there is one."""
        return next((request for request in self.requests if request.request_id == request_id), None)

    def slice(self, place: Placement) -> SliceRecord:
        """Return what the slice holds."""
        return self.shards[place.shard].slices[place.slice - 1]

    def lineages(self, shard: ShardId) -> tuple[Lineage, ...]:
        """Return what the shard's checkpoints have to have seen; empty before training is configured."""
        if self.configuration is None:
            return ()
        return expected_lineages(shard, self.shards[shard].slices, self.configuration)

    def referenced(self) -> frozenset[ObjectKey]:
        """Return the keys of all objects that are part of the current state."""
        keys = {part.key for shard in self.shards for record in shard.slices for part in record.parts}
        keys |= {checkpoint.key for shard in self.shards for checkpoint in shard.chain}
        refs = (ref for request in self.requests for ref in (request.names, request.before))
        keys |= {ref.key for ref in refs if isinstance(ref, ObjectRef)}
        keys |= {self.tombstones.key} if self.tombstones else set()
        return frozenset(keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constituent:
    """A constituent as it may be served right now."""

    shard: ShardId
    checkpoint: CheckpointRecord


def servable(state: FederationState) -> tuple[Constituent, ...]:
    """Return the constituents that may answer: each shard's last checkpoint that has seen no erased point (E10).

    A shard abstains without any such checkpoint, and when it holds no data points: an initial state knows nothing.
    """
    return tuple(
        Constituent(shard=ShardId(number), checkpoint=shard.chain[shard.serving - 1])
        for number, shard in enumerate(state.shards)
        if sum(record.points for record in shard.slices[: shard.serving])
    )
