"""A purge leaves no version and no marker, or says what keeps one."""

from __future__ import annotations

import pytest

from storage.errors import Unavailable
from storage.objects import object_key
from storage.s3.bucket import Mark
from storage.s3.purge import purge, remove_older
from tests.doubles.stores.memory_bucket import MemoryBucketStore, RetriedBucket
from tests.storage.s3.fake_bucket import FakeBucket

MARK = Mark(nonce="n", sha256="0" * 64, replaced=None)
NAME = "prefix/key"


def bucket_of(versions: int) -> FakeBucket:
    """Return a bucket with so many versions of the name, a marker last."""
    bucket = FakeBucket()
    for number in range(versions):
        bucket.store(NAME, b"%d" % number, MARK, marker=number == versions - 1)
    return bucket


@pytest.mark.parametrize("versions", [0, 1, 2, 1_000, 2_345])
def test_every_version_goes_the_latest_last(versions: int) -> None:
    """All versions are removed, in batches, and no older content ever becomes the latest."""
    bucket = bucket_of(versions)
    purge(bucket, NAME, lambda _: None)
    assert list(bucket.versions(NAME)) == []
    assert len(bucket.removed) == versions
    assert all(version.latest for version in bucket.removed[-1:])


def test_passing_refusals_are_tried_again() -> None:
    """A version that the server left for now is deleted by a later pass."""
    bucket = bucket_of(3)
    bucket.refusals = [["InternalError", "SlowDown"], ["ServiceUnavailable"]]
    waits: list[int] = []
    purge(bucket, NAME, waits.append)
    assert list(bucket.versions(NAME)) == []
    assert waits == [1]


def test_endless_refusals_end() -> None:
    """A purge that never finds an empty pass says so."""
    bucket = bucket_of(1)
    bucket.refusals = [["InternalError"]] * 100
    with pytest.raises(Unavailable, match=r"versions of the object remain.*name=prefix/key"):
        purge(bucket, NAME, lambda _: None)


@pytest.mark.parametrize("kept", ["compliance retention until 2030-01-01 00:00 UTC", "a legal hold"])
def test_object_lock_is_named(kept: str) -> None:
    """A version kept by Object Lock is named with what keeps it: nothing can be claimed erased."""
    bucket = bucket_of(2)
    bucket.refusals, bucket.retained = [["AccessDenied"]], kept
    with pytest.raises(Unavailable, match=f"Object Lock keeps a version.*{kept}.*without Object Lock"):
        purge(bucket, NAME, lambda _: None)


def test_a_missing_permission_is_named() -> None:
    """A refusal without a lock is a missing permission."""
    bucket = bucket_of(2)
    bucket.refusals = [["AccessDenied"]]
    with pytest.raises(Unavailable, match=r"refuses to delete a version.*code=AccessDenied.*s3:DeleteObjectVersion"):
        purge(bucket, NAME, lambda _: None)


def test_older_versions_go_and_the_latest_stays() -> None:
    """Tidying keeps what is current."""
    bucket = bucket_of(5)
    remove_older(bucket, NAME)
    assert [version.latest for version in bucket.versions(NAME)] == [True]


def test_what_was_replaced_is_gone_when_the_right_to_write_is_free() -> None:
    """Each replacement leaves a version in a versioned bucket: the holder removes those of all that it replaced."""
    bucket = RetriedBucket()
    store = MemoryBucketStore(bucket)
    floor, other = object_key("control/floor"), object_key("shards/part")
    with store.exclusive("writer", holder="a test"):
        store.put_if_absent(other, b"never replaced")
        tag = store.put_if_absent(floor, b"0")
        for number in range(1, 6):
            tag = store.put_if_match(floor, b"%d" % number, tag)
        assert len(list(bucket.versions(store.full_names.name(floor)))) > 5
    assert [version.latest for version in bucket.versions(store.full_names.name(floor))] == [True]
    assert store.get(floor).payload == b"5"
    assert store.get(other).payload == b"never replaced"
