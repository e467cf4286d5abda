"""The forecast for a federation: measured where it was trained, estimated by a short trial where it was not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from cluster.config.specification import FederationSpecification
from cluster.runtime.learners import learner_of
from cluster.runtime.user_code import make_importable
from cluster.writer.trial import (
    Tried,
    finished,
    part_of,
    sample_of,
    spread_keys,
    stored_sample,
    taken_out_of_store,
    tried,
)
from coordinator.decisions.forecast import Forecast, forecast, with_direct
from coordinator.decisions.plan import learned_chain, trained_epochs
from coordinator.ports import Clock
from coordinator.state import FederationState
from shards.cost import training_point_epochs
from shards.data.columns import choose_columns
from shards.data.readers import Wanted
from shards.data.sources import Source
from shards.learner_kinds.kinds import LEARNERS
from shards.learners.protocol import Learner
from shards.learners.registry import code_digest, fix_numerics
from shards.lineage import Configuration, Lineage, NumericsProfile, expected_lineages
from shards.points import ShardPoints
from shards.schedule import slice_epochs
from shards.slices.files import EMPTY_SLICE
from shards.slices.ingest import feature_width
from shards.specification import PartitionSettings, ShardId, SliceIndex, check_schedule
from shards.targets import Target
from storage.digests import sha256
from storage.objects import ObjectStore

_TRIAL_STEPS: Final = 300
_TRIAL_EPOCHS: Final = 10
"""Most epochs in the trial of a learner without batches, whose trial is measured in data points and epochs."""
_TRIED_PARTS: Final = 2
_TRIAL_BYTES: Final = 64 * 2**20
FEATURE_BYTES: Final = {"uint8": 1, "float32": 4}
_SHORTEST: Final = 1e-12
"""Seconds of one data point at least, where a clock shows none."""
_COUNTING_BATCH: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a forecast is computed from."""

    points: int
    width: int
    feature_bytes: int
    seconds_per_point_epoch: float
    checkpoint_bytes: int
    measured: bool
    """Whether seconds and bytes come from this federation's own training, not from a trial."""
    direct_seconds: float | None = None
    """Seconds of taking one data point out directly, tried without writing anything; None: the learner cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A forecast and what it rests on."""

    basis: Basis
    partition: PartitionSettings
    workers: int
    forecast: Forecast


def measured_basis(state: FederationState) -> Basis | None:
    """Return the basis measured by the federation's own training; None if nothing was trained from nothing.

    Erasures from which points were taken out directly say nothing about it.
    """
    schedule = slice_epochs(trained_epochs(state) or 1, state.full_chain(ShardId(0)))
    chains = [learned_chain(state, ShardId(number)) for number in range(len(state.shards))]
    checkpoints = [checkpoint for chain in chains for checkpoint in chain]
    work = sum(
        training_point_epochs(
            state.portions([record.points for record in shard.slices])[: len(chain)], schedule[: len(chain)]
        )
        for shard, chain in zip(state.shards, chains, strict=True)
    )
    seconds = sum(checkpoint.seconds for checkpoint in checkpoints)
    if state.data is None or not work or not seconds:
        return None
    return Basis(
        points=sum(shard.points for shard in state.shards),
        width=state.data.layout.width,
        feature_bytes=FEATURE_BYTES[state.data.layout.dtype],
        seconds_per_point_epoch=seconds / work,
        checkpoint_bytes=round(sum(checkpoint.payload_bytes for checkpoint in checkpoints) / len(checkpoints)),
        measured=True,
    )


