"""Ray Serve around the API of a federation of several sites.

Its replicas hold constituents only of sites that give away their weights. They run on the Ray cluster that
``[cluster]`` above the sites names, independent of the clusters of the sites. Token files and certificates have to be
on the nodes where the replicas run.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace

from fastapi import FastAPI

from cluster.config.sites import ListedSite, SitesSpecification, open_own_store
from cluster.coordinator_actor.ray_metrics import replica_gauges_of
from cluster.release import Sent
from cluster.runtime.guard import check_rooms
from cluster.runtime.labels import check_here
from cluster.runtime.session import is_to_start_ray, join_ray
from cluster.serving.deployment import (
    Serving,
    check_replica,
    deployed,
    end_application,
    log_lines,
    place_of_replicas,
    run_application,
)
from cluster.serving.sites_app import build_sites_app
from cluster.serving.sites_service import open_sites_service
from cluster.sites.pinned import PinnedSite
from cluster.writer.identity import with_key_in_store
from cluster.writer.stores import open_objects
from storage.digests import sha256
from storage.errors import Invalid, Unavailable


class SitesShell:
    """One replica as Serve knows it: it forwards each call."""

    def __init__(self, sent: Sent[SitesSpecification]) -> None:
        check_rooms()
        specification = sent.opened("replica")
        check_here(specification.cluster.labels)
        lines = log_lines(specification.name)
        self._service = open_sites_service(specification)
        self._app = build_sites_app(self._service, lines, names_requests=False)
        self._gauges = replica_gauges_of(specification.name)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the API."""
        return self._app

    def check_health(self) -> None:
        """See ``check_replica``."""
        check_replica(self._service, self._gauges)


def serve_sites(specification: SitesSpecification) -> Serving:
    """Serve the federation of several sites on its own Ray cluster; see ``serve_federation``.

    Raises ``Invalid`` when the cluster would end with this process, and as ``run_application`` does.
    """
    _join(specification)
    settings = specification.serve
    place = place_of_replicas(specification.cluster, specification.store)
    application = deployed(SitesShell, settings, place).bind(Sent(without_keys(specification)))
    run_application(application, _name(specification), settings)
    return Serving(url=settings.url, replicas=settings.replicas, launched=False)


def without_keys(specification: SitesSpecification) -> SitesSpecification:
    """Return the specification without the sites' partition keys, for replicas: Ray keeps what they are sent.

    A site with its own server does not need its key here; for the others, this writes the key to the site's store. A
    store on labelled nodes is written from such a node.
    """
    return replace(specification, sites=tuple(map(_without_key, specification.sites)))


def _without_key(site: ListedSite) -> ListedSite:
    own = site.specification
    if site.settings.url is None:
        with suppress(Unavailable):  # a site that is away may come back; an earlier call has then stored its key
            if own.cluster.labels:
                with closing(PinnedSite(site, lambda _: None)) as link:
                    link.keep_key()
            else:
                with_key_in_store(open_objects(own), own)
    return replace(site, specification=replace(own, partition=replace(own.partition, key=None)))


def stop_serving_sites(specification: SitesSpecification) -> bool:
    """End serving, after the requests under way; return whether the federation was served."""
    _join(specification)
    return end_application(_name(specification))


def _join(specification: SitesSpecification) -> None:
    if is_to_start_ray(specification.cluster):
        raise Invalid(
            "the server of a federation of sites needs a Ray cluster that outlives the command",
            "Run 'ray start --head', and write address = \"auto\" in [cluster] above the sites.",
        )
    join_ray(specification.cluster)


def _name(specification: SitesSpecification) -> str:
    store = open_own_store(specification)
    return f"sisa-{specification.name}-{sha256(store.location.encode())[:12]}"
