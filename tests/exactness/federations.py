"""Federations with real models in memory, and comparisons between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from cluster.config.specification import FederationSpecification, bit_settings, settings_record
from cluster.runtime.learners import learner_of
from coordinator.engine.tasks import train_task
from coordinator.state import FederationState
from shards.learner_kinds.guarantees import recorded_guarantee
from shards.learners.registry import code_digest, fix_numerics
from shards.learners.torch.checkpoint import decode_checkpoint
from shards.learners.torch.learner import TorchState
from shards.learners.trainer import ConstituentTrainer, SliceLearned, read_checkpoint
from shards.lineage import CheckpointRecord, Configuration
from shards.routing import SliceId
from shards.specification import ShardId
from storage.digests import Sha256
from storage.objects import ObjectKey
from storage.stores.memory import MemoryStore
from tests.doubles.federation import Point, SmallFederation
from tests.doubles.time_and_names import CountingNames
from tests.doubles.workers.in_process_pool import Death

_WORLDS = count()

COMPARED = {"histories": 0, "constituents": 0, "checkpoints": 0}
"""Number of comparisons with a full retrain in this run, reported at its end."""


def conditions(specification: FederationSpecification) -> Configuration:
    """Set this process's numerics and return the configuration, like a worker."""
    return Configuration(
        settings=bit_settings(settings_record(specification)),
        model_code=code_digest(specification.model, specification.training),
        seed=specification.training.seed,
        profile=fix_numerics(specification.model, specification.cluster.threads_per_worker, "cpu"),
        learner=specification.model.recorded_learner,
        guarantee=recorded_guarantee(specification.model.promise),
    )


def federation_of(
    specification: FederationSpecification, deaths: dict[int, Death] | None = None
) -> SmallFederation[TorchState]:
    """Return a federation with its own store and names."""
    world = next(_WORLDS)

    federation: SmallFederation[TorchState] = SmallFederation(
        specification=specification,
        store=MemoryStore(f"exactness-{world}"),
        learners=lambda width: learner_of(federation.specification, width),
        conditions=lambda _: conditions(federation.specification),
        names=CountingNames(f"world{world}"),
        deaths=deaths or {},
    )
    return federation


def make_points(
    seed: int,
    count_: int,
    *,
    width: int = 4,
    classes: int = 2,
    most_each: int = 5,
    prefix: str = "p",
    target: str = "class",
) -> list[Point]:
    """Return data points of subjects with 1 to ``most_each`` points each.

    For targets other than classes they have ``classes`` labels, each a number.
    """
    generator = np.random.default_rng(seed)
    points: list[Point] = []
    while len(points) < count_:
        subject = f"{prefix}-subject-{len(points)}"
        for _ in range(min(int(generator.integers(1, most_each + 1)), count_ - len(points))):
            features = tuple(float(value) for value in generator.normal(size=width).astype(np.float32))
            label: str | tuple[float, ...] = "abc"[int(generator.integers(classes))]
            if target == "number":
                label = tuple(float(value) for value in generator.normal(size=classes).astype(np.float32))
            elif target == "multi_label":
                label = tuple(float(value) for value in generator.integers(2, size=classes))
            points.append(Point(id=f"{prefix}{len(points)}", subject=subject, label=label, features=features))
    return points


def checkpoints(federation: SmallFederation[TorchState]) -> list[list[bytes]]:
    """Return every constituent's checkpoints as whole objects: parameters, buffers, optimizer, lineage."""
    return [
        [read_checkpoint(federation.store, record, ShardId(number)) for record in shard.chain]
        for number, shard in enumerate(federation.state.shards)
    ]


def digests(federation: SmallFederation[TorchState]) -> list[list[Sha256]]:
    """Return every constituent's digest after every slice."""
    return [[record.digest for record in shard.chain] for shard in federation.state.shards]


def retrained(specification: FederationSpecification, points: Sequence[Point]) -> SmallFederation[TorchState]:
    """Return a federation trained only on ``points``, given in another order."""
    fresh = federation_of(specification)
    order = np.random.default_rng(len(points)).permutation(len(points))
    fresh.train([points[index] for index in order])
    return fresh


def assert_exact(federation: SmallFederation[TorchState], points: Sequence[Point]) -> None:
    """Compare every byte of every checkpoint with a full retrain on ``points``, the remaining ones."""
    state = federation.state
    assert state.published
    assert not state.untrained()
    assert sum(record.points for _, record in state.slices()) == len(points)
    if points:
        fresh = retrained(federation.specification, points)
        assert [each.content_digest for each in fresh.state.holdout] == [each.content_digest for each in state.holdout]
        assert digests(fresh) == digests(federation)
        assert [list(map(decode_keys, chain)) for chain in checkpoints(fresh)] == [
            list(map(decode_keys, chain)) for chain in checkpoints(federation)
        ]
        assert checkpoints(fresh) == checkpoints(federation)
        assert not object_keys(fresh.state) & object_keys(state)
    else:
        learner = learner_of(federation.specification, state.data.layout.width if state.data else 0)
        initial = [learner.digest(learner.initial(ShardId(number))) for number in range(len(state.shards))]
        assert [[digest] * state.full_chain(ShardId(0)) for digest in initial] == digests(federation)
    COMPARED["histories"] += 1
    COMPARED["constituents"] += len(state.shards)
    COMPARED["checkpoints"] += sum(len(shard.chain) for shard in state.shards)


def decode_keys(payload: bytes) -> list[str]:
    """Return the names of a checkpoint's tensors."""
    return sorted(decode_checkpoint(payload))


def object_keys(state: FederationState) -> set[ObjectKey]:
    """Return the names of all slice files and checkpoints of the state."""
    parts = {part.key for shard in state.shards for record in shard.slices for part in record.parts}
    return parts | {checkpoint.key for shard in state.shards for checkpoint in shard.chain}


def assert_untouched(before: FederationState, after: FederationState, erased: Sequence[SliceId]) -> None:
    """Check that only objects at or after an erased point's slice in its shard were rewritten."""
    for number, (was, now) in enumerate(zip(before.shards, after.shards, strict=True)):
        hit = [place.slice for place in erased if place.shard == number]
        kept = after.portion_of(min(hit)) - 1 if hit else after.full_chain(ShardId(number))
        assert now.chain[:kept] == was.chain[:kept]
        assert not {record.key for record in now.chain[kept:]} & {record.key for record in was.chain}
        for slice_, (old, new) in enumerate(zip(was.slices, now.slices, strict=True), start=1):
            assert slice_ in hit or new == old


def train_alone(federation: SmallFederation[TorchState], shard: ShardId, done: int) -> tuple[CheckpointRecord, ...]:
    """Train ``shard`` from its first ``done`` checkpoints with a new worker; return all its checkpoints."""
    task = train_task(federation.state, shard, done=done, token=2**62)
    trainer: ConstituentTrainer[TorchState] = ConstituentTrainer(
        learner=learner_of(federation.specification, task.width),
        store=federation.store,
        new_name=federation.names,
        seconds=federation.clock.monotonic,
    )
    made = [event.checkpoint for event in trainer.train(task) if isinstance(event, SliceLearned) and event.checkpoint]
    return (*task.done, *made)
