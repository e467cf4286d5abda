"""States and records made up for tests; none of them is in a store."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import count
from typing import Final

from coordinator.delays import Pause
from coordinator.requests import ErasureRequest, ObjectRef
from coordinator.state import DataState, FederationState, ShardState
from shards.lineage import CheckpointRecord, Configuration, Lineage, NumericsProfile
from shards.slices.files import EMPTY_SLICE, PartRecord, SliceRecord
from shards.slices.ingest import FeatureLayout
from storage.digests import digest_of, sha256
from storage.objects import object_key

_FRESH = count()

PROFILE = NumericsProfile(torch="2", threads=1, device="cpu", dtype="float32", deterministic=True, packing="none")
DATA = DataState(taken={}, layout=FeatureLayout(width=2, dtype="uint8", features=("x0", "x1")), inventory=(), refused=0)


def configuration(number: int = 0) -> Configuration:
    """Return one of many configurations."""
    return Configuration(settings=sha256(b"%d" % number), model_code=sha256(b"net"), seed=number, profile=PROFILE)


def probed(name: bytes = b"probe") -> Configuration:
    """Return the first configuration on workers with this probe of arithmetic."""
    return replace(configuration(), profile=replace(PROFILE, probe=sha256(name)))


def slice_of(points: Collection[int]) -> SliceRecord:
    """Return the record of a slice with these data points, in one object under a name of its own."""
    if not points:
        return EMPTY_SLICE
    digest = digest_of(sorted(points))
    key = object_key(f"shards/part-{next(_FRESH)}")
    part = PartRecord(key=key, sha256=digest, points=len(points), payload_bytes=100)
    return SliceRecord(parts=(part,), points=len(points), points_digest=digest, content_digest=digest)


def checkpoint_of(lineage: Lineage, seconds: float = 1.0) -> CheckpointRecord:
    """Return the record of the checkpoint with this lineage, under a name of its own; equal lineages, equal bytes."""
    return CheckpointRecord(
        slice=lineage.slice,
        key=object_key(f"shards/checkpoint-{next(_FRESH)}"),
        sha256=lineage.digest(),
        digest=lineage.digest(),
        lineage=lineage.digest(),
        payload_bytes=10,
        steps=3,
        seconds=seconds,
    )


def ref() -> ObjectRef:
    """Return a reference to an object under a name of its own."""
    number = next(_FRESH)
    return ObjectRef(key=object_key(f"requests/{number}"), sha256=sha256(b"%d" % number))


def request_of(request_id: str) -> ErasureRequest:
    """Return a request as it arrives."""
    return ErasureRequest(
        request_id=request_id,
        body=sha256(request_id.encode()),
        names=ref(),
        subjects=1,
        ids=0,
        received_at="2026-01-01T00:00:00+00:00",
        due_at="2026-01-31T00:00:00+00:00",
    )


def paused(request: ErasureRequest, reason: str = "court") -> ErasureRequest:
    """Return the request as it arrives under a hold."""
    return replace(request, pause=Pause(reason=reason, held_at=request.received_at))


SETTINGS: Final = {"model": {"factory": "shards.models:mlp"}, "training": {"epochs": 4}}


def federation(*shards: tuple[int, ...]) -> FederationState:
    """Return a federation whose shards have slices of these sizes; nothing is configured or trained."""
    numbers = count()
    return FederationState(
        name="made-up",
        settings=SETTINGS,
        key_digest=sha256(b"key"),
        shards=tuple(
            ShardState(slices=tuple(slice_of([next(numbers) for _ in range(size)]) for size in sizes))
            for sizes in shards
        ),
        data=DATA,
    )
