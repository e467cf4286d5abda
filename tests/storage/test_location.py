"""From a location as a person writes it to the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import Invalid
from storage.location import open_store
from storage.s3.client import S3Store
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore


@pytest.mark.parametrize(
    ("location", "root"),
    [
        ("./federation", "/base/federation"),
        ("federation", "/base/federation"),
        ("../federation", "/federation"),
        (".", "/base"),
        ("a//b/./c/", "/base/a/b/c"),
        ("/elsewhere/federation", "/elsewhere/federation"),
        ("with space/and%20percent", "/base/with space/and%20percent"),
        ("file:///elsewhere/federation", "/elsewhere/federation"),
        ("FILE://localhost/elsewhere", "/elsewhere"),
        ("file:///with%20space", "/with space"),
        ("~/federation", "/home/someone/federation"),
    ],
)
def test_a_folder_is_a_local_store(monkeypatch: pytest.MonkeyPatch, location: str, root: str) -> None:
    """Paths and file URLs give the store in that folder; relative ones start at the base."""
    monkeypatch.setenv("HOME", "/home/someone")
    assert open_store(location, Path("/base")) == LocalStore(root)


def test_a_name_is_a_memory_store() -> None:
    """``memory:`` and a name give the memory store of that name."""
    assert open_store("memory:demo", Path("/base")) == MemoryStore("demo")


def test_the_location_opens_the_same_store(tmp_path: Path) -> None:
    """A store's own location opens it again, from any base."""
    for store in (LocalStore(str(tmp_path)), MemoryStore("demo")):
        assert open_store(store.location, Path("/elsewhere")) == store


def test_a_bucket_is_an_s3_store() -> None:
    """Bucket and prefix give the store there, at AWS or at the endpoint given; its location opens it again."""
    for location in ("s3://bucket/some/prefix", "S3://bucket/some/prefix/"):
        assert open_store(location, Path("/base")) == S3Store("bucket", "some/prefix")
        at_home = open_store(location, Path("/base"), "http://127.0.0.1:8333")
        assert at_home == S3Store("bucket", "some/prefix", "http://127.0.0.1:8333")
        assert open_store(at_home.location, Path("/elsewhere"), "http://127.0.0.1:8333") == at_home


@pytest.mark.parametrize("location", ["federation", "file:///federation", "memory:name"])
def test_an_endpoint_needs_a_bucket(location: str) -> None:
    """An endpoint beside a store that is on no server is a mistake that is named."""
    with pytest.raises(Invalid, match="an endpoint is the address of an S3 server.*Leave 'endpoint' out"):
        open_store(location, Path("/base"), "http://127.0.0.1:8333")


def test_a_profile_is_that_of_a_bucket() -> None:
    """Credentials are named, for stores on a server and for no others; without a name it is boto3's own choice."""
    named = open_store("s3://bucket/prefix", Path("/base"), "http://127.0.0.1:8333", "north")
    assert named == S3Store("bucket", "prefix", "http://127.0.0.1:8333", profile="north")
    assert named != open_store("s3://bucket/prefix", Path("/base"), "http://127.0.0.1:8333")
    for location in ("federation", "file:///federation", "memory:name"):
        with pytest.raises(Invalid, match="a profile names credentials for an S3 server.*Leave 'credentials' out"):
            open_store(location, Path("/base"), profile="north")


def test_opening_makes_nothing(tmp_path: Path) -> None:
    """Opening a store that is not there does not make it."""
    open_store("federation", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("s3:", "a bucket's name has"),
        ("s3://Bucket", "a bucket's name has"),
        ("s3://bucket/../prefix", "a prefix has segments"),
        ("s3://bucket/prefix?versionId=1", "a bucket and a prefix"),
        ("gs://bucket", "this kind of store is not known"),
        ("http://host/path", "this kind of store is not known"),
        ("", "empty or not a path"),
        ("  ", "empty or not a path"),
        ("a\0b", "empty or not a path"),
        ("file://host/path", "absolute path on this machine"),
        ("file:relative", "absolute path on this machine"),
        ("file:///path?query", "absolute path on this machine"),
        ("memory:", "an object key has segments"),
        ("memory:Upper", "an object key has segments"),
        ("~no-such-account/x", "no home folder"),
    ],
)
def test_other_locations_are_refused(location: str, message: str) -> None:
    """A location that is not a folder on this machine is refused with a clear error."""
    with pytest.raises(Invalid, match=message):
        open_store(location, Path("/base"))


def test_a_file_is_refused(tmp_path: Path) -> None:
    """A file, or a dangling link, is not a store."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for name in ("file", "nowhere"):
        with pytest.raises(Invalid, match=f"is not a folder.*{name}.*Write a folder such as"):
            open_store(name, tmp_path)
