"""The worker pool without Ray: tasks one after another, in this process, with deaths by plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, Literal

from coordinator.engine.tasks import revised_task
from shards.learners.protocol import Learner, State
from shards.learners.trainer import ConstituentTrainer, SliceLearned, TrainingEvent, TrainTask
from shards.lineage import Configuration
from storage.objects import ObjectStore
from tests.doubles.time_and_names import VirtualClock

Death = Literal["before_telling", "after_telling"]
"""Whether the event at which a worker dies is lost with it, its checkpoint written but never told of, or still told."""


@dataclass(slots=True, kw_only=True)
class InProcessPool(Generic[State]):
    """Implements ``coordinator.ports.WorkerPool``.

    The clock moves a second at every reading, so that every epoch is an event.
    """

    learners: Callable[[int], Learner[State]]
    """Returns the learner for so many features."""
    conditions: Callable[[int], Configuration]
    """Returns what decides the bits for so many features."""
    store: ObjectStore
    names: Callable[[], str]
    deaths: Mapping[int, Death] = field(default_factory=dict)
    """At which events, counted from 0 over the pool's whole life, a worker dies."""
    events: int = 0
    """Events so far, the lost ones included."""
    slices_learned: int = 0
    """How many slices workers have learned, the lost ones included."""

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return what decides the bits."""
        return self.conditions(width)

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks; where a worker dies another one goes on after the last slice told of."""
        for task in tasks:
            yield from self._train(task)

    def _train(self, task: TrainTask) -> Iterator[TrainingEvent]:
        working = self._start(task)
        while True:
            event = next(working, None)
            if event is None:
                return
            death = self.deaths.get(self.events)
            self.events += 1
            self.slices_learned += isinstance(event, SliceLearned)
            if death != "before_telling":
                if isinstance(event, SliceLearned) and event.checkpoint is not None:
                    task = replace(task, done=(*task.done, event.checkpoint))
                yield event
            if death is not None:
                working = self._start(task)

    def _start(self, task: TrainTask) -> Iterator[TrainingEvent]:
        trainer: ConstituentTrainer[State] = ConstituentTrainer(
            learner=self.learners(task.width),
            store=self.store,
            names=self.names,
            clock=VirtualClock().monotonic,
            revised=partial(revised_task, self.store),
        )
        return trainer.train(task)
