"""A whole federation on a real S3 server with versions: train, erase, purge, and nothing of it left in any version."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from coordinator.verification import scan_residue
from shards.routing import point_digest
from storage.errors import Corrupt
from storage.objects import ObjectStore
from storage.s3.client import S3Store
from storage.stores.memory import MemoryStore
from tests.doubles.federation import (
    KEY,
    Point,
    SmallFederation,
    comparable,
    plain_conditions,
    specification_of,
    survivors,
)
from tests.doubles.stores.s3_servers import plain_client
from tests.doubles.time_and_names import CountingNames
from tests.doubles.workers.fake_learner import HashLearner, HashState, decode_state

pytestmark = pytest.mark.s3

SLICES = 3
REPLACED = ("control/floor", "control/journal-floor")
"""Objects that hold no person's data and are replaced in place."""
POINTS = [
    Point(id=f"p{number}", subject=f"s{number % 9}", label="ab"[number % 2], features=(number / 7, number / 11))
    for number in range(36)
]


def federation_on(store: ObjectStore) -> SmallFederation[HashState]:
    """Return a federation of 2 shards on the store."""
    specification = specification_of(shards=2, slices=SLICES)
    return SmallFederation(
        specification=specification,
        store=store,
        learners=lambda _: HashLearner(slices=SLICES),
        conditions=lambda _: plain_conditions(specification),
        names=CountingNames(secrets.token_hex(4)),
    )


@pytest.fixture
def store(seaweedfs_endpoint: str) -> S3Store:
    """An empty store in a bucket that keeps versions."""
    return S3Store("versioned", f"federation/{secrets.token_hex(8)}", seaweedfs_endpoint)


@pytest.fixture
def client(seaweedfs_endpoint: str) -> Iterator[Any]:
    """A client that sees every version."""
    own = plain_client(seaweedfs_endpoint)
    yield own
    own.close()


def all_versions(client: Any, store: S3Store) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Return key and payload of every version under the prefix, and the keys of delete markers."""
    answer = client.list_object_versions(Bucket=store.bucket, Prefix=f"{store.prefix}/")
    start = len(store.prefix) + 1
    payloads = [
        (
            each["Key"][start:],
            client.get_object(Bucket=store.bucket, Key=each["Key"], VersionId=each["VersionId"])["Body"].read(),
        )
        for each in answer.get("Versions", [])
    ]
    return payloads, [each["Key"][start:] for each in answer.get("DeleteMarkers", [])]


def seen_in(payload: bytes) -> frozenset[int]:
    """Return the data points that a checkpoint has seen; nothing for other objects."""
    try:
        return decode_state(payload).seen
    except (Corrupt, TypeError):
        return frozenset()


def test_nothing_of_an_erased_person_is_left_in_any_version(store: S3Store, client: Any) -> None:
    """After an erasure no version holds a checkpoint that saw the person, and what is listed is all there is."""
    federation = federation_on(store)
    federation.train(POINTS)
    gone = {int.from_bytes(point_digest(KEY, point.id)[:8], "big") for point in POINTS if point.subject == "s4"}
    before, _ = all_versions(client, store)
    assert any(gone & seen_in(payload) for _, payload in before)

    done = federation.erase(subjects=["s4"], request_id="er-1")
    assert done.state.value == "complete"
    after, markers = all_versions(client, store)
    assert not any(gone & seen_in(payload) for _, payload in after)
    assert markers == []
    listed = {info.key for info in store.list("")}
    assert {key for key, _ in after} == listed
    assert {key for key, _ in before} - listed
    assert {key for key in listed if [key for key, _ in after].count(key) > 1} <= set(REPLACED)
    assert list(store.unfinished("")) == []
    assert scan_residue(store, federation.state).found == ()


def test_the_result_is_that_of_any_other_store(store: S3Store) -> None:
    """What was trained and erased on S3 is byte for byte what a store in memory gives that never saw the person."""
    on_s3 = federation_on(store)
    on_s3.train(POINTS)
    on_s3.erase(subjects=["s4"], ids=["p1"], request_id="er-1")
    memory = MemoryStore(secrets.token_hex(8))
    fresh = federation_on(memory)
    fresh.train(survivors(POINTS, subjects=["s4"], ids=["p1"]))
    states = [comparable(federation.state) for federation in (on_s3, fresh)]
    chains = [[[record.digest for record in shard.chain] for shard in state.shards] for state in states]
    assert chains[0] == chains[1]
    memory.forget()


def test_another_process_goes_on(store: S3Store) -> None:
    """A federation whose process ended is found again in the bucket, as it was."""
    first = federation_on(store)
    first.train(POINTS)
    first.accept(subjects=["s2"], request_id="er-1")
    first.restart()
    first.engine.settle()
    done = first.state.request("er-1")
    assert done is not None
    assert done.state.value == "complete"
