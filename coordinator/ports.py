"""What the coordinator needs from outside: workers, someone who reads data, time, and someone to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from coordinator.requests import ErasureRequest
from shards.learners.trainer import TrainingEvent, TrainTask
from shards.lineage import Configuration
from shards.slices.ingest import IngestResult, IngestTask
from shards.specification import ShardId


class Clock(Protocol):
    """Time, given by argument so that tests can hold it."""

    def now(self) -> datetime:
        """Return the wall-clock time, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        ...


Ingestion = Callable[[IngestTask], IngestResult]
"""Reads a source into slice files: in this process, or by many. Returns and raises as ``ingest`` does."""


class WorkerPool(Protocol):
    """Workers that train constituents."""

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return what decides the bits of a constituent trained here and now, as the workers see it.

        ``tasks`` is how many tasks are about to follow; ``stored`` is what the constituents were trained under. Workers
        that would not repeat it are not used. Where none would, the largest group of equal workers is used. Raises
        ``Invalid`` when the model cannot be made or does not fit ``width`` features.
        """
        ...

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks, side by side as far as there are workers, yielding what happens.

        A worker that dies is replaced and its task continues after the last slice it reported. A slice may be
        reported twice. Raises what a worker raised; ``Unavailable`` when workers keep dying.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestProgress:
    """``points`` data points are read."""

    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStarted:
    """These shards are about to be trained, from the slice after ``done`` on."""

    shards: tuple[tuple[ShardId, int], ...]
    slices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMoved:
    """An erasure request has reached another state."""

    request: ErasureRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something a person should know, in words."""

    text: str


Notice = IngestProgress | TrainingStarted | TrainingEvent | RequestMoved | Remark

Listener = Callable[[Notice], None]
"""Receives progress; its work changes nothing."""
