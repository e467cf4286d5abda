"""What a step of training costs by each engine, beside a loop by hand: ``python -m tests.bench.engines [repeats]``.

``python -m tests.bench.engines [repeats] kernels`` compares separate and fused kernels of the optimizer, by each
engine, where PyTorch has fused ones.

One thread, one constituent, made-up data points that fit in memory, processor time. ``eager`` and ``replay`` are the
learner with one slice: its order of data points, its batches, and of ``replay`` also the trial before the first step.
The loop by hand gathers each epoch at once, and does not ask for deterministic algorithms. Ratios are medians of the
repeats, in each of which all three take turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from deploy.views.tables import table
from shards.learners.registry import fix_numerics
from shards.learners.torch.factory import build_model
from shards.learners.torch.learner import TorchLearner
from shards.learners.torch.recipe import optimizer_of
from shards.points import ShardPoints
from shards.recipe.engines import EAGER, REPLAY
from shards.recipe.kernels import FUSED, HAVE_FUSED, SEPARATE
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from tests.doubles.lineages import lineage_of

_SHARD: Final = ShardId(0)
_SLICE: Final = SliceIndex(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, its data points and its recipe."""

    name: str
    factory: str = "shards.models:mlp"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    features: int = 784
    classes: int = 10
    batch: int = 16
    recipe: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 1000
    rate: float = 0.01
    """Learning rate."""


