"""Many simulations: what they came to together, and that everything has happened that they are there for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.doubles.remembered import remembering
from tests.simulation.simulate import simulate

HAPPEN = (
    "operations",
    "acknowledged",
    "entries shared",
    "engines started",
    "engines started beside others",
    "Fenced",
    "processes died",
    "dies before",
    "dies after",
    "dies, arrives later",
    "clients cut off",
    "OutcomeUnknown",
    "unknown, done",
    "unknown, not done",
    "unknown, arrives later",
    "Unavailable",
    "twice",
    "late, done",
    "late, refused",
    "sleeps",
    "workers killed",
    "workers forsaken",
    "workers fenced",
    "superseded",
    "folded in",
    "waits for a batch",
    "hold",
    "release",
    "extend",
    "cancel",
    "refused by policy",
    "refused another body",
    "readings",
    "similar erased",
    "similar left",
    "readmitted",
    "readmitted again",
    "nobody to readmit",
    "back with new points",
    "back without erased points",
    "kept out under another name",
    "segments merged",
    "segments side by side",
    "history kept",
    "requests left the state",
    "buckets parted",
)
"""What has to happen in some hundreds of simulations, or they would hold no law."""


@dataclass(slots=True)
class Tally:
    """What some simulations came to."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.seeds + other.seeds, self.counts + other.counts)

    def __str__(self) -> str:
        told = ", ".join(f"{self.counts[kind]:,} {kind}" for kind in HAPPEN)
        return f"{self.seeds:,} seeds: {told}"

    @property
    def missing(self) -> list[str]:
        """What has not happened."""
        return [kind for kind in HAPPEN if not self.counts[kind]]


def run(seeds: Iterable[int]) -> Tally:
    """Carry out what these seeds make happen. Raises ``Failure`` at the first that breaks a law."""
    tally = Tally()
    with remembering():
        for seed in seeds:
            outcome = simulate(seed)
            tally.seeds += 1
            tally.counts.update(outcome.counts)
            tally.counts["operations"] += len(outcome.trace)
    return tally
