"""Partition keys of sites, and what their federation's replicas get by way of Ray, which keeps it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

from cluster.config.sites import Site
from cluster.serving.sites_deployment import without_keys
from cluster.writer.identity import partition_key
from cluster.writer.stores import open_objects
from tests.federated.houses import Houses


def test_replicas_of_sites_get_no_key_that_they_can_do_without(tmp_path: Path) -> None:
    """A site's key is in its own store, or at its own server; on labelled nodes alone it goes along."""
    specification = Houses(tmp_path).fill().specification
    north, south, west = specification.sites
    keys = [(site.specification.partition.key or "").encode() for site in (north, south, west)]
    south = replace(south, settings=replace(south.settings, url="https://south", token_file="token"))  # noqa: S106
    west = _labelled(west)
    travels = without_keys(replace(specification, sites=(north, south, west)))
    found = [key in pickle.dumps(travels) for key in keys]
    assert found == [False, False, True]
    in_reach = travels.site("north").specification
    assert partition_key(open_objects(in_reach), in_reach, draw=False).hex().encode() == keys[0]
    assert not (tmp_path / "sites" / "south").exists()


def _labelled(site: Site) -> Site:
    own = site.specification
    return replace(site, specification=replace(own, cluster=replace(own.cluster, labels={"site": site.name})))
