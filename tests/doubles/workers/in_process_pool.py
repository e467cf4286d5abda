"""A worker pool without Ray: does tasks one after another, in this process, with planned deaths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Literal

from coordinator.engine.tasks import Revisions
from shards.learners.protocol import Learner, State
from shards.learners.trainer import ConstituentTrainer, SliceLearned, TrainingEvent, TrainTask
from shards.lineage import Configuration
from storage.objects import ObjectStore
from tests.doubles.time_and_names import VirtualClock

Death = Literal["before_telling", "after_telling"]
"""Whether the event at which a worker dies is lost, with its checkpoint written but not reported, or still reported."""


@dataclass(slots=True, kw_only=True)
class InProcessPool(Generic[State]):
    """Implements ``coordinator.ports.WorkerPool``.

    The clock advances a second at every reading, so that every epoch is an event.
    """

    learners: Callable[[int], Learner[State]]
    """Returns the learner for a number of features."""
    conditions: Callable[[int], Configuration]
    """Returns the configuration for a number of features."""
    store: ObjectStore
    names: Callable[[], str]
    deaths: Mapping[int, Death] = field(default_factory=dict)
    """The events, counted from 0 over the pool's lifetime, at which a worker dies."""
    events: int = 0
    """Events so far, including lost ones."""
    slices_learned: int = 0
    """Number of slices that workers have trained, including lost ones."""

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Return the configuration."""
        return self.conditions(width)

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Perform the tasks; when a worker dies, another one continues after the last slice reported."""
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
            new_name=self.names,
            seconds=VirtualClock().monotonic,
            revised=Revisions(self.store),
        )
        return trainer.train(task)
