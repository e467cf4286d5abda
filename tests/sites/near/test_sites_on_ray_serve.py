"""The server of a federation of sites on Ray Serve: replicas in separate processes, sites behind their servers."""

from __future__ import annotations

import pytest

from cluster.client import Client
from cluster.config.sites import read_sites
from cluster.runtime.system import SystemClock
from cluster.serving import sites_deployment
from cluster.serving.sites_deployment import serve_sites, stop_serving_sites
from cluster.sites.federation import connect_sites
from cluster.tokens import TokenRegister
from storage.errors import Invalid
from storage.location import open_store
from tests.doubles.stores.s3_servers import free_ports
from tests.doubles.workers.local_workers import without_ray
from tests.serving.world import points
from tests.sites.near.served import served
from tests.sites.near.site_folders import SiteFolders


def test_a_cluster_that_would_end_with_the_command(site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serving is refused on a Ray that ends with the command, and the error has the remedy."""
    monkeypatch.setattr(sites_deployment, "is_to_start_ray", lambda _: True)  # another test may have joined one
    with pytest.raises(Invalid, match="outlives the command"):
        serve_sites(site_folders.specification)


@pytest.mark.ray
def test_sites_are_served_on_ray_serve(joined_ray: None, site_folders: SiteFolders) -> None:
    """A replica asks the sites over HTTP, with the tokens next to the specification, and combines their answers."""
    (port,) = free_ports(1)
    with served(site_folders) as made:
        made.specify(settings=f'[sites]\ntimeout_seconds = 60.0\n[serve]\nport = {port}\nprefix = "/hospitals"\n')
        with without_ray(), connect_sites(site_folders.config) as federation:
            federation.train()
        specification = read_sites(site_folders.config)
        register = TokenRegister(open_store(specification.store, specification.folder), SystemClock())
        serving = serve_sites(specification)
        with Client(serving.url, register.create("predict", days=1).text) as client:
            found = client.predict(points()["points"])
            assert (found.constituents, found.shards) == (6, 6)
        assert stop_serving_sites(specification)
        assert not stop_serving_sites(specification)
