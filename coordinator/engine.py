"""The engine: performs what ``decide`` asks for, and commits every state before acting on it.

One engine writes at a time (the store's exclusive lock); a stale one is fenced by its token at the next commit (D3).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from coordinator.codec import decode_state, encode_state
from coordinator.decide import (
    CheckpointLost,
    CheckpointWritten,
    Effect,
    ErasureAccepted,
    Event,
    Ingested,
    IssueReceipt,
    NothingToErase,
    PointsRemoved,
    Purge,
    Purged,
    ReceiptIssued,
    RemovePoints,
    Train,
    TrainingConfigured,
    decide,
    outstanding,
)
from coordinator.lookup import erased_points, is_intact, load_digests, load_object
from coordinator.ports import Clock, IngestProgress, Listener, Names, Notice, RequestMoved, TrainingStarted, WorkerPool
from coordinator.receipts import ScanEvidence, StoreEvidence, collect_evidence
from coordinator.registrar import Registrar
from coordinator.requests import ErasureRequest, ObjectRef
from coordinator.state import DataState, FederationState
from shards.constituent import SliceLearned, TrainTask
from shards.dataset import EMPTY_SLICE, SliceRecord, rewrite_slice
from shards.ingest import ingest, taken_from
from shards.lineage import Configuration
from shards.routing import PartitionKey, Placement
from shards.sources import Source
from shards.specification import DataSettings, PartitionSettings, ShardId, SliceIndex
from shards.tombstones import NOTHING, DigestSet
from storage.digests import canonical_json, sha256
from storage.errors import Conflict, Fenced, Unavailable
from storage.manifest import ManifestRegister
from storage.objects import ObjectKey, ObjectStore, object_key

SWEPT_PREFIXES = ("shards/", "requests/", "tombstones/")
"""Where objects live that the state refers to; anything else found there is left over."""

_PURGE_PASSES = 5
_PRUNE_EVERY = 64
"""Manifests pile up while training; each states all checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What an engine works with."""

    store: ObjectStore
    clock: Clock
    names: Names
    listener: Listener
    pool: Callable[[], WorkerPool]
    """Returns the workers, starting them at the first call."""
    registrar: Registrar
    """Issues receipts."""
    described: Callable[[], StoreEvidence]
    """Returns what receipts say of the store, as it is now."""


class Engine:
    """A federation being written to. Made by ``Engine.start`` while the store's writer lock is held."""

    def __init__(
        self, tools: Tools, register: ManifestRegister, token: int, version: int, state: FederationState
    ) -> None:
        self._tools = tools
        self._register = register
        self._token = token
        self._version = version
        self.state = state

    @classmethod
    def start(cls, tools: Tools, register: ManifestRegister, fresh: FederationState) -> Engine:
        """Return the engine for the federation in the store, or for ``fresh`` when the store holds none.

        Commits a manifest under a new fencing token at once, so that every older writer is fenced from here on.
        """
        token = register.claim_token()
        latest = register.latest()
        state = decode_state(dict(latest.body)) if latest else fresh
        if not state.is_begun:
            state = fresh  # an earlier attempt ended before it had read any data
        engine = cls(tools, register, token, latest.number if latest else 0, state)
        engine._commit(state)
        return engine

    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """Accept the request durably, or return the one of this id that was accepted before (D1, D4).

        Raises ``Conflict`` when the id was used for another body.
        """
        known = self.state.request(request.request_id)
        if known is not None:
            if known.body != request.body:
                raise Conflict(
                    "this request id was used before, for other subjects or data points",
                    "choose another --request-id, or repeat the request as it was",
                    request=request.request_id,
                )
            return known
        ref = self._put_digests("requests", names)
        self._handle(ErasureAccepted(request=replace(request, names=ref)))
        accepted = self.state.request(request.request_id)
        assert accepted is not None
        return accepted

    def ingest(
        self,
        source: Source,
        data: DataSettings,
        partition: PartitionSettings,
        key: PartitionKey,
        lost: frozenset[Placement] = frozenset(),
    ) -> None:
        """Read the source and replace the slices that differ, and those in ``lost``; tombstoned points stay out."""
        tools = self._tools
        result = ingest(
            source=source,
            data=data,
            partition=partition,
            key=key,
            store=tools.store,
            tombstones=load_digests(tools.store, self.state.tombstones),
            names=tools.names,
            progress=lambda points: tools.listener(IngestProgress(points=points)),
        )
        state = DataState(
            layout=result.layout, inventory=result.inventory, taken=taken_from(data), refused=result.refused
        )
        places = [
            Placement(ShardId(shard), SliceIndex(slice_))
            for shard in range(partition.shards)
            for slice_ in range(1, partition.slices + 1)
        ]
        slices = {place: result.slices.get(place, EMPTY_SLICE) for place in places}
        self._handle(Ingested(data=state, slices=slices, lost=lost))

    def audit(self) -> frozenset[Placement]:
        """Check every object of the state against its digest; return the slices whose files are lost.

        Lost checkpoints are taken out of their chains, so that training makes them again.
        """
        lost = set()
        for number, shard in enumerate(self.state.shards):
            for slice_, record in enumerate(shard.slices, start=1):
                if not all(is_intact(self._tools.store, part.key, part.sha256) for part in record.parts):
                    lost.add(Placement(ShardId(number), SliceIndex(slice_)))
            for checkpoint in shard.chain:
                if not is_intact(self._tools.store, checkpoint.key, checkpoint.sha256):
                    self._handle(CheckpointLost(shard=ShardId(number), slice=checkpoint.slice))
                    break
        return frozenset(lost)

    def configure(self, settings: dict[str, Any], configuration: Configuration) -> None:
        """Set what to train under; checkpoints of another lineage are given up (E8)."""
        self._handle(TrainingConfigured(settings=settings, configuration=configuration))

    def remove_points(self) -> None:
        """Carry accepted requests as far as quarantine."""
        self._perform_while(RemovePoints)

    def settle(self) -> None:
        """Do all that is outstanding, and leave nothing behind that the state does not name.

        Interrupting is safe: the next engine goes on from the last commit.
        """
        self._perform_while(RemovePoints, Train, Purge, IssueReceipt)
        # Objects that an interrupted writer never committed, manifests that name purged ones, files of a repeated
        # ingest that changed nothing: none of them is on any purge list.
        self._sweep()

    def _perform_while(self, *kinds: type[Effect]) -> None:
        while (effects := outstanding(self.state)) and isinstance(effects[0], kinds):
            match effects[0]:
                case RemovePoints(request_id=request_id):
                    self._remove_points(request_id)
                case Train(shards=shards):
                    self._train(shards)
                case Purge():
                    self._purge()
                case IssueReceipt(request_id=request_id):
                    self._issue_receipt(request_id)

    def _remove_points(self, request_id: str) -> None:
        """Write the request's points out of their slices (E2, E12)."""
        request = self.state.request(request_id)
        assert request is not None
        store = self._tools.store
        names = load_digests(store, request.names)
        rewrites = {
            place: rewrite_slice(store, self._slice(place), names, place, self._tools.names)
            for place in erased_points(store, self.state, names)
        }
        if not any(rewrite.removed for rewrite in rewrites.values()):
            self._handle(NothingToErase(request_id=request_id, reason=_NOTHING, at=self._now()))
            return
        # Tombstones for those found, and for nobody else: a misspelt name must not keep a stranger out for good.
        found = reduce(DigestSet.union, (rewrite.names for rewrite in rewrites.values()), NOTHING)
        tombstones = self._put_digests("tombstones", load_digests(store, self.state.tombstones).union(found))
        self._handle(
            PointsRemoved(
                request_id=request_id,
                removed={place: rewrite.removed for place, rewrite in rewrites.items()},
                slices={place: rewrite.record for place, rewrite in rewrites.items() if rewrite.removed},
                tombstones=tombstones,
                before=self._put("requests", "before", canonical_json(encode_state(self.state))),
                unknown=len(names) - len(found),
                at=self._now(),
            )
        )

    def _train(self, shards: Sequence[ShardId]) -> None:
        """Extend the chains of ``shards``, committing every checkpoint as it comes."""
        pool = self._tools.pool()
        assert self.state.data is not None
        check_configuration(self.state.configuration, pool.configuration(self.state.data.layout.width, len(shards)))
        tasks = [self._task(shard) for shard in shards]
        self._tools.listener(
            TrainingStarted(shards=tuple((task.shard, len(task.done)) for task in tasks), slices=len(tasks[0].slices))
        )
        for event in pool.train(tasks):
            if isinstance(event, SliceLearned) and event.checkpoint is not None:
                written = CheckpointWritten(shard=event.shard, checkpoint=event.checkpoint, at=self._now())
                self._handle(written, told=event)
            else:
                self._tools.listener(event)

    def _task(self, shard: ShardId) -> TrainTask:
        return train_task(self.state, shard, done=len(self.state.shards[shard].chain), token=self._token)

    def _issue_receipt(self, request_id: str) -> None:
        """State what was done for the request, signed and in the log; asking twice gives the same receipt."""
        request = self.state.request(request_id)
        assert request is not None
        assert request.before is not None
        before = decode_state(json.loads(load_object(self._tools.store, request.before)))
        evidence = collect_evidence(
            request_id,
            before,
            self.state,
            manifests={"purged": self._version},
            scan=self._scan(),
            store=self._tools.described(),
        )
        bundle = self._tools.registrar.issue(evidence)
        self._handle(ReceiptIssued(request_id=request_id, index=bundle.index))

    def _scan(self) -> ScanEvidence:
        """Return what a listing of the whole store shows; ``sisa verify`` reads every object as well."""
        found = list(self._tools.store.list(""))
        left = len(self._left_over()) + sum(1 for _ in self._tools.store.unfinished(""))
        return ScanEvidence(objects=len(found), bytes=sum(info.payload_bytes for info in found), findings=left)

    def _purge(self) -> None:
        self._sweep()
        self._handle(Purged(at=self._now()))

    def _sweep(self) -> None:
        """Delete everything that is not part of the state, and show that nothing is left (E12).

        No worker is at work now, so that what is not referred to is left over, whoever wrote it.
        Raises ``Fenced`` when another writer has taken over, ``Unavailable`` when objects keep appearing.
        """
        store = self._tools.store
        for _ in range(_PURGE_PASSES):
            left = self._left_over()
            if not left and not any(store.unfinished("")):
                self._register.prune(keep_from=self._version)
                return
            # After the listing: a writer that takes over commits before it writes anything else, so that nothing
            # listed above is its own (D3).
            self._refuse_superseded()
            store.delete_all(left)
            store.remove_unfinished("")
        raise Unavailable(
            f"objects keep appearing in the store while it is purged, {len(self._left_over())} are left",
            "look for another process that writes to this store, then run 'sisa train'",
            store=store.location,
        )

    def _left_over(self) -> list[ObjectKey]:
        keep = self.state.referenced()
        return [
            info.key for prefix in SWEPT_PREFIXES for info in self._tools.store.list(prefix) if info.key not in keep
        ]

    def _refuse_superseded(self) -> None:
        latest = self._register.latest()
        if latest is None or latest.number != self._version:
            raise Fenced(
                "another writer has taken over: nothing was deleted",
                "stop this process; the other one does what is left",
                number=self._version,
                latest=latest.number if latest else 0,
            )

    def _slice(self, place: Placement) -> SliceRecord:
        return self.state.shards[place.shard].slices[place.slice - 1]

    def _put_digests(self, prefix: str, names: DigestSet) -> ObjectRef:
        return self._put(prefix, "digests", names.to_bytes())

    def _put(self, prefix: str, ending: str, payload: bytes) -> ObjectRef:
        key = object_key(f"{prefix}/{self._tools.names()}.{ending}")
        self._tools.store.put_if_absent(key, payload)
        return ObjectRef(key=key, sha256=sha256(payload))

    def _handle(self, event: Event, told: Notice | None = None) -> None:
        """Take the event in: commit the state that follows, then tell of it, ``told`` first."""
        before = self.state
        after, _ = decide(before, event)
        if after != before:
            self._commit(after)
            self.state = after
        if told is not None:
            self._tools.listener(told)
        for request in after.requests:
            was = before.request(request.request_id)
            if was is None or was.state is not request.state:
                self._tools.listener(RequestMoved(request=request))

    def _commit(self, state: FederationState) -> None:
        manifest = self._register.commit(
            encode_state(state), after=self._version, token=self._token, nonce=self._tools.names()
        )
        self._version = manifest.number
        if manifest.number % _PRUNE_EVERY == 0:
            self._register.prune(keep_from=manifest.number)

    def _now(self) -> str:
        return self._tools.clock.now().isoformat(timespec="milliseconds")


