"""The command with its store on an S3 server."""

from __future__ import annotations

import secrets

import pytest

import cluster.doctor
from tests.doubles.stores.fault_proxy import fault_proxy
from tests.doubles.stores.s3_servers import plain_client
from tests.doubles.user_folder import MARKED, UserFolder

pytestmark = pytest.mark.s3


def test_the_whole_story_on_s3(home: UserFolder, seaweedfs_endpoint: str) -> None:
    """Train, predict, erase and verify with a bucket and server in the specification; no local file is written."""
    home.specify(store=f"s3://plain/command/{secrets.token_hex(8)}", endpoint=seaweedfs_endpoint)
    before = {path.name for path in home.folder.iterdir()}
    assert home.json("train").code == 0
    said = home.json("erase", "--subject", MARKED, "--request-id", "er-1")
    assert said.code == 0, said.err
    assert home.json("verify").code == 0
    assert home.json("status", "er-1").code == 0
    assert {path.name for path in home.folder.iterdir()} == before


def test_a_gateway_without_conditions_is_refused(home: UserFolder, moto_endpoint: str) -> None:
    """Training on a server that ignores conditions ends before anything is stored, with the promise it breaks."""
    prefix = f"command/{secrets.token_hex(8)}"
    with fault_proxy(moto_endpoint) as proxy:
        proxy.drops_conditions = True
        home.specify(store=f"s3://plain/{prefix}", endpoint=proxy.endpoint)
        said = home.json("train")
    assert said.code == 5
    assert "this store creates an object over an existing one" in said.error["message"]
    own = plain_client(moto_endpoint)
    held = [each["Key"] for each in own.list_objects_v2(Bucket="plain", Prefix=prefix).get("Contents", [])]
    own.close()
    assert held == [f"{prefix}/.leases/writer"]


def test_an_endpoint_needs_an_s3_store(home: UserFolder) -> None:
    """An endpoint beside a folder is refused where it stands."""
    home.specify(endpoint="http://127.0.0.1:8333")
    said = home.json("train")
    assert said.code == 2
    assert "endpoint is the address of an S3 server" in said.error["message"]


def test_a_bucket_that_keeps_objects_is_named(
    home: UserFolder, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor and the receipt say that a bucket with object lock keeps what is locked."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    bucket = f"locking-{secrets.token_hex(4)}"
    client = plain_client(moto_endpoint)
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    client.close()
    home.specify(store=f"s3://{bucket}/here", endpoint=moto_endpoint)
    assert home.json("train").code == 0
    checks = {each["check"]: each for each in home.json("doctor").data["checks"]}
    assert not checks["store"]["ok"]
    assert "lock objects against deletion" in checks["store"]["message"]
    assert home.json("erase", "--subject", MARKED, "--request-id", "er-1").code == 0
    said = home.run("receipt", "er-1")
    assert "lock objects against deletion" in said.err
