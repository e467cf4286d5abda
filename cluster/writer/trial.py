"""What a learner that learns all slices of a shard at once costs: tried on data points, or on the store's constituent.

Nothing is written. Shape legend: N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from coordinator.ports import Clock
from coordinator.state import FederationState, ShardState
from shards.data.prediction_files import feature_batches
from shards.data.sources import Source
from shards.learners.protocol import Learner, Learning, State, Unlearner
from shards.learners.trainer import read_checkpoint
from shards.lineage import Lineage
from shards.points import ShardPoints
from shards.slices.differences import changed_points
from shards.slices.files import EMPTY_SLICE, SliceRecord, load_shard
from shards.specification import DataSettings, ShardId, SliceIndex
from storage.errors import Corrupt
from storage.objects import ObjectStore

_FIRST: Final = 500
_SECONDS: Final = 5.0
"""A larger trial is made as long as those before took less."""
_TAKEN_OUT: Final = 5
_MOST_POWER: Final = 1.2
_SHARD: Final = ShardId(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What a shard costs."""

    seconds: float
    """Learning it."""
    checkpoint_bytes: int
    direct_seconds: float | None
    """Taking one data point out; None: the learner cannot."""


def tried(learner: Learner[Any], sample: ShardPoints, points: int, lineage: Lineage, clock: Clock) -> Tried:
    """Return what a shard of so many data points costs, of which ``sample`` are some.

    Ever larger parts of the sample are learned. From the two largest ones follows how the costs grow with the points.
    """
    started = clock.monotonic()
    sizes, seconds, lengths = list[int](), list[float](), list[int]()
    count, payload = min(_FIRST, len(sample.keys_N)), b""
    while not sizes or (count > sizes[-1] and clock.monotonic() - started < _SECONDS):
        began = clock.monotonic()
        part = part_of(sample, np.arange(count))
        state = finished(learner.learn(learner.initial(_SHARD), part, _SHARD, SliceIndex(1)))
        payload = learner.to_bytes(state, lineage)
        sizes.append(count)
        seconds.append(clock.monotonic() - began)
        lengths.append(len(payload))
        count = min(2 * count, len(sample.keys_N))
    known = part_of(sample, np.arange(sizes[-1]))
    direct = seconds_to_take_out(learner, payload, known, lineage, clock)
    size = extrapolated(sizes, lengths, points)
    return Tried(
        seconds=extrapolated(sizes, seconds, points),
        checkpoint_bytes=round(size),
        # Most of it is reading and writing the constituent, and the more there is the deeper a tree.
        direct_seconds=None if direct is None else direct * max(1.0, size / lengths[-1]),
    )


def extrapolated(sizes: list[int], values: list[Any], points: int) -> float:
    """Return the value for so many points, given those for some sizes: a power of the size through the last three.

    >>> round(extrapolated([50, 100, 200, 400], [9.0, 0.5, 1.0, 2.0], 1600))
    8
    """
    if points <= sizes[-1] or len(sizes) == 1 or min(values[-3:]) <= 0:
        return float(values[-1] * points / max(sizes[-1], 1))
    power, start = np.polyfit(np.log(sizes[-3:]), np.log(values[-3:]), 1)
    if 0 <= power <= _MOST_POWER:
        return float(np.exp(start + power * np.log(points)))
    return float(values[-1] * (points / sizes[-1]) ** min(max(power, 0.0), _MOST_POWER))


def seconds_to_take_out(
    learner: Learner[Any], payload: bytes, points: ShardPoints, lineage: Lineage, clock: Clock, left: Any = None
) -> float | None:
    """Return the seconds that it takes to take one of ``points`` out of a checkpoint, the median of a few.

    ``left`` reads all points that the constituent was learned from; default: they are ``points``. Returns None if the
    learner cannot, or has to learn from nothing as often as not.
    """
    if not isinstance(learner, Unlearner) or not len(points.keys_N):
        return None
    seconds, tries = list[float](), 0
    for place in np.unique(np.linspace(0, len(points.keys_N) - 1, _TAKEN_OUT).astype(np.intp)):
        others = partial(_without, left or (lambda: points), int(points.keys_N[place]))
        tries += 1
        began = clock.monotonic()
        state = learner.from_bytes(payload, _SHARD)
        state = learner.unlearn(state, part_of(points, np.array([place])), part_of(points, np.array([], int)), others)
        if state is not None:
            learner.to_bytes(state, lineage)
            seconds.append(clock.monotonic() - began)
    return median(seconds) if 2 * len(seconds) > tries else None


