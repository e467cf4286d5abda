"""What steps, slices and requests cost on a machine, fitted to pieces of work that were measured. Pure.

Seconds are of the processor. A piece of work has amounts (slices learned, epochs, batches, requests and so on), and
each amount has its seconds. They are found by least squares of the relative errors, none below 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from shards.schedule import slice_epochs

Amounts = Mapping[str, float]
"""How much of each kind of work there is, by the names below; missing ones are 0."""

TASKS: Final = "tasks"
"""Shards that are trained on, from whichever slice."""
POINTS_READ: Final = "points_read"
"""Data points of these shards."""
LEARNED: Final = "slices_learned"
EPOCHS: Final = "epochs"
BATCHES: Final = "batches"
"""Steps of the full size; of learners without batches, data points times epochs."""
MANY: Final = "_of_many"
"""Suffix of the three names above for shards with so many steps that these are carried out in another way."""
RECORDED: Final = "slices_recorded"
"""Slices learned, however their steps are carried out."""
IN_ALL: Final = "slices_learned_times_all"
"""Slices learned times all slices of the federation, which the state lists."""
LEARNED_PAST: Final = "slices_learned_times_past"
"""Slices learned times the ended requests that the state still lists."""
PAST: Final = "request_batches_times_past"
BATCH_WORK: Final = "request_batches"
REQUESTS: Final = "requests"
PLACES: Final = "slices_rewritten"
ALL: Final = "request_batches_times_all"
REWRITTEN: Final = "points_rewritten"

WORKERS: Final = (
    TASKS, POINTS_READ, LEARNED, EPOCHS, BATCHES, f"{LEARNED}{MANY}", f"{EPOCHS}{MANY}", f"{BATCHES}{MANY}", IN_ALL,
    LEARNED_PAST,
)  # fmt: skip
COORDINATORS: Final = (
    TASKS, RECORDED, IN_ALL, LEARNED_PAST, BATCH_WORK, REQUESTS, PLACES, ALL, PAST, REWRITTEN,
)  # fmt: skip

_ENDS: Final = 3
"""Sizes at an end through which a growth is continued."""
_MOST_POWER: Final = 2.0
_ROUNDS: Final = 20_000
_SETTLED: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredWork:
    """A piece of work that was carried out."""

    amounts: Amounts
    worker_seconds: float
    coordinator_seconds: float


@dataclass(frozen=True, slots=True)
class GrowingCost:
    """A value that grows with the number of data points: a power between two sizes, and beyond them."""

    sizes: tuple[float, ...]
    """Rising, above 0."""
    values: tuple[float, ...]
    """Above 0, and none smaller than the one before."""

    @classmethod
    def through(cls, sizes: Sequence[float], values: Sequence[float]) -> Self:
        """Return the growth through what was measured for each size, and never falls. Sizes may repeat.

        >>> GrowingCost.through([10, 20, 40], [3.0, 6.0, 5.0]).at(30)
        6.0
        """
        by_size: dict[float, list[float]] = {}
        for size, value in zip(sizes, values, strict=True):
            by_size.setdefault(size, []).append(value)
        rising = sorted(by_size)
        means = [float(np.mean(by_size[size])) for size in rising]
        return cls(tuple(rising), tuple(np.maximum.accumulate(means).tolist()))

    def at(self, points: float) -> float:
        """Return the value for so many data points."""
        if points <= 0:
            return 0.0
        if len(self.sizes) == 1:
            return self.values[0] * points / self.sizes[0]
        logs, found, wanted = np.log(self.sizes), np.log(self.values), float(np.log(points))
        if logs[0] <= wanted <= logs[-1]:
            return float(np.exp(np.interp(wanted, logs, found)))
        place, others = (0, slice(None, _ENDS)) if wanted < logs[0] else (-1, slice(-_ENDS, None))
        power = _power(logs[others], found[others])
        return float(np.exp(found[place] + power * (wanted - logs[place])))


def _power(logs: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> float:
    spread = logs - logs.mean()
    return min(max(float(spread @ (found - found.mean()) / (spread @ spread)), 0.0), _MOST_POWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What work costs. For a learner that learns all slices at once, ``learning`` is the cost of a shard."""

    workers: Mapping[str, float]
    """Seconds of a worker for each amount."""
    coordinator: Mapping[str, float]
    checkpoint_bytes: float
    """Size of a checkpoint; if checkpoints grow with each epoch, the size before the first epoch."""
    epoch_bytes: float = 0.0
    """By how much each epoch before a checkpoint makes it larger."""
    batch_size: int = 1
    """1 for learners without batches."""
    many_steps: float = float("inf")
    """A shard with at least this many full-size steps carries out its steps in another way."""
    learning: GrowingCost | None = None
    """Seconds of learning a shard at once."""
    forgetting: GrowingCost | None = None
    """Seconds of taking a request's data points out of it, including retraining where that was needed."""
    learned_bytes: GrowingCost | None = None
    """Size of its checkpoint."""
    source: str = "measured"
    """``measured`` on this machine, or ``records`` of the federation's own training, which know wall times."""
    misfit: float = field(default=0.0)
    """Mean relative error of the fit on what it was fitted to."""

    def seconds(self, amounts: Amounts) -> float:
        """Return what work of these amounts takes, by workers and the coordinator together."""
        return sum(
            amount * (self.workers.get(name, 0.0) + self.coordinator.get(name, 0.0)) for name, amount in amounts.items()
        )

    def slice_amounts(self, per_slice: float, schedule: Sequence[int], *, at_once: bool) -> list[dict[str, float]]:
        """Return the amounts of learning each slice of a shard, with those before it.

        ``per_slice`` is an expected number of data points: a slice's last batch is half full on average. ``at_once``:
        all slices are learned one after another; otherwise each may be the first one that is retrained.
        """
        batches = [
            epochs * max(0.0, (number * per_slice - (self.batch_size - 1) / 2) / self.batch_size)
            for number, epochs in enumerate(schedule, start=1)
        ]
        found = []
        for place, (epochs, own) in enumerate(zip(schedule, batches, strict=True)):
            end = MANY if sum(batches[0 if at_once else place :]) >= self.many_steps else ""
            found.append(
                {f"{LEARNED}{end}": 1.0, f"{EPOCHS}{end}": float(epochs), f"{BATCHES}{end}": own, RECORDED: 1.0}
            )
        return found

    def checkpoint_sizes(self, points: float, schedule: Sequence[int]) -> float:
        """Return the bytes of all checkpoints of a shard with so many data points."""
        if self.learned_bytes is not None:
            return self.learned_bytes.at(points)
        before, total = 0, 0.0
        for epochs in schedule:
            before += epochs
            total += self.checkpoint_bytes + before * self.epoch_bytes
        return total


