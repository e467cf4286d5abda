"""Where a federation's objects and their keys are, as its specification says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from cluster.config.specification import FederationSettings, FederationSpecification
from cluster.writer.identity import describe_store
from cluster.writer.stores import local_folders, open_objects, own_places
from storage.encryption.store import SealedStore
from storage.errors import Invalid
from storage.objects import ObjectStore
from storage.s3.bucket import StoreFacts
from storage.stores.local import LocalStore
from tests.doubles.federation import specification_of


def named(folder: Path, store: str, keys: str | None = None) -> FederationSpecification:
    """Return a specification in ``folder`` that names these places."""
    return replace(specification_of(shards=1, slices=1), folder=folder, store=store, keys=keys)


def test_objects_are_always_encrypted(tmp_path: Path) -> None:
    """Without a word about keys they are in the store itself; with it, there."""
    here, keys = LocalStore(str(tmp_path / "federation")), LocalStore(str(tmp_path / "keys"))
    assert open_objects(named(tmp_path, "./federation")) == SealedStore(here)
    assert open_objects(named(tmp_path, "./federation", "./keys")) == SealedStore(here, keys)
    assert list(tmp_path.iterdir()) == []


def test_local_folders_are_those_of_store_and_keys(tmp_path: Path) -> None:
    """All folders on this machine are returned, from relative paths and addresses; a bucket or memory is not one."""
    assert local_folders(named(tmp_path, "./federation")) == (tmp_path / "federation",)
    assert local_folders(named(tmp_path, "s3://bucket/prefix", "../keys")) == (tmp_path.parent / "keys",)
    assert local_folders(named(tmp_path, f"file://{tmp_path}/a", "memory:keys")) == (tmp_path / "a",)


def test_own_places_are_folders_and_addresses_where_data_are_looked_for(tmp_path: Path) -> None:
    """The store's address counts among the data's only where both are on one server."""
    specification = named(tmp_path, "s3://bucket/prefix/", "../keys")
    assert own_places(specification) == (tmp_path.parent / "keys", "s3://bucket/prefix")
    elsewhere = replace(specification, data=replace(specification.data, endpoint="http://127.0.0.1:1"))
    assert own_places(elsewhere) == (tmp_path.parent / "keys",)
    both = replace(elsewhere, endpoint="http://127.0.0.1:1")
    assert own_places(both) == (tmp_path.parent / "keys", "s3://bucket/prefix")


@pytest.mark.parametrize("keys", ["./federation", "federation/keys", ".", "federation/../federation/"])
def test_keys_in_the_store_are_refused(keys: str, tmp_path: Path) -> None:
    """Keys in the store, or a store among its keys, are not in another place."""
    fact = "'keys' and 'store' are one place, or one contains the other: "
    with pytest.raises(Invalid, match=rf"{fact}.*\]\. Name another place .*, or leave 'keys' out\."):
        open_objects(named(tmp_path, "./federation", keys))


@pytest.mark.parametrize("keys", ["", "./federation"])
def test_keys_that_name_the_store_are_a_wrong_setting(keys: str) -> None:
    """The plain mistakes are found with all others of the file."""
    with pytest.raises(Invalid, match="keys is empty or names the store itself"):
        FederationSettings(name="small", store="./federation", keys=keys)


def test_an_endpoint_may_be_that_of_the_keys() -> None:
    """An S3 store for the keys alone may have an endpoint; two local folders may not."""
    FederationSettings(name="small", store="./federation", keys="s3://keys/of-small", endpoint="http://127.0.0.1:1")
    with pytest.raises(Invalid, match="endpoint is the address of an S3 server"):
        FederationSettings(name="small", store="./federation", keys="./keys", endpoint="http://127.0.0.1:1")


def test_a_copy_of_a_store_is_no_store(tmp_path: Path) -> None:
    """A store in Ray's copy of a job's working_dir is refused before anything is done."""
    copied = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    with pytest.raises(Invalid, match="the store is in Ray's copy of a job's working_dir"):
        open_objects(named(copied, "./federation"))
    open_objects(named(copied, str(tmp_path / "federation")))


@dataclass(slots=True)
class Described:
    """The part of a store that shows its server's clock."""

    apart: float | None
    location: str = "s3://bucket"

    def describe(self, now: datetime) -> StoreFacts:
        """Return what is known."""
        del now
        return StoreFacts(
            location="s3://bucket",
            server="",
            versioning="on",
            object_lock=False,
            replication=False,
            clock_difference_seconds=self.apart,
        )


@pytest.mark.parametrize(
    ("apart", "stated"),
    [
        (None, ()),
        (59.0, ()),
        (-61.0, ("was 61 seconds ahead of the store's.",)),
        (2_592_000.0, ("was 2,592,000 seconds behind the store's.",)),
    ],
)
def test_a_receipt_states_that_the_clock_differed(apart: float | None, stated: tuple[str, ...]) -> None:
    """Where the store's server has a clock, a receipt says that the times in it are of one that differed."""
    store = SealedStore(cast("ObjectStore", Described(apart)))
    found = describe_store(store, datetime(2026, 1, 1, tzinfo=UTC)).exceptions
    assert tuple(each.removeprefix("The clock of the machine that stated these times ") for each in found) == stated
