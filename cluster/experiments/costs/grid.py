"""The grid of ``sisa-costs``: erasures by the real engine, and many more by the plan alone.

Three kinds of rows, by ``means``:

* ``engine``: a federation is trained and erases for real; point-epochs and seconds are counted.
* ``plan``: what the plan of many random draws would cost, with the same routing and the same schedule. Each row is the
  mean of its draws under one partition key.
* ``accounts``: how many accounts somebody registers until one is in slice 1 of every shard.

Letters: S shards, R slices, K requests, N data points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from cluster.experiments.datasets import load
from cluster.experiments.experiment import Cell, Row, Settings
from cluster.experiments.federation import OwnFederation, key_of_round, places_by_name
from cluster.writer.one_process import Spent, total_spent
from shards.cost import batch_fraction, erasure_cost_epochs, plan_point_epochs, training_point_epochs
from shards.learners.approximate.models import uniform_numbers
from shards.schedule import slice_epochs
from shards.specification import PartitionSettings, ShardId, SliceIndex

COLUMNS: Final = (
    "means", "dataset", "shards", "slices", "requests", "aimed", "batched", "round", "draws",
    "point_epochs", "planned_point_epochs", "fraction", "closed_form", "speed_up",
    "seconds", "worker_seconds", "slices_trained", "training_seconds", "seconds_fraction",
    "retrain_seconds", "retrain_point_epochs", "seconds_speed_up", "overhead_share", "accounts",
)  # fmt: skip


def settings(quick: bool) -> Settings:  # noqa: FBT001
    """Return the settings: the quick run takes less than a minute."""
    partitions = _quick_partitions() if quick else _partitions()
    return {
        "dataset": "digits" if quick else "mnist",
        "points": 1_200 if quick else 10_000,
        "hidden": 32,
        "batch_size": 32,
        "learning_rate": 0.1,
        "plan_rounds": 12 if quick else 20,
        "plan_draws": 20 if quick else 100,
        "account_rounds": 10 if quick else 60,
        "partitions": partitions,
    }


def _partitions() -> list[dict[str, Any]]:
    """Epochs are such that every slice has a whole number of them, or nearly."""
    s20 = [1, 2, 4, 8, 18, 20, 39, 40, 100]
    s5 = [1, 2, 5, 10, 25]
    return [
        {"shards": 20, "slices": 50, "epochs": 26, "rounds": 2, "batches": [1, 8, 18, 39], "singly": 20, "plan": s20},
        {"shards": 20, "slices": 1, "epochs": 6, "rounds": 1, "batches": [1, 8, 18, 39], "singly": 40, "plan": s20},
        {
            "shards": 10,
            "slices": 10,
            "epochs": 11,
            "rounds": 3,
            "batches": [1, 10, 20],
            "singly": 10,
            "plan": [1, 10, 20],
        },
        {"shards": 5, "slices": 5, "epochs": 6, "rounds": 2, "batches": s5, "singly": 25, "plan": s5},
        {"shards": 5, "slices": 1, "epochs": 6, "rounds": 1, "batches": s5, "singly": 25, "plan": s5},
    ]


def _quick_partitions() -> list[dict[str, Any]]:
    return [
        {
            "shards": 5,
            "slices": 5,
            "epochs": 6,
            "rounds": 2,
            "batches": [1, 5, 10],
            "singly": 10,
            "plan": [1, 5, 10, 25],
        },
        {"shards": 5, "slices": 1, "epochs": 6, "rounds": 2, "batches": [1, 5], "singly": 5, "plan": [1, 5, 10, 25]},
    ]


def cells(settings: Settings) -> list[Cell]:
    """Return the grid: for each partition the rounds of the engine, the plan's, and the accounts."""
    found = []
    for number, partition in enumerate(settings["partitions"]):
        name = f"s{partition['shards']}-r{partition['slices']}"
        weight = float(partition["shards"] * partition["slices"] + 100)
        for turn in range(partition["rounds"]):
            arguments = {"means": "engine", "partition": number, "round": turn}
            found.append(Cell(name=f"engine-{name}-{turn}", arguments=arguments, weight=weight))
        found.append(Cell(name=f"plan-{name}", arguments={"means": "plan", "partition": number}, weight=weight / 2))
        arguments = {"means": "accounts", "partition": number}
        found.append(Cell(name=f"accounts-{name}", arguments=arguments, weight=weight / 10))
    return found


