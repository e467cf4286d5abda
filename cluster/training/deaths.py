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
"""A task whose worker dies so often without learning a slice in between is given up."""

MOST_LOSSES: Final = 30
"""So for a task that loses its worker by no fault of its own: nodes are taken away for reasons of others."""

MOST_MISMATCHES: Final = 10
"""So many workers in a row may compute other bits than the task needs; then it is given up."""


class WorkerEnd(Enum):
    """What became of a worker, in words."""

    DIED = "a worker died"
    LOST = "a worker was lost with its node"
    ABSENT = "a worker did not come up"


def end_of_worker(error: RayError, node: str | None, lost: Collection[str]) -> WorkerEnd:
    """Return what became of a worker that failed with ``error``.

    ``node`` is where it was, None when it died before it could say so; ``lost`` are the nodes that the cluster lost.
    """
    if isinstance(error, ActorUnavailableError):
        return WorkerEnd.LOST  # the node of a worker that died alone would have said so
    if node in lost or (isinstance(error, ActorDiedError) and error.preempted):
        return WorkerEnd.LOST
    return WorkerEnd.ABSENT if node is None else WorkerEnd.DIED


@dataclass(frozen=True, slots=True, kw_only=True)
class Deaths:
    """How often a task lost its worker since it last learned a slice."""

    crashes: int = 0
    """Of workers that had begun, on nodes that lived on: the task may be the cause."""
    losses: int = 0
    """All others."""
    mismatches: int = 0
    """Of workers that compute other bits."""

    def and_one(self, end: WorkerEnd) -> Deaths:
        """Return what it comes to with another one."""
        if end is WorkerEnd.DIED:
            return replace(self, crashes=self.crashes + 1)
        return replace(self, losses=self.losses + 1)

    def too_many(self, task: TrainTask) -> Unavailable | None:
        """Return why ``task`` is given up; None while it is not."""
        if self.crashes >= MOST_DEATHS:
            fact, where = f"workers died {MOST_DEATHS} times in a row", "memory and Ray's logs"
        elif self.losses >= MOST_LOSSES:
            fact, where = f"workers were lost {MOST_LOSSES} times in a row", "the cluster's nodes with 'ray status'"
        else:
            return None
        return Unavailable(
            f"{fact} while training one slice",
            f"Check {where}, then run 'sisa train' to go on from the last checkpoint.",
            shard=task.shard,
            slice=len(task.done) + 1,
        )
