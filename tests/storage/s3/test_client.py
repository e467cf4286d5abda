"""What the S3 store does beyond the contract of every store: versions, locks, parts, leases, names, refusals."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.errors import (
    Corrupt,
    Invalid,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    SisaError,
    Unavailable,
    WriterBusy,
)
from storage.objects import object_key
from storage.s3.client import S3Store
from storage.s3.lease import LeaseRecord
from storage.stores.probe import probe_store
from tests.doubles.stores.fault_proxy import fault_proxy
from tests.doubles.stores.s3_servers import plain_client

pytestmark = pytest.mark.s3

KEY = object_key("folder/object")
ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["seaweedfs", "moto"])
def endpoint(request: pytest.FixtureRequest) -> str:
    """A server."""
    address: str = request.getfixturevalue(f"{request.param}_endpoint")
    return address


@pytest.fixture
def store(endpoint: str) -> S3Store:
    """An empty store in a bucket without versions."""
    return S3Store("plain", f"s3/{secrets.token_hex(8)}", endpoint)


@pytest.fixture
def versioned(store: S3Store) -> S3Store:
    """An empty store in a bucket with versions."""
    return replace(store, bucket="versioned")


@pytest.fixture
def client(endpoint: str) -> Iterator[Any]:
    """A client of the test's own."""
    own = plain_client(endpoint)
    yield own
    own.close()


def versions(client: Any, store: S3Store) -> list[tuple[str, bool]]:
    """Every version and marker under the store's prefix: its key, and whether it is a marker."""
    answer = client.list_object_versions(Bucket=store.bucket, Prefix=f"{store.prefix}/")
    assert not answer["IsTruncated"]
    found = [(each["Key"], False) for each in answer.get("Versions", [])]
    found += [(each["Key"], True) for each in answer.get("DeleteMarkers", [])]
    return sorted((key.removeprefix(f"{store.prefix}/"), marker) for key, marker in found)


# -------------------------------------------------------------------------------------------------------- versions


def test_a_deletion_leaves_no_version(versioned: S3Store, client: Any) -> None:
    """Neither older versions, nor markers, nor what blind retries added are left; the neighbour is."""
    tag = versioned.put_if_absent(KEY, b"0")
    for number in range(1, 4):
        tag = versioned.put_if_match(KEY, b"%d" % number, tag)
    name = f"{versioned.prefix}/{KEY}"
    for _ in range(2):
        client.delete_object(Bucket="versioned", Key=name)
    client.put_object(Bucket="versioned", Key=name, Body=b"stray")
    versioned.put_if_absent(object_key(f"{KEY}-2"), b"neighbour")
    assert len(versions(client, versioned)) == 8
    versioned.delete(KEY)
    assert versions(client, versioned) == [(f"{KEY}-2", False)]


def test_a_deletion_goes_beyond_a_page(seaweedfs_endpoint: str) -> None:
    """More versions than one listing shows are all removed."""
    store = S3Store("versioned", f"s3/{secrets.token_hex(8)}", seaweedfs_endpoint)
    own = plain_client(seaweedfs_endpoint)
    for number in range(1_010):
        own.put_object(Bucket="versioned", Key=f"{store.prefix}/{KEY}", Body=b"%d" % number)
    store.delete(KEY)
    assert versions(own, store) == []
    own.close()


def test_a_marker_hides_an_object(versioned: S3Store, client: Any) -> None:
    """An object under a delete marker is absent: it may be created, and cannot be replaced."""
    tag = versioned.put_if_absent(KEY, b"x")
    client.delete_object(Bucket="versioned", Key=f"{versioned.prefix}/{KEY}")
    with pytest.raises(ObjectMissing, match="no such object"):
        versioned.get(KEY)
    with pytest.raises(ObjectMissing, match="no such object"):
        versioned.put_if_match(KEY, b"y", tag)
    versioned.put_if_absent(KEY, b"z")
    assert versioned.get(KEY).payload == b"z"


