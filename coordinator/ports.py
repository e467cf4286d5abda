"""The interfaces that the coordinator needs: workers, a reader of data, clock, names, and a listener."""

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
    """Time, passed as an argument so that tests can control it."""

    def now(self) -> datetime:
        """Return the wall-clock time, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        ...


Ingestion = Callable[[IngestTask], IngestResult]
"""Reads a source into slice files, in one or several processes. Returns and raises as ``ingest`` does."""


class WorkerPool(Protocol):
    """Workers that train constituents."""

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return the conditions on these workers that decide the bits of a trained constituent.

        ``tasks`` is how many tasks will follow; ``stored`` are the conditions that the constituents were trained under.
        Workers that cannot reproduce those are not used. If no worker can, the largest group of equal workers is used.
        Raises ``Invalid`` when the model cannot be built or does not fit ``width`` features.
        """
        ...

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks, concurrently on the available workers, and yield what happens.

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
    at_once: bool = False
    """Whether the learner learns all slices of a shard together, which count as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMoved:
    """An erasure request has reached another state."""

    request: ErasureRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A message for a person."""

    text: str


Notice = IngestProgress | TrainingStarted | TrainingEvent | RequestMoved | Remark

Listener = Callable[[Notice], None]
"""Receives progress; it does not influence the work."""


def ignore_notice(_: object) -> None:
    """Do nothing. Implements ``Listener`` for those who report to no one."""
