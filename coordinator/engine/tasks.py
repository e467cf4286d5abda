"""Training tasks: what a worker has to do for the current state."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from coordinator.decisions.events import CheckpointWritten, ErasureAccepted
from coordinator.engine.codec import decode_event
from coordinator.engine.ledger import Current, read_ledger
from coordinator.state import FederationState
from shards.learners.trainer import TrainTask
from shards.lineage import Configuration, as_recorded, in_force
from shards.specification import ShardId
from storage.digests import Sha256
from storage.errors import Conflict, Corrupt, Fenced, JournalTruncated
from storage.objects import ObjectStore
from storage.registers.journal import Journal, Position
from storage.registers.numbered import Numbers

_CAUSES: Final = "the kind of processor and on environment variables such as MKL_CBWR and ONEDNN_MAX_CPU_ISA"
"""Causes of different probes within one profile."""


_CHANGING_NO_TASK: Final = (CheckpointWritten, ErasureAccepted)
"""Events that leave all slices and the configuration as they are. They are most of what is recorded during training."""


def train_task(
    state: FederationState, shard: ShardId, *, done: int | None = None, token: int | None, after: Position | None = None
) -> TrainTask:
    """Return the task of training ``shard`` after its first ``done`` checkpoints (None: all), for the current state.

    ``token`` is the fencing token to write under; None: the worker writes nothing. ``state`` includes the journal's
    entries up to ``after``.
    """
    assert state.data is not None
    scale = state.settings["data"]["scale"]
    own = state.shards[shard]
    return TrainTask(
        shard=shard,
        slices=own.slices,
        lineages=state.lineages(shard),
        width=state.data.layout.width,
        scale=tuple(scale) if isinstance(scale, list | tuple) else scale,
        done=own.chain[:done],
        base=None if token is None else own.base,
        token=token,
        after=after,
    )


class Revisions:
    """Whether tasks are still needed, for one worker, which asks again and again: it reads only what is new.

    As long as what follows a task's position in the journal cannot change any task, no state is read: a worker is
    started for each retrain, and the state of a thousand shards is many megabytes.
    """

    def __init__(self, store: ObjectStore) -> None:
        """Prepare; nothing is read yet."""
        self._store = store
        self._journal, self._entries = Journal(store), Numbers(store, "journal")
        self._known: Current | None = None
        self._passed: Position | None = None
        """A position up to which the journal's entries change no task that was issued at an earlier position."""

    def __call__(self, task: TrainTask) -> TrainTask:
        """Return the current task for the task's shard; ``task`` itself if it has not changed (D7).

        Raises ``Fenced`` when another writer has taken over, or when training now uses other settings: then other
        workers have been started.
        """
        if task.token is None:
            return task  # a verification: it concerns the state that it started with
        if self._known is None and self._is_untouched(task):
            return task
        if self._known is None or self._has_moved(self._known.position):
            self._known = read_ledger(self._store, self._known)
        reading = self._known
        if reading.token > task.token:
            raise Fenced(
                "another writer has taken over the federation",
                "Do nothing: this worker stops by itself.",
                shard=task.shard,
            )
        if reading.state is None or reading.state.configuration != task.lineages[0].configuration:
            raise Fenced(
                "the federation is trained under other settings by now",
                "Do nothing: this worker stops by itself.",
                shard=task.shard,
            )
        if reading.state.lineages(task.shard) == task.lineages:
            return task
        return train_task(reading.state, task.shard, token=task.token)

    def _is_untouched(self, task: TrainTask) -> bool:
        """Return whether nothing that was committed after the task's position can change it, or ask it to stop."""
        position = max(filter(None, (self._passed, task.after)), key=lambda each: each.number, default=None)
        if position is None:
            return False
        if self._has_moved(position):
            try:
                entries = self._journal.read(position)
            except (Corrupt, JournalTruncated):  # damage is reported by the reader of the whole entry
                return False
            for entry in entries:
                events = map(decode_event, entry.records)
                if entry.token != task.token or not all(isinstance(event, _CHANGING_NO_TASK) for event in events):
                    return False
                position = entry.position
        self._passed = position
        return True

    def _has_moved(self, position: Position) -> bool:
        """Return whether anything was committed after ``position``; see ``Follower``, which checks in the same way."""
        following = position.number + 1
        return self._entries.payload(following) is not None or self._journal.floor() > following


class OtherConditions(Conflict):
    """A worker would produce different bits than its task requires."""


def check_configuration(trained: Configuration | None, present: Configuration) -> None:
    """Raise ``OtherConditions`` when workers would produce different bits than those of the trained federation.

    Conditions that an earlier release did not record in ``trained`` are not compared.
    """
    if trained is None or in_force(trained, present) == trained:
        return
    raise OtherConditions(
        f"the constituents were trained under other conditions: {'; '.join(differing(trained, present))}",
        "Go back to these conditions, or run 'sisa train' to train all constituents again under the current ones.",
    )


def differing(trained: Configuration, present: Configuration, form: str = "{name}: {was} then, {now} now") -> list[str]:
    """Describe the differences between ``trained`` and ``present``; values are shown in this ``form``."""
    present = as_recorded(trained, present)
    found = []
    if trained.settings != present.settings:
        found.append("model or training settings")
    if trained.model_code != present.model_code:
        found.append("the model's source code")
    values = [("seed", trained.seed, present.seed)]
    was, now = trained.profile, present.profile
    if replace(was, probe=None) != replace(now, probe=None):  # the probe differs whenever another condition differs
        values += [(name, getattr(was, name), getattr(now, name)) for name in type(was).__slots__ if name != "probe"]
    found += [form.format(name=name, was=old, now=new) for name, old, new in values if old != new]
    is_alike = trained.settings == present.settings  # one of which decides which kernels the probe covers
    if is_alike and was == replace(now, probe=was.probe) != now:
        probes = form.format(name="probe", was=_short(was.probe), now=_short(now.probe))
        found.append(f"the results of the same arithmetic ({probes}), which depend on {_CAUSES}")
    if not found and trained.code_manifest != present.code_manifest:  # workers compare it only if the rest is equal
        found.append("the model's modules, the packages that they import, or its declared files")
    return found


def _short(probe: Sha256 | None) -> str:
    return "none" if probe is None else probe[:12]