def test_object_lock_is_named(endpoint: str, client: Any) -> None:
    """A bucket whose objects are kept cannot claim a deletion, and the description says so beforehand."""
    bucket = f"locked-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    store = S3Store(bucket, "", endpoint)
    store.put_if_absent(KEY, b"x")
    until = datetime.now(UTC) + timedelta(days=1)
    client.put_object_retention(
        Bucket=bucket, Key=KEY, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until.replace(microsecond=0)}
    )
    with pytest.raises(Unavailable, match=r"Object Lock keeps a version.*(compliance retention until 20|has Object)"):
        store.delete(KEY)
    facts = store.describe(datetime.now(UTC))
    assert (facts.object_lock, facts.versioning) == (True, "on")


def test_a_bucket_is_described(store: S3Store, versioned: S3Store) -> None:
    """The report covers versioning, locks, replication, the server's name and its clock."""
    facts = store.describe(datetime.now(UTC))
    assert (facts.location, facts.versioning, facts.object_lock, facts.replication) == (
        store.location,
        "off",
        False,
        False,
    )
    assert facts.server.startswith(("SeaweedFS", "Werkzeug"))
    assert facts.clock_difference_seconds is not None
    assert abs(facts.clock_difference_seconds) < 60
    late = store.describe(datetime.now(UTC) - timedelta(hours=1))
    assert late.clock_difference_seconds is not None
    assert late.clock_difference_seconds > 3_000
    assert versioned.describe(datetime.now(UTC)).versioning == "on"


# ----------------------------------------------------------------------------------------------------------- parts


def test_large_payloads_go_in_parts(store: S3Store) -> None:
    """An upload in parts is one object: created once, proved when read, with nothing left unfinished."""
    large = replace(store, multipart_above_bytes=1_000)
    payload = bytes(range(256)) * 500
    tag = large.put_if_absent(KEY, payload)
    found = large.get(KEY)
    assert (found.payload, found.tag) == (payload, tag)
    with pytest.raises(ObjectExists, match="an object with this key exists"):
        large.put_if_absent(KEY, payload[::-1])
    assert large.get(KEY).payload == payload
    assert list(store.unfinished("")) == []


def test_parts_replace_under_the_right_tag(seaweedfs_endpoint: str) -> None:
    """A completion under a stale tag changes nothing; moto does not look at the tag, so not there."""
    store = S3Store("plain", f"s3/{secrets.token_hex(8)}", seaweedfs_endpoint, multipart_above_bytes=-1)
    stale = store.put_if_absent(KEY, b"first")
    store.put_if_match(KEY, b"second", stale)
    with pytest.raises(ObjectChanged, match="changed since it was read"):
        store.put_if_match(KEY, b"third", stale)
    with pytest.raises(ObjectMissing, match="no such object"):
        store.put_if_match(object_key("folder/none"), b"third", stale)
    assert store.get(KEY).payload == b"second"
    assert list(store.unfinished("")) == []


def test_only_aws_gets_parts_by_itself(store: S3Store) -> None:
    """On other servers everything goes in one put, whose condition the probe has checked with racing writers."""
    assert S3Store("bucket").single_put_bytes == 64 * 2**20
    assert store.single_put_bytes == 5 * 2**30


def test_unfinished_uploads_are_found_and_removed(store: S3Store, client: Any) -> None:
    """Uploads that were begun and not ended are named by their keys, and removed under a prefix alone."""
    for key in ("a/1", "a/2", "b/1"):
        client.create_multipart_upload(Bucket="plain", Key=f"{store.prefix}/{key}")
    assert sorted(name.split(" ")[0] for name in store.unfinished("")) == ["a/1", "a/2", "b/1"]
    assert store.remove_unfinished("a/") == 2
    assert [name.split(" ")[0] for name in store.unfinished("")] == ["b/1"]
    assert list(store.list("")) == []


# ----------------------------------------------------------------------------------------------------------- names


