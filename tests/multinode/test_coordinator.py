"""The coordinator is lost in the middle of an erasure: Ray restarts it, and waiting commands get the result."""

from __future__ import annotations

import os
import signal

import pytest

import cluster
from cluster.config.specification import read_specification
from cluster.coordinator_actor.launch import launch_coordinator
from coordinator.ports import Notice, RequestMoved
from storage.errors import WriterBusy
from storage.registers.manifest import ManifestRegister
from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import ALSO, ERASED, Expected, digests_of
from tests.multinode.gate import Gate
from tests.multinode.nodes import Nodes, is_at_work
from tests.multinode.patience import until
from tests.multinode.writers import is_idle, writer_of

pytestmark = [pytest.mark.multinode, pytest.mark.slow]


def test_a_killed_coordinator(home: UserFolder, nodes: Nodes, gate: Gate, expected: Expected) -> None:
    """A coordinator that is killed while it retrains is restarted; a command that waits for the erasure gets its
    result, and nothing is done twice.
    """
    launch_coordinator(read_specification(home.config))
    notices: list[Notice] = []
    until(lambda: is_idle(home), "the coordinator to be at work")
    with cluster.connect(home.config, listener=notices.append) as federation:
        token = ManifestRegister(home.objects).highest_token()
        with gate.during(lambda: federation.erase(ids=[ERASED], request_id="er-1")) as erasure:
            killed = (writer_of(home), *erasure.workers)
            os.kill(killed[0], signal.SIGKILL)
        assert erasure.answer.result().state == "complete"
        assert ManifestRegister(home.objects).highest_token() == token + 1
        assert writer_of(home) != killed[0]
        assert digests_of(federation.status()) == expected.erased
        assert federation.verify().holds
    assert "complete" in {n.request.state.value for n in notices if isinstance(n, RequestMoved)}
    until(lambda: not any(map(is_at_work, killed)), "the dead coordinator's worker to end")


def test_a_restarted_head(home: UserFolder, nodes: Nodes, gate: Gate, expected: Expected) -> None:
    """While the head's records are away, an erasure continues to its end, and new commands get an immediate error that
    asks them to try again. Once the records are back, everything is as if they had never been away.
    """
    launch_coordinator(read_specification(home.config))
    until(lambda: is_idle(home), "the coordinator to be at work")
    with cluster.connect(home.config) as federation:
        token = ManifestRegister(home.objects).highest_token()
        with (
            gate.during(lambda: federation.erase(ids=[ERASED], request_id="er-1")) as erasure,
            nodes.without_head(),
        ):
            gate.open()
            assert erasure.answer.result().state == "complete"
            with pytest.raises(WriterBusy, match="'sisa launch'"):
                federation.erase(ids=[ALSO], request_id="er-2")
        with gate.during(lambda: federation.erase(ids=[ALSO], request_id="er-2")) as erasure:
            with nodes.without_head():
                pass
            gate.open()
        assert erasure.answer.result().state == "complete"
        assert federation.verify().holds
        assert ManifestRegister(home.objects).highest_token() == token
        assert digests_of(federation.status()) == expected.erased_also
