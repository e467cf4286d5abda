"""The law on a GPU: within one device's numerics profile, an erasure ends in the bytes of a new training run."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
import torch

from cluster.config.specification import FederationSpecification
from shards.learners.registry import open_learner
from shards.learners.torch.learner import TorchState
from shards.learners.torch.seeding import set_numerics
from shards.specification import ModelSettings, TrainingSettings
from storage.stores.memory import MemoryStore
from tests.doubles.federation import Point, SmallFederation, specification_of, survivors
from tests.doubles.time_and_names import CountingNames
from tests.exactness.federations import conditions, digests, make_points
from tests.exactness.strategies import MODELS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

_WORLDS = count()


def federation_on_gpu(specification: FederationSpecification) -> SmallFederation[TorchState]:
    """Return a federation whose constituents are trained on the GPU."""
    world = next(_WORLDS)
    profile = set_numerics(1, "cuda")
    return SmallFederation(
        specification=specification,
        store=MemoryStore(f"gpu-{world}"),
        learners=lambda width: open_learner(
            model=specification.model,
            training=specification.training,
            inputs=width,
            classes=len(specification.data.classes),
            slices=specification.partition.slices,
            device="cuda",
        ),
        conditions=lambda _: replace(conditions(specification), profile=profile),
        names=CountingNames(f"gpu{world}"),
    )


def trained(specification: FederationSpecification, points: list[Point]) -> SmallFederation[TorchState]:
    """Return a federation trained on the points."""
    federation = federation_on_gpu(specification)
    federation.train(points)
    return federation


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_erasing_on_a_gpu_is_exact(model: str, optimizer: str) -> None:
    """With every model and optimizer, two erasures end in the bytes of a federation that never saw the points."""
    factory, arguments, _ = MODELS[model]
    specification = specification_of(
        shards=2,
        slices=3,
        training=TrainingSettings(epochs=4, batch_size=4, learning_rate=0.05, seed=5, optimizer=optimizer),
        model=ModelSettings(factory=factory, arguments=arguments),
    )
    points = make_points(3, 60, width=6 if model.startswith("cnn") else 4)
    federation = trained(specification, points)
    gone = sorted({point.subject for point in points})[:3]
    federation.erase(subjects=gone[:2], request_id="first")
    federation.erase(subjects=gone[2:], request_id="second")
    assert digests(trained(specification, survivors(points, subjects=gone))) == digests(federation)
    assert digests(trained(specification, points)) != digests(federation)
