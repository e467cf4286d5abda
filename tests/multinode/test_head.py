"""The head's machine is lost: predictions go on, and what is asked for is kept."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cluster.client import Client
from storage.errors import Unavailable
from tests.doubles.stores.s3_servers import free_ports
from tests.doubles.user_folder import MARKED, UserFolder
from tests.doubles.workers.local_workers import without_ray
from tests.multinode.machines import Machine, head_and_nodes
from tests.multinode.patience import until
from tests.ray.commands import command
from tests.ray.several_commands import several_commands
from tests.serving.world import points

pytestmark = [pytest.mark.multinode, pytest.mark.slow, pytest.mark.s3]

ANSWERS = 20
"""From each node, while there is no head."""

NODES = ("one", "two")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A head and two nodes, as their units start them, and a federation in a bucket."""

    home: UserFolder
    machines: Mapping[str, Machine]
    ports: Mapping[str, int]
    environment: Mapping[str, str]

    def refused(self, *words: str, code: int, **further: str) -> str:
        """Run the command on the head's machine, which fails; return what it says."""
        ended = command(*words, folder=self.home.folder, further={**self.environment, **further})
        assert ended.returncode == code, ended.stderr
        return ended.stderr

    def client(self, node: str, token: str) -> Client:
        """Return a client of the proxy on a node."""
        return Client(f"http://127.0.0.1:{self.ports[node]}", token)


@pytest.fixture
def machines(tmp_path: Path, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, all of it up, and the federation trained."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    token = tmp_path / "auth_token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    ports = dict(zip(("head", "api", *NODES), free_ports(4), strict=True))
    home = UserFolder(tmp_path).fill(
        store=f"s3://plain/head/{secrets.token_hex(8)}",
        endpoint=moto_endpoint,
        cluster__address="auto",
        serve__port=ports["api"],
        serve__replicas=2,
        serve__cpus_per_replica=2.0,  # one on each node, and none on the head
        serve__refresh_seconds=0.4,
        cluster__workers=1,
    )
    trained_alone(home)
    with TemporaryDirectory(prefix="r", dir="/tmp") as session:  # short, as paths of sockets have to be
        environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_TMPDIR": session}
        made = head_and_nodes(tmp_path / "machines", ports, environment)
        try:
            for machine in made.values():
                machine.start()
            yield Cluster(home, made, ports, environment)
        finally:
            for machine in made.values():
                machine.fail()


def trained_alone(home: UserFolder) -> None:
    """Train, or do the outstanding work, in this process, without a cluster."""
    with without_ray():
        assert home.run("train").code == 0


def answers(client: Client) -> bool:
    """Return whether the proxy there has started and has a replica to ask."""
    try:
        return client.is_healthy()
    except Unavailable:
        return False


def generation(client: Client) -> int:
    """Return of which generation an answer is."""
    return client.predict(points()["points"]).generation


def test_a_lost_head(machines: Cluster) -> None:
    """Without a head the nodes' proxies answer on, an erasure says at once what is wrong and stays accepted, no answer
    is tainted, and the next command that has workers carries the request out.
    """
    assert "refuses this process's token" in machines.refused("serve", code=2, RAY_AUTH_TOKEN=secrets.token_hex(32))
    with several_commands(machines.home.folder, machines.environment, one_ray=False) as there:
        assert (said := there.run("serve")).code == 0, said
        token = there.run("token", "create", "--role", "predict").out.strip()
        assert there.run("stop").code == 0  # the coordinator could be on either side of the loss
    with machines.client("one", token) as one, machines.client("two", token) as two:
        for each in (one, two):
            until(partial(answers, each), "a node's proxy")
        before = [generation(each) for each in (one, two)]
        machines.machines["head"].fail()
        for each in (one, two) * ANSWERS:
            assert generation(each) == max(before)
        reported = machines.refused("erase", "--subject", MARKED, "--request-id", "er-1", code=5)
        assert "the Ray cluster does not answer: nothing listens at 127.0.0.2:" in reported
        assert "the request stays accepted [request=er-1 state=" in reported
        assert min(generation(one), generation(two)) > max(before)
        trained_alone(machines.home)  # by who finds no coordinator, and workers elsewhere
        status = machines.home.json("status").data
        assert [each["state"] for each in status["requests"]] == ["complete"]
        until(lambda: {generation(one), generation(two)} == {status["generation"]}, "the last generation")
