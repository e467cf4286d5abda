"""Nodes that compute otherwise, though torch, device and instruction set are the same: named, and not used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
import torch

import cluster
from coordinator.ports import Notice
from storage.errors import Conflict
from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import ALSO, ERASED, Expected, digests_of
from tests.multinode.nodes import NODES, Nodes
from tests.multinode.test_lost_nodes import remarks

pytestmark = [
    pytest.mark.multinode,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this build of torch has no MKL"),
]

_OTHERWISE: Final = {"MKL_CBWR": "COMPATIBLE"}


@pytest.fixture
def nodes_of_two_kinds(nodes: Nodes) -> Iterator[Nodes]:
    """The cluster; of its nodes none is left afterwards."""
    yield nodes
    nodes.lose_all()


def test_the_work_goes_on_with_those_that_compute_as_before(
    home: UserFolder, nodes_of_two_kinds: Nodes, expected: Expected
) -> None:
    """With one node left of the kind that trained, erasing and verifying are exact. Without any, an erasure is refused,
    and 'sisa train' retrains everything with the bits of the other nodes.
    """
    nodes, notices = nodes_of_two_kinds, list[Notice]()
    with cluster.connect(home.config, listener=notices.append) as federation:
        assert digests_of(federation.train()) == expected.trained
        nodes.exchange(NODES - 1, _OTHERWISE)
        assert federation.erase(ids=[ERASED], request_id="er-1").state == "complete"
        assert digests_of(federation.status()) == expected.erased
        assert federation.verify().holds
        reported = remarks(notices)
        assert "are not used because they differ in the results of the same arithmetic (probe: " in reported
        assert reported.count("node ") >= NODES - 1

        nodes.exchange(1, _OTHERWISE)
        with pytest.raises(Conflict, match="the results of the same arithmetic"):
            federation.erase(ids=[ALSO], request_id="er-2")
        federation.train()
        assert (
            "all constituents are retrained because conditions differ: the results of the same arithmetic"
            in remarks(notices)
        )
        assert [each.state for each in federation.status().requests] == ["complete", "complete"]
        assert federation.verify().holds
