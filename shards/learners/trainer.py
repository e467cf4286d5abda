"""Training one constituent from its last good checkpoint to its last slice: the work of a worker.

Plain objects, no Ray: a generator that reads slices from the store, trains, writes checkpoints and reports progress.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Generic

from shards.learner_kinds.kinds import is_cheaper_directly
from shards.learners.protocol import Certifies, Learner, ReportsLoss, State, Unlearner
from shards.lineage import Accounted, Base, CheckpointRecord, Lineage, shared_prefix
from shards.points import ShardPoints
from shards.slices.differences import changed_points
from shards.slices.files import SliceRecord, load_shard
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256, sha256
from storage.errors import Corrupt, Fenced, ObjectMissing
from storage.objects import NewName, ObjectKey, ObjectStore, object_key
from storage.registers.journal import Position
from storage.registers.manifest import ManifestRegister

PROGRESS_SECONDS = 0.2
"""Epochs are reported at most this often: a report costs about a millisecond, an epoch may cost less."""

REVISION_SECONDS = 1.0
"""How often, within a slice, a worker checks that the slice is still needed. A check reads the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTask:
    """Bring the constituent of ``shard`` from the checkpoints in ``done`` to its last slice."""

    shard: ShardId
    slices: tuple[SliceRecord, ...]
    lineages: tuple[Lineage, ...]
    """The lineages that the checkpoints after slices 1..R must have; a single one: all slices are learned at once."""
    width: int
    """Number of features."""
    scale: float | tuple[float, ...]
    """Constant by which features are divided: one for all, or one per feature."""
    done: tuple[CheckpointRecord, ...] = ()
    base: Base | None = None
    """An earlier constituent from which the learner may take points out directly."""
    token: int | None
    """Fencing token of the writer that issued the task; None: write nothing, only report the digests (for a proof)."""
    after: Position | None = None
    """A position of the journal whose entries, up to it, are included in the task. To see whether the task is still
    needed, a worker reads only later ones. None: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochsDone:
    """Progress inside a slice."""

    shard: ShardId
    slice: SliceIndex
    epochs: int
    of_epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceLearned:
    """A slice has been trained; ``checkpoint`` is None when the task writes nothing."""

    shard: ShardId
    slice: SliceIndex
    digest: Sha256
    checkpoint: CheckpointRecord | None
    loss: float | None = None
    """Mean loss of the slice's last epoch, for display only: it depends on people's data, so it is never stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualFound:
    """How far a constituent is from the optimum of its data points, and the residual that was accounted for it."""

    shard: ShardId
    residual: float
    accounted: Accounted


TrainingEvent = EpochsDone | SliceLearned | ResidualFound


class _Superseded(Exception):
    """The slice in training is no longer needed. Never leaves this module."""

    def __init__(self, task: TrainTask) -> None:
        super().__init__(task)
        self.task = task


Revision = Callable[[TrainTask], TrainTask]
"""Returns what the task's shard should be trained on now; the task itself as long as nothing has changed.

Raises ``Fenced`` when another writer has taken over.
"""


