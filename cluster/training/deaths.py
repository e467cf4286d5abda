"""Why workers fail, and when a task that loses them is given up. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

from shards.learners.trainer import TrainTask
from storage.errors import Unavailable

MOST_DEATHS: Final = 3
"""A task is given up after this many deaths of its workers without learning a slice in between."""

MOST_LOSSES: Final = 30
"""A task is given up after losing this many workers through no fault of its own, such as with their nodes."""

MOST_MISMATCHES: Final = 10
"""A task is given up after this many workers in a row that compute other bits than it needs."""


class WorkerEnd(Enum):
    """How a worker was lost; the value says it for people."""

    DIED = "a worker died"
    LOST = "a worker was lost with its node"
    ABSENT = "a worker did not come up"


def end_of_worker(error: RayError, node: str | None, lost: Collection[str]) -> WorkerEnd:
    """Return how the worker that failed with ``error`` was lost.

    ``node`` is where it was, None when it died before reporting it; ``lost`` are the nodes that the cluster lost.
    """
    if isinstance(error, ActorUnavailableError):
        return WorkerEnd.LOST  # if only the worker had died, its node would have reported it
    if node in lost or (isinstance(error, ActorDiedError) and error.preempted):
        return WorkerEnd.LOST
    return WorkerEnd.ABSENT if node is None else WorkerEnd.DIED


@dataclass(frozen=True, slots=True, kw_only=True)
class Deaths:
    """How often a task lost its worker since it last learned a slice."""

    crashes: int = 0
    """Deaths of workers that had started, on nodes that stayed alive: the task may be the cause."""
    losses: int = 0
    """All other deaths."""
    mismatches: int = 0
    """Workers that compute other bits."""

    def and_one(self, end: WorkerEnd) -> Deaths:
        """Return the counts with one more death."""
        if end is WorkerEnd.DIED:
            return replace(self, crashes=self.crashes + 1)
        return replace(self, losses=self.losses + 1)

    def too_many(self, task: TrainTask) -> Unavailable | None:
        """Return the error with which ``task`` is given up; None while it is not."""
        if self.crashes >= MOST_DEATHS:
            fact, where = f"workers died {MOST_DEATHS} times in a row", "memory and Ray's logs"
        elif self.losses >= MOST_LOSSES:
            fact, where = f"workers were lost {MOST_LOSSES} times in a row", "the cluster's nodes with 'ray status'"
        else:
            return None
        return Unavailable(
            f"{fact} while training one slice",
            f"Check {where}, then run 'sisa train' to continue from the last checkpoint.",
            shard=task.shard,
            slice=len(task.done) + 1,
        )
