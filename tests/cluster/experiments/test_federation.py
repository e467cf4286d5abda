"""The laboratory's federation does what any federation does, in one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.experiments.datasets import load
from cluster.experiments.federation import OwnFederation, key_of_round
from cluster.experiments.measured import accuracy
from shards.learner_kinds.approximate import LABORATORY
from shards.specification import ModelSettings
from storage.errors import Invalid

NET = {
    "model": {"factory": "shards.models:mlp", "arguments": {"hidden": [8]}},
    "training": {"epochs": 3, "batch_size": 16, "learning_rate": 0.1},
    "partition": {"shards": 3, "slices": 4},
}
FOREST: dict[str, Any] = {
    "model": {"learner": "forest", "arguments": {"trees": 3}},
    "partition": {"shards": 2, "slices": 2},
}


@pytest.mark.parametrize("tables", [NET, FOREST], ids=["torch", "forest"])
def test_an_erasure_ends_in_the_bytes_of_a_full_retrain(tables: dict[str, Any]) -> None:
    """It also takes less work, which is counted."""
    data = load("digits")
    gone = [5, 17]
    kept = np.delete(np.arange(len(data.train_labels_N)), gone)
    with OwnFederation(data.train_NF, data.train_labels_N, classes=10, tables=tables) as federation:
        trained = federation.train()
        before = federation.digests
        assert federation.checkpoint_bytes > 0
        erased = federation.erase(gone)
        with OwnFederation(
            data.train_NF[kept], data.train_labels_N[kept], classes=10, tables=tables, rows=kept
        ) as again:
            fresh = again.train()
            assert again.digests == federation.digests
        touched = {shard for shard, _ in federation.places(gone)}
        assert {shard for shard, digest in enumerate(before) if digest != federation.digests[shard]} == touched
        assert 0 < erased.worker_seconds < erased.seconds
        assert 0 < erased.point_epochs < fresh.point_epochs < trained.point_epochs
        assert accuracy(federation.probabilities(data.test_NF), data.test_labels_N) > 0.5


def test_each_round_routes_the_same_data_points_elsewhere() -> None:
    """Each round has its own partition key."""
    data = load("digits")
    rows = range(20)
    found = []
    for number in range(3):
        with OwnFederation(
            data.train_NF[:20], data.train_labels_N[:20], classes=10, tables=FOREST, key=key_of_round(number)
        ) as federation:
            federation.train()
            found.append(federation.places(rows))
            counted = [(len(shard.slices), shard.slices[0].points) for shard in federation.state.shards]
            assert counted == [(2, found[-1].count((number, 1))) for number in range(2)]
    assert len({tuple(each) for each in found}) == 3


@pytest.mark.parametrize("name", sorted(LABORATORY))
def test_a_federation_refuses_the_laboratory_s_learners(name: str) -> None:
    """The error says why they do not erase."""
    with pytest.raises(Invalid, match=f"the learner {name} only approximates an erasure, .*: take another learner"):
        ModelSettings(learner=name)