def taken_out_of_store(
    learner: Learner[Any],
    store: ObjectStore,
    state: FederationState,
    scale: float | tuple[float, ...],
    lineage: Lineage,
    clock: Clock,
) -> float | None:
    """Return the seconds that it takes to take one data point out of the largest shard's constituent.

    Its largest slice is read for it: an erasure compares it with the slice as it will be, which is as large. Returns
    None as ``seconds_to_take_out`` does, and where there is nothing to take out or an object is damaged.
    """
    number, shard = _largest(state)
    if not shard.chain or not shard.points or state.data is None:
        return None
    width = state.data.layout.width
    largest = max(shard.slices, key=lambda each: each.points)

    def left() -> ShardPoints:
        return load_shard(store, shard.slices, width, scale)

    try:
        payload = read_checkpoint(store, shard.chain[0], number)
        began = clock.monotonic()
        _, points = changed_points(store, (EMPTY_SLICE,), (largest,), width, scale)
        read = clock.monotonic() - began
        direct = seconds_to_take_out(learner, payload, points, lineage, clock, left)
    except Corrupt:
        return None
    return None if direct is None else direct + 2 * read


def stored_sample(
    store: ObjectStore, state: FederationState, scale: float | tuple[float, ...], most: int
) -> ShardPoints | None:
    """Return at least ``most`` data points of the largest shard, or all of them; None where there are none to read.

    Which slice a person is in is drawn by a hash, so that a few slices stand for all.
    """
    _, shard = _largest(state)
    chosen, points = list[SliceRecord](), 0
    for record in shard.slices:
        if points < most:
            chosen.append(record)
            points += record.points
    if not points or state.data is None:
        return None
    try:
        return load_shard(store, chosen, state.data.layout.width, scale)
    except Corrupt:
        return None


def _largest(state: FederationState) -> tuple[ShardId, ShardState]:
    number, shard = max(enumerate(state.shards), key=lambda each: each[1].points)
    return ShardId(number), shard


def sample_of(source: Source, data: DataSettings, width: int, points: int, most: int) -> ShardPoints:
    """Return at most ``most`` data points from all places of the source, as one slice, in an order of their own."""
    step = max(1, math.ceil(points / most))
    features, labels = list[npt.NDArray[Any]](), list[npt.NDArray[Any]]()
    start = 0
    for batch in feature_batches(source, data, width, labelled=True):
        chosen = slice(-start % step, None, step)
        start += len(batch.features_NF)
        features.append(batch.features_NF[chosen].copy())
        known: Any = np.zeros(len(batch.features_NF)) if batch.labels_N is None else batch.labels_N
        labels.append(known[chosen])
    features_NF, found = np.concatenate(features), np.concatenate(labels)
    labels_N = found.astype(np.int64) if found.ndim == 1 else found.astype(np.float32, copy=False)
    keys_N = spread_keys(len(labels_N))
    order = np.argsort(keys_N, kind="stable")
    return ShardPoints(
        features_NF=features_NF[order],
        labels_N=labels_N[order],
        keys_N=keys_N[order],
        subjects_N=keys_N[order],
        ends=(len(order),),
    )


def spread_keys(count: int) -> npt.NDArray[np.uint64]:
    """Return so many different numbers that are spread evenly over all of 64 bits."""
    numbers_N: npt.NDArray[np.uint64] = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return numbers_N


def part_of(points: ShardPoints, which: npt.NDArray[Any]) -> ShardPoints:
    """Return some of the points as one slice."""
    return ShardPoints(
        features_NF=points.features_NF[which],
        labels_N=points.labels_N[which],
        keys_N=points.keys_N[which],
        subjects_N=points.subjects_N[which],
        ends=(len(points.keys_N[which]),),
    )


def finished(learning: Learning[State]) -> State:
    """Return the state in which learning ends."""
    while True:
        try:
            next(learning)
        except StopIteration as end:
            state: State = end.value
            return state


def _without(left: Any, key: int) -> ShardPoints:
    points: ShardPoints = left()
    return part_of(points, points.keys_N != np.uint64(key))
