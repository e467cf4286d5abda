"""Whether ``sisa plan --optimise`` predicts what is then measured: ``python -m tests.bench.plan [ROUNDS] [MODEL ...]``.

In each round the pace is measured first, as the command does. Then federations are trained and erased from for real, in
one process with encrypted stores, and compared in processor seconds and in point-epochs. The requests are spread evenly
over the slices, so that the luck of a draw is not part of the error. Ratios are medians of the rounds. A fixed piece of
work between all others says how much the machine itself drifted, because of other processes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cluster.config.specification import FederationSpecification
from cluster.experiments.datasets import load
from cluster.experiments.federation import OwnFederation, key_of_round
from cluster.writer.pace import PaceTrial
from cluster.writer.throw_away import WhoStaysOut, temporary_store
from coordinator.decisions.optimise import Layout, Stock, Workload, candidate_of
from coordinator.decisions.pace import Pace
from shards.cost import erasure_cost_epochs

LAYOUTS: Final = (Layout(5, 5), Layout(20, 4), Layout(10, 10))
REQUESTS: Final = 12
BUDGET: Final = 8.0
YARDSTICK: Final = "MLP 64-64-10, 10 epochs, digits"

MODELS: Final[dict[str, dict[str, Any]]] = {
    "MLP 64-64-10, 10 epochs, digits": {
        "model": {"factory": "shards.models:mlp", "arguments": {"hidden": [64]}},
        "training": {"epochs": 10, "batch_size": 16, "learning_rate": 0.05},
    },
    "MLP 200-128-10, 10 epochs, 8,000 made-up points": {
        "model": {"factory": "shards.models:mlp", "arguments": {"hidden": [128]}},
        "training": {"epochs": 10, "batch_size": 16, "learning_rate": 0.05},
    },
    "boosting, 20 epochs, digits": {"model": {"learner": "boosting"}, "training": {"epochs": 20}},
    "forest of 10 trees, digits": {"model": {"learner": "forest", "arguments": {"trees": 10}}},
}


def points_of(name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return features and labels."""
    if "made-up" not in name:
        data = load("digits")
        return data.train_NF, data.train_labels_N
    draw = np.random.default_rng(1)
    return draw.random((8000, 200), dtype=np.float32), draw.integers(0, 10, 8000)


def compare(name: str, turn: int) -> list[tuple[Layout, list[float]]]:
    """Return for each layout: predicted over measured seconds of training and of a request, and point-epochs."""
    features_NF, labels_N = points_of(name)
    tables = MODELS[name]
    own = OwnFederation(features_NF, labels_N, classes=10, tables={**tables, "partition": {"shards": 2, "slices": 2}})
    with own as federation:
        specification, source = federation.specification, federation.source
    who = WhoStaysOut.of(specification, federation.store, None)
    before = yardstick()
    pace = PaceTrial(specification, who, source, points=len(labels_N), budget=BUDGET).pace()
    last = yardstick()
    own_pace = (before + last) / 2
    found = []
    for layout in LAYOUTS:
        with (
            temporary_store() as store,
            OwnFederation(
                features_NF,
                labels_N,
                classes=10,
                tables={**tables, "partition": layout._asdict()},
                key=key_of_round(turn),
                store=store,
            ) as federation,
        ):
            trained = federation.train()
            rows = spread(federation, len(labels_N), layout)
            erased = [federation.erase([row]) for row in rows]
        before, last = last, yardstick()
        drift = (before + last) / 2 / own_pace
        found.append((layout, ratios(specification, pace, layout, len(labels_N), trained, erased, drift)))
        print(f"{name}, round {turn + 1}, {layout}:", *(f"{each:.3f}" for each in found[-1][1]), file=sys.stderr)
    return found


def yardstick() -> float:
    """Return the processor seconds of a fixed piece of work: other processes on the machine make it take longer."""
    features_NF, labels_N = points_of("digits")
    tables = {**MODELS[YARDSTICK], "partition": {"shards": 2, "slices": 3}}
    with (
        temporary_store() as store,
        OwnFederation(features_NF[:300], labels_N[:300], classes=10, tables=tables, store=store) as federation,
    ):
        return federation.train().seconds + sum(federation.erase([row]).seconds for row in (1, 2))


def spread(federation: OwnFederation, points: int, layout: Layout) -> list[int]:
    """Return data points of one slice after another, and of one shard after another."""
    places = federation.places(range(points))
    rows: dict[tuple[int, int], list[int]] = {}
    for row, place in enumerate(places):
        rows.setdefault(place, []).append(row)
    wanted = [((number * 7) % layout.shards, number % layout.slices + 1) for number in range(4 * REQUESTS)]
    return [rows[place].pop() for place in wanted if rows.get(place)][:REQUESTS]


def ratios(
    specification: FederationSpecification,
    pace: Pace,
    layout: Layout,
    points: int,
    trained: Any,
    erased: Sequence[Any],
    drift: float,
) -> list[float]:
    """Return predicted over measured: seconds of training, of a request, its point-epochs; the first two with drift.

    ``drift`` is how much longer the machine took for the same work than while the pace was measured.
    """
    stock = Stock(
        points=points,
        subjects=points,
        slice_bytes=0.0,
        epochs=specification.training.epochs,
        is_whole=specification.model.is_whole,
    )
    demand = Workload(requests_per_month=float(len(erased)), months=1.0)
    candidate = candidate_of(layout, stock, pace, demand)
    seconds = float(np.mean([each.seconds for each in erased]))
    work = float(np.mean([each.point_epochs for each in erased]))
    expected = 1.0
    if not stock.is_whole:
        expected = erasure_cost_epochs(points=points, shards=layout.shards, slices=layout.slices, epochs=stock.epochs)
    return [
        candidate.training_seconds / trained.seconds,
        candidate.erasure_seconds / seconds,
        expected / work,
        candidate.training_seconds / trained.seconds * drift,
        candidate.erasure_seconds / seconds * drift,
        trained.seconds,
        seconds,
    ]


def main() -> None:
    """Print a table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    names = [name for name in MODELS if not sys.argv[2:] or any(name.startswith(each) for each in sys.argv[2:])]
    print(
        "| model | S × R | training, predicted / measured | one request | point-epochs | training, without drift |"
        " one request, without drift | training, CPU s | request, CPU s |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        turns = [compare(name, turn) for turn in range(rounds)]
        for place, layout in enumerate(LAYOUTS):
            columns = list(zip(*(turn[place][1] for turn in turns), strict=True))
            shown = [f"{median(each):.2f} ({min(each):.2f} – {max(each):.2f})" for each in columns[:5]]
            times = [f"{median(each):.3g}" for each in columns[5:]]
            cells = [name, f"{layout.shards} × {layout.slices}", *shown, *times]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