_NOTHING = "no data point of these subjects or ids is in the federation: there is nothing to erase"


def train_task(state: FederationState, shard: ShardId, *, done: int, token: int | None) -> TrainTask:
    """Return the task of training ``shard`` from its first ``done`` checkpoints on, as the state demands.

    ``token`` is the fencing token to write under; None: nothing is written.
    """
    assert state.data is not None
    data_settings = state.settings["data"]
    scale = data_settings["scale"]
    own = state.shards[shard]
    return TrainTask(
        shard=shard,
        slices=own.slices,
        lineages=state.lineages(shard),
        width=state.data.layout.width,
        scale=tuple(scale) if isinstance(scale, list | tuple) else scale,
        done=own.chain[:done],
        token=token,
    )


def check_configuration(trained: Configuration | None, present: Configuration) -> None:
    """Raise ``Conflict`` when workers would produce other bits than those the federation was trained with."""
    if trained is None or trained == present:
        return
    differences = []
    if trained.settings != present.settings:
        differences.append("model or training settings")
    if trained.model_code != present.model_code:
        differences.append("the model's source code")
    if trained.seed != present.seed:
        differences.append(f"seed: {trained.seed} then, {present.seed} now")
    for name in type(trained.profile).__slots__:
        was, now = getattr(trained.profile, name), getattr(present.profile, name)
        if was != now:
            differences.append(f"{name}: {was} then, {now} now")
    raise Conflict(
        f"the constituents were trained under other conditions: {'; '.join(differences)}",
        "go back to these conditions, or run 'sisa train' to train all constituents anew under the present ones",
    )
