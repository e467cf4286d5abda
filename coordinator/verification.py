"""Verification: whether the store holds exactly what the state names, and whether the constituents are exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from coordinator.decisions.lifecycle import is_training
from coordinator.engine.codec import decode_state
from coordinator.engine.ledger import read_ledger
from coordinator.engine.lookup import is_intact, load_tombstones
from coordinator.engine.sweep import SWEPT_PREFIXES
from coordinator.engine.tasks import train_task
from coordinator.ports import Listener, TrainingStarted, WorkerPool
from coordinator.requests import ObjectRef, PlacedRows, Refutation
from coordinator.state import FederationState
from shards.learner_kinds.guarantees import Certified
from shards.learners.trainer import ResidualFound, SliceLearned
from shards.lineage import CheckpointRecord
from shards.slices.files import count_erased
from shards.specification import ShardId
from storage.digests import Sha256
from storage.errors import Corrupt
from storage.objects import ObjectKey, ObjectStore
from storage.registers.manifest import ManifestRegister
from storage.registers.numbered import Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardProof:
    """A comparison of a constituent with a full retrain of its shard on the remaining data points."""

    shard: ShardId
    digest: Sha256 | None
    """Digest of the current constituent; None: not trained yet."""
    retrained_digest: Sha256 | None
    exact: bool
    """Whether every slice's digest is equal."""
    residual: float | None = None
    """Of a learner whose guarantee is certified: how far the constituent is from the optimum of its data points. It is
    not trained again, as the same noise is drawn only once."""
    accounted: float | None = None
    """The residual that was accounted for it."""
    refutation: Refutation | None = None
    """The first checkpoint that differs; None if all are equal."""
    again: bool = False
    """Whether a checkpoint of the same lineage was found wrong before: then retraining has not helped."""
    holds: bool
    """Whether the learner's guarantee holds: bytes are equal, or the residual is at most the accounted one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Residue:
    """The result of a scan of the whole store."""

    objects: int
    bytes: int
    found: tuple[str, ...]
    """Everything that should not be there or is wrong; empty when all is well."""
    unread: int = 0
    """Records of requests that ended long ago, if they were not read."""


def prove_shards(
    state: FederationState, shards: Sequence[ShardId], pool: WorkerPool, listener: Listener
) -> tuple[ShardProof, ...]:
    """Retrain the shards from nothing, keeping nothing, and compare every slice's digest with the chain's.

    Constituents of a learner whose guarantee is certified are not retrained; their residuals are computed instead.
    """
    if isinstance(state.promise, Certified):
        return _prove_certified(state, shards, pool, listener)
    tasks = [train_task(state, shard, done=0, token=None) for shard in shards]
    if not tasks:
        return ()
    started = tuple((shard, 0) for shard in shards)
    listener(TrainingStarted(shards=started, slices=len(tasks[0].lineages), at_once=state.is_whole))
    retrained: dict[ShardId, dict[int, Sha256]] = {shard: {} for shard in shards}
    for event in pool.train(tasks):
        if isinstance(event, SliceLearned):
            retrained[event.shard][event.slice] = event.digest
        listener(event)
    return tuple(_compare(state, shard, retrained[shard]) for shard in shards)


def _prove_certified(
    state: FederationState, shards: Sequence[ShardId], pool: WorkerPool, listener: Listener
) -> tuple[ShardProof, ...]:
    trained = [shard for shard in shards if state.shards[shard].chain]
    found: dict[ShardId, ResidualFound] = {}
    for event in pool.train([train_task(state, shard, done=1, token=None) for shard in trained]):
        if isinstance(event, ResidualFound):
            found[event.shard] = event
        listener(event)
    return tuple(_certified(state, shard, found.get(shard)) for shard in shards)


def _certified(state: FederationState, shard: ShardId, found: ResidualFound | None) -> ShardProof:
    if found is None:
        return ShardProof(shard=shard, digest=None, retrained_digest=None, exact=False, holds=_waits(state, shard))
    (checkpoint,) = state.shards[shard].chain
    accounted, recorded = found.accounted, checkpoint.accounted
    is_recorded = recorded is not None and accounted.rounded == recorded.rounded
    holds = found.residual <= accounted.spent <= accounted.budget and is_recorded
    return ShardProof(
        shard=shard,
        digest=checkpoint.digest,
        retrained_digest=None,
        exact=False,
        residual=found.residual,
        accounted=accounted.spent,
        holds=holds,
        refutation=None if holds else _refutation(shard, checkpoint, {}),
        again=not holds and any(each.lineage == checkpoint.lineage for each in state.refuted),
    )


def _waits(state: FederationState, shard: ShardId) -> bool:
    """Whether the shard abstains and has no checkpoint to compare, since its first slice waits to be retrained."""
    return any(is_training(request) and shard in request.found.from_slices for request in state.requests)


def scan_residue(
    store: ObjectStore,
    state: FederationState,
    *,
    everything: bool = True,
    known: Callable[[ObjectKey], bool] = lambda _: False,
) -> Residue:
    """Search every object of the store for anything that an erasure should have removed, or that is damaged.

    Without ``everything``, records of requests that ended long ago have to be there and are not read. Objects that are
    ``known`` may be there although the state does not name them.
    """
    objects = list(store.list(""))
    keep = state.referenced()
    found = [
        f"object that nothing refers to: {info.key}"
        for info in objects
        if _is_swept(info.key) and info.key not in keep and not known(info.key)
    ]
    found += [f"unfinished write: {name}" for name in store.unfinished("")]
    found += [f"file that is not ours: {name}" for name in store.foreign()]
    present = frozenset(info.key for info in objects)
    buckets = [ref for ref in state.ended.buckets if ref is not None]
    read = buckets if everything else [ref for ref in buckets if ref.key not in present]
    found += _damaged(store, state, read)
    found += _erased_points(store, state)
    found += _old_manifests(ManifestRegister(store), keep)
    found += _old_entries(store)
    return Residue(
        objects=len(objects),
        bytes=sum(info.payload_bytes for info in objects),
        found=tuple(found),
        unread=0 if everything else state.ended.count,
    )


def _compare(state: FederationState, shard: ShardId, retrained: dict[int, Sha256]) -> ShardProof:
    chain = state.shards[shard].chain
    wrong = next((each for each in chain if each.digest != retrained.get(each.slice)), None)
    refutation = None if wrong is None else _refutation(shard, wrong, retrained)
    exact = (bool(chain) or _waits(state, shard)) and wrong is None
    return ShardProof(
        shard=shard,
        digest=chain[-1].digest if chain else None,
        retrained_digest=retrained.get(len(chain)),
        exact=exact,
        holds=exact,
        refutation=refutation,
        again=wrong is not None and any(each.lineage == wrong.lineage for each in state.refuted),
    )


def _refutation(shard: ShardId, wrong: CheckpointRecord, retrained: dict[int, Sha256]) -> Refutation:
    return Refutation(
        shard=shard,
        slice=wrong.slice,
        checkpoint=wrong.key,
        lineage=wrong.lineage,
        digest=wrong.digest,
        retrained_digest=retrained.get(wrong.slice),
        at="",
    )


def _is_swept(key: ObjectKey) -> bool:
    return key.startswith(SWEPT_PREFIXES)


def _damaged(store: ObjectStore, state: FederationState, buckets: Sequence[ObjectRef]) -> Iterator[str]:
    parts = ((part.key, part.sha256) for _, each in state.slices() for part in each.parts)
    checkpoints = ((checkpoint.key, checkpoint.sha256) for shard in state.shards for checkpoint in shard.chain)
    ended = ((ref.key, ref.sha256) for ref in buckets)
    kept = ((part.key, part.sha256) for rows in _kept_rows(state) for part in rows.record.parts)
    for key, expected in (*parts, *checkpoints, *ended, *kept):
        if not is_intact(store, key, expected):
            yield f"object missing or damaged: {key}"


def _erased_points(store: ObjectStore, state: FederationState) -> Iterator[str]:
    tombstones = load_tombstones(store, state.tombstone_objects())
    if not len(tombstones):
        return
    for place, record in state.slices():
        try:
            count = count_erased(store, record, tombstones)
        except Corrupt:
            continue  # reported as damaged above
        if count:
            where = "the hold-out points" if place.shard == state.shard_of_holdout else f"shard {place.shard}"
            yield f"{count} erased data points in {where} slice {place.slice}"
    for rows in _kept_rows(state):
        with suppress(Corrupt):
            if count_erased(store, rows.record, tombstones):
                where = f"shard {rows.place.shard} slice {rows.place.slice}"
                yield f"erased data points in what corrections keep of {where}"


def _kept_rows(state: FederationState) -> Iterator[PlacedRows]:
    """Yield what corrections keep: digests of old contents, and the new values of open requests."""
    yield from state.corrected
    for request in state.requests:
        yield from request.drafts


def _old_manifests(register: ManifestRegister, keep: frozenset[ObjectKey]) -> Iterator[str]:
    for manifest in register.superseded():
        if decode_state(manifest.body).referenced() - keep:
            yield f"superseded manifest that refers to objects no longer current: {manifest.number}"


def _old_entries(store: ObjectStore) -> Iterator[str]:
    base = read_ledger(store).base
    for number in Numbers(store, "journal").present():
        if number <= base:
            yield f"journal entry from before the manifest: {number}"
