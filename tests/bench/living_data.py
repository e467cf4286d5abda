"""Data that live: a source that grows by 1 % a week, and corrections of 1 %, beside the closed form's cost.

Run it with ``python -m tests.bench.living_data [weeks]``. The work is counted, in data points seen per epoch, so other
processes on the machine do not matter; a learner that only hashes stands in for a model.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from statistics import mean
from typing import Final

from coordinator.ports import Notice
from deploy.views.tables import table
from shards.cost import batch_fraction, training_point_epochs
from shards.learners.trainer import SliceLearned
from shards.schedule import slice_epochs
from shards.specification import TrainingSettings
from storage.stores.memory import MemoryStore
from tests.doubles.federation import Point, SmallFederation, plain_conditions, specification_of
from tests.doubles.workers.fake_learner import HashLearner, HashState

POINTS: Final = 3_000
EACH: Final = 3
"""Data points of a person."""
WEEKLY: Final = POINTS // 100 // EACH
"""New people a week, with 1 % of the data points at the start."""
SHAPES: Final = ((5, 5, 6), (20, 10, 11))
"""Shards, slices, and epochs of which every slice gets two."""


@dataclass(slots=True)
class Work:
    """A federation whose work is counted."""

    federation: SmallFederation[HashState]
    epochs: int
    done: int = 0

    def __call__(self, notice: Notice) -> None:
        """Count the data points that a slice's epochs have seen."""
        if isinstance(notice, SliceLearned):
            slices = self.federation.state.shards[notice.shard].slices
            seen = sum(record.points for record in slices[: notice.slice])
            self.done += seen * slice_epochs(self.epochs, len(slices))[notice.slice - 1]

    def share(self) -> float:
        """Return the work since the last call, as a share of a full training."""
        shards = self.federation.state.shards
        schedule = slice_epochs(self.epochs, len(shards[0].slices))
        full = sum(training_point_epochs([each.points for each in shard.slices], schedule) for shard in shards)
        share, self.done = self.done / full, 0
        return share


def main() -> None:
    """Measure, and print a table."""
    weeks = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    print(
        f"{POINTS:,} data points of {POINTS // EACH:,} people; {WEEKLY} people a week, {weeks} weeks; means", flush=True
    )
    lines = [_measured(*shape, weeks) for shape in SHAPES]
    print(table(("shards × slices", "closed form", "appended", "ratio", "corrected", "ratio"), lines))


def _measured(shards: int, slices: int, epochs: int, weeks: int) -> tuple[str, ...]:
    specification = specification_of(
        shards=shards, slices=slices, training=TrainingSettings(epochs=epochs, batch_size=16, learning_rate=0.1)
    )
    federation: SmallFederation[HashState] = SmallFederation(
        specification=specification,
        store=MemoryStore(f"living-{shards}-{slices}"),
        learners=lambda _: HashLearner(slices=slices, training_epochs=epochs),
        conditions=lambda _: plain_conditions(specification),
    )
    work = Work(federation, epochs)
    federation.listener = work
    points = [_point(number) for number in range(POINTS)]
    federation.train(points)
    work.share()
    appended, corrected = [], []
    for week in range(weeks):
        points += [_point(len(points) + number) for number in range(WEEKLY * EACH)]
        federation.train(points)
        appended.append(work.share())
        first = week * WEEKLY * EACH
        for number in range(first, first + WEEKLY * EACH):
            points[number] = replace(points[number], label="a", features=(0.5, float(week)))
        federation.rectify(points[first : first + WEEKLY * EACH], request_id=f"week-{week}")
        corrected.append(work.share())
    expected = batch_fraction(shards, slices, WEEKLY)
    return (
        f"{shards} × {slices}",
        f"{expected:.3f}",
        *(f"{value:.3f}" for share in (appended, corrected) for value in (mean(share), mean(share) / expected)),
    )


def _point(number: int) -> Point:
    return Point(
        id=f"p{number}", subject=f"person-{number // EACH}", label="ab"[number % 2], features=(float(number), 1.0)
    )


if __name__ == "__main__":
    main()
