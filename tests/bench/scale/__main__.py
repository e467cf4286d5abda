"""What depends on the number of shards, requests and workers: ``python -m tests.bench.scale [most shards]``.

The federations are made up (``made_up``); everything that is measured is the engine's own, in one process,
in a folder. Times are seconds of this process's processor; beside them, those that passed, with waiting for the disk.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from typing import Final

from cluster.config.specification import settings_record
from coordinator.engine.ledger import read_state
from coordinator.receipts.rollback import forgotten_by
from coordinator.requests import RequestState
from coordinator.status import describe_federation
from deploy.views.tables import table
from tests.bench.scale.made_up import made_up_federation
from tests.bench.scale.planning import report_planning
from tests.doubles.federation import SmallFederation, plain_conditions
from tests.doubles.workers.fake_learner import HashState
from tests.simulation.throughput import Throughput, ThroughputSimulation

SLICES: Final = 20
REPEATS: Final = 3
WORKERS: Final = (1, 10, 100, 1000)
BATCH: Final = 300
_PEOPLE: Final = 64
_Small = SmallFederation[HashState]


def main() -> None:
    """Measure, and print tables."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    report_sizes([shards for shards in (10, 100, 1_000, 10_000) if shards <= most])
    report_planning()
    report_throughput(min(most, WORKERS[-1]))


def report_sizes(sizes: list[int]) -> None:
    """Print what single steps take with so many shards."""
    columns = [_measured(shards) for shards in sizes]
    lines = [(name, *(column[name] for column in columns)) for name in columns[0]]
    print(table((f"{SLICES} slices a shard", *(f"{shards:,} shards" for shards in sizes)), lines))


def _measured(shards: int) -> dict[str, str]:
    """Return the medians of each step, which begins with the erasure of one person at a time."""
    with made_up_federation(shards, SLICES, _PEOPLE) as small:
        people = count()
        steps: dict[str, Callable[[], object]] = {
            "status, from the store": lambda: _status(small),
            "status, of the coordinator's state": lambda: _described(small),
            "erase one, to complete": lambda: _erase(small, next(people)),
            "train, with nothing to do": lambda: _train(small),
            "start of a writer": lambda: _start(small),
        }
        found = {}
        for name, step in steps.items():
            watch = StepTimes()
            for _ in range(REPEATS):
                watch.time(step)
            found[name] = watch.text
        manifest = max(info.payload_bytes for info in small.store.list("manifest/"))
        found["objects"] = f"{sum(1 for _ in small.store.list('')):,}"
        found["manifest, MB"] = f"{manifest / 1e6:.2f}"
        found["process's peak, MiB"] = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}"
        return found


@dataclass(slots=True)
class StepTimes:
    """Times of a step that was repeated."""

    _times: list[tuple[float, float]] = field(default_factory=list)

    def time(self, step: Callable[[], object]) -> None:
        """Do the step once."""
        busy, passed = time.process_time(), time.perf_counter()
        step()
        self._times.append((time.process_time() - busy, time.perf_counter() - passed))

    @property
    def text(self) -> str:
        """The median of processor time, and of the time that passed."""
        busy, passed = (median(each) for each in zip(*self._times, strict=True))
        return f"{busy:.3f} ({passed:.2f})"


def _status(small: _Small) -> None:
    state = read_state(small.store)
    assert state is not None
    describe_federation(state, "bench", small.clock.now())
    assert forgotten_by(small.store, lambda: state) == ()


def _described(small: _Small) -> None:
    describe_federation(small.state, "bench", small.clock.now())


def _erase(small: _Small, number: int) -> None:
    assert small.erase(subjects=[f"s{number}"], request_id=f"erase-{number}").state is RequestState.COMPLETE


def _train(small: _Small) -> None:
    """Do what ``Writer.train`` does where source and settings are those of the last training."""
    engine = small.engine
    assert engine.audit() == frozenset()
    engine.remove_points()
    engine.configure(settings_record(small.specification), plain_conditions(small.specification))
    engine.settle()


def _start(small: _Small) -> None:
    small.restart()
    assert small.engine.state.data is not None


def report_throughput(shards: int) -> None:
    """Print how many erasures a second so many simulated workers allow, and what the coordinator does meanwhile."""
    with ThroughputSimulation(shards=shards, slices=4, people=8 * shards) as simulation:
        found = [simulation.erase(min(BATCH, shards), workers) for workers in WORKERS]
    print(f"\n{found[0].erasures} requests that wait, {shards:,} shards × 4 slices, a second a slice, virtual time")
    print(table(("workers", "erasures a second", "waits for workers", *_PHASES), list(map(_line, found))))


_PHASES: Final = ("removing points", "training", "purging", "receipts")


def _line(found: Throughput) -> tuple[object, ...]:
    phases = (f"{found.phases.get(phase, 0.0):.2f} s" for phase in _PHASES)
    return found.workers, round(found.erasures / found.seconds, 1), f"{found.waited / found.seconds:.0%}", *phases


if __name__ == "__main__":
    main()
