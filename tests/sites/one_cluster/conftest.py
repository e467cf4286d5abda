"""One cluster of two sites for all tests of this folder; each test begins with both of them there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.doubles.user_folder import UserFolder
from tests.multinode.expected import Expected, digests_of, undisturbed
from tests.multinode.gate import Gate
from tests.sites.one_cluster.buckets import DRIVER, site_buckets, write_credentials
from tests.sites.one_cluster.nodes import SITES, Sites, several_sites

_OF_OTHERS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)

FolderAtSite = Callable[..., UserFolder]


@pytest.fixture(scope="session")
def started_sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """The cluster, and this process in it; a site's node knows its credentials, this process the driver's."""
    import ray  # after ``cluster``, which says that clusters ask for a token

    from cluster.config.specification import ClusterSettings
    from tests.doubles.workers.joined import joined

    if ray.is_initialized():
        pytest.skip("this process is part of another Ray cluster: run these with 'pytest tests/sites/one_cluster'")
    files = {name: tmp_path_factory.mktemp(name) / "credentials" for name in (*SITES, DRIVER)}
    for name, file in files.items():
        write_credentials(file, name)
    with pytest.MonkeyPatch.context() as patch:
        for name in _OF_OTHERS:
            patch.delenv(name, raising=False)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(files[DRIVER]))
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        with several_sites(files) as sites, joined(ClusterSettings(address=sites.address)):
            yield sites


@pytest.fixture
def sites(started_sites: Sites) -> Sites:
    """The cluster with both sites there."""
    started_sites.refill()
    return started_sites


@pytest.fixture(scope="session")
def endpoint(started_sites: Sites, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server on which each site, and the driver, may use one bucket."""
    with site_buckets(tmp_path_factory.mktemp("buckets"), (*SITES, DRIVER)) as address:
        yield address


def pinned(sites: Sites, site: str) -> dict[str, object]:
    """Return the settings of a federation that is pinned to the site."""
    return {
        "cluster__address": sites.address,
        "cluster__labels": {"site": site},
        "erasure__batch_window_seconds": 0.0,
    }


@pytest.fixture
def coordinators_end(sites: Sites) -> Iterator[None]:
    """End the coordinators that a test launches, at its end."""
    import ray

    from cluster.coordinator_actor.actor import ACTOR_NAME

    before = {each["namespace"] for each in ray.util.list_named_actors(all_namespaces=True)}
    yield
    for each in ray.util.list_named_actors(all_namespaces=True):
        if each["name"] == ACTOR_NAME and each["namespace"] not in before:
            ray.kill(ray.get_actor(ACTOR_NAME, namespace=each["namespace"]), no_restart=True)


@pytest.fixture
def home_at(tmp_path: Path, sites: Sites, coordinators_end: None) -> FolderAtSite:
    """Returns a folder with data and a specification pinned to a site; who is launched for it ends with the test."""

    def home_at(site: str, **changes: object) -> UserFolder:
        folder = tmp_path.with_name(f"{tmp_path.name}-{site}")  # beside those of other tests, as ``stand_in`` needs it
        folder.mkdir()
        home = UserFolder(folder).fill()
        home.specify(**pinned(sites, site), **changes)
        return home

    return home_at


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """What the same federation comes to without labels, without Ray, and without any disturbance."""
    return undisturbed(tmp_path_factory.mktemp)


@pytest.fixture(scope="session")
def trained_gate(started_sites: Sites, expected: Expected, tmp_path_factory: pytest.TempPathFactory) -> UserFolder:
    """A folder whose federation was trained on the cluster, with the model of the gate, at no particular site."""
    import cluster

    started_sites.refill()
    home = UserFolder(tmp_path_factory.mktemp("gate")).fill()
    Gate(home, cluster__address=started_sites.address, cluster__workers=1)
    with cluster.connect(home.config) as federation:
        assert digests_of(federation.train()) == expected.trained
    return home