def rows_of_cell(cell: Cell, settings: Settings, data_folder: Path | None) -> list[Row]:
    """Return the rows of a cell."""
    partition = settings["partitions"][cell.arguments["partition"]]
    if cell.arguments["means"] == "engine":
        return list(_by_engine(settings, partition, cell.arguments["round"], data_folder))
    if cell.arguments["means"] == "accounts":
        return [_accounts(partition, turn, settings) for turn in range(settings["account_rounds"])]
    return [row for turn in range(settings["plan_rounds"]) for row in _by_plan(settings, partition, turn)]


def _by_engine(settings: Settings, partition: Mapping[str, Any], turn: int, folder: Path | None) -> Iterator[Row]:
    """Train a federation and have it erase: batches of growing size, one by one, then aimed ones."""
    data = load(settings["dataset"], folder)
    features_NF, labels_N = data.train_NF[: settings["points"]], data.train_labels_N[: settings["points"]]
    tables = {
        "model": {"factory": "shards.models:mlp", "arguments": {"hidden": [settings["hidden"]]}},
        "training": {name: settings[name] for name in ("batch_size", "learning_rate")}
        | {"epochs": partition["epochs"]},
    }
    classes = len(data.classes)
    whole = {**tables, "partition": {"shards": 1, "slices": 1}}
    with OwnFederation(features_NF, labels_N, classes=classes, tables=whole) as one:
        retrain = one.train()
    split = {**tables, "partition": {"shards": partition["shards"], "slices": partition["slices"]}}
    key = key_of_round(turn)
    with OwnFederation(features_NF, labels_N, classes=classes, tables=split, key=key) as federation:
        training = federation.train()
        layout = _Layout(federation.places(range(len(labels_N))), partition)
        about = _about(settings, partition, turn)
        for aimed in (False, True):
            batches = [partition["shards"]] if aimed else partition["batches"]
            sizes = [*((size, True) for size in batches), (partition["singly"], False)]
            for size, batched in sizes:
                rows = layout.aimed(size) if aimed else layout.uniform(f"{turn}/{size}/{batched}", size)
                spent, planned, fraction = [], 0, 0.0
                for group in [rows] if batched else [[row] for row in rows]:
                    cost = layout.take_out(group)
                    planned += cost
                    fraction += cost / layout.training_point_epochs
                    spent.append(federation.erase(group))
                yield {
                    **about,
                    "means": "engine",
                    "requests": size,
                    "aimed": aimed,
                    "batched": batched,
                    "planned_point_epochs": planned,
                    "fraction": fraction,
                    "closed_form": closed_form(
                        partition["shards"], partition["slices"], size, aimed=aimed, batched=batched
                    ),
                    **_seconds(total_spent(spent), training, retrain),
                }


def _seconds(spent: Spent, training: Spent, retrain: Spent) -> Row:
    """Return the columns of what the erasures took, beside both trainings."""
    pure = retrain.seconds * spent.point_epochs / retrain.point_epochs
    return {
        "draws": 1,
        "point_epochs": spent.point_epochs,
        "speed_up": retrain.point_epochs / spent.point_epochs if spent.point_epochs else None,
        "seconds": spent.seconds,
        "worker_seconds": spent.worker_seconds,
        "slices_trained": spent.slices,
        "training_seconds": training.seconds,
        "seconds_fraction": spent.seconds / training.seconds,
        "retrain_seconds": retrain.seconds,
        "retrain_point_epochs": retrain.point_epochs,
        "seconds_speed_up": retrain.seconds / spent.seconds,
        "overhead_share": 1 - pure / spent.seconds,
    }


