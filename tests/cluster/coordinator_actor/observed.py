"""A small federation to observe, and a meter that remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

from cluster.coordinator_actor.metrics import Metric
from coordinator.ports import Listener
from storage.stores.memory import MemoryStore
from tests.doubles.federation import Point, SmallFederation, plain_conditions, specification_of
from tests.doubles.workers.fake_learner import HashLearner, HashState

WHO = "secret-person"
"""A text that every name of a person or of a data point contains."""

POINTS = [
    Point(id=f"{WHO}-point-{n}", subject=f"{WHO}-{n // 3}", label="ab"[n % 2], features=(float(n), 1.0))
    for n in range(60)
]
_SPECIFICATION = specification_of(shards=2, slices=3)
_STORES = count()


@dataclass(slots=True)
class Remembered:
    """Implements ``cluster.coordinator_actor.metrics.Meter``."""

    values: dict[tuple[str, tuple[str, ...]], float] = field(default_factory=dict)
    """The last value of each gauge, by its name and the values of its labels."""
    measured: dict[str, list[float]] = field(default_factory=dict)

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Remember the value."""
        assert metric.kind == "gauge"
        assert tuple(labels) == metric.labels
        self.values[metric.name, tuple(labels.values())] = value

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Remember the measurement."""
        assert metric.kind == "histogram"
        assert tuple(labels) == metric.labels
        self.measured.setdefault(metric.name, []).append(value)

    def value(self, metric: Metric, *labels: str) -> float:
        """Return the last value of the federation ``small``."""
        return self.values[metric.name, ("small", *labels)]


def trained(listener: Listener = lambda _: None) -> SmallFederation[HashState]:
    """Return a trained federation named ``small``."""
    made: SmallFederation[HashState] = SmallFederation(
        specification=_SPECIFICATION,
        store=MemoryStore(f"observed-{next(_STORES)}"),
        learners=lambda _: HashLearner(slices=3),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
        listener=listener,
    )
    made.train(POINTS)
    return made