class ConstituentTrainer(Generic[State]):
    """Performs ``TrainTask``s with one learner against one store."""

    def __init__(
        self,
        *,
        learner: Learner[State],
        store: ObjectStore,
        new_name: NewName,
        seconds: Callable[[], float],
        revised: Revision = lambda task: task,
        highest_token: Callable[[], int] | None = None,
    ) -> None:
        """``highest_token`` returns the highest fencing token that a writer has claimed in ``store``."""
        self._learner = learner
        self._store = store
        self._new_name = new_name
        self._seconds = seconds
        self._revised = revised
        self._highest_token = highest_token or ManifestRegister(store).highest_claimed

    def train(self, task: TrainTask) -> Iterator[TrainingEvent]:
        """Train on the slices that are not done yet, yielding progress and every finished slice.

        After each slice training continues from the checkpoint's bytes, not from memory. Resumed and uninterrupted runs
        are therefore the same computation, even if a model keeps values where no checkpoint holds them (E4).

        If points are erased during training from a slice that is not reached yet, training continues without them. If
        they are erased from an earlier slice, the attempt ends and the next one starts at the last clean checkpoint
        (D7).

        A task that writes nothing and whose checkpoints are given is a proof of a certified constituent: nothing is
        trained, its residual is computed.
        Raises ``Corrupt`` when a checkpoint or slice file is not what the task says, ``Fenced`` when another writer has
        taken over.
        """
        if task.token is None and task.done and isinstance(self._learner, Certifies):
            yield self._audited(task, self._learner)
            return
        superseding: TrainTask | None = task
        while superseding is not None:
            superseding = yield from self._attempt(superseding)

    def take_out(self, task: TrainTask, most: int | None = None) -> Generator[TrainingEvent, None, TrainTask | None]:
        """Take points out of the task's base directly, and put new ones in; return the task that is left to do.

        It is ``task`` itself where it has no base, where more than ``most`` points change, or where the learner has to
        learn from nothing; another one, which supersedes it; None when nothing is left. Raises as ``train`` does.
        """
        started = self._seconds()
        if task.base is None or task.done or (direct := self._directly(task, task.base, most)) is None:
            return task
        state, steps = direct
        lineage = task.lineages[0]
        event = self._learned(task, lineage, state, self._learner.to_bytes(state, lineage), steps, started)
        if (superseding := self._superseding(task, event.checkpoint)) is not None:
            return superseding
        yield event
        return None

    def _attempt(self, task: TrainTask) -> Generator[TrainingEvent, None, TrainTask | None]:
        """Train on the remaining slices; return the task that supersedes this one, None when all slices are done."""
        if (left := (yield from self.take_out(task))) is not task:
            return left
        points = self._points(task)
        state = self._resume(task)
        learned = len(task.done)
        while learned < len(task.lineages):
            wanted = self._revised(task)
            if shared_prefix(task.lineages, wanted.lineages) < learned:
                return wanted
            if wanted.slices != task.slices:
                task, points = wanted, self._points(wanted)
            lineage = task.lineages[learned]
            started = self._seconds()
            try:
                state = yield from self._learn(state, points, task, lineage.slice)
            except _Superseded as superseded:
                return superseded.task
            payload = self._learner.to_bytes(state, lineage)
            event = self._learned(task, lineage, state, payload, self._learner.steps(points, lineage.slice), started)
            if (superseding := self._superseding(task, event.checkpoint)) is not None:
                return superseding
            yield event
            learned += 1
            if learned < len(task.lineages):
                state = self._learner.from_bytes(payload, task.shard)
        return None

    def _audited(self, task: TrainTask, learner: Certifies[State]) -> ResidualFound:
        state = self._resume(task)
        return ResidualFound(
            shard=task.shard,
            residual=learner.residual(state, self._points(task)),
            accounted=learner.accounted(state),
        )

    def _directly(self, task: TrainTask, base: Base, most: int | None) -> tuple[State, int] | None:
        """Return the constituent without the points that are gone and with new ones, and how many these are.

        Returns None where these are more than ``most``, or so many that it is cheaper to retrain, if the learner cannot
        do this, or if the objects to start from are gone.
        """
        name = task.lineages[0].configuration.learner
        if name is None or not isinstance(self._learner, Unlearner):
            return None
        try:
            gone, new = changed_points(self._store, base.slices, task.slices, task.width, task.scale)
            changes = len(gone.keys_N) + len(new.keys_N)
            left = sum(record.points for record in task.slices)
            if (most is not None and changes > most) or not is_cheaper_directly(name, changes, left):
                return None
            payload = read_checkpoint(self._store, base.checkpoint, task.shard)
        except Corrupt:
            return None
        state = self._learner.from_bytes(payload, task.shard)
        result: State | None = self._learner.unlearn(state, gone, new, lambda: self._points(task))
        return None if result is None else (result, changes)

    def _points(self, task: TrainTask) -> ShardPoints:
        points = load_shard(self._store, task.slices, task.width, task.scale)
        # Where all slices are learned at once, they are one to the learner.
        return points if len(task.lineages) == len(task.slices) else replace(points, ends=points.ends[-1:])

    def _learned(
        self, task: TrainTask, lineage: Lineage, state: State, payload: bytes, steps: int, started: float
    ) -> SliceLearned:
        """Write the checkpoint, if the task writes anything, and return the event to report."""
        digest = self._learner.digest(state)
        seconds = round(self._seconds() - started, 6)
        checkpoint = None
        if task.token is not None:
            checkpoint = self._keep(payload, lineage, digest, steps, seconds)
            if isinstance(self._learner, Certifies):
                checkpoint = replace(checkpoint, accounted=self._learner.accounted(state).rounded)
        loss = self._learner.loss() if isinstance(self._learner, ReportsLoss) else None
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
        reported = checked = self._seconds()
        while True:
            try:
                epochs = next(learning)
            except StopIteration as finished:
                learned: State = finished.value
                return learned
            now = self._seconds()
            if now - reported >= PROGRESS_SECONDS:
                reported = now
                yield EpochsDone(shard=task.shard, slice=slice_, epochs=epochs, of_epochs=of_epochs)
            if now - checked >= REVISION_SECONDS:
                checked = now
                wanted = self._revised(task)
                if shared_prefix(task.lineages, wanted.lineages) < slice_:
                    raise _Superseded(wanted)

    def _keep(self, payload: bytes, lineage: Lineage, digest: Sha256, steps: int, seconds: float) -> CheckpointRecord:
        key = checkpoint_key(lineage.shard, lineage.slice, self._new_name())
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
        """Return the task that supersedes this one, if any; then delete the checkpoint, since no one else would (E12).

        The writer may have given this task up: it may have taken this worker for dead, had another worker train on the
        points that remain after an erasure, and swept the store. That sweep deleted earlier checkpoints of this task; a
        checkpoint written after the sweep is found here. The same holds for a writer that has taken over, because it
        claims its token before it does anything else; then ``Fenced`` is raised.
        """
        if checkpoint is None or task.token is None:
            return None
        try:
            self._refuse_superseded(task.token)
            wanted = self._revised(task)  # after it: reads of a writer that has committed what it claimed
        except Fenced:
            self._store.delete(checkpoint.key)
            raise
        if shared_prefix(task.lineages, wanted.lineages) >= checkpoint.slice:
            return None
        self._store.delete(checkpoint.key)
        return wanted

    def _refuse_superseded(self, token: int) -> None:
        if self._highest_token() > token:
            raise Fenced(
                "another writer has taken over the federation", "Do nothing: this worker stops by itself.", token=token
            )


def checkpoint_key(shard: ShardId, slice_: SliceIndex, name: str) -> ObjectKey:
    """Return the key of a checkpoint; ``name`` makes the key unique to one attempt (D5)."""
    return object_key(f"shards/{shard:04d}/checkpoints/{slice_:04d}/{name}.safetensors")


def read_checkpoint(store: ObjectStore, record: CheckpointRecord, shard: ShardId) -> bytes:
    """Return a checkpoint's bytes, verified. Raises ``Corrupt`` when it is missing or differs from its record."""
    remedy = "Run 'sisa train' to rebuild it. The object was not used."
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
