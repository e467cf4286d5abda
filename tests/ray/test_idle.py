"""Workers between tasks."""

from __future__ import annotations

import os
import signal

import pytest
import ray

import cluster
from cluster.training.pool import RayPool
from tests.doubles.user_folder import MARKED, UserFolder
from tests.multinode.nodes import is_at_work
from tests.multinode.patience import until

pytestmark = pytest.mark.ray


def test_a_worker_that_dies_while_idle_is_replaced(home: UserFolder) -> None:
    """A worker lost between two commands of one program costs nothing but its replacement."""
    with cluster.connect(home.config) as federation:
        federation.train()
        pool = federation.workers()
        assert isinstance(pool, RayPool)
        processes = [ray.get(pool._places[actor]).process for actor in pool._idle]
        for process in processes:
            os.kill(process, signal.SIGKILL)
        until(lambda: not any(map(is_at_work, processes)), "the workers to end")
        assert federation.erase(subjects=[MARKED]).state == "complete"
        assert federation.verify().holds
