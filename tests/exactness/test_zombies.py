"""Workers of a superseded writer, and numerics changed by the user's module."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cluster.runtime.learners import learner_of
from coordinator.engine.tasks import train_task
from shards.learners.torch.learner import TorchState
from shards.learners.torch.seeding import check_numerics, set_numerics
from shards.learners.trainer import ConstituentTrainer
from shards.specification import ShardId
from storage.errors import Fenced, Invalid
from tests.doubles.federation import specification_of
from tests.exactness.federations import federation_of, make_points


def test_a_superseded_worker_deletes_its_checkpoint() -> None:
    """A worker that continues after another writer has taken over stops and leaves no object behind."""
    specification = specification_of(shards=1, slices=2)
    federation = federation_of(specification)
    federation.train(make_points(1, 20))
    state = federation.state
    federation.restart()
    assert federation.state == state  # another writer has started, under a higher token
    before = {info.key for info in federation.store.list("shards/")}
    task = train_task(state, ShardId(0), done=0, token=1)
    trainer: ConstituentTrainer[TorchState] = ConstituentTrainer(
        learner=learner_of(specification, task.width),
        store=federation.store,
        new_name=federation.names,
        seconds=federation.clock.monotonic,
    )
    with pytest.raises(Fenced, match="another writer has taken over"):
        list(trainer.train(task))
    assert {info.key for info in federation.store.list("shards/")} == before


@pytest.mark.parametrize("change", ["threads", "dtype", "determinism"])
def test_a_module_that_changes_the_numerics_is_refused(change: str) -> None:
    """A module that changes threads, dtype or determinism is refused, because the profile would be wrong (E7)."""
    profile = set_numerics(1, "cpu")
    try:
        if change == "threads":
            torch.set_num_threads(2)
        elif change == "dtype":
            torch.set_default_dtype(torch.float64)
        else:
            torch.use_deterministic_algorithms(mode=False)
        with pytest.raises(Invalid, match="its module changes torch's settings"):
            check_numerics(profile, "mine:net")
    finally:
        set_numerics(1, "cpu")
    check_numerics(profile, "mine:net")


@pytest.mark.parametrize("change", ["benchmark", "warnings"])
def test_a_module_that_lets_a_gpu_choose_its_algorithms_is_refused(change: str) -> None:
    """On a GPU a module may neither enable benchmarking nor turn determinism errors into warnings (E7)."""
    profile = set_numerics(1, "cpu")
    try:
        if change == "benchmark":
            torch.backends.cudnn.benchmark = True
        else:
            torch.use_deterministic_algorithms(mode=True, warn_only=True)
        check_numerics(profile, "mine:net")
        with pytest.raises(Invalid, match=r"allows nondeterministic algorithms on the GPU\. Leave out"):
            check_numerics(replace(profile, device="cuda/NVIDIA H100"), "mine:net")
    finally:
        set_numerics(1, "cpu")
    check_numerics(profile, "mine:net")
