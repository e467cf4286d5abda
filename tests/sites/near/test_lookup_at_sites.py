"""Whether somebody is there: the federation asks the sites that let it, and each says so for itself."""

from __future__ import annotations

import json

import pytest

import cluster
from cluster.client import Client
from cluster.config.sites import read_sites
from cluster.results.federation import SubjectFound
from cluster.sites.federation import connect_sites
from cluster.sites.link import NearSite
from cluster.sites.remote import NotLetIn
from cluster.sites.simulation import simulated
from coordinator.requests import NONE_SIMILAR, Similar
from storage.errors import Invalid, Unavailable
from tests.sites.near.asked import PERSON, joined, remote
from tests.sites.near.served import Served, served
from tests.sites.near.site_folders import SiteFolders, people_of

NAMES = [PERSON, "North-Secret-Person 003", "nobody"]
HERE = SubjectFound(points=4, similar=NONE_SIMILAR, erased=False)
ALIKE = SubjectFound(points=0, similar=Similar(points=4, subjects=1), erased=False)
NOBODY = SubjectFound(points=0, similar=NONE_SIMILAR, erased=False)
LETS = "lookup = true"
NOT_LET = "it does not let the federation look people up"


def letting(site_folders: SiteFolders, site: str) -> None:
    """Have the federation's copy of the specification say of one site that it lets itself be asked."""
    text = site_folders.config.read_text(encoding="utf-8")
    site_folders.config.write_text(text.replace(f'name = "{site}"\n', f'name = "{site}"\n{LETS}\n'), encoding="utf-8")


def test_sites_that_do_not_say_so_are_not_asked(site_folders: SiteFolders) -> None:
    """By default no site is asked about anybody; a site that allows it answers for each name."""
    assert not any(site.settings.lookup for site in site_folders.specification.sites)
    with connect_sites(site_folders.config) as federation:
        federation.train()
        found = federation.lookup(NAMES)
        assert (found.sites, set(found.absent)) == ({}, {"north", "south", "west"})
        assert all(NOT_LET in reason for reason in found.absent.values())
        link = federation.link("north")
        with pytest.raises(Invalid, match="does not let the federation look people up"):
            link.lookup(NAMES)
    letting(site_folders, "north")
    letting(site_folders, "south")
    with connect_sites(site_folders.config) as federation:
        found = federation.lookup(iter(NAMES))
        assert found.sites == {"north": (HERE, ALIKE, NOBODY), "south": (NOBODY, NOBODY, NOBODY)}
        assert found.absent.keys() == {"west"}
        federation.erase("north", subjects=[PERSON])
        assert federation.lookup(NAMES[:1]).sites["north"] == (
            SubjectFound(points=0, similar=NONE_SIMILAR, erased=True),
        )
        with pytest.raises(Invalid, match="no subject is named"):
            federation.lookup([])
        with pytest.raises(Invalid, match="one text, not a list"):
            federation.lookup(PERSON)


def test_one_sites_trouble_hides_no_other(site_folders: SiteFolders) -> None:
    """A site that takes no such name, that has left or not joined, says so beside what the others answer."""
    site_folders.specify(each=LETS, names=["north", "south"])
    text = site_folders.config.read_text(encoding="utf-8")
    site_folders.config.write_text(text.replace('name = "south"\n', 'name = "south"\ndata.subject_form = "integer"\n'))
    site_folders.write("south", people_of("south", 1) | {"user_id": [number % 12 for number in range(48)]})
    with connect_sites(site_folders.config) as federation:
        federation.train()
        found = federation.lookup([PERSON])
        assert found.sites == {"north": (HERE,)}
        assert "whole number" in found.absent["south"]
        assert PERSON not in found.absent["south"]
        federation.withdraw("south", "it leaves")
        assert federation.lookup([PERSON]).absent == {"south": "it is not a member"}


