"""Lineages for tests that need one and do not use its content."""

from __future__ import annotations

from shards.lineage import Configuration, Lineage, NumericsProfile
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256, sha256

_NONE = sha256(b"")


def lineage_of(slice_: int = 1, parent: Sha256 | None = None, seen: bytes = b"") -> Lineage:
    """Return the lineage of a checkpoint after a slice; ``seen`` stands for its data points."""
    return Lineage(
        shard=ShardId(0),
        slice=SliceIndex(slice_),
        points=0,
        points_digest=sha256(seen),
        content_digest=_NONE,
        configuration=Configuration(
            settings=_NONE,
            model_code=_NONE,
            seed=0,
            profile=NumericsProfile(
                torch="none", threads=1, device="none", dtype="none", deterministic=True, packing="none"
            ),
        ),
        parent=parent,
    )
