"""Nodes lost in the middle of training: the others end the work, in the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

import cluster
from cluster.config.specification import read_specification
from cluster.coordinator_actor.launch import launch_coordinator
from coordinator.ports import Notice, Remark
from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import ERASED, Expected, digests_of
from tests.multinode.gate import Gate
from tests.multinode.nodes import Nodes
from tests.multinode.patience import until
from tests.ray.dying_model import EVERYTHING, learned

pytestmark = [pytest.mark.multinode, pytest.mark.slow]

WORKERS: Final = 3
"""Two of whose nodes are lost."""


def test_nodes_lost_in_training_and_in_retraining(
    home: UserFolder, nodes: Nodes, untrained_gate: Gate, expected: Expected
) -> None:
    """With a node lost while it trains and another while it retrains for an erasure, though fewer processors are left
    than there were workers, all is carried out in the bytes of an undisturbed run.
    """
    notices: list[Notice] = []
    nodes.refill(WORKERS)
    home.specify(**untrained_gate.settings | {"cluster__workers": WORKERS})
    with cluster.connect(home.config, listener=notices.append) as federation:
        with untrained_gate.during(federation.train, "anywhere", workers=WORKERS) as training:
            nodes.lose(nodes.of(training.workers[0]))
            until(lambda: "a worker was lost with its node" in remarks(notices), "it to be noticed")
            untrained_gate.open()  # the others end their work only now, and keep their processors
        assert len(set(untrained_gate.learners().values())) == WORKERS
        assert digests_of(training.answer.result()) == expected.trained
        assert learned(notices) == EVERYTHING
        with untrained_gate.during(lambda: federation.erase(ids=[ERASED], request_id="er-1")) as erasure:
            nodes.lose(nodes.of(erasure.workers[0]))
        assert erasure.answer.result().state == "complete"
        assert digests_of(federation.status()) == expected.erased
        assert federation.verify().holds
    assert "a worker died" not in remarks(notices)


def test_all_nodes_lost(home: UserFolder, nodes: Nodes, gate: Gate, expected: Expected) -> None:
    """With every worker's node lost, a request is still accepted and its points are removed. It waits, and is carried
    out when nodes have come back, without another call (D1, D8).
    """
    launch_coordinator(read_specification(home.config))
    with cluster.connect(home.config) as federation:
        floor = federation.status().floor
        nodes.lose_all()
        federation.erase(ids=[ERASED], request_id="er-1", wait=False)
        until(lambda: federation.status().floor > floor, "what is tainted to be withdrawn")
        nodes.refill()
        until(lambda: [each.state for each in federation.status().requests] == ["complete"], "the erasure to be done")
        assert digests_of(federation.status()) == expected.erased
        assert federation.verify().holds


def remarks(notices: Sequence[Notice]) -> str:
    """Return what was remarked."""
    return "\n".join(notice.text for notice in notices if isinstance(notice, Remark))
