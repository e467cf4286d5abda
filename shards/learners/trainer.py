"""Training one constituent from its last good checkpoint to its last slice: the work of a worker.

Plain objects, no Ray: a generator that reads slices from the store, learns, writes checkpoints and tells what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Generic

from shards.learners.protocol import Learner, State, TellsLoss
from shards.lineage import CheckpointRecord, Lineage, shared_prefix
from shards.points import ShardPoints
from shards.slices.files import SliceRecord, load_shard
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256, sha256
from storage.errors import Corrupt, Fenced, ObjectMissing
from storage.objects import ObjectKey, ObjectStore, object_key
from storage.registers.manifest import ManifestRegister

Clock = Callable[[], float]
"""Seconds, monotonic."""

PROGRESS_SECONDS = 0.2
"""Epochs are reported at most this often: a report costs about a millisecond, an epoch may cost less."""

REVISION_SECONDS = 1.0
"""How often, within a slice, it is looked whether the slice is still wanted: a look reads the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTask:
    """Bring the constituent of ``shard`` from the checkpoints in ``done`` to its last slice."""

    shard: ShardId
    slices: tuple[SliceRecord, ...]
    lineages: tuple[Lineage, ...]
    """What the checkpoints after slices 1..R have to be."""
    width: int
    """Number of features."""
    scale: float | tuple[float, ...]
    """What features are divided by: one constant, or one per feature."""
    done: tuple[CheckpointRecord, ...] = ()
    token: int | None
    """Fencing token of the writer that gave the task; None: write nothing, only tell the digests (for proof)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochsDone:
    """Progress inside a slice."""

    shard: ShardId
    slice: SliceIndex
    epochs: int
    of_epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceLearned:
    """A slice is learned; ``checkpoint`` is None when the task keeps nothing."""

    shard: ShardId
    slice: SliceIndex
    digest: Sha256
    checkpoint: CheckpointRecord | None
    loss: float | None = None
    """Mean loss of the slice's last epoch, for whoever watches: it is never stored, for it tells of people."""


TrainingEvent = EpochsDone | SliceLearned


class _Superseded(Exception):
    """What is being learned is not wanted any more. Never leaves this module."""

    def __init__(self, task: TrainTask) -> None:
        super().__init__(task)
        self.task = task


Revision = Callable[[TrainTask], TrainTask]
"""Returns what the task's shard is to be trained on now; the task itself while that has not changed.

Raises ``Fenced`` when another writer has taken over.
"""


