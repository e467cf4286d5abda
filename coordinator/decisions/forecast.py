"""Forecast of a federation's costs, before anything is trained (SISA section IV)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from shards.cost import batch_fraction, erasure_cost_epochs
from shards.specification import PartitionSettings, TrainingSettings, refuse_settings

POINT_OVERHEAD_BYTES = 16 + 16 + 4
"""Stored with the features of a data point: two keyed digests and a label."""

_GAIN_GONE_REQUESTS_PER_SHARD = 3
"""At K = 3S a batch touches nearly every shard: 1 − exp(−3) = 95 % of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Expected cost of a federation. Seconds are wall time on the stated workers; speed-ups compare work."""

    full_training_seconds: float
    """Training all shards from nothing."""
    erasure_seconds: float
    """Expected, for one data point erased alone."""
    erasure_speed_up: float
    """Work of a full training over that of one erasure."""
    requests: int
    """K, the erasures that one batch serves."""
    batch_fraction: float
    """Expected work of the batch as a fraction of a full training, 0 .. 1."""
    batch_seconds: float
    """Expected, with the affected shards spread evenly over the workers."""
    batch_speed_up: float
    """Work of a full training over that of the batch; infinite when there are no requests."""
    checkpoint_bytes: int
    """All checkpoints: one per slice of every shard."""
    slice_bytes: int
    """All slice files, before compression."""
    warnings: tuple[str, ...]
    """Warnings for the operator before training; may be empty."""
    direct_seconds: float | None = None
    """Expected, for one data point taken out directly; None: the learner cannot. The other figures of erasures are then
    those of retraining its shard."""
    direct_batch_seconds: float | None = None
    """The same for the K erasures of a batch."""

    @property
    def storage_bytes(self) -> int:
        """Space for checkpoints and slice files together."""
        return self.checkpoint_bytes + self.slice_bytes


def forecast(
    *,
    points: int,
    width: int,
    partition: PartitionSettings,
    training: TrainingSettings,
    requests: int,
    seconds_per_point_epoch: float,
    checkpoint_bytes: int,
    workers: int,
    feature_bytes: int = 4,
) -> Forecast:
    """Return what training and erasing will cost.

    ``points`` have ``width`` features of ``feature_bytes`` each (1 for uint8 columns); ``seconds_per_point_epoch`` and
    ``checkpoint_bytes`` are measured, or taken from the last training. Epochs count as e'N point-epochs; the rounded
    schedule differs from that by less than an epoch. Raises ``Invalid`` when a number is out of range.

    >>> plan = forecast(
    ...     points=60_000, width=784, requests=1, seconds_per_point_epoch=3e-5, checkpoint_bytes=400_000, workers=2,
    ...     partition=PartitionSettings(shards=5, slices=5),
    ...     training=TrainingSettings(epochs=20, batch_size=16, learning_rate=0.05),
    ... )
    >>> round(plan.full_training_seconds, 1), round(plan.erasure_seconds, 2), round(plan.erasure_speed_up, 1)
    (21.6, 5.28, 6.8)
    """
    _check(points, width, requests, seconds_per_point_epoch, workers)
    shards, slices = partition.shards, partition.slices
    full_seconds = training.epochs * points * seconds_per_point_epoch
    erasure = erasure_cost_epochs(points=points, shards=shards, slices=slices, epochs=training.epochs)
    fraction = batch_fraction(shards, slices, requests)
    return Forecast(
        full_training_seconds=full_seconds / shards * ceil(shards / workers),
        erasure_seconds=erasure * seconds_per_point_epoch,
        erasure_speed_up=training.epochs * points / erasure,
        requests=requests,
        batch_fraction=fraction,
        batch_seconds=fraction * full_seconds / _at_once(shards, requests, workers),
        batch_speed_up=1 / fraction if fraction else float("inf"),
        checkpoint_bytes=shards * slices * checkpoint_bytes,
        slice_bytes=points * (width * feature_bytes + POINT_OVERHEAD_BYTES),
        warnings=_warnings(points, requests, workers, partition, training),
    )


def with_direct(found: Forecast, seconds: float, *, shards: int, workers: int) -> Forecast:
    """Return the forecast with erasures that take points out directly, each in so many seconds.

    A batch takes out one point after another; its affected shards are spread evenly over the workers.
    """
    batch = found.requests * seconds / _at_once(shards, found.requests, workers)
    return replace(found, direct_seconds=seconds, direct_batch_seconds=batch)


def _at_once(shards: int, requests: int, workers: int) -> float:
    """Return how many workers are busy with a batch."""
    return max(1.0, min(shards * (1 - (1 - 1 / shards) ** requests), workers))


def _check(points: int, width: int, requests: int, seconds_per_point_epoch: float, workers: int) -> None:
    problems = [
        f"{name} must be at least {least}, got {value}"
        for name, value, least in (
            ("points", points, 1),
            ("width", width, 1),
            ("requests", requests, 0),
            ("workers", workers, 1),
        )
        if value < least
    ]
    if not 0 < seconds_per_point_epoch < float("inf"):
        problems.append(f"seconds_per_point_epoch must be above 0, got {seconds_per_point_epoch}")
    refuse_settings("forecast", problems)


def _warnings(
    points: int, requests: int, workers: int, partition: PartitionSettings, training: TrainingSettings
) -> tuple[str, ...]:
    shards, slices = partition.shards, partition.slices
    warnings = []
    if requests >= _GAIN_GONE_REQUESTS_PER_SHARD * shards:
        warnings.append(
            f"{requests} erasures in one batch touch nearly all of {shards} shards: the gain over a full training is"
            f" mostly gone (from {_GAIN_GONE_REQUESTS_PER_SHARD} requests per shard on); use more than"
            f" {requests // _GAIN_GONE_REQUESTS_PER_SHARD} shards, or serve fewer requests in a batch"
        )
    if points < shards * slices:
        warnings.append(
            f"{points} data points in {shards} × {slices} slices leave many slices empty: use fewer shards or slices"
        )
    elif points < shards * training.batch_size:
        warnings.append(
            f"a shard holds about {points // shards} data points, less than one batch of {training.batch_size}:"
            " use fewer shards or a smaller batch_size"
        )
    if workers > shards:
        warnings.append(f"{workers - shards} of {workers} workers stay idle: a shard trains on one worker")
    return tuple(warnings)
