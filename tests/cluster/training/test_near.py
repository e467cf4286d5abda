"""What this process does by itself, and what it leaves to workers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from cluster.training.near import NearPool
from shards.learners.measuring import MeasureTask
from shards.learners.trainer import SliceLearned, TrainTask
from shards.lineage import Base, CheckpointRecord
from shards.measures import Measures
from shards.slices.files import SliceRecord
from shards.specification import ShardId, SliceIndex
from shards.targets import Class
from storage.digests import sha256
from storage.objects import object_key
from tests.doubles.lineages import lineage_of

_CHECKPOINT = CheckpointRecord(
    slice=SliceIndex(1),
    key=object_key("shards/0000/checkpoints/0001/a.safetensors"),
    sha256=sha256(b""),
    digest=sha256(b""),
    lineage=sha256(b""),
    payload_bytes=1,
    steps=1,
    seconds=1.0,
)


@dataclass
class _Doer:
    """Stands for this process's worker, and for a pool of others."""

    shards: list[int] = field(default_factory=list)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    most: list[int] = field(default_factory=list)
    """For each direct task, the largest number of points for which it is done in this process."""
    leaves: Callable[[TrainTask], TrainTask | None] = lambda _: None
    """Returns what is left of a direct task."""

    def configuration(self, *arguments: Any) -> None:
        self.asked.append(arguments)

    def measure(self, task: MeasureTask) -> Measures:
        assert self.asked == [(task.width, 1, task.configuration)]  # workers that were not asked compute other bits
        return Measures(points=5, metrics={"accuracy": 0.5}, per_class=None)

    def train(self, given: TrainTask | Sequence[TrainTask]) -> Iterator[SliceLearned]:
        for task in [given] if isinstance(given, TrainTask) else given:
            self.shards.append(task.shard)
            yield SliceLearned(shard=task.shard, slice=SliceIndex(1), digest=sha256(b""), checkpoint=None)

    def take_out(self, task: TrainTask, most: int) -> Generator[SliceLearned, None, TrainTask | None]:
        self.most.append(most)
        if (left := self.leaves(task)) is None:
            yield from self.train(task)
        return left


def _slices(points: int) -> tuple[SliceRecord, ...]:
    return (SliceRecord(parts=(), points=points, points_digest=sha256(b""), content_digest=sha256(b"%d" % points)),)


def _task(shard: int, before: int, after: int, width: int = 10) -> TrainTask:
    return TrainTask(
        shard=ShardId(shard),
        slices=_slices(after),
        lineages=(lineage_of(1),),
        width=width,
        scale=1.0,
        base=Base(slices=_slices(before), checkpoint=_CHECKPOINT),
        token=3,
    )


_NEAR = _task(0, 1000, 999)


@pytest.mark.parametrize(
    ("task", "is_near"),
    [
        (_NEAR, True),
        (_task(0, 1000, 1001), True),
        (_task(0, 1000, 900), True),
        (_task(0, 1000, 899), False),
        (_task(0, 50_000, 49_500), True),
        (_task(0, 50_000, 49_499), False),
        (_task(0, 1000, 999, width=2**24 // 1000), True),
        (_task(0, 1000, 999, width=2**24 // 1000 + 1), False),
        (replace(_NEAR, base=None), False),
        (replace(_NEAR, token=None), False),
        (replace(_NEAR, done=(_CHECKPOINT,)), False),
    ],
)
def test_few_points_of_a_shard_that_fits_are_taken_out_here(task: TrainTask, is_near: bool) -> None:
    """Workers do what is long, what starts from nothing, and what proves a constituent."""
    here, workers, started = _Doer(), _Doer(), list[int]()

    def start() -> Any:
        started.append(1)
        return workers

    pool = NearPool(cast("Any", here), start)
    pool.configuration(task.width, 1)
    assert [event.shard for event in pool.train([task])] == [0]
    assert (len(here.shards), len(workers.shards), len(started)) == ((1, 0, 0) if is_near else (0, 1, 1))
    assert here.most == (
        [max(100, sum(each.points for each in task.base.slices) // 100)] if is_near and task.base else []
    )


@pytest.mark.parametrize("leaves", [lambda task: task, lambda task: replace(task, slices=_slices(998))])
def test_workers_do_what_this_process_leaves(leaves: Callable[[TrainTask], TrainTask]) -> None:
    """The task itself where the learner has to learn from nothing, another one where it was superseded."""
    here, workers = _Doer(leaves=leaves), _Doer()
    pool = NearPool(cast("Any", here), lambda: cast("Any", workers))
    assert [event.shard for event in pool.train([_NEAR])] == [0]
    assert (here.shards, workers.shards) == ([], [0])


def test_workers_that_are_needed_are_asked_for_the_conditions_of_the_tasks() -> None:
    """They start as many as there are tasks for them."""
    here, workers = _Doer(), _Doer()
    far = [_task(shard, 1000, 500) for shard in (1, 3)]
    pool = NearPool(cast("Any", here), lambda: cast("Any", workers))
    assert [event.shard for event in pool.train([far[0], _task(2, 10, 9), far[1]])] == [2, 1, 3]
    assert workers.asked == [(10, 2, lineage_of(1).configuration)]


def test_workers_measure_under_the_conditions_of_the_generation() -> None:
    """Measuring takes longer than to take a point out, and may be the first thing that workers are needed for."""
    workers = _Doer()
    pool = NearPool(cast("Any", _Doer()), lambda: cast("Any", workers))
    task = MeasureTask(
        constituents=(),
        holdout=(),
        width=10,
        scale=1.0,
        target=Class(names=("a", "b")),
        rule="majority_vote",
        configuration=lineage_of(1).configuration,
    )
    assert pool.measure(task).points == 5
