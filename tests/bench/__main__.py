"""Training and erasing against a plain loop that does the same steps: ``python -m tests.bench [repeats]``."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import ray

import cluster
from cluster.config.specification import FederationSpecification, read_specification
from cluster.federation import Federation
from cluster.writer.stores import open_objects
from coordinator.engine.ledger import read_state
from coordinator.ports import Notice, TrainingStarted
from coordinator.state import FederationState, ShardState
from deploy.demo_data import DemoData, write_digits, write_fashion_mnist
from deploy.views.tables import table
from shards.learners.trainer import SliceLearned
from shards.slices.files import load_shard
from storage.errors import Unavailable
from tests.bench.plain import PlainActor, PlainTask
from tests.bench.requests import report_requests
from tests.doubles.demo_specification import demo_specification

WORKERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One measurement of ours and of the plain loop, in seconds, taken one after the other."""

    ours: float
    plain: float


@dataclass(slots=True)
class Stopwatch:
    """A listener that times training, from its beginning to the commit of the last slice."""

    began: float = 0.0
    ended: float = 0.0
    learned: dict[int, list[int]] = field(default_factory=dict)

    def __call__(self, notice: Notice) -> None:
        """Record the time of the notice."""
        match notice:
            case TrainingStarted():
                self.began = time.perf_counter()
                self.learned.clear()
            case SliceLearned(shard=shard, slice=slice_):
                self.ended = time.perf_counter()
                self.learned.setdefault(shard, []).append(slice_)


def main() -> None:
    """Measure, and print tables; with 0 repeats only those of requests."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        data = _write_data(Path(folder) / "data")
        file = Path(folder) / "sisa.toml"
        file.write_text(
            demo_specification(
                scale=data.scale, epochs=20, shards=5, slices=5, further=f"[cluster]\nworkers = {WORKERS}\n"
            ),
            encoding="utf-8",
        )
        specification = read_specification(file)
        with cluster.launch(specification) as federation:
            federation.train()  # ingests, and reads everything once
            federation.release()
            training = _measure_training(specification, repeats)
            _report("training 5 shards on 2 workers, from the first slice read to the last checkpoint", training)
            federation.train()  # back to the specification's seed
            erasing = _measure_erasing(federation, specification, repeats)
            _report("erasing one person, from the call to 'complete', one shard on one worker", erasing)
            federation.release()
            report_requests(federation, specification)


def _measure_training(specification: FederationSpecification, repeats: int) -> list[Pair]:
    """Train all shards under a new seed each time, and after each time do the same steps in a plain loop."""
    pairs = []
    for repeat in range(repeats):
        watch = Stopwatch()
        again = replace(specification, training=replace(specification.training, seed=100 + repeat))
        with Federation(again, listener=watch) as federation:
            federation.train()
            federation.release()
        ours = watch.ended - watch.began
        tasks = [_task(shard, specification) for shard in _state(specification).shards]
        pairs.append(Pair(ours=ours, plain=_plain_seconds(specification, tasks, WORKERS)))
    return pairs


def _measure_erasing(federation: Federation, specification: FederationSpecification, repeats: int) -> list[Pair]:
    """Erase one person after another; the plain loop trains the same slices again after each."""
    pairs = []
    for number in range(repeats):
        person = f"person-{number:04d}"
        (retrain,) = federation.price(subjects=[person]).shards
        # A worker that stands ready, as a running coordinator holds one.
        federation.workers().configuration(_width(specification), 1)
        began = time.perf_counter()
        federation.erase(subjects=[person])
        ours = time.perf_counter() - began
        federation.release()
        task = _task(_state(specification).shards[retrain.shard], specification, retrain.from_slice)
        pairs.append(Pair(ours=ours, plain=_plain_seconds(specification, [task], 1)))
    return pairs


def _plain_seconds(specification: FederationSpecification, tasks: Sequence[PlainTask], count: int) -> float:
    """Return the wall time of the tasks on ``count`` workers that are warm and hold the data in memory."""
    state = _state(specification)
    largest = max(state.shards, key=lambda shard: shard.points)
    store = open_objects(specification)
    points = load_shard(store, largest.slices, _width(specification), specification.data.scale)
    workers = [PlainActor.remote(points.features_NF, points.labels_N) for _ in range(count)]
    ray.get([worker.train.remote(replace(tasks[0], epochs=5)) for worker in workers])
    waiting = sorted(tasks, key=lambda task: task.ends[-1], reverse=True)
    began = time.perf_counter()
    running: dict[Any, Any] = {}
    while waiting or running:
        while waiting and workers:
            worker = workers.pop()
            running[worker.train.remote(waiting.pop(0))] = worker
        (done,), _ = ray.wait(list(running), num_returns=1)
        workers.append(running.pop(done))
    seconds = time.perf_counter() - began
    for worker in workers:
        ray.kill(worker)
    return seconds


def _task(shard: ShardState, specification: FederationSpecification, from_slice: int = 1) -> PlainTask:
    ends = tuple(accumulate(record.points for record in shard.slices))
    return PlainTask(ends=ends, epochs=specification.training.epochs, from_slice=from_slice)


def _state(specification: FederationSpecification) -> FederationState:
    state = read_state(open_objects(specification))
    assert state is not None
    return state


def _width(specification: FederationSpecification) -> int:
    data = _state(specification).data
    assert data is not None
    return data.layout.width


def _write_data(folder: Path) -> DemoData:
    """Write Fashion-MNIST; the digits stand in where it cannot be had, and it is said."""
    try:
        data = write_fashion_mnist(folder)
    except Unavailable:
        data = write_digits(folder)
    print(f"{data.name}, {data.train_points:,} points; mlp of 128 hidden units, tanh, batch 16, 20 epochs, S=5, R=5")
    return data


def _report(title: str, pairs: Sequence[Pair]) -> None:
    if not pairs:
        return
    ratios = [pair.ours / pair.plain for pair in pairs]
    lines = [
        (number, f"{pair.ours:.2f}", f"{pair.plain:.2f}", f"{ratio:.3f}")
        for number, (pair, ratio) in enumerate(zip(pairs, ratios, strict=True), start=1)
    ]
    print(f"\n{title}")
    print(table(("run", "sisa s", "plain loop s", "ratio"), lines))
    print(f"ratio: median {median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
