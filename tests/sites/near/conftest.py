"""Sites whose constituents train in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import cluster.training.workers
from cluster.serving import auth
from tests.doubles.workers.local_workers import LocalWorkers
from tests.doubles.workers.rehearsals import remember_rehearsals
from tests.sites.near.served import Served, served
from tests.sites.near.site_folders import SiteFolders


@pytest.fixture(autouse=True)
def near_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without Ray."""
    _patch(monkeypatch)


def _patch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    remember_rehearsals(patch)
    # Tests make and guess more tokens a second than people: a gate that read its register too often knows no new one.
    patch.setattr(auth, "_HASTY_READS", 1_000_000)


@pytest.fixture
def site_folders(tmp_path: Path) -> SiteFolders:
    """Three sites with data, nothing trained."""
    return SiteFolders(tmp_path).fill()


@pytest.fixture(scope="module")
def still_sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Three served sites that no test changes, apart from their boundaries."""
    with pytest.MonkeyPatch.context() as patch:
        _patch(patch)
        with served(SiteFolders(tmp_path_factory.mktemp("still")).fill()) as made:
            yield made


@pytest.fixture
def world(still_sites: Served) -> Iterator[Served]:
    """The same, with boundaries that let everything through, and tokens that are good."""
    for site in still_sites.sites.values():
        site.boundary.crossed.clear()
    still_sites.specify()
    yield still_sites
    for name, site in still_sites.sites.items():
        site.boundary.is_open.set()
        site.boundary.forged.clear()
        site.boundary.cut.clear()
        still_sites.hand_over(name, site.tokens.create("federate", days=1).text)