class ConstituentTrainer(Generic[State]):
    """Does ``TrainTask``s with one learner against one store."""

    def __init__(
        self,
        *,
        learner: Learner[State],
        store: ObjectStore,
        names: Callable[[], str],
        clock: Clock,
        revised: Revision = lambda task: task,
    ) -> None:
        self._learner = learner
        self._store = store
        self._names = names
        self._clock = clock
        self._revised = revised

    def train(self, task: TrainTask) -> Iterator[TrainingEvent]:
        """Learn the slices that are not done yet, yielding progress and every slice learned.

        After each slice training continues from the checkpoint's bytes, not from memory: a resumed run and a straight
        one are then the same computation, whatever a model keeps in places that no checkpoint sees (E4).

        Points erased meanwhile from a slice not yet reached are folded in; from an earlier one, the attempt is given up
        and another begins at the last clean checkpoint (D7).
        Raises ``Corrupt`` when a checkpoint or slice file is not what the task says, ``Fenced`` when another writer has
        taken over.
        """
        superseding: TrainTask | None = task
        while superseding is not None:
            superseding = yield from self._attempt(superseding)

    def _attempt(self, task: TrainTask) -> Generator[TrainingEvent, None, TrainTask | None]:
        """Learn what is left of the task; return the task that supersedes it, None when all is learned."""
        points = load_shard(self._store, task.slices, task.width, task.scale)
        state = self._resume(task)
        learned = len(task.done)
        while learned < len(task.lineages):
            wanted = self._revised(task)
            if shared_prefix(task.lineages, wanted.lineages) < learned:
                return wanted
            if wanted.slices != task.slices:
                task, points = wanted, load_shard(self._store, wanted.slices, wanted.width, wanted.scale)
            lineage = task.lineages[learned]
            started = self._clock()
            try:
                state = yield from self._learn(state, points, task, lineage.slice)
            except _Superseded as superseded:
                return superseded.task
            payload = self._learner.to_bytes(state, lineage)
            event = self._learned(task, lineage, state, payload, self._learner.steps(points, lineage.slice), started)
            if (superseding := self._superseding(task, event.checkpoint)) is not None:
                return superseding
            yield event
            state = self._learner.from_bytes(payload, task.shard)
            learned += 1
        return None

    def _learned(
        self, task: TrainTask, lineage: Lineage, state: State, payload: bytes, steps: int, started: float
    ) -> SliceLearned:
        """Keep the checkpoint, if the task keeps anything, and return what to tell."""
        digest = self._learner.digest(state)
        seconds = round(self._clock() - started, 6)
        checkpoint = None
        if task.token is not None:
            checkpoint = self._keep(payload, lineage, digest, steps, seconds)
        loss = self._learner.loss() if isinstance(self._learner, TellsLoss) else None
        return SliceLearned(shard=task.shard, slice=lineage.slice, digest=digest, checkpoint=checkpoint, loss=loss)

    def _resume(self, task: TrainTask) -> State:
        if not task.done:
            return self._learner.initial(task.shard)
        last = task.done[-1]
        return self._learner.from_bytes(read_checkpoint(self._store, last, task.shard), task.shard)

    def _learn(
        self, state: State, points: ShardPoints, task: TrainTask, slice_: SliceIndex
    ) -> Generator[EpochsDone, None, State]:
        learning = self._learner.learn(state, points, task.shard, slice_)
        of_epochs = self._learner.epochs(slice_)
        told = looked = self._clock()
        while True:
            try:
                epochs = next(learning)
            except StopIteration as finished:
                learned: State = finished.value
                return learned
            now = self._clock()
            if now - told >= PROGRESS_SECONDS:
                told = now
                yield EpochsDone(shard=task.shard, slice=slice_, epochs=epochs, of_epochs=of_epochs)
            if now - looked >= REVISION_SECONDS:
                looked = now
                wanted = self._revised(task)
                if shared_prefix(task.lineages, wanted.lineages) < slice_:
                    raise _Superseded(wanted)

    def _keep(self, payload: bytes, lineage: Lineage, digest: Sha256, steps: int, seconds: float) -> CheckpointRecord:
        key = checkpoint_key(lineage.shard, lineage.slice, self._names())
        self._store.put_if_absent(key, payload)
        return CheckpointRecord(
            slice=lineage.slice,
            key=key,
            sha256=sha256(payload),
            digest=digest,
            lineage=lineage.digest(),
            payload_bytes=len(payload),
            steps=steps,
            seconds=seconds,
        )

    def _superseding(self, task: TrainTask, checkpoint: CheckpointRecord | None) -> TrainTask | None:
        """Return the task that supersedes this one, if any, and take the checkpoint back then: nobody else would (E12).

        Whoever gave the task may have given it up: taken this worker for dead, had another one learn what is left after
        an erasure, and swept the store. What was put before that sweep it has found; what was put after it is found
        here. So it is with a writer that has taken over: it claims its token before it does anything else. Raises
        ``Fenced`` then.
        """
        if checkpoint is None or task.token is None:
            return None
        try:
            self._refuse_superseded(task.token)
            wanted = self._revised(task)
        except Fenced:
            self._store.delete(checkpoint.key)
            raise
        if shared_prefix(task.lineages, wanted.lineages) >= checkpoint.slice:
            return None
        self._store.delete(checkpoint.key)
        return wanted

    def _refuse_superseded(self, token: int) -> None:
        if ManifestRegister(self._store).highest_token() > token:
            raise Fenced("another writer has taken over the federation", "this worker stops", token=token)


def checkpoint_key(shard: ShardId, slice_: SliceIndex, name: str) -> ObjectKey:
    """Return the key of a checkpoint; ``name`` makes every attempt's key its own (D5)."""
    return object_key(f"shards/{shard:04d}/checkpoints/{slice_:04d}/{name}.safetensors")


def read_checkpoint(store: ObjectStore, record: CheckpointRecord, shard: ShardId) -> bytes:
    """Return a checkpoint's bytes, verified. Raises ``Corrupt`` when it is missing or differs from its record."""
    remedy = "The object was not used; run 'sisa train' to rebuild it."
    try:
        payload = store.get(record.key).payload
    except ObjectMissing as error:
        raise Corrupt("a checkpoint is missing", remedy, key=record.key, shard=shard, slice=record.slice) from error
    found = sha256(payload)
    if found != record.sha256:
        raise Corrupt(
            f"a checkpoint's digest differs from the manifest: expected sha256:{record.sha256}, got sha256:{found}",
            remedy,
            key=record.key,
            shard=shard,
            slice=record.slice,
        )
    return payload