def test_foreign_names_are_reported(store: S3Store, client: Any) -> None:
    """A name that this system cannot have written is foreign, and is neither listed nor confused with a lease."""
    for name in ("Upper/x", "a b", ".hidden", ".leases/writer", "a/.b"):
        client.put_object(Bucket="plain", Key=f"{store.prefix}/{name}", Body=b"x")
    store.put_if_absent(KEY, b"x")
    assert sorted(store.foreign()) == [".hidden", "Upper/x", "a b", "a/.b"]
    assert [info.key for info in store.list("")] == [KEY]


def test_a_foreign_object_under_a_key_is_not_believed(store: S3Store, client: Any) -> None:
    """An object that another program wrote under a key of ours has no mark, and is refused rather than used."""
    client.put_object(Bucket="plain", Key=f"{store.prefix}/{KEY}", Body=b"x")
    with pytest.raises(Corrupt, match=r"was not written by this system.*name=.*folder/object.*metadata included"):
        store.get(KEY)
    with pytest.raises(ObjectExists, match="exists"):
        store.put_if_absent(KEY, b"y")


def test_two_prefixes_are_two_stores(store: S3Store) -> None:
    """Stores of one bucket do not see each other, not even where one prefix starts the other."""
    other = replace(store, prefix=f"{store.prefix}-2")
    store.put_if_absent(KEY, b"x")
    assert list(other.list("")) == []
    other.put_if_absent(KEY, b"y")
    assert store.get(KEY).payload == b"x"
    other.delete(KEY)
    assert [info.key for info in store.list("")] == [KEY]


# ---------------------------------------------------------------------------------------------------------- leases


def test_a_lease_survives_its_time_by_renewal(store: S3Store) -> None:
    """While its holder lives, a lease of three seconds cannot be taken, by the store's clock either."""
    brisk = replace(store, lease_seconds=0.3)
    writes = 0
    with brisk.exclusive("writer", holder="first"):
        tag = brisk.requests.read(brisk.full_names.lease("writer"))
        while writes < 3:
            found = brisk.requests.read(brisk.full_names.lease("writer"))
            assert found is not None
            assert tag is not None
            writes, tag = writes + (found.tag != tag.tag), found
        with pytest.raises(WriterBusy, match="first"), brisk.exclusive("writer", holder="second"):
            pass
    with brisk.exclusive("writer", holder="second"):
        pass


def test_a_dead_holders_lease_is_taken_over(store: S3Store) -> None:
    """A lease that nobody renews ends after its time by this process's own watch; its holder is named until then."""
    now = [0.0]
    watcher = replace(store, monotonic=lambda: now[0])
    dead = LeaseRecord(holder="sisa train, process 1", nonce="dead", lease_seconds=3600)
    name = store.full_names.lease("writer")
    store.put(name, object_key("lease"), dead.to_bytes(), None)
    for now[0] in (0.0, 3599.0):
        with pytest.raises(WriterBusy, match="sisa train, process 1"), watcher.exclusive("writer", holder="second"):
            pass
    now[0] = 3600.0
    with watcher.exclusive("writer", holder="second"):
        pass


def test_a_lease_leaves_one_version(versioned: S3Store, client: Any) -> None:
    """Renewals in a bucket with versions do not pile up."""
    for _ in range(3):
        with versioned.exclusive("writer", holder="first"):
            pass
    assert versions(client, versioned) == [(".leases/writer", False)]


# ------------------------------------------------------------------------------------------------------- processes


_CHILD = """
import pickle, sys
store = pickle.loads(bytes.fromhex(sys.argv[1]))
key = next(store.list("")).key
tag = store.get(key).tag
store.put_if_match(key, store.get(key).payload + b" and child", tag)
"""


def test_a_pickled_store_works_elsewhere(store: S3Store) -> None:
    """A store that was sent to another process, after it was used here, reaches the same objects there."""
    store.put_if_absent(KEY, b"parent")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-W", "error", "-c", _CHILD, pickle.dumps(store).hex()]
    subprocess.run(words, env=environment, check=True, timeout=60)
    assert store.get(KEY).payload == b"parent and child"


