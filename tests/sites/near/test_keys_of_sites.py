"""Partition keys of sites, and what their processes get by way of Ray, which keeps it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.config.sites import ListedSite
from cluster.serving.sites_deployment import without_keys
from cluster.sites import pinned
from cluster.sites.pinned import PinnedSite, SiteShell
from cluster.writer.identity import partition_key
from cluster.writer.stores import open_objects
from storage.errors import Invalid, Unavailable
from tests.sites.near.site_folders import SiteFolders


@dataclass
class Placed:
    """Stands for Ray and for ``SiteActor``: an actor in this process, made of what Ray would keep."""

    kept: list[bytes] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    shell: Any = None
    is_away: bool = False

    def options(self, **_: object) -> Placed:
        """Return what makes an actor."""
        return self

    def remote(self, *arguments: object) -> Placed:
        """Make the actor."""
        self.kept.append(pickle.dumps(arguments))
        self.restart()
        return self

    def restart(self) -> None:
        """Start or restart the actor's process, as Ray does."""
        self.shell = SiteShell(*pickle.loads(self.kept[-1]))

    def __getattr__(self, method: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *arguments: self._call(method, arguments))

    def _call(self, method: str, arguments: tuple[object, ...]) -> Callable[[], object]:
        self.asked.append(method)
        if self.is_away:
            raise Unavailable("the site is away")
        return lambda: getattr(self.shell, method)(*arguments)


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> Placed:
    """A cluster that has all nodes that are asked for."""
    made = Placed()
    ray = SimpleNamespace(wait=lambda answers, **_: (answers, []), is_initialized=lambda: False)
    monkeypatch.setattr(pinned, "ray", ray)
    monkeypatch.setattr(pinned, "SiteActor", made)
    monkeypatch.setattr(pinned, "unwrapped", lambda answer: answer())
    for name in ("join_ray", "keep_silent", "check_here"):
        monkeypatch.setattr(pinned, name, lambda *_: None)
    monkeypatch.setattr(pinned, "nodes_with", lambda _: ["node"])
    return made


def _labelled(site: ListedSite) -> ListedSite:
    own = site.specification
    return replace(site, specification=replace(own, cluster=replace(own.cluster, labels={"site": site.name})))


def _key(site: ListedSite) -> bytes:
    return (site.specification.partition.key or "").encode()


def test_replicas_of_sites_get_no_key(tmp_path: Path, placed: Placed) -> None:
    """A site's key is in its own store, put there on a node of the site where that has labels, or at its own server."""
    specification = SiteFolders(tmp_path).fill().specification
    north, south, west = specification.sites
    keys = [_key(site) for site in (north, south, west)]
    south = replace(south, settings=replace(south.settings, url="https://south", token_file="token"))  # noqa: S106
    travels = without_keys(replace(specification, sites=(north, south, _labelled(west))))
    assert all(keys)
    assert [key in pickle.dumps(travels) for key in keys] == [False, False, False]
    for name, key in (("north", keys[0]), ("west", keys[2])):
        there = travels.site(name).specification
        assert partition_key(open_objects(there), there, draw=False).hex().encode() == key
    assert not (tmp_path / "sites" / "south").exists()
    assert "keep_key" in placed.asked


def test_a_site_that_is_away_keeps_nobody_from_serving(tmp_path: Path, placed: Placed) -> None:
    """Its store has the key from when it was trained; its replicas get none either."""
    specification = SiteFolders(tmp_path).fill().specification
    placed.is_away = True
    travels = without_keys(replace(specification, sites=tuple(map(_labelled, specification.sites))))
    assert not any(_key(site) in pickle.dumps(travels) for site in specification.sites)


def test_a_labelled_site_is_reported_its_key_when_it_asks(tmp_path: Path, placed: Placed) -> None:
    """What its process is made with Ray keeps: no key is in it. It follows in a message, again after a restart."""
    site = SiteFolders(tmp_path).fill().site("north")
    link = PinnedSite(site, lambda _: None)
    assert link.status().generation == 0
    assert placed.asked == ["status", "take_key", "status"]
    placed.asked.clear()
    placed.restart()
    assert link.status().generation == 0
    assert link.status().generation == 0
    assert placed.asked == ["status", "take_key", "status", "status"]
    (kept,) = placed.kept
    assert site.specification.data.train.encode() in kept
    assert _key(site) not in kept
    assert placed.shell._site == site


def test_names_that_were_handed_over_are_there_when_the_key_was_missing(tmp_path: Path, placed: Placed) -> None:
    """The key is asked for before the names are taken: both go on together."""
    link = PinnedSite(SiteFolders(tmp_path).fill().site("north"), lambda _: None)
    with pytest.raises(Invalid, match="holds no data yet"):  # a request of which names were lost says so instead
        link.erase(subjects=["somebody"], ids=(), request_id="er-1", held="", wait=False)
    assert placed.asked == ["name", "erase", "take_key", "erase"]


def test_a_site_without_a_key_of_its_own_is_asked_for_none(tmp_path: Path, placed: Placed) -> None:
    """Then it draws one itself, and keeps it in its store."""
    site = SiteFolders(tmp_path).fill().site("north")
    own = site.specification
    link = PinnedSite(
        replace(site, specification=replace(own, partition=replace(own.partition, key=None))), lambda _: None
    )
    link.keep_key()
    assert link.status().generation == 0
    assert placed.asked == ["status"]
