"""Training tasks: what a worker is to do, as the state demands now."""

from __future__ import annotations

from coordinator.engine.ledger import read_ledger
from coordinator.state import FederationState
from shards.learners.trainer import TrainTask
from shards.lineage import Configuration
from shards.specification import ShardId
from storage.errors import Conflict, Fenced
from storage.objects import ObjectStore


def train_task(state: FederationState, shard: ShardId, *, done: int, token: int | None) -> TrainTask:
    """Return the task of training ``shard`` from its first ``done`` checkpoints on, as the state demands.

    ``token`` is the fencing token to write under; None: nothing is written.
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
        token=token,
    )


def revised_task(store: ObjectStore, task: TrainTask) -> TrainTask:
    """Return what the task's shard is to be trained on now; ``task`` itself where that has not changed (D7).

    For workers, who look whether what they do is still wanted. Raises ``Fenced`` when another writer has taken over, or
    this one trains under other settings by now: then it has started other workers.
    """
    if task.token is None:
        return task  # a proof: it concerns the state that it began with
    reading = read_ledger(store)
    if reading.token > task.token:
        raise Fenced("another writer has taken over the federation", "this worker stops", shard=task.shard)
    if reading.state is None or reading.state.configuration != task.lineages[0].configuration:
        raise Fenced("the federation is trained under other settings by now", "this worker stops", shard=task.shard)
    if reading.state.lineages(task.shard) == task.lineages:
        return task
    done = len(reading.state.shards[task.shard].chain)
    return train_task(reading.state, task.shard, done=done, token=task.token)


def check_configuration(trained: Configuration | None, present: Configuration) -> None:
    """Raise ``Conflict`` when workers would produce other bits than those the federation was trained with."""
    if trained is None or trained == present:
        return
    differences = []
    if trained.settings != present.settings:
        differences.append("model or training settings")
    if trained.model_code != present.model_code:
        differences.append("the model's source code")
    elif trained.code_manifest != present.code_manifest:
        differences.append("the model's modules, the packages that they import, or its declared files")
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
