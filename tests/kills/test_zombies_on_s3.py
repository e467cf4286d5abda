"""Writers that slept longer than their lease, on a real S3 server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.writer.place import read_identity, take_place
from storage.s3.client import S3Store
from tests.doubles.stores.s3_servers import plain_client
from tests.kills.command_cases import COMMAND_CASES, CaseRunner
from tests.kills.fail_points import Moment
from tests.kills.fork_server import fork_server
from tests.kills.table import FAIL_POINTS
from tests.kills.zombies import NEXT, complaints, run_zombie

pytestmark = [pytest.mark.slow, pytest.mark.s3]

LONGER_THAN_A_LEASE = 20.0

ASLEEP: tuple[tuple[str, Moment], ...] = (
    ("event: points removed, quarantined", "before"),
    ("retraining: checkpoint put", "before"),
    ("purge: tainted slice deleted", "before"),
    ("purge: manifest", "before"),
    ("event: receipt issued", "before"),
)


@pytest.fixture(scope="module")
def own_stage(seaweedfs_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaseRunner]:
    """A fork server that was started when the server's credentials were in the environment already."""
    with fork_server() as forks:
        yield CaseRunner(forks, tmp_path_factory.mktemp("kills-on-s3"))


@pytest.fixture(scope="module")
def trained(own_stage: CaseRunner, seaweedfs_endpoint: str) -> str:
    """The prefix of a federation that was trained in the bucket."""
    prefix = f"kills/{secrets.token_hex(8)}"
    folder = own_stage.base / "trained"
    folder.mkdir()
    own_stage.run(folder, f"fill s3://plain/{prefix} {seaweedfs_endpoint}", "train")
    return prefix


def _copied(endpoint: str, prefix: str) -> str:
    """Return another prefix that holds the same objects, as a separate federation."""
    client, other = plain_client(endpoint), f"kills/{secrets.token_hex(8)}"
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="plain", Prefix=f"{prefix}/"):
        for each in page.get("Contents", []):
            target = other + each["Key"].removeprefix(prefix)
            client.copy_object(Bucket="plain", Key=target, CopySource={"Bucket": "plain", "Key": each["Key"]})
    client.close()
    store = S3Store("plain", other, endpoint)
    identity = read_identity(store)
    assert identity is not None
    take_place(store, identity.id)
    return other


@pytest.mark.parametrize(("name", "moment"), ASLEEP)
def test_a_zombie_in_a_bucket_is_fenced(
    name: str, moment: Moment, own_stage: CaseRunner, trained: str, seaweedfs_endpoint: str, tmp_path: Path
) -> None:
    """A writer whose lease ended while it slept ends with exit code 4, and has changed nothing; the bytes are those of
    an undisturbed federation in a folder.
    """
    (point,) = (point for point in FAIL_POINTS if (point.case_name, point.name) == ("erase", name))
    place = f"s3://plain/{_copied(seaweedfs_endpoint, trained)}"
    own_stage.run(tmp_path, f"fill {place} {seaweedfs_endpoint}")
    command = COMMAND_CASES["erase"].command
    strike = point.strike(moment, "stop")
    zombie_outcome = run_zombie(own_stage, tmp_path, command, strike, jump_seconds=LONGER_THAN_A_LEASE)
    assert list(complaints(zombie_outcome, own_stage.afterwards("erase", NEXT))) == []
