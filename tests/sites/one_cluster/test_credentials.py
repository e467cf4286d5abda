"""A bucket and an account for each site on a real S3 server: a store itself refuses the accounts of other sites."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import ray

import cluster
from cluster.config.specification import FederationSpecification, read_specification
from cluster.coordinator_actor.actor import ACTOR_NAME, unwrapped
from cluster.coordinator_actor.launch import launch_coordinator
from cluster.writer.stores import open_objects
from coordinator.status import FederationStatus
from shards.data.remote_files import find_remote
from storage.errors import Invalid, SisaError, Unavailable
from storage.objects import object_key
from storage.s3.client import S3Store
from tests.doubles.stores.s3_servers import plain_client
from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import ERASED, Expected, digests_of
from tests.sites.one_cluster.buckets import DRIVER
from tests.sites.one_cluster.conftest import FolderAtSite, pinned
from tests.sites.one_cluster.nodes import SITES, Sites

pytestmark = [pytest.mark.multinode, pytest.mark.slow, pytest.mark.s3]

DENIED = "the store does not allow this account what is asked of it"
NOBODY = "this machine has no usable credentials under the name of the profile"


def test_each_site_with_its_own_account(sites: Sites, home_at: FolderAtSite, endpoint: str, expected: Expected) -> None:
    """Two sites train and erase, each in its own bucket with credentials that only its own node has, from data that
    only they can read; the bytes are those of a federation that is not pinned.
    """
    for site in SITES:
        specification = _specified(sites, home_at, site, endpoint)
        launched = sites.at(site, launch_coordinator, specification)
        coordinator: Any = ray.get_actor(ACTOR_NAME, namespace=launched.namespace)
        unwrapped(coordinator.train.remote())
        assert digests_of(sites.at(site, _status, specification)) == expected.trained
        assert sites.at(site, _erase, specification, ERASED) == "complete"
        assert digests_of(sites.at(site, _status, specification)) == expected.erased


def test_another_site_s_store_refuses(sites: Sites, home_at: FolderAtSite, endpoint: str) -> None:
    """A process at one site that opens another site's store gets nothing: neither with its own account, nor with the
    other's name for one; a federation that is specified so does not start.
    """
    south = S3Store("south", "store", endpoint, profile="south")
    sites.at("south", _write, south)
    with pytest.raises(Unavailable, match=f"{DENIED}.*server={endpoint} code=AccessDenied"):
        sites.at("north", _read, S3Store("south", "store", endpoint, profile="north"))
    with pytest.raises(Unavailable, match=DENIED):
        sites.at("north", _write, S3Store("south", "other", endpoint, profile="north"))
    with pytest.raises(Invalid, match=f"{NOBODY}.*profile=south"):
        sites.at("north", _read, south)
    confused = _specified(sites, home_at, "north", endpoint, store="s3://south/confused")
    with pytest.raises(Unavailable, match=DENIED):
        sites.at("north", launch_coordinator, confused)
    assert sites.at("south", _read, south) == b"of the south"


def test_the_driver_reads_no_row(sites: Sites, home_at: FolderAtSite, endpoint: str) -> None:
    """The driver, which runs commands for all sites, can read no site's data or objects: neither with its own account
    nor with the sites' profile names.
    """
    sites.at("north", _write, S3Store("north", "store", endpoint, profile="north"))
    specification = _specified(sites, home_at, "north", endpoint)
    for store in SITES:
        with pytest.raises(Unavailable, match=DENIED):
            _read(S3Store(store, "store", endpoint, profile=DRIVER))
    with pytest.raises(Unavailable, match="does not let this account read the data"):
        find_remote(specification.data.train, endpoint, lambda _: True, DRIVER)
    for act in (lambda: list(open_objects(specification).list("")), lambda: launch_coordinator(specification)):
        with pytest.raises(Invalid, match=f"{NOBODY}.*profile=north"):
            act()
    with pytest.raises(SisaError, match=NOBODY):
        find_remote(specification.data.train, endpoint, lambda _: True, "north")


def _specified(
    sites: Sites, home_at: FolderAtSite, site: str, endpoint: str, **changes: object
) -> FederationSpecification:
    """Return a specification pinned to the site, with data and store in its bucket and its account named."""
    home: UserFolder = home_at(site)
    data = f"{secrets.token_hex(8)}/train.parquet"
    client = plain_client(endpoint)
    client.put_object(Bucket=site, Key=data, Body=(home.folder / "train.parquet").read_bytes())
    client.close()
    (home.folder / "train.parquet").unlink()
    home.specify(
        **pinned(sites, site),
        endpoint=endpoint,
        credentials=site,
        data__train=f"s3://{site}/{data}",
        **{"store": f"s3://{site}/{secrets.token_hex(8)}", **changes},
    )
    return read_specification(home.config)


def _status(specification: FederationSpecification) -> FederationStatus:
    with cluster.connect(specification) as federation:
        return federation.status()


def _erase(specification: FederationSpecification, point: str) -> str:
    with cluster.connect(specification) as federation:
        return str(federation.erase(ids=[point]).state)


def _write(store: S3Store) -> None:
    store.delete(object_key("object"))
    store.put_if_absent(object_key("object"), f"of the {store.profile}".encode())


def _read(store: S3Store) -> bytes:
    return store.get(object_key("object")).payload