def trial_basis(specification: FederationSpecification, source: Source, points: int | None, clock: Clock) -> Basis:
    """Return the basis measured by a short trial; ``points`` None: count those of the source.

    The trial is on random data. A learner that learns all slices at once is tried on data points of the source, because
    what it costs depends on them; with a given number of points nothing is read, and they are made up, too.
    """
    if specification.model.is_whole:
        return _whole_basis(specification, source, points, clock)
    data, training = specification.data, specification.training
    has_own_epochs = LEARNERS[specification.model.learner].epochs is not None
    epochs = min(training.epochs, _TRIAL_EPOCHS) if has_own_epochs else 1
    width = feature_width(source, data)
    make_importable(specification.folder)
    profile = fix_numerics(specification.model, specification.cluster.threads_per_worker, "cpu")
    learner = _in_one_slice(replace(specification, training=replace(training, epochs=epochs)), width)
    points = _count(source, data.id) if points is None else points
    # Without batches, an epoch of few data points costs as much as that of many.
    batch = max(1, points // specification.partition.shards // _TRIAL_STEPS) if has_own_epochs else training.batch_size
    trial = _random_points(trial_points(batch, width, points), width, data.predicted)
    started = clock.monotonic()
    state = finished(learner.learn(learner.initial(ShardId(0)), trial, ShardId(0), SliceIndex(1)))
    seconds = clock.monotonic() - started
    size = len(learner.to_bytes(state, _some_lineage(profile)))
    return Basis(
        points=points,
        width=width,
        feature_bytes=FEATURE_BYTES[choose_columns(source, data).dtype],
        seconds_per_point_epoch=seconds / len(trial.labels_N) / epochs,
        checkpoint_bytes=size * (training.epochs if has_own_epochs else 1) // epochs,
        measured=False,
    )


def _whole_basis(specification: FederationSpecification, source: Source, points: int | None, clock: Clock) -> Basis:
    data, width = specification.data, feature_width(source, specification.data)
    known = _count(source, data.id) if points is None else points
    per_shard = math.ceil(known / specification.partition.shards)
    most = max(1, min(per_shard, _most(width)))
    made_up = points is not None
    sample = _made_up(specification, width, most) if made_up else sample_of(source, data, width, known, most)
    found = _tried(specification, sample, per_shard, clock)
    return Basis(
        points=known,
        width=width,
        feature_bytes=FEATURE_BYTES[choose_columns(source, data).dtype],
        seconds_per_point_epoch=max(found.seconds / per_shard, _SHORTEST),
        checkpoint_bytes=found.checkpoint_bytes,
        measured=False,
        direct_seconds=found.direct_seconds,
    )


def stored_basis(
    specification: FederationSpecification, store: ObjectStore, state: FederationState, clock: Clock
) -> Basis | None:
    """Return the basis of a federation that was trained: measured, or tried on the data points in its store.

    A learner that takes points out directly is tried at that on the largest shard's constituent. None: nothing was
    trained, or not by this learner.
    """
    basis = measured_basis(state)
    if not specification.model.is_whole or state.data is None or state.configuration is None:
        return basis
    if code_digest(specification.model, specification.training) != state.configuration.model_code:
        return basis
    width, scale = state.data.layout.width, specification.data.scale
    profile = fix_numerics(specification.model, specification.cluster.threads_per_worker, "cpu")
    if basis is None:
        sample = stored_sample(store, state, scale, _most(width))
        if sample is None:
            return None
        points = sum(shard.points for shard in state.shards)
        per_shard = max(shard.points for shard in state.shards)
        found = _tried(specification, part_of(sample, np.arange(len(sample.keys_N))), per_shard, clock)
        basis = Basis(
            points=points,
            width=width,
            feature_bytes=FEATURE_BYTES[state.data.layout.dtype],
            seconds_per_point_epoch=max(found.seconds / per_shard, _SHORTEST),
            checkpoint_bytes=max(each.payload_bytes for shard in state.shards for each in shard.chain),
            measured=False,
        )
    learner = _in_one_slice(specification, width)
    return replace(
        basis, direct_seconds=taken_out_of_store(learner, store, state, scale, _some_lineage(profile), clock)
    )


def _tried(specification: FederationSpecification, sample: ShardPoints, points: int, clock: Clock) -> Tried:
    """Return what a shard of so many points costs. Of a constituent of equal parts a few are tried."""
    model, name = specification.model, LEARNERS[specification.model.learner].parts
    profile = fix_numerics(model, specification.cluster.threads_per_worker, "cpu")
    every = getattr(model.learner_arguments, name) if name else 1
    if name and every > _TRIED_PARTS:
        model = replace(model, arguments={**model.arguments, name: _TRIED_PARTS})
    times = every / min(every, _TRIED_PARTS)
    width = sample.features_NF.shape[1]
    found = tried(
        _in_one_slice(replace(specification, model=model), width), sample, points, _some_lineage(profile), clock
    )
    return Tried(
        seconds=found.seconds * times,
        checkpoint_bytes=round(found.checkpoint_bytes * times),
        direct_seconds=None if found.direct_seconds is None else found.direct_seconds * times,
    )


def _in_one_slice(specification: FederationSpecification, width: int) -> Learner[Any]:
    """Return the learner of shards that are a single slice."""
    return learner_of(replace(specification, partition=replace(specification.partition, slices=1)), width)


def _most(width: int) -> int:
    """Return how many data points fit into a trial."""
    return max(1, _TRIAL_BYTES // (4 * width + 16))


def _made_up(specification: FederationSpecification, width: int, count: int) -> ShardPoints:
    """Return made-up data points; no two of them are equal, unless the learner takes codes."""
    is_counting = LEARNERS[specification.model.learner].is_counting
    codes = specification.model.arguments.get("values") or 2 * is_counting
    spread_N = (spread_keys(count * width) >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    norm = specification.model.arguments.get("norm", math.inf)  # features that are longer are refused
    spread_N *= np.float32(min(1.0, norm / math.sqrt(width)))
    found = _random_points(count, width, specification.data.predicted)
    return replace(
        found,
        features_NF=(np.floor(spread_N * np.float32(codes)) if codes else spread_N).reshape(count, width),
        labels_N=np.rint(found.labels_N) if is_counting else found.labels_N,
    )


def plan_for(
    specification: FederationSpecification,
    basis: Basis,
    *,
    shards: int | None,
    slices: int | None,
    requests: int,
    workers: int,
) -> Plan:
    """Return the forecast for the specification's S and R, or for others. Raises ``Invalid`` for impossible ones.

    A learner that learns all slices at once has one checkpoint a shard. Its erasures are forecast in both ways:
    directly, and as if they learned the shard again.
    """
    own = specification.partition
    partition = PartitionSettings(
        shards=own.shards if shards is None else shards, slices=own.slices if slices is None else slices
    )
    check_schedule(specification.training, partition, specification.model)
    is_whole = specification.model.is_whole
    found = forecast(
        points=basis.points,
        width=basis.width,
        partition=replace(partition, slices=1) if is_whole else partition,
        training=replace(specification.training, epochs=1) if is_whole else specification.training,
        requests=requests,
        seconds_per_point_epoch=basis.seconds_per_point_epoch,
        checkpoint_bytes=basis.checkpoint_bytes,
        workers=workers,
        feature_bytes=basis.feature_bytes,
    )
    if basis.direct_seconds is not None:
        found = with_direct(found, basis.direct_seconds, shards=partition.shards, workers=workers)
    return Plan(basis=basis, partition=partition, workers=workers, forecast=found)


def _count(source: Source, id_column: str) -> int:
    wanted = Wanted(texts=(id_column,), numbers=())
    return sum(batch.columns.num_rows for batch in source.batches(wanted, _COUNTING_BATCH))


def trial_points(batch_size: int, width: int, points: int) -> int:
    """Return how many data points the trial learns: those of its steps, as far as they fit into 64 MiB.

    They are at least one whole batch, which training holds in memory, too; a batch has at most all ``points``.
    """
    point_bytes = width * np.dtype(np.float32).itemsize + 2 * np.dtype(np.int64).itemsize  # label and key
    return min(_TRIAL_STEPS * batch_size, max(_TRIAL_BYTES // point_bytes, min(batch_size, points), 1))


def _random_points(count: int, width: int, target: Target) -> ShardPoints:
    """Return made-up data points."""
    # The values must not all be zero, because arithmetic on zeros may be faster. ``resize`` repeats them without an
    # array of indexes, which would be twice as large as the result.
    ramp = np.arange(97, dtype=np.float32) / np.float32(97)
    return ShardPoints(
        features_NF=np.resize(ramp, (count, width)),
        labels_N=target.made_up(np.arange(count, dtype=np.uint64)),
        keys_N=np.arange(count, dtype=np.uint64),
        subjects_N=np.arange(count, dtype=np.uint64),
        ends=(count,),
    )


def _some_lineage(profile: NumericsProfile) -> Lineage:
    configuration = Configuration(settings=sha256(b""), model_code=sha256(b""), seed=0, profile=profile)
    return expected_lineages(ShardId(0), (EMPTY_SLICE,), configuration)[0]
