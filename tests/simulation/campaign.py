"""Many simulations: their total counts, and a check that every kind of event has occurred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.doubles.remembered import remembering
from tests.simulation.simulate import simulate

EVENTS = (
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
    "workers abandoned",
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
    "hold-out points erased",
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
    "receipts packed",
)
"""Events that must occur in some hundreds of simulations; otherwise these would prove nothing."""


@dataclass(slots=True)
class Totals:
    """Total counts of some simulations."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.seeds + other.seeds, self.counts + other.counts)

    def __str__(self) -> str:
        counts = ", ".join(f"{self.counts[kind]:,} {kind}" for kind in EVENTS)
        return f"{self.seeds:,} seeds: {counts}"

    @property
    def missing(self) -> list[str]:
        """The events that have not occurred."""
        return [kind for kind in EVENTS if not self.counts[kind]]


def run(seeds: Iterable[int]) -> Totals:
    """Run the simulations of these seeds. Raises ``LawBroken`` at the first one that breaks a law."""
    totals = Totals()
    with remembering():
        for seed in seeds:
            outcome = simulate(seed)
            totals.seeds += 1
            totals.counts.update(outcome.counts)
            totals.counts["operations"] += len(outcome.trace)
    return totals
