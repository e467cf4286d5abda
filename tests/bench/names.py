"""What names cost: ``python -m tests.bench.names [PAIRS]``.

Ingest with forms and skeletons against names taken as they are given (as 0.1 took them), for subjects with many data
points, with one each, and with names that are not ASCII; and removing one person from a federation that has erased
nobody, or a million. Each pair is measured side by side, in turns; CPU time, and its ratio's median and range.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from statistics import median

import numpy as np
import pyarrow as pa

from coordinator.engine.removal import removal_events, with_tombstones
from coordinator.requests import ErasureRequest
from coordinator.state import FederationState
from deploy.views.tables import table
from shards.data.sources import table_source
from shards.routing import AS_GIVEN, Naming
from shards.slices.ingest import IngestTask, ingest
from shards.specification import DataSettings, PartitionSettings
from shards.tombstones import DigestSet
from storage.stores.memory import MemoryStore
from tests.doubles.federation import (
    KEY,
    NAMING,
    Point,
    SmallFederation,
    names_of,
    plain_conditions,
    specification_of,
)
from tests.doubles.workers.fake_learner import HashLearner, HashState

POINTS = 100_000
FEATURES = 16
ERASED = 1_000_000

_NUMBERS = count()

KINDS: dict[str, Callable[[int], str]] = {
    "20 data points a person": lambda n: f"person-{n // 20:06d}@example.org",
    "one data point a person": lambda n: f"person-{n:06d}@example.org",
    "one each, numbers": str,
    "one each, not ASCII": lambda n: f"Zoë Ångström {n}",
}


def cpu_seconds(act: Callable[[], object]) -> float:
    """Return the processor time that ``act`` takes."""
    started = time.process_time()
    act()
    return time.process_time() - started


def ingest_once(people: pa.Table, naming: Naming) -> None:
    """Read the table into a store in memory."""
    store, number = MemoryStore(f"bench-{next(_NUMBERS)}"), count()
    task = IngestTask(
        source=table_source(people),
        data=DataSettings(train="-", id="id", subject="person", label="label", features=("x*",), classes=("a", "b")),
        partition=PartitionSettings(shards=5, slices=5),
        key=KEY,
        naming=naming,
        store=store,
        tombstones=DigestSet,
        new_name=lambda: f"n{next(number)}",
    )
    ingest(task)
    store.forget()


def people_of(name: Callable[[int], str]) -> pa.Table:
    """Return data points of people with such names."""
    generator = np.random.default_rng(1)
    columns: dict[str, pa.Array] = {
        "id": pa.array([f"point-{n}" for n in range(POINTS)]),
        "person": pa.array([name(n) for n in range(POINTS)]),
        "label": pa.array(["ab"[n % 2] for n in range(POINTS)]),
    }
    columns |= {f"x{n}": pa.array(generator.integers(0, 255, POINTS, dtype=np.uint8)) for n in range(FEATURES)}
    return pa.table(columns)


def compare(pairs: int, one: Callable[[], object], other: Callable[[], object]) -> tuple[float, str]:
    """Return the median CPU seconds of ``one``, and how ``other`` compares with it."""
    measured = [(cpu_seconds(one), cpu_seconds(other)) for _ in range(pairs)]
    ratios = sorted(b / a for a, b in measured)
    return median(a for a, _ in measured), f"{median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})"


def federation_with(erased: int) -> tuple[SmallFederation[HashState], FederationState]:
    """Return a small federation, and its state with so many tombstones."""
    specification = specification_of(shards=2, slices=3)
    made: SmallFederation[HashState] = SmallFederation(
        specification=specification,
        store=MemoryStore(f"bench-{next(_NUMBERS)}"),
        learners=lambda _: HashLearner(slices=3),
        conditions=lambda _: plain_conditions(specification),
    )
    made.train([Point(id=f"p{n}", subject=f"s{n}", label="a", features=(float(n), 1.0)) for n in range(300)])
    if not erased:
        return made, made.state
    joined = np.random.default_rng(2).bytes(16 * erased)
    segments = with_tombstones(made.store, made.names, (), DigestSet.joined(subjects=joined))
    return made, replace(made.state, segments=segments)


def remove_one(made: SmallFederation[HashState], state: FederationState, name: str) -> None:
    """Find a person's data points and write their slice without them."""
    names = names_of([name], [])
    request = ErasureRequest(
        request_id=name,
        body=names.digest(),
        names=None,
        subjects=1,
        ids=0,
        received_at="2026-01-01T00:00:00+00:00",
        due_at="2026-01-01T00:00:00+00:00",
    )
    tuple(removal_events(made.store, made.names, state, [(request, names)], "2026-01-01T00:00:00+00:00"))


def main(pairs: int) -> None:
    """Measure and print tables."""
    lines: list[tuple[str, str, str]] = []
    for kind, name in KINDS.items():
        people = people_of(name)
        seconds, ratio = compare(pairs, partial(ingest_once, people, AS_GIVEN), partial(ingest_once, people, NAMING))
        lines.append((kind, f"{POINTS / seconds:,.0f}/s", ratio))
    print(table(("ingest", "as given", "forms and skeletons"), lines))
    few, many = federation_with(0), federation_with(ERASED)
    people_left = iter(range(300))
    seconds, ratio = compare(
        max(pairs, 20),
        lambda: remove_one(*few, f"s{next(people_left)}"),
        lambda: remove_one(*many, f"s{next(people_left)}"),
    )
    print(
        table(
            ("removing one person", "0 erased before", f"{ERASED:,} before"), [("", f"{seconds * 1e3:.2f} ms", ratio)]
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