def _by_plan(settings: Settings, partition: Mapping[str, Any], turn: int) -> Iterator[Row]:
    """Price random draws under one key, without training."""
    shards, slices = partition["shards"], partition["slices"]
    names = [str(row) for row in range(settings["points"])]
    places = places_by_name(names, PartitionSettings(shards=shards, slices=slices), key_of_round(turn))
    start = _Layout(places, partition)
    about = _about(settings, partition, turn)
    for size in partition["plan"]:
        for batched in (True, False):
            if not batched and size == 1:
                continue
            costs, fractions = [], []
            draws = settings["plan_draws"] if batched else max(1, settings["plan_draws"] // 5)
            for draw in range(draws):
                layout = start.copy()
                rows = layout.uniform(f"{turn}/{size}/{batched}/{draw}", size)
                cost, fraction = 0, 0.0
                for group in [rows] if batched else [[row] for row in rows]:
                    each = layout.take_out(group)
                    cost += each
                    fraction += each / layout.training_point_epochs
                costs.append(cost)
                fractions.append(fraction)
            yield {
                **about,
                "means": "plan",
                "requests": size,
                "aimed": False,
                "batched": batched,
                "draws": draws,
                "point_epochs": float(np.mean(costs)),
                "fraction": float(np.mean(fractions)),
                "closed_form": closed_form(shards, slices, size, aimed=False, batched=batched),
                "speed_up": float(np.mean([1 / each for each in fractions])),
            }


def _accounts(partition: Mapping[str, Any], turn: int, settings: Settings) -> Row:
    """Register accounts until one is in slice 1 of every shard."""
    shards = partition["shards"]
    given = PartitionSettings(shards=shards, slices=partition["slices"])
    key, found = key_of_round(turn), set()
    for number in count(1):
        ((shard, slice_),) = places_by_name([f"account-{number}"], given, key)
        if slice_ == 1:
            found.add(shard)
        if len(found) == shards:
            return {**_about(settings, partition, turn), "means": "accounts", "aimed": True, "accounts": number}
    raise AssertionError  # pragma: no cover  the numbers do not end


def closed_form(shards: int, slices: int, requests: int, *, aimed: bool, batched: bool) -> float:
    """Return the expected cost as a fraction of a full training.

    Aimed requests are for slice 1 of one shard after another.

    >>> round(closed_form(20, 50, 8, aimed=False, batched=True), 3)
    0.236
    >>> closed_form(20, 50, 40, aimed=True, batched=False)
    2.0
    """
    if aimed:
        return min(1.0, requests / shards) if batched else requests / shards
    if batched:
        return batch_fraction(shards, slices, requests)
    return requests * erasure_cost_epochs(points=1, shards=shards, slices=slices, epochs=1)


class _Layout:
    """Which data points are in which slice: chooses those to be erased, and prices their plan."""

    def __init__(self, places: Sequence[tuple[int, int]], partition: Mapping[str, Any]) -> None:
        shards, self._slices = partition["shards"], partition["slices"]
        self._epochs = slice_epochs(partition["epochs"], self._slices)
        self.places = dict(enumerate(places))
        counted = Counter(places)
        self.points = {
            ShardId(shard): [counted[shard, slice_] for slice_ in range(1, self._slices + 1)] for shard in range(shards)
        }

    def copy(self) -> Self:
        """Return the same places, to be changed by themselves."""
        found = copy(self)
        found.places = dict(self.places)
        found.points = {shard: list(points) for shard, points in self.points.items()}
        return found

    @property
    def training_point_epochs(self) -> int:
        """Work of training on all data points that are left."""
        return sum(training_point_epochs(points, self._epochs) for points in self.points.values())

    def uniform(self, stream: str, size: int) -> list[int]:
        """Return so many of the data points that are left."""
        left = list(self.places)
        drawn = uniform_numbers(f"sisa-costs/{stream}", 2 * size + 16) * len(left)
        return [left[position] for position in dict.fromkeys(drawn.astype(int))][:size]

    def aimed(self, size: int) -> list[int]:
        """Return data points of slice 1 of one shard after another, as only somebody who knows the key can."""
        first: dict[int, list[int]] = {shard: [] for shard in self.points}
        for row, (shard, slice_) in self.places.items():
            if slice_ == 1:
                first[shard].append(row)
        return [first[number % len(first)][number // len(first)] for number in range(size)]

    def take_out(self, rows: Sequence[int]) -> int:
        """Take the data points out with one request; return its work in point-epochs."""
        from_slices: dict[ShardId, SliceIndex] = {}
        for row in rows:
            shard, slice_ = self.places.pop(row)
            self.points[ShardId(shard)][slice_ - 1] -= 1
            earliest = from_slices.get(ShardId(shard), SliceIndex(self._slices))
            from_slices[ShardId(shard)] = min(earliest, SliceIndex(slice_))
        return plan_point_epochs(from_slices, self.points, self._epochs)


def _about(settings: Settings, partition: Mapping[str, Any], turn: int) -> Row:
    return {
        "dataset": settings["dataset"],
        "shards": partition["shards"],
        "slices": partition["slices"],
        "round": turn,
    }
