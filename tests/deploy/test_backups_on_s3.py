"""Backups between folders and buckets, and copies of buckets by tools that keep nothing but the bytes."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import pytest

from tests.doubles.stores.s3_servers import plain_client
from tests.doubles.user_folder import MARKED, UserFolder

pytestmark = pytest.mark.s3


def carried(endpoint: str, prefix: str, other: str) -> int:
    """Copy every object under a prefix, without its metadata; return how many there were."""
    client = plain_client(endpoint)
    count = 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="plain", Prefix=f"{prefix}/"):
        for each in page.get("Contents", ()):
            body = client.get_object(Bucket="plain", Key=each["Key"])["Body"].read()
            client.put_object(Bucket="plain", Key=f"{other}/{each['Key'].removeprefix(f'{prefix}/')}", Body=body)
            count += 1
    client.close()
    return count


def test_from_a_folder_over_a_bucket_and_back(trained: UserFolder, seaweedfs_endpoint: str) -> None:
    """The bucket's objects are copied on without metadata; the bytes alone prove themselves."""
    before = trained.json("status").digests
    place = f"backups/{secrets.token_hex(8)}"
    server = ("--endpoint", seaweedfs_endpoint)
    for _ in range(2):
        made = trained.json("backup", f"s3://plain/{place}/a", "--keys", f"s3://plain/{place}/b", *server)
        assert made.code == 0, made.err
    assert carried(seaweedfs_endpoint, f"{place}/a", f"{place}/c") > 10
    assert carried(seaweedfs_endpoint, f"{place}/b", f"{place}/d") > 3
    shutil.rmtree(trained.store)
    said = trained.json("restore", f"s3://plain/{place}/c", "--keys", f"s3://plain/{place}/d", *server)
    assert said.code == 0, said.err
    assert trained.json("status").digests == before
    assert trained.json("erase", "--subject", MARKED).data["points"] == 4


def test_a_store_in_a_bucket_that_another_tool_copied(
    home: UserFolder, seaweedfs_endpoint: str, tmp_path: Path
) -> None:
    """Without its metadata it cannot be used as a store, and it can be restored, to a bucket or a folder."""
    place = f"copied/{secrets.token_hex(8)}"
    home.specify(store=f"s3://plain/{place}/first", endpoint=seaweedfs_endpoint)
    assert home.json("train").code == 0
    before = home.json("status").digests
    carried(seaweedfs_endpoint, f"{place}/first", f"{place}/copy")
    home.specify(store=f"s3://plain/{place}/copy", endpoint=seaweedfs_endpoint)
    refused = home.json("status")
    assert refused.code == 1
    assert "'sisa restore'" in refused.error["remedy"]
    home.specify(store=f"s3://plain/{place}/second", endpoint=seaweedfs_endpoint)
    said = home.json("restore", f"s3://plain/{place}/copy")
    assert said.code == 0, said.err
    assert (said.data["at"], home.json("status").digests) == ("", before)
    assert home.json("verify").code == 0
    home.specify()
    assert home.json("restore", f"s3://plain/{place}/copy", "--endpoint", seaweedfs_endpoint).code == 0
    assert home.json("status").digests == before
