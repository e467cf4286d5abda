"""The planner with a million requests: ``python -m tests.bench.scale.planning [requests]``.

The state is made up: 10,000 trained shards × 20 slices, the data points of all requests are removed. Settings allow
4,096 shards; the planner does not ask. It measures routing, the expected cost of each request alone, the plan of the
batch, its moment, and the closed form.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from coordinator.decisions.batching import plan_batch, retrain_start
from coordinator.decisions.plan import RetrainPlanner
from coordinator.requests import ErasureRequest, Found, RequestState
from coordinator.settings import ErasureSettings
from coordinator.state import DataState, FederationState, ShardState
from deploy.views.tables import table
from shards.cost import batch_fraction
from shards.lineage import CheckpointRecord
from shards.routing import SliceId, slice_numbers
from shards.slices.files import PartRecord, SliceRecord
from shards.slices.ingest import FeatureLayout
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256
from storage.objects import ObjectKey
from tests.doubles.federation import NAMING, plain_conditions, specification_of

SHARDS: Final = 10_000
SLICES: Final = 20
EPOCHS: Final = 20
POINTS: Final = 100
"""Data points in each slice."""
AT: Final = "2026-01-01T00:00:00.000+00:00"
DUE: Final = "2026-01-31T00:00:00.000+00:00"


def main() -> None:
    """Measure, and print a table."""
    report_planning(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)


def report_planning(requests: int = 1_000_000) -> None:
    """Print the processor time of each step, and the process's peak of memory."""
    lines: list[tuple[str, str]] = []

    def timed(name: str, step: Callable[[], Any]) -> Any:
        began = time.process_time()
        found = step()
        lines.append((name, f"{time.process_time() - began:.2f} s"))
        return found

    subjects = np.random.default_rng(7).bytes(16 * requests)
    numbers_N = timed("routing", lambda: slice_numbers(np.frombuffer(subjects, "V16"), SHARDS, SLICES, NAMING))
    state = planned_state(SHARDS, SLICES)
    planner = RetrainPlanner(state, EPOCHS)
    places = [SliceId(ShardId(int(each) // SLICES), SliceIndex(int(each) % SLICES + 1)) for each in numbers_N]
    costs = timed("the expected cost of each request alone", lambda: [planner.retrains({each: 1}) for each in places])
    assert all(retrain.point_epochs for (retrain,) in costs)
    del costs
    counts_P = np.bincount(numbers_N, minlength=SHARDS * SLICES)
    erased = {SliceId(ShardId(n // SLICES), SliceIndex(n % SLICES + 1)): int(c) for n, c in enumerate(counts_P) if c}
    whole = timed("the plan of all data points together", lambda: planner.plan(erased))
    state = replace(state, requests=tuple(map(_request, range(requests), places)))
    batch = timed("the batch of the state's requests", lambda: plan_batch(state, EPOCHS))
    timed("the moment of its retrain", lambda: retrain_start(state, ErasureSettings(batch="until_due")))
    timed("the closed form", lambda: batch_fraction(SHARDS, SLICES, requests))
    assert [each.from_slice for each in batch.shards] == [each.from_slice for each in whole.shards]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines.append(("peak of the process, state and requests included", f"{peak:,.0f} MiB"))
    print(table((f"\n{requests:,} requests, {SHARDS:,} shards × {SLICES} slices", "processor"), lines))


def planned_state(shards: int, slices: int) -> FederationState:
    """Return the state of a trained federation of this size."""
    zero = Sha256("0" * 64)

    def part(key: str) -> PartRecord:
        return PartRecord(key=ObjectKey(key), sha256=zero, points=POINTS, payload_bytes=1)

    def own(number: int) -> ShardState:
        return ShardState(
            slices=tuple(
                SliceRecord(
                    parts=(
                        PartRecord(key=ObjectKey(f"shards/{number}/{n}"), sha256=zero, points=POINTS, payload_bytes=1),
                    ),
                    points=POINTS,
                    points_digest=zero,
                    content_digest=zero,
                )
                for n in range(slices)
            ),
            chain=tuple(
                CheckpointRecord(
                    slice=SliceIndex(n + 1),
                    key=ObjectKey(f"shards/{number}/checkpoints/{n}"),
                    sha256=zero,
                    digest=zero,
                    lineage=zero,
                    payload_bytes=1,
                    steps=1,
                    seconds=1.0 + n,
                )
                for n in range(slices if number else slices - 1)  # one shard is not trained: a batch is owed
            ),
        )

    layout = FeatureLayout(width=2, dtype="float32", features=("x0", "x1"))
    return FederationState(
        name="bench",
        settings={"training": {"epochs": EPOCHS}},
        key_digest=zero,
        shards=tuple(map(own, range(shards))),
        data=DataState(layout=layout, inventory=(), taken={}, refused=0),
        configuration=plain_conditions(specification_of(shards=1, slices=slices)),
    )


def _request(number: int, place: SliceId) -> ErasureRequest:
    return ErasureRequest(
        request_id=f"er-{number}",
        body=Sha256(f"{number:064x}"),
        names=None,
        subjects=1,
        ids=0,
        received_at=AT,
        due_at=DUE,
        state=RequestState.QUARANTINED,
        found=Found(points=1, from_slices={place.shard: place.slice}),
        times={"accepted": AT, "quarantined": AT},
    )


if __name__ == "__main__":
    main()