def test_simulated_sites_say_what_sites_say(site_folders: SiteFolders) -> None:
    """In folders on one machine the answers are the same, and so are the sites that allow look-ups."""
    letting(site_folders, "north")
    with connect_sites(simulated(read_sites(site_folders.config))) as federation:
        federation.train()
        found = federation.lookup(NAMES)
        assert (found.sites, set(found.absent)) == ({"north": (HERE, ALIKE, NOBODY)}, {"south", "west"})


def test_a_site_is_asked_over_http(site_folders: SiteFolders) -> None:
    """Over HTTP a site says what it says near its store, with the federation's token and no other."""
    with served(site_folders, each=LETS) as world, joined(world) as federation:
        found = federation.lookup(NAMES)
        assert found.sites["north"] == (HERE, ALIKE, NOBODY)
        assert (set(found.sites), found.absent) == ({"north", "south", "west"}, {})
        near = NearSite(world.link_site("north"), lambda _: None)
        assert near.lookup(NAMES) == found.sites["north"]
        crossed = world.sites["north"].boundary.crossed[-1]
        assert (crossed.method, crossed.path, crossed.status) == ("POST", "/v1/subjects:lookup", 200)
        assert json.loads(crossed.asked) == {"subjects": NAMES}
        assert b"secret" not in crossed.answered.lower()
        world.hand_over("north", world.sites["north"].tokens.create("erase", days=1).text)
        link = remote(world)
        with pytest.raises(NotLetIn, match="'erase' may not do this"):
            link.lookup(NAMES)
        link.close()


def test_a_site_decides_itself_whether_it_is_asked(world: Served) -> None:
    """A federation whose copy of the specification allows a look-up gets no answer if the site's own copy does not."""
    with joined(world):
        world.specify(each=LETS)
        with connect_sites(world.site_folders.config) as federation:
            found = federation.lookup(NAMES)
    assert (found.sites, set(found.absent)) == ({}, {"north", "south", "west"})
    assert all("does not let the federation look people up" in reason for reason in found.absent.values())
    assert world.sites["north"].boundary.crossed[-1].status == 403


def test_an_officer_of_the_site_may_ask_all_the_same(world: Served) -> None:
    """A site's own officer gets from the site's server what the site withholds from the federation."""
    north = world.sites["north"]
    with Client(f"http://127.0.0.1:{north.port}", north.tokens.create("officer", days=1).text) as client:
        assert client.lookup(NAMES) == (HERE, ALIKE, NOBODY)


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        ((404, b'{"error": {"kind": "missing", "message": "nothing here", "remedy": "See /docs"}}'), "too old"),
        ((404, b"<html>"), "too old"),
        ((500, b""), "status 500"),
        ((200, b"[]"), "not what the API's version 1 says"),
        ((200, b'{"subjects": []}'), "not what the API's version 1 says"),
    ],
)
def test_a_site_that_cannot_be_asked(world: Served, forged: tuple[int, bytes], reason: str) -> None:
    """A site of an older release, or whose answer makes no sense, is absent, with the reason; nothing else breaks."""
    world.sites["north"].boundary.forged["/v1/subjects:lookup"] = forged
    with joined(world):
        world.specify(each=LETS)
        with connect_sites(world.site_folders.config) as federation:
            assert reason in federation.lookup(NAMES).absent["north"]
    link = remote(world)
    if reason == "too old":
        with pytest.raises(Unavailable, match="too old to look people up.*site=north"):
            link.lookup(NAMES)
    link.close()


@pytest.mark.parametrize("value", ['"yes"', "1"])
def test_the_setting_is_true_or_false(site_folders: SiteFolders, value: str) -> None:
    """Any other value is an error that names the setting."""
    site_folders.specify(each=f"lookup = {value}")
    with pytest.raises(Invalid, match="lookup"):
        read_sites(site_folders.config)


def test_both_front_doors_have_the_same_word(site_folders: SiteFolders) -> None:
    """A federation gives the same answer about a person by itself and as one of several sites."""
    site_folders.specify(each=LETS)
    with connect_sites(site_folders.config) as federation:
        federation.train()
        together = federation.lookup(NAMES).sites["north"]
    with cluster.connect(site_folders.site("north").specification) as alone:
        assert alone.lookup(NAMES) == together
