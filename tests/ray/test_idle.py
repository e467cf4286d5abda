"""Workers between tasks."""

from __future__ import annotations

import pytest
import ray

import cluster
from cluster.training.pool import RayPool
from tests.doubles.user_folder import MARKED, UserFolder

pytestmark = pytest.mark.ray


def test_a_worker_that_dies_while_idle_is_replaced(home: UserFolder) -> None:
    """A worker lost between two commands of one program costs nothing but its replacement."""
    with cluster.connect(home.config) as federation:
        federation.train()
        pool = federation.workers()
        assert isinstance(pool, RayPool)
        for actor in pool._idle:
            ray.kill(actor)
        assert federation.erase(subjects=[MARKED]).state == "complete"
        assert federation.verify().holds