def exact_amounts(
    batch_size: int, many_steps: float, points_per_slice: Sequence[int], epochs: int, *, first: int
) -> dict[str, float]:
    """Return the amounts of training a shard from slice ``first`` on, as a worker that begins with it does."""
    schedule, seen = slice_epochs(epochs, len(points_per_slice)), 0
    amounts: dict[str, float] = {TASKS: 1.0, POINTS_READ: float(sum(points_per_slice))}
    learned: list[tuple[int, int]] = []
    for number, (count, own) in enumerate(zip(points_per_slice, schedule, strict=True), start=1):
        seen += count
        if number >= first:
            learned.append((own, own * (seen // batch_size)))
    end = MANY if sum(batches for _, batches in learned) >= many_steps else ""
    for own, batches in learned:
        step = {f"{LEARNED}{end}": 1.0, f"{EPOCHS}{end}": own, f"{BATCHES}{end}": batches}
        amounts = summed(amounts, step, {RECORDED: 1.0})
    return amounts


def in_federation(amounts: Amounts, all_slices: float, past: float) -> dict[str, float]:
    """Return the amounts with those that follow from the federation's size and from its ended requests."""
    learned, batches = amounts.get(RECORDED, 0.0), amounts.get(BATCH_WORK, 0.0)
    products = {
        IN_ALL: learned * all_slices,
        LEARNED_PAST: learned * past,
        ALL: batches * all_slices,
        PAST: batches * past,
    }
    return {**amounts, **products}


def summed(*amounts: Amounts) -> dict[str, float]:
    """Return the sum of amounts.

    >>> summed({"epochs": 1.0}, {"epochs": 2.0, "tasks": 1.0})
    {'epochs': 3.0, 'tasks': 1.0}
    """
    total: dict[str, float] = {}
    for each in amounts:
        for name, amount in each.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def scaled_amounts(amounts: Amounts, factor: float) -> dict[str, float]:
    """Return so many times the amounts."""
    return {name: amount * factor for name, amount in amounts.items()}


def fitted(works: Sequence[MeasuredWork]) -> tuple[dict[str, float], dict[str, float], float]:
    """Return the seconds of each amount for workers and for the coordinator, and the mean relative error of both."""
    workers, one = _least_squares(works, WORKERS, [work.worker_seconds for work in works])
    coordinator, other = _least_squares(works, COORDINATORS, [work.coordinator_seconds for work in works])
    total = [work.worker_seconds + work.coordinator_seconds for work in works]
    errors = [abs(a + b) / whole for a, b, whole in zip(one, other, total, strict=True) if whole > 0]
    return workers, coordinator, float(np.mean(errors)) if errors else 0.0


def _least_squares(
    works: Sequence[MeasuredWork], names: Iterable[str], seconds: Sequence[float]
) -> tuple[dict[str, float], list[float]]:
    """Return the seconds of each amount, none below 0, and by how much each piece of work differs from them."""
    kept = [name for name in names if any(work.amounts.get(name) for work in works)]
    rows = np.array([[work.amounts.get(name, 0.0) for name in kept] for work in works], dtype=np.float64)
    measured = np.array(seconds, dtype=np.float64)
    if not kept or not len(works):
        return {}, list(measured)
    weights = 1.0 / np.maximum(measured, 1e-3 * max(float(measured.max()), 1e-12))
    found = non_negative(rows * weights[:, None], measured * weights)
    return dict(zip(kept, found.tolist(), strict=True)), list(rows @ found - measured)


def non_negative(rows: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the x without negative numbers for which ``rows`` @ x is closest to ``wanted`` (coordinate descent).

    >>> non_negative(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([2.0, 1.0])).round(3).tolist()
    [1.5, 0.0]
    """
    sizes = np.sqrt((rows**2).sum(axis=0))
    sizes[sizes == 0] = 1.0
    squared, target = (rows / sizes).T @ (rows / sizes), (rows / sizes).T @ wanted
    found = np.zeros(rows.shape[1])
    for _ in range(_ROUNDS):
        moved = 0.0
        for place in range(len(found)):
            if not squared[place, place]:
                continue
            better = max(0.0, found[place] + (target[place] - squared[place] @ found) / squared[place, place])
            moved = max(moved, abs(better - found[place]))
            found[place] = better
        if moved <= _SETTLED * max(1.0, float(np.abs(found).max(initial=0.0))):
            break
    scaled: npt.NDArray[np.float64] = found / sizes
    return scaled
