"""Asking sites that are served: what the tests of ways to a site have in common."""

from __future__ import annotations

import numpy as np

from cluster.config.sites import SitesSettings
from cluster.sites.federation import SiteFederation, connect_sites
from cluster.sites.remote import RemoteSite
from coordinator.ports import Notice
from tests.doubles.user_folder import FEATURES, small_points
from tests.sites.near.served import Served
from tests.sites.near.site_folders import SITES

PERSON = "north-secret-person-003"
PREDICTIONS = "/v1/predictions"
NAMES = tuple(f"x{feature:02d}" for feature in range(FEATURES))
CLASSES = ("a", "b", "c")


def unheard(_: Notice) -> None:
    """Ignore the notice."""


def features(points: int = 5) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return features that are not scaled."""
    columns = small_points(people=-(-points // 4))
    return np.array([columns[name][:points] for name in NAMES], np.float32).T.copy()


def joined(world: Served, **urls: str) -> SiteFederation:
    """Return the federation, all sites of it members; two of them answer for it."""
    world.specify()
    with connect_sites(world.site_folders.config) as federation:
        federation.train()
    world.specify(settings="[sites]\nquorum = 2\ntimeout_seconds = 20.0\ngrace_seconds = 20.0\n", **urls)
    return connect_sites(world.site_folders.config)


def remote(world: Served, site: str = "north") -> RemoteSite:
    """Return a way to a site."""
    return RemoteSite(world.link_site(site), SitesSettings(timeout_seconds=20.0))


def absent(federation: SiteFederation, world: Served, site: str = "north") -> str:
    """Ask; return why the site has no part in the answer, which the others give."""
    asked = world.site_folders.write("asked", small_points(people=5))
    answers = federation.predict(asked)
    assert [each.site for each in answers.sites] == [name for name in SITES if name != site]
    assert answers.absent.keys() == {site}
    assert np.isfinite(answers.table().column("probability_a")).all()
    return answers.absent[site]