CASES: Final = (
    Case(name="MLP 784-128-10, batch 16, SGD"),
    Case(name="MLP 784-128-10, batch 16, SGD with momentum", recipe={"momentum": 0.9}),
    Case(name="MLP 784-128-10, batch 16, Adam", recipe={"optimizer": "adam"}),
    Case(
        name="table 30-64-64-2, batch 256, Adam",
        arguments={"hidden": [64, 64], "activation": "relu"},
        features=30,
        classes=2,
        batch=256,
        recipe={"optimizer": "adam"},
    ),
    Case(
        name="table 30-64-2, batch 32, AdamW, dropout, batch normalisation, clipping, cosine",
        arguments={"hidden": [64], "dropout": 0.2, "batch_norm": True},
        features=30,
        classes=2,
        batch=32,
        recipe={"optimizer": "adamw", "gradient_clip": 1.0, "schedule": {"kind": "cosine"}},
    ),
    Case(name="logistic 30-2, batch 16, SGD", factory="shards.models:logistic", features=30, classes=2),
    Case(name="MLP 784-128-10, batch 16, RMSprop", recipe={"optimizer": "rmsprop"}),
    Case(name="CNN 28 x 28, channels 16 and 32, batch 16, SGD", factory="shards.models:cnn", steps=200),
    Case(name="CNN 28 x 28, channels 16 and 32, batch 64, SGD", factory="shards.models:cnn", batch=64, steps=60),
    Case(
        name="CNN 8 x 8, channels 8 and 16, batch 16, SGD",
        factory="shards.models:cnn",
        arguments={"channels": [8, 16]},
        features=64,
        steps=400,
    ),
    Case(name="MLP 784-1024-1024-10, batch 128, SGD", arguments={"hidden": [1024, 1024]}, batch=128, steps=100),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of processor time for each step."""

    eager: float
    replay: float
    hand: float


def learned(case: Case, engine: str, points: ShardPoints, kernels: str = SEPARATE) -> tuple[float, bytes]:
    """Return the seconds that the learner takes for all steps, and the checkpoint."""
    learner = TorchLearner(
        model=ModelSettings(factory=case.factory, arguments=dict(case.arguments)),
        training=replace(_training(case, engine), kernels=kernels),
        inputs=case.features,
        classes=case.classes,
        slices=1,
    )
    state = learner.initial(_SHARD)
    started = time.process_time()
    for _ in learner.learn(state, points, _SHARD, _SLICE):
        pass
    return time.process_time() - started, learner.to_bytes(state, lineage_of(1))


def by_hand(case: Case, points: ShardPoints) -> float:
    """Return the seconds that a loop as people write it takes for all steps."""
    training = _training(case, EAGER)
    model = build_model(
        ModelSettings(factory=case.factory, arguments=dict(case.arguments)), case.features, case.classes
    )
    model.train()
    optimizer, clip = optimizer_of(model, training), training.gradient_clip
    features_NF, labels_N = torch.from_numpy(points.features_NF), torch.from_numpy(points.labels_N)
    torch.use_deterministic_algorithms(mode=False)
    started = time.process_time()
    for _ in range(training.epochs):
        order_N = torch.randperm(len(labels_N))
        epoch_NF, epoch_N = features_NF[order_N], labels_N[order_N]
        for start, stop in pairwise(range(0, len(labels_N) + 1, case.batch)):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(epoch_NF[start:stop]), epoch_N[start:stop])
            loss.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
    seconds = time.process_time() - started
    torch.use_deterministic_algorithms(mode=True)
    return seconds


def measure(case: Case, repeats: int) -> list[Measured]:
    """Return the measurements of each repeat. Raises ``AssertionError`` when the engines' checkpoints differ."""
    points = _points(case)
    found = []
    for _ in range(repeats):
        eager, expected = learned(case, EAGER, points)
        replay, payload = learned(case, REPLAY, points)
        assert payload == expected, case.name
        found.append(Measured(eager / case.steps, replay / case.steps, by_hand(case, points) / case.steps))
    return found


def measure_kernels(case: Case, repeats: int) -> list[list[float]]:
    """Return the seconds of a step in each repeat: separate and fused kernels, of each by ``eager`` and ``replay``.

    Raises ``AssertionError`` when the engines' checkpoints differ.
    """
    points, found = _points(case), []
    for _ in range(repeats):
        ways = [learned(case, engine, points, kernels) for kernels in (SEPARATE, FUSED) for engine in (EAGER, REPLAY)]
        payloads = [payload for _, payload in ways]
        assert payloads[0] == payloads[1], case.name
        assert payloads[2] == payloads[3], case.name
        found.append([seconds / case.steps for seconds, _ in ways])
    return found


def _training(case: Case, engine: str) -> TrainingSettings:
    return TrainingSettings(epochs=2, batch_size=case.batch, learning_rate=case.rate, engine=engine, **case.recipe)


def _points(case: Case) -> ShardPoints:
    generator = np.random.default_rng(0)
    count = case.batch * case.steps // 2
    keys = generator.integers(2**63, size=count).astype(np.uint64)
    return ShardPoints(
        features_NF=generator.random(size=(count, case.features), dtype=np.float32),
        labels_N=generator.integers(case.classes, size=count),
        keys_N=keys,
        subjects_N=keys,
        ends=(count,),
    )


def compare_kernels(repeats: int) -> None:
    """Print the table of separate and fused kernels.

    At a rate at which no unit of a network dies: the averages that Adam keeps of its gradients would become subnormal,
    and processors compute with those ten times more slowly, with any kernel.
    """
    rows = []
    for case in (replace(each, rate=0.001) for each in CASES):
        if case.recipe.get("optimizer", "sgd") not in HAVE_FUSED:
            continue
        found = measure_kernels(case, repeats)
        times = [f"{median(each) * 1e6:,.0f}" for each in zip(*found, strict=True)]
        ratios = [f"{median(each[one] / each[other] for each in found):.2f}" for one, other in ((2, 0), (3, 1), (3, 0))]
        rows.append([case.name, *times, *ratios])
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    heads = ["microseconds a step", "eager", "replay", "eager, fused", "replay, fused"]
    print(table([*heads, "fused / separate, eager", "fused / separate, replay", "replay, fused / eager"], rows))


def main() -> None:
    """Print the table."""
    fix_numerics(ModelSettings(), 1, "cpu")
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if sys.argv[2:] == ["kernels"]:
        compare_kernels(repeats)
        return
    rows = []
    for case in CASES:
        found = measure(case, repeats)

        def middle(value: Callable[[Measured], float], found: list[Measured] = found) -> float:
            return median(map(value, found))

        times = [f"{middle(value) * 1e6:,.0f}" for value in (lambda m: m.eager, lambda m: m.replay, lambda m: m.hand)]
        ratios = [f"{middle(value):.2f}" for value in (lambda m: m.replay / m.eager, lambda m: m.replay / m.hand)]
        rows.append([case.name, *times, *ratios])
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    heads = ["microseconds a step", "eager", "replay", "by hand", "replay / eager", "replay / by hand"]
    print(table(heads, rows))


if __name__ == "__main__":
    main()
