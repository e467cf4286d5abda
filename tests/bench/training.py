"""Training whole federations, store and encryption included, beside a loop by hand: ``python -m tests.bench.training``.

    python -m tests.bench.training [repeats]

5 shards of 5 slices in an encrypted folder, ``[training] engine = "auto"``, one thread, one process that trains the
constituents one after another; processor time, because other processes share the machine. Ours begins when the data
points are in the store, and ends when the store is swept. The loop by hand does the same steps: it holds the data
points in memory, gathers each epoch at once, writes nothing, and does not ask for deterministic algorithms.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

from cluster.config.specification import FederationSpecification, specification_from
from cluster.writer.stores import open_objects
from cluster.writer.writer import writer_setup, writing
from coordinator.engine.engine import Engine
from coordinator.state import FederationState
from deploy.views.tables import table
from shards.data.arrays import MATRIX, features_of
from shards.data.sources import Source, table_source
from shards.learners.torch.factory import build_model
from shards.learners.torch.recipe import optimizer_of
from shards.schedule import batch_bounds, slice_epochs
from shards.slices.files import load_shard
from tests.bench.erasure.batches import Spent, measured
from tests.doubles.workers.local_workers import without_ray

_CNN: Final = "shards.models:cnn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A federation to train."""

    name: str
    aim: float
    factory: str = "shards.models:mlp"
    arguments: Mapping[str, Any] = field(default_factory=lambda: {"hidden": [128]})
    features: int = 784
    classes: int = 10
    points: int
    training: Mapping[str, Any]


FEDERATIONS: Final = (
    Trained(
        name="MLP 784-128-10, batch 16, SGD",
        aim=0.5,
        points=12_000,
        training={"epochs": 12, "batch_size": 16, "learning_rate": 0.05},
    ),
    Trained(
        name="table 30-64-64-2, batch 256, Adam",
        aim=0.6,
        arguments={"hidden": [64, 64], "activation": "relu"},
        features=30,
        classes=2,
        points=60_000,
        training={"epochs": 12, "batch_size": 256, "learning_rate": 0.01, "optimizer": "adam"},
    ),
    Trained(
        name="MLP 784-128-10, batch 16, Adam",
        aim=0.45,
        points=8_000,
        training={"epochs": 12, "batch_size": 16, "learning_rate": 0.001, "optimizer": "adam"},
    ),
    Trained(
        name="CNN 28 x 28, channels 16 and 32, batch 16, SGD",
        aim=0.9,
        factory=_CNN,
        arguments={},
        points=2_000,
        training={"epochs": 6, "batch_size": 16, "learning_rate": 0.05},
    ),
)


def main() -> None:
    """Measure, and print the table."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    head = ("federation", "ours s", "of it learning s", "by hand s", "ours / by hand", "learning / by hand", "aim")
    rows = []
    _import_compiler()
    for each in FEDERATIONS:
        turns = [_turn(each) for _ in range(repeats)]
        ours, learning, hand = (median(values) for values in zip(*turns, strict=True))
        ratios = (median(turn[0] / turn[2] for turn in turns), median(turn[1] / turn[2] for turn in turns))
        values = (ours, learning, hand, *ratios, each.aim)
        rows.append((each.name, *(f"{value:.2f}" for value in values)))
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    print(table(head, rows))


def _import_compiler() -> None:
    """Take a step: torch imports its compiler for the first one, which the first one measured would be charged."""
    layer = nn.Linear(1, 1)
    layer(torch.zeros(1, 1)).sum().backward()
    torch.optim.Adam(layer.parameters()).step()


def _turn(wanted: Trained) -> tuple[float, float, float]:
    """Return the seconds of a whole training, of its learners' steps, and of the loop by hand."""
    with tempfile.TemporaryDirectory() as folder:
        specification = _specification(wanted, folder)
        ours, state = _ours(specification, _source(wanted))
        return ours.whole, ours.learning, _by_hand(wanted, specification, state)


def _ours(specification: FederationSpecification, source: Source) -> tuple[Spent, FederationState]:
    with without_ray(), writing(writer_setup(specification, listener=lambda _: None), "train") as writer:
        with patch.object(Engine, "settle", lambda *_, **__: None):
            writer.train(source)
        with measured() as spent:
            writer.settle()
        return spent, writer.state


def _by_hand(wanted: Trained, specification: FederationSpecification, state: FederationState) -> float:
    """Train each shard's model on the same data points, slice after slice, as an expert would write it."""
    store, training = open_objects(specification), specification.training
    schedule = slice_epochs(training.epochs, specification.partition.slices)
    resident = [load_shard(store, shard.slices, wanted.features, 1.0) for shard in state.shards]
    torch.use_deterministic_algorithms(mode=False)
    started = time.process_time()
    for points in resident:
        model = build_model(specification.model, wanted.features, wanted.classes)
        model.train()
        optimizer = optimizer_of(model, training)
        features_NF, labels_N = torch.from_numpy(points.features_NF), torch.from_numpy(points.labels_N)
        for end, epochs in zip(points.ends, schedule, strict=True):
            bounds = batch_bounds(end, training.batch_size)
            for _ in range(epochs):
                order_N = torch.randperm(end)
                epoch_NF, epoch_N = features_NF[order_N], labels_N[order_N]
                for start, stop in bounds:
                    optimizer.zero_grad()
                    functional.cross_entropy(model(epoch_NF[start:stop]), epoch_N[start:stop]).backward()
                    optimizer.step()
    seconds = time.process_time() - started
    torch.use_deterministic_algorithms(mode=True)
    return seconds


def _specification(wanted: Trained, folder: str) -> FederationSpecification:
    return specification_from(
        {
            "name": "bench",
            "store": f"{folder}/federation",
            "data": {
                "train": "memory",
                "id": "id",
                "label": "label",
                "features": [MATRIX],
                "classes": [str(number) for number in range(wanted.classes)],
            },
            "model": {"factory": wanted.factory, "arguments": dict(wanted.arguments)},
            "training": {"seed": 7, **wanted.training},
            "partition": {"shards": 5, "slices": 5},
        },
        Path(folder),
    )


def _source(wanted: Trained) -> Source:
    generator = np.random.default_rng(0)
    found, _ = features_of(generator.random(size=(wanted.points, wanted.features), dtype=np.float32))
    labels = generator.integers(wanted.classes, size=wanted.points)
    found = found.append_column("id", pa.array([f"p{number}" for number in range(wanted.points)]))
    return table_source(found.append_column("label", pa.array([str(label) for label in labels])))


if __name__ == "__main__":
    main()