def _in_child(store: S3Store) -> None:
    for number in range(20):
        store.put_if_absent(object_key(f"child/{number}"), b"x" * number)


def test_a_forked_child_makes_its_own_connections(store: S3Store) -> None:
    """Parent and child use one store at once without mixing their answers."""
    store.put_if_absent(KEY, b"x")
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(store,))
    child.start()
    for number in range(20):
        store.put_if_absent(object_key(f"parent/{number}"), b"y" * number)
    child.join(60)
    assert child.exitcode == 0
    for number in range(20):
        assert store.get(object_key(f"parent/{number}")).payload == b"y" * number
        assert store.get(object_key(f"child/{number}")).payload == b"x" * number


# --------------------------------------------------------------------------------------------------------- refusals


def operations(store: S3Store) -> list[Any]:
    """Return the operations that a wrong place or account must refuse."""
    return [
        lambda: store.put_if_absent(KEY, b"x"),
        lambda: store.get(KEY),
        lambda: list(store.list("")),
        lambda: store.delete(KEY),
        lambda: list(store.unfinished("")),
        lambda: store.describe(datetime.now(UTC)),
    ]


def refusals(store: S3Store) -> list[SisaError]:
    """Return what each operation says."""
    said = []
    for operation in operations(store):
        try:
            operation()
        except SisaError as error:
            said.append(error)
    assert len(said) == len(operations(store))
    return said


def test_a_missing_bucket_is_named(endpoint: str) -> None:
    """No operation takes a bucket that does not exist for an empty store."""
    said = refusals(S3Store("no-such-bucket", "", endpoint))
    assert {type(error) for error in said[:-1]} == {Invalid}
    assert all("the bucket does not exist" in str(error) for error in said[:-1])


@pytest.mark.parametrize("setting", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_named(monkeypatch: pytest.MonkeyPatch, seaweedfs_endpoint: str, setting: str) -> None:
    """Wrong credentials are refused with the way to correct them, and never shown."""
    monkeypatch.setenv(setting, "wrongsecret")
    said = refusals(S3Store("plain", "x", seaweedfs_endpoint, read_timeout_seconds=19.0 + len(setting)))
    assert {type(error) for error in said[:-1]} == {Invalid}
    for error in said[:-1]:
        assert "does not accept these credentials" in str(error)
        assert "AWS_ACCESS_KEY_ID" in error.remedy
        assert "secret" not in str(error).replace("AWS_SECRET_ACCESS_KEY", "").lower()


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch, seaweedfs_endpoint: str) -> None:
    """On a machine without credentials the error names the places where they are looked for."""
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for error in refusals(S3Store("plain", "x", seaweedfs_endpoint, read_timeout_seconds=18.0)):
        assert isinstance(error, Invalid)
        assert "no usable credentials" in str(error)


def test_a_server_out_of_reach_is_named(aws_environment: None, no_waiting: None) -> None:
    """When no server answers, every operation says so in bounded time; a put that was never sent is not in doubt."""
    for error in refusals(S3Store("plain", "x", "http://127.0.0.1:1", connect_timeout_seconds=0.2)):
        assert isinstance(error, Unavailable)
        assert "cannot be reached" in str(error)
        assert "http://127.0.0.1:1" in str(error)


def test_a_gateway_that_drops_conditions_is_refused(moto_endpoint: str) -> None:
    """A gateway that forwards requests without their conditions is named for it by the probe, at once."""
    with fault_proxy(moto_endpoint) as proxy:
        store = S3Store("plain", f"s3/{secrets.token_hex(8)}", proxy.endpoint)
        proxy.drops_conditions = True
        with pytest.raises(Unavailable, match="this store creates an object over an existing one"):
            probe_store(store)
        assert list(store.list("")) == []
